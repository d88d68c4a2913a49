"""The state of a UiAutomator2 session, and what its commands have in common.

Errors are those of the WebDriver standard, with its codes and HTTP statuses.
"""

import uuid
from collections.abc import Callable, Mapping

from agent.virtual_phone.phone import Phone
from agent.virtual_phone.uiautomator import uiselector, xpath
from agent.virtual_phone.uiautomator.node import ROOT_TAG, Node, build_tree
from agent.virtual_phone.uiautomator.selection import SelectorInvalid, SelectorUnsupported

ELEMENT_KEY = "element-6066-11e4-a52e-4f735466cecf"
LEGACY_ELEMENT_KEY = "ELEMENT"
MAX_ELEMENTS = 20_000
MAX_NUMBER = 1_000_000

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Body = dict[str, Json]


class CommandFailed(Exception):
    """A command that ends with an error of the WebDriver standard."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(status, error, message)
        self.status = status
        self.error = error
        self.message = message


class Session:
    """One session: its references to elements and its settings. There is at most one at a time."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.id: str | None = None
        self.settings: Body = {}
        self._keys_by_id: dict[str, str] = {}
        self._ids_by_key: dict[str, str] = {}
        self._next_element = 1

    def begin(self) -> str:
        """Begin a session in place of the one before; return its id."""
        self.id = str(uuid.uuid4())
        self.settings = {}
        self._keys_by_id.clear()
        self._ids_by_key.clear()
        return self.id

    def reference(self, node: Node) -> Json:
        """Return what a client is given for a node; the same node gets the same reference."""
        element_id = self._ids_by_key.get(node.key)
        if element_id is None:
            if len(self._keys_by_id) >= MAX_ELEMENTS:  # the oldest ones are long stale
                oldest = next(iter(self._keys_by_id))
                del self._ids_by_key[self._keys_by_id.pop(oldest)]
            element_id = f"00000000-0000-0000-ffff-{self._next_element:012x}"
            self._next_element += 1
            self._keys_by_id[element_id] = node.key
            self._ids_by_key[node.key] = element_id
        return {ELEMENT_KEY: element_id, LEGACY_ELEMENT_KEY: element_id}

    def node(self, element_id: str) -> Node:
        """Return the node behind a reference's id; raises `CommandFailed` if it is unknown or no longer shown."""
        return self._node_in(build_tree(self.phone), element_id)

    def find(self, body: Body) -> list[Node]:
        """Return the nodes that a request asks for; raises `CommandFailed` if its selector cannot be used."""
        strategy = text_of(body, "strategy") or text_of(body, "using")
        selector = body.get("selector", body.get("value"))
        if not isinstance(selector, str):
            raise bad_argument("a selector is needed")
        root = build_tree(self.phone)
        context = text_of(body, "context")
        try:
            return self._find_below(root, self._node_in(root, context) if context else root, strategy, selector)
        except SelectorInvalid as error:
            if isinstance(error, SelectorUnsupported):
                self.phone.log.unknown("selector", f"{strategy} {selector}")
            raise CommandFailed(400, "invalid selector", f"{selector}: {error}") from error

    def _find_below(self, root: Node, context: Node, strategy: str, selector: str) -> list[Node]:
        if strategy == "xpath":
            return [node for node in xpath.find(root, selector, context) if node.class_name != ROOT_TAG]
        if strategy == "-android uiautomator":
            return uiselector.find(self.phone, selector, context)
        is_wanted = _SIMPLE_STRATEGIES.get(strategy)
        if is_wanted is None:
            raise SelectorUnsupported(f"strategy {strategy!r}")
        below = (node for node in context.walk() if node is not context and node.class_name != ROOT_TAG)
        return [node for node in below if is_wanted(node, selector)]

    def _node_in(self, root: Node, element_id: str) -> Node:
        key = self._keys_by_id.get(element_id)
        if key is None:
            raise no_such_element()
        for node in root.walk():
            if node.key == key:
                return node
        text = "The element is not linked to the same object in DOM anymore"
        raise CommandFailed(404, "stale element reference", text)


Endpoint = Callable[..., Json]
Routes = Mapping[tuple[str, str], Endpoint]


def no_such_element() -> CommandFailed:
    """Return the error of a search that found nothing."""
    text = "An element could not be located on the page using the given search parameters"
    return CommandFailed(404, "no such element", text)


def bad_argument(message: str) -> CommandFailed:
    """Return the error of a request that lacks something or has too much."""
    return CommandFailed(400, "invalid argument", message)


def text_of(body: Body, key: str) -> str:
    """Return a text from a request, empty if it is missing."""
    value = body.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise bad_argument(f"{key} must be a text")
    return value


def number_of(body: Body, key: str, default: float = 0) -> float:
    """Return a number from a request."""
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise bad_argument(f"{key} must be a number")
    return value


def object_of(body: Body, key: str) -> Body:
    """Return an object from a request, empty if it is missing."""
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_argument(f"{key} must be an object")
    return value


def objects_of(body: Body, key: str) -> list[Body]:
    """Return a list of objects from a request, empty if it is missing."""
    value = body.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_argument(f"{key} must be a list")
    objects = [entry for entry in value if isinstance(entry, dict)]
    if len(objects) != len(value):
        raise bad_argument(f"{key} must hold objects")
    return objects


def element_id_of(reference: Body) -> str:
    """Return the id in a reference to an element."""
    return text_of(reference, ELEMENT_KEY) or text_of(reference, LEGACY_ELEMENT_KEY)


_SIMPLE_STRATEGIES: Mapping[str, Callable[[Node, str], bool]] = {
    # As on a phone, an id without a package means one of the app in front.
    "id": lambda node, wanted: node.resource_id in (wanted, f"{node.package}:id/{wanted}"),
    "accessibility id": lambda node, wanted: node.description == wanted,
    "class name": lambda node, wanted: node.class_name == wanted,
}
