"""Commands about one element."""

from agent.virtual_phone.uiautomator.device_routes import take_screenshot
from agent.virtual_phone.uiautomator.gestures import tap
from agent.virtual_phone.uiautomator.node import Node
from agent.virtual_phone.uiautomator.session import Body, CommandFailed, Json, Routes, Session, bad_argument

_ATTRIBUTE_NAMES = {
    "className": "class",
    "contentDescription": "content-desc",
    "longClickable": "long-clickable",
    "resourceId": "resource-id",
}
_MAY_BE_MISSING = ("content-desc", "resource-id", "hint")


def _click(session: Session, body: Body, element_id: str) -> Json:
    del body
    tap(session.phone, session.node(element_id))
    return None


def _clear(session: Session, body: Body, element_id: str) -> Json:
    del body
    _type(session, session.node(element_id), "", replaces=True)
    return None


def _set_value(session: Session, body: Body, element_id: str) -> Json:
    text = body.get("text", body.get("value", ""))
    typed = "".join(map(str, text)) if isinstance(text, list) else str(text)
    _type(session, session.node(element_id), typed, replaces=body.get("replace") is True)
    return None


def _type(session: Session, node: Node, text: str, *, replaces: bool) -> None:
    app = session.phone.front
    index = node.target if isinstance(node.target, int) else None
    if app is None or index is None or not app.type_text(text, index=index, replaces=replaces):
        raise CommandFailed(400, "invalid element state", f"Cannot set the element to '{text}'. Is it an input?")


def _get_text(session: Session, body: Body, element_id: str) -> Json:
    del body
    return session.node(element_id).text


def _get_name(session: Session, body: Body, element_id: str) -> Json:
    del body
    return session.node(element_id).description


def _get_rectangle(session: Session, body: Body, element_id: str) -> Json:
    return {**_location(session, element_id), **_size(session, element_id)}


def _get_location(session: Session, body: Body, element_id: str) -> Json:
    del body
    return _location(session, element_id)


def _get_size(session: Session, body: Body, element_id: str) -> Json:
    del body
    return _size(session, element_id)


def _location(session: Session, element_id: str) -> Body:
    bounds = session.node(element_id).bounds
    return {"x": bounds.left, "y": bounds.top}


def _size(session: Session, element_id: str) -> Body:
    bounds = session.node(element_id).bounds
    return {"width": bounds.right - bounds.left, "height": bounds.bottom - bounds.top}


def _get_attribute(session: Session, body: Body, element_id: str, name: str) -> Json:
    del body
    node = session.node(element_id)
    if name == "name":
        return node.description or node.text
    attributes = node.attributes()
    known = _ATTRIBUTE_NAMES.get(name, name)
    if known in attributes or known in _MAY_BE_MISSING:
        return attributes.get(known)
    session.phone.log.unknown("attribute", name)
    raise bad_argument(f"'{name}' attribute is unknown for the element")


def _take_screenshot(session: Session, body: Body, element_id: str) -> Json:
    session.node(element_id)
    return take_screenshot(session, body)


_ELEMENT = "/session/:session/element/:element"
ROUTES: Routes = {
    ("POST", f"{_ELEMENT}/click"): _click,
    ("POST", f"{_ELEMENT}/clear"): _clear,
    ("POST", f"{_ELEMENT}/value"): _set_value,
    ("GET", f"{_ELEMENT}/text"): _get_text,
    ("GET", f"{_ELEMENT}/name"): _get_name,
    ("GET", f"{_ELEMENT}/rect"): _get_rectangle,
    ("GET", f"{_ELEMENT}/location"): _get_location,
    ("GET", f"{_ELEMENT}/size"): _get_size,
    ("GET", f"{_ELEMENT}/attribute/:name"): _get_attribute,
    ("GET", f"{_ELEMENT}/screenshot"): _take_screenshot,
}
