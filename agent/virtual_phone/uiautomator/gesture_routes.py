"""Commands that touch the display or press keys."""

from agent.virtual_phone.phone import KEY_BACK, KEY_DELETE
from agent.virtual_phone.uiautomator.gestures import CONTENT_HEIGHT, TAP_TOLERANCE_PIXELS, swipe, tap, tap_at
from agent.virtual_phone.uiautomator.session import (
    Body,
    Json,
    Routes,
    Session,
    bad_argument,
    element_id_of,
    number_of,
    object_of,
    objects_of,
    text_of,
)

_BACKSPACE = "\ue003"
_PRIVATE_USE_KEYS = range(0xE000, 0xE05E)  # what WebDriver calls shift, arrows and the like


def _click(session: Session, body: Body) -> Json:
    origin = object_of(body, "origin")
    if origin:
        tap(session.phone, session.node(element_id_of(origin)))
    else:
        offset = object_of(body, "offset")
        tap_at(session.phone, int(number_of(offset, "x")), int(number_of(offset, "y")))
    return None


def _swipe(session: Session, body: Body) -> Json:
    """Swipe: the finger goes in the direction, and the content with it."""
    _move(session, body, is_finger=True)
    return None


def _scroll(session: Session, body: Body) -> Json:
    """Scroll or fling: the view goes in the direction; tell whether it can go further."""
    return _move(session, body, is_finger=False)


def _move(session: Session, body: Body, *, is_finger: bool) -> bool:
    direction = text_of(body, "direction").lower()
    if direction not in ("up", "down", "left", "right"):
        raise bad_argument(f"unknown direction {direction!r}")
    if direction in ("left", "right"):
        return False
    distance = int(CONTENT_HEIGHT * number_of(body, "percent", 1.0))
    is_towards_end = (direction == "up") == is_finger
    return swipe(session.phone, distance if is_towards_end else -distance)


def _drag(session: Session, body: Body) -> Json:
    """Drag from a start, an element or a point, to a point."""
    origin = object_of(body, "origin")
    if origin:
        start = session.node(element_id_of(origin)).bounds.center[1]
    else:
        start = int(number_of(object_of(body, "start"), "y"))
    swipe(session.phone, start - int(number_of(object_of(body, "end"), "y", start)))
    return None


def _perform_actions(session: Session, body: Body) -> Json:
    for source in objects_of(body, "actions"):
        actions = objects_of(source, "actions")
        if source.get("type") == "pointer":
            _perform_pointer(session, actions)
        elif source.get("type") == "key":
            for action in actions:
                if action.get("type") == "keyDown":
                    _press_character(session, text_of(action, "value"))
    return None


def _perform_pointer(session: Session, actions: list[Body]) -> None:
    x = y = 0
    start: tuple[int, int] | None = None
    for action in actions:
        match action.get("type"):
            case "pointerMove":
                x, y = _pointer_target(session, action, x, y)
            case "pointerDown":
                start = (x, y)
            case "pointerUp" if start is not None:
                if abs(start[1] - y) <= TAP_TOLERANCE_PIXELS and abs(start[0] - x) <= TAP_TOLERANCE_PIXELS:
                    tap_at(session.phone, *start)
                else:
                    swipe(session.phone, start[1] - y)
                start = None


def _pointer_target(session: Session, action: Body, x: int, y: int) -> tuple[int, int]:
    offset_x, offset_y = int(number_of(action, "x")), int(number_of(action, "y"))
    origin = action.get("origin", "viewport")
    if origin == "viewport":
        return offset_x, offset_y
    if origin == "pointer":
        return x + offset_x, y + offset_y
    center_x, center_y = session.node(element_id_of(object_of(action, "origin"))).bounds.center
    return center_x + offset_x, center_y + offset_y


def _release_actions(session: Session, body: Body) -> Json:
    del session, body  # no finger stays down between requests
    return None


def _send_keys(session: Session, body: Body) -> Json:
    value = body.get("value", body.get("text", ""))
    for character in "".join(map(str, value)) if isinstance(value, list) else str(value):
        _press_character(session, character)
    return None


def _press_character(session: Session, character: str) -> None:
    app = session.phone.front
    if character == _BACKSPACE:
        session.phone.press(KEY_DELETE)
    elif app is not None and character and ord(character[0]) not in _PRIVATE_USE_KEYS:
        app.type_text(character)


def _press_key(session: Session, body: Body) -> Json:
    session.phone.press(int(number_of(body, "keycode")))
    return True


def _press_back(session: Session, body: Body) -> Json:
    del body
    session.phone.press(KEY_BACK)
    return None


_SESSION = "/session/:session"
ROUTES: Routes = {
    ("POST", f"{_SESSION}/actions"): _perform_actions,
    ("DELETE", f"{_SESSION}/actions"): _release_actions,
    ("POST", f"{_SESSION}/keys"): _send_keys,
    ("POST", f"{_SESSION}/back"): _press_back,
    ("POST", f"{_SESSION}/appium/gestures/click"): _click,
    ("POST", f"{_SESSION}/appium/gestures/double_click"): _click,
    ("POST", f"{_SESSION}/appium/gestures/long_click"): _click,
    ("POST", f"{_SESSION}/appium/gestures/swipe"): _swipe,
    ("POST", f"{_SESSION}/appium/gestures/scroll"): _scroll,
    ("POST", f"{_SESSION}/appium/gestures/fling"): _scroll,
    ("POST", f"{_SESSION}/appium/gestures/drag"): _drag,
    ("POST", f"{_SESSION}/appium/device/press_keycode"): _press_key,
    ("POST", f"{_SESSION}/appium/device/long_press_keycode"): _press_key,
}
