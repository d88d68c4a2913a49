"""What the display shows, as the tree of nodes that accessibility services see."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from agent.virtual_phone.app import (
    CONTENT_BOTTOM,
    CONTENT_TOP,
    DISPLAY_HEIGHT,
    DISPLAY_WIDTH,
    ELEMENT_HEIGHT,
    MARGIN,
    ROW_HEIGHT,
    App,
    Bounds,
    ElementView,
)
from agent.virtual_phone.phone import LAUNCHER_PACKAGE, Phone

FRAME_CLASS = "android.widget.FrameLayout"
SCROLL_CLASS = "android.widget.ScrollView"
LIST_CLASS = "android.widget.LinearLayout"
ICON_CLASS = "android.widget.TextView"
ROOT_TAG = "hierarchy"
_WHOLE_DISPLAY = Bounds(left=0, top=0, right=DISPLAY_WIDTH, bottom=DISPLAY_HEIGHT)
_CONTENT = Bounds(left=0, top=CONTENT_TOP, right=DISPLAY_WIDTH, bottom=CONTENT_BOTTOM)


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """One node. `key` names it as long as it stays on the display; `target` says what a tap on it means."""

    key: str
    class_name: str
    package: str
    bounds: Bounds
    text: str = ""
    description: str = ""
    resource_id: str = ""
    hint: str = ""
    is_clickable: bool = False
    is_enabled: bool = True
    is_focused: bool = False
    is_checkable: bool = False
    is_checked: bool = False
    is_scrollable: bool = False
    target: int | str | None = None
    index: int = 0
    parent: "Node | None" = None
    children: list["Node"] = field(default_factory=list)

    def add(self, child: "Node") -> "Node":
        """Put a node below this one, after the others; return it."""
        child.parent = self
        child.index = len(self.children)
        self.children.append(child)
        return child

    def walk(self) -> Iterator["Node"]:
        """Yield this node and all below it, in the order of the document."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def is_input(self) -> bool:
        """Whether text can be typed into it."""
        return self.class_name == "android.widget.EditText"

    def attributes(self) -> dict[str, str]:
        """Return the attributes as the page source shows them."""
        if self.class_name == ROOT_TAG:
            return {"index": "0", "class": ROOT_TAG, "rotation": "0", "width": "1080", "height": "2208"}
        shown = {"index": str(self.index), "package": self.package, "class": self.class_name, "text": self.text}
        optional = {"content-desc": self.description, "resource-id": self.resource_id, "hint": self.hint}
        shown |= {name: value for name, value in optional.items() if value}
        flags = {
            "checkable": self.is_checkable,
            "checked": self.is_checked,
            "clickable": self.is_clickable,
            "enabled": self.is_enabled,
            "focusable": self.is_clickable,
            "focused": self.is_focused,
            "long-clickable": False,
            "password": False,
            "scrollable": self.is_scrollable,
            "selected": False,
        }
        shown |= {name: _word(value) for name, value in flags.items()}
        return shown | {"bounds": str(self.bounds), "displayed": "true"}


def build_tree(phone: Phone) -> Node:
    """Return the root of what the display shows now."""
    root = Node(key="root", class_name=ROOT_TAG, package="", bounds=_WHOLE_DISPLAY)
    app = phone.front
    if app is None:
        _add_launcher(root, phone)
    else:
        process = phone.processes.find(app.package.name)
        _add_app(root, app, f"{app.package.name}-{process.pid if process else 0}-{app.visit}")
    return root


def to_xml(root: Node) -> str:
    """Return the page source."""
    return "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n" + "".join(_lines(root, 0))


def _lines(node: Node, depth: int) -> Iterator[str]:
    attributes = "".join(f" {name}={quoteattr(value)}" for name, value in node.attributes().items())
    indent = "  " * depth
    if not node.children:
        yield f"{indent}<{node.class_name}{attributes} />\n"
        return
    yield f"{indent}<{node.class_name}{attributes}>\n"
    for child in node.children:
        yield from _lines(child, depth + 1)
    yield f"{indent}</{node.class_name}>\n"


def _add_app(root: Node, app: App, key: str) -> None:
    package = app.package.name
    frame = root.add(Node(key=f"{key}-frame", class_name=FRAME_CLASS, package=package, bounds=_WHOLE_DISPLAY))
    can_scroll = app.scroll_range > 0
    content = frame.add(
        Node(
            key=f"{key}-content",
            class_name=SCROLL_CLASS if can_scroll else LIST_CLASS,
            package=package,
            bounds=_CONTENT,
            is_scrollable=can_scroll,
        )
    )
    for view in app.views():
        content.add(_element(view, package, key))


def _element(view: ElementView, package: str, key: str) -> Node:
    spec = view.spec
    return Node(
        key=f"{key}-{view.index}",
        class_name=spec.class_name,
        package=package,
        bounds=view.bounds,
        text=view.text,
        description=spec.description,
        resource_id=spec.id,
        hint=spec.hint,
        is_clickable=spec.is_clickable,
        is_enabled=spec.is_enabled,
        is_focused=view.is_focused,
        is_checkable=spec.is_switch,
        is_checked=view.is_checked,
        target=view.index,
    )


def _add_launcher(root: Node, phone: Phone) -> None:
    frame = root.add(
        Node(key="launcher-frame", class_name=FRAME_CLASS, package=LAUNCHER_PACKAGE, bounds=_WHOLE_DISPLAY)
    )
    icons = [installed for installed in phone.packages.all() if installed.badging.launchable_activity]
    for number, installed in enumerate(icons):
        top = CONTENT_TOP + number * ROW_HEIGHT
        bounds = Bounds(left=MARGIN, top=top, right=DISPLAY_WIDTH - MARGIN, bottom=top + ELEMENT_HEIGHT)
        if bounds.bottom <= CONTENT_BOTTOM:
            frame.add(
                Node(
                    key=f"launcher-{installed.name}",
                    class_name=ICON_CLASS,
                    package=LAUNCHER_PACKAGE,
                    bounds=bounds,
                    text=installed.badging.label,
                    description=installed.badging.label,
                    is_clickable=True,
                    target=installed.name,
                )
            )


def _word(value: bool) -> str:
    return "true" if value else "false"
