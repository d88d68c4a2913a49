"""Finds the command behind a method and a path.

Source of the routes: those of appium-uiautomator2-server, as far as its driver sends them.
"""

from agent.virtual_phone.uiautomator import device_routes, element_routes, gesture_routes, session_routes
from agent.virtual_phone.uiautomator.session import Body, CommandFailed, Endpoint, Json, Session

_ROUTES: list[tuple[str, list[str], Endpoint]] = [
    (method, path.strip("/").split("/"), endpoint)
    for routes in (session_routes.ROUTES, element_routes.ROUTES, gesture_routes.ROUTES, device_routes.ROUTES)
    for (method, path), endpoint in routes.items()
]


def call(session: Session, method: str, path: str, body: Body) -> Json:
    """Run a command; raises `CommandFailed`."""
    parts = [part for part in path.partition("?")[0].split("/") if part]
    for route_method, pattern, endpoint in _ROUTES:
        variables = _match(pattern, parts) if route_method == method else None
        if variables is None:
            continue
        # The first variable of a path is always the session.
        if variables and variables[0] != session.id:
            raise CommandFailed(404, "invalid session id", f"no session {variables[0]}")
        return endpoint(session, body, *variables[1:])
    session.phone.log.unknown("uiautomator", f"{method} {path}")
    text = f"The requested resource could not be found: {method} {path}"
    raise CommandFailed(404, "unknown command", text)


def _match(pattern: list[str], parts: list[str]) -> list[str] | None:
    """Return the values of a pattern's variables, or None if the path is another."""
    if len(pattern) != len(parts):
        return None
    variables = []
    for expected, part in zip(pattern, parts, strict=True):
        if expected.startswith(":"):
            variables.append(part)
        elif expected != part:
            return None
    return variables
