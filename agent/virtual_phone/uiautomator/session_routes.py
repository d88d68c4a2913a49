"""Commands about the server and its session, and those that find elements."""

from agent.virtual_phone.uiautomator.device_routes import device_facts
from agent.virtual_phone.uiautomator.node import build_tree
from agent.virtual_phone.uiautomator.session import Body, Json, Routes, Session, no_such_element, object_of

SERVER_VERSION = "7.7.1"


def _status(session: Session, body: Body) -> Json:
    del session, body
    message = "UiAutomator2 Server is ready to accept commands"
    return {"build": {"version": SERVER_VERSION}, "message": message, "ready": True}


def _list_sessions(session: Session, body: Body) -> Json:
    del body
    return [{"id": session.id}] if session.id else []


def _begin(session: Session, body: Body) -> Json:
    del body
    return {"sessionId": session.begin(), "capabilities": {}}


def _get(session: Session, body: Body) -> Json:
    del body
    return device_facts(session)


def _end(session: Session, body: Body) -> Json:
    del body
    session.id = None
    return None


def _get_settings(session: Session, body: Body) -> Json:
    del body
    return session.settings


def _set_settings(session: Session, body: Body) -> Json:
    session.settings |= object_of(body, "settings")
    return session.settings


def _find_one(session: Session, body: Body) -> Json:
    found = session.find(body)
    if not found:
        raise no_such_element()
    return session.reference(found[0])


def _find_all(session: Session, body: Body) -> Json:
    return [session.reference(node) for node in session.find(body)]


def _find_one_below(session: Session, body: Body, element_id: str) -> Json:
    return _find_one(session, {**body, "context": element_id})


def _find_all_below(session: Session, body: Body, element_id: str) -> Json:
    return _find_all(session, {**body, "context": element_id})


def _find_active(session: Session, body: Body) -> Json:
    del body
    for node in build_tree(session.phone).walk():
        if node.is_focused:
            return session.reference(node)
    raise no_such_element()


ROUTES: Routes = {
    ("GET", "/status"): _status,
    ("GET", "/sessions"): _list_sessions,
    ("POST", "/session"): _begin,
    ("GET", "/session/:session"): _get,
    ("DELETE", "/session/:session"): _end,
    ("GET", "/session/:session/appium/settings"): _get_settings,
    ("POST", "/session/:session/appium/settings"): _set_settings,
    ("POST", "/session/:session/element"): _find_one,
    ("POST", "/session/:session/elements"): _find_all,
    ("GET", "/session/:session/element/active"): _find_active,
    ("POST", "/session/:session/element/:element/element"): _find_one_below,
    ("POST", "/session/:session/element/:element/elements"): _find_all_below,
}
