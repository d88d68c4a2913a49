"""What every request passes first: who is let in, how much may be sent, and what is told of errors of our own."""

from __future__ import annotations

import asyncio
import functools
import uuid

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.config import is_loopback
from coordinator.core.errors import PermissionDenied, QgjobError
from coordinator.http.problems import problem_of
from coordinator.http.services import FindServices
from coordinator.tokens import Role, TokenFile
from coordinator.wire import MAX_MESSAGE_BYTES

BODY_TIMEOUT_S = 30.0
"""In which a request has to bring its body."""
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
"""Open as health is over gRPC: whoever balances load has no token. Each says for itself what it checks."""
PUBLIC_PATHS = frozenset(
    {"/", "/docs", "/openapi.json", "/docs/init.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"}
)
"""Open because a browser that opens a page shows no token; they tell what any lab of this release would."""
PUBLIC_FILES = "/dashboard/"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Gate:
    """An ASGI app around the app."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        tokens: TokenFile | None,
        asks_for_own_name: bool,
        find_services: FindServices,
    ) -> None:
        """Guard an app.

        Args:
            app: What answers those who are let in.
            tokens: Who may call; None for anybody.
            asks_for_own_name: Whether requests must be addressed to this host by a name of loopback. Without tokens
                that keeps out web pages whose own name leads here.
            find_services: Raises a refusal while this coordinator may not answer for the lab.
        """
        self._app = app
        self._tokens = tokens
        self._asks_for_own_name = asks_for_own_name
        self._find_services = find_services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        incident = uuid.uuid4().hex[:12]
        scope.setdefault("state", {})["incident"] = incident
        told = functools.partial(_send_with_headers, send)
        try:
            self._check(scope["path"], Headers(scope=scope))
        except QgjobError as refusal:
            await problem_of(refusal)(scope, receive, told)
            return
        try:
            await self._app(scope, _Body(receive).receive, told)
        except Exception:  # noqa: BLE001 - the top of a request: told to the operator, named to the caller
            structlog.get_logger("coordinator").exception("call_failed", path=scope["path"], incident=incident)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._asks_for_own_name and not is_loopback(_name_of(host)):
            raise PermissionDenied(f"this port answers on loopback alone, not as {host!r}; use 127.0.0.1", host=host)
        if path in HEALTH_PATHS or path in PUBLIC_PATHS or path.startswith(PUBLIC_FILES):
            return
        if self._tokens is not None:
            self._tokens.check(headers.get("authorization", ""), Role.CLIENT)
        self._find_services()


def _name_of(host: str) -> str:
    """Return the name in a Host header: without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        names = {name for name, _ in message["headers"]}
        message["headers"] = [*message["headers"], *(entry for entry in HEADERS if entry[0] not in names)]
    await send(message)


class _Body:
    """Receives a request's body within its limits, and after it waits for the end of the connection."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._size = 0
        self._is_whole = False
        self._deadline_s: float | None = None

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            HTTPException: The body is too large, or takes too long.
        """
        if self._is_whole:
            return await self._receive()
        message = await self._receive_in_time()
        self._size += len(message.get("body", b""))
        if self._size > MAX_MESSAGE_BYTES:
            raise HTTPException(413, f"the body has more than {MAX_MESSAGE_BYTES} bytes", {"Connection": "close"})
        self._is_whole = not message.get("more_body", False)
        return message

    async def _receive_in_time(self) -> Message:
        if self._deadline_s is None:
            self._deadline_s = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        try:
            async with asyncio.timeout_at(self._deadline_s):
                return await self._receive()
        except TimeoutError as error:
            raise HTTPException(
                408, f"the body did not come in {BODY_TIMEOUT_S:g} s", {"Connection": "close"}
            ) from error
