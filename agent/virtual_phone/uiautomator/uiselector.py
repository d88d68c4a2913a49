"""UiSelector expressions: ``new UiSelector().text("Skip").instance(1)`` and their short forms.

The expression is Java, of which constructors, chained calls, strings, numbers and booleans are read. ``UiScrollable``
scrolls the screen until what it looks for comes into view. Source: the UiSelector and UiScrollable classes of AndroidX.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.virtual_phone.app import ROW_HEIGHT, App
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.uiautomator.node import ROOT_TAG, Node, build_tree
from agent.virtual_phone.uiautomator.selection import SelectorInvalid, SelectorUnsupported

MAX_EXPRESSION_CHARACTERS = 10_000
MAX_NESTING = 20
SCROLL_STEP = 4 * ROW_HEIGHT

_TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+)|(?P<name>\w+)|(?P<sign>[().,;]))', re.DOTALL
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call of a chain, with its arguments."""

    name: str
    arguments: tuple["Argument", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A constructed object and the calls on it; `kind` is the name of its class."""

    kind: str
    arguments: tuple["Argument", ...]
    methods: tuple[Method, ...]


Argument = str | int | bool | Chain


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_EXPRESSION_CHARACTERS:
            raise SelectorInvalid("expression too long")
        self._tokens = _tokenize(text)
        self._at = 0
        self._depth = 0

    def parse_all(self) -> list[Chain]:
        chains = [self._chain()]
        while self._peek() == ";":
            self._at += 1
            if self._peek():
                chains.append(self._chain())
        if self._peek():
            raise SelectorInvalid(f"unexpected {self._peek()!r}")
        return chains

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        word = self._peek()
        if not word or (expected and word != expected):
            raise SelectorInvalid(f"expected {expected or 'more'!r}, found {word or 'the end'!r}")
        self._at += 1
        return word

    def _chain(self) -> Chain:
        kind, methods = "UiSelector", list[Method]()
        arguments: tuple[Argument, ...] = ()
        if self._peek() == "new":
            self._take()
            kind = self._take()
            arguments = self._arguments()
        else:
            if self._peek() == ".":
                self._take()
            methods.append(self._method())
        while self._peek() == ".":
            self._take()
            methods.append(self._method())
        return Chain(kind=kind, arguments=arguments, methods=tuple(methods))

    def _method(self) -> Method:
        name = self._take()
        if not name.isidentifier():
            raise SelectorInvalid(f"{name!r} is not a method")
        return Method(name=name, arguments=self._arguments())

    def _arguments(self) -> tuple[Argument, ...]:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise SelectorInvalid("nested too deeply")
        self._take("(")
        arguments: list[Argument] = []
        while self._peek() != ")":
            if arguments:
                self._take(",")
            arguments.append(self._argument())
        self._take(")")
        self._depth -= 1
        return tuple(arguments)

    def _argument(self) -> Argument:
        word = self._peek()
        if word == "new":
            return self._chain()
        self._take()
        if word.startswith('"'):
            return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), word[1:-1], flags=re.DOTALL)
        if word in ("true", "false"):
            return word == "true"
        number = whole_number(word.removeprefix("-"))
        if number is not None:
            return -number if word.startswith("-") else number
        raise SelectorInvalid(f"unexpected {word!r}")


def _tokenize(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise SelectorInvalid(f"cannot read {text[at : at + 20]!r}")
        tokens.append(found[0].strip() if found["string"] is None else found["string"])
        at = found.end()
    return tokens


def parse(expression: str) -> list[Chain]:
    """Return the objects of an expression, whose results are joined; raises `SelectorInvalid`."""
    return _Parser(expression).parse_all()


def find(phone: Phone, expression: str, context: Node) -> list[Node]:
    """Return the nodes below `context` that an expression stands for; raises `SelectorInvalid`."""
    found: list[Node] = []
    for chain in parse(expression):
        if chain.kind == "UiSelector":
            nodes = _select(context, chain)
        elif chain.kind == "UiScrollable":
            nodes = _scroll(phone, chain)
        else:
            raise SelectorUnsupported(f"class {chain.kind}")
        found += [node for node in nodes if node not in found]
    return found


Criterion = Callable[[Node], bool]


@dataclass(slots=True, kw_only=True)
class _Selector:
    criteria: list[Criterion] = field(default_factory=list)
    instance: int | None = None
    child: Chain | None = None
    sibling: Chain | None = None


_TEXTS: dict[str, Callable[[Node], str]] = {
    "text": lambda node: node.text,
    "description": lambda node: node.description,
    "resourceId": lambda node: node.resource_id,
    "className": lambda node: node.class_name,
    "packageName": lambda node: node.package,
}
_FLAGS: dict[str, Callable[[Node], bool]] = {
    "checkable": lambda node: node.is_checkable,
    "checked": lambda node: node.is_checked,
    "clickable": lambda node: node.is_clickable,
    "enabled": lambda node: node.is_enabled,
    "focusable": lambda node: node.is_clickable,
    "focused": lambda node: node.is_focused,
    "longClickable": lambda _: False,
    "scrollable": lambda node: node.is_scrollable,
    "selected": lambda _: False,
}


def _select(context: Node, chain: Chain) -> list[Node]:
    selector = _Selector()
    for method in chain.methods:
        _add_method(selector, method)
    found = [
        node
        for node in context.walk()
        if node is not context
        and node.class_name != ROOT_TAG
        and all(criterion(node) for criterion in selector.criteria)
    ]
    if selector.instance is not None:
        found = found[selector.instance : selector.instance + 1] if selector.instance >= 0 else []
    if selector.child is not None:
        found = [node for parent in found for node in _select(parent, selector.child)]
    if selector.sibling is not None:
        found = [node for child in found if child.parent for node in _select(child.parent, selector.sibling)]
    return found


def _add_method(selector: _Selector, method: Method) -> None:
    argument = method.arguments[0] if len(method.arguments) == 1 else None
    match method.name, argument:
        case "instance", int(number):
            selector.instance = number
        case "index", int(number):
            selector.criteria.append(lambda node: node.index == number)
        case "childSelector", Chain():
            selector.child = argument
        case "fromParent", Chain():
            selector.sibling = argument
        case name, bool(wanted) if name in _FLAGS:
            read_flag = _FLAGS[name]
            selector.criteria.append(lambda node: read_flag(node) == wanted)
        case name, str(text):
            selector.criteria.append(_text_criterion(name, text))
        case name, _:
            raise SelectorUnsupported(f"UiSelector.{name} with {len(method.arguments)} arguments")


def _text_criterion(method: str, text: str) -> Criterion:
    name = next((name for name in _TEXTS if method.startswith(name)), "")
    if not name:
        raise SelectorUnsupported(f"UiSelector.{method}")
    read_text = _TEXTS[name]
    match method.removeprefix(name):
        case "":
            return lambda node: read_text(node) == text
        case "Contains":
            return lambda node: text.lower() in read_text(node).lower()
        case "StartsWith":
            return lambda node: read_text(node).lower().startswith(text.lower())
        case "Matches":
            try:
                pattern = re.compile(text, re.DOTALL)
            except re.error as error:
                raise SelectorInvalid(f"bad regular expression {text!r}: {error}") from error
            return lambda node: pattern.fullmatch(read_text(node)) is not None
        case _:
            raise SelectorUnsupported(f"UiSelector.{method}")


def _scroll(phone: Phone, chain: Chain) -> list[Node]:
    found: list[Node] = []
    for method in chain.methods:
        argument = method.arguments[0] if method.arguments else None
        match method.name, argument:
            case "setAsVerticalList" | "setMaxSearchSwipes" | "setSwipeDeadZonePercentage", _:
                continue
            case "scrollIntoView", Chain(kind="UiSelector"):
                found = _scroll_to(phone, argument)
            case "scrollTextIntoView", str(text):
                wanted = Chain(kind="UiSelector", arguments=(), methods=(Method(name="text", arguments=(text,)),))
                found = _scroll_to(phone, wanted)
            case "scrollForward" | "scrollBackward" | "scrollToEnd" | "scrollToBeginning", _:
                _scroll_page(phone.front, method.name)
                found = [node for node in build_tree(phone).walk() if node.is_scrollable]
            case name, _:
                raise SelectorUnsupported(f"UiScrollable.{name}")
    return found


def _scroll_to(phone: Phone, wanted: Chain) -> list[Node]:
    """Look at what is in view; else begin at the top and go down until it is found or the end is reached."""
    found = _select(build_tree(phone), wanted)
    app = phone.front
    if found or app is None:
        return found
    app.scroll_by(-app.scroll_range)
    while not (found := _select(build_tree(phone), wanted)):
        if not app.scroll_by(SCROLL_STEP):
            break
    return found


def _scroll_page(app: App | None, how: str) -> None:
    if app is None:
        return
    distance = app.scroll_range if how.startswith("scrollTo") else SCROLL_STEP
    app.scroll_by(distance if how in ("scrollForward", "scrollToEnd") else -distance)
