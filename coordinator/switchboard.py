"""Connects calls to the services, which begin when this coordinator leads: gRPC takes no services after its start."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import grpc

from coordinator.core.errors import NotLeader
from coordinator.interceptors import Handler, wrapped


class Switchboard(grpc.GenericRpcHandler):
    """Handles every call to us. Services are added to it as to a server."""

    def __init__(self, methods: Container[str], check_leadership: Callable[[], None]) -> None:
        """Take the methods that there are, and what raises NotLeader while this coordinator does not lead."""
        self._methods = methods
        self._check_leadership = check_leadership
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Do nothing: the same methods come by their names."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Connect the methods of a service."""
        for name, handler in handlers.items():
            is_checked = not handler.response_streaming
            self._handlers[f"/{service}/{name}"] = wrapped(handler, self._checked) if is_checked else handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return how a call is handled: by its service, or with a refusal while this coordinator does not lead."""
        method = str(handler_call_details.method)
        if method not in self._methods:
            return None
        try:
            self._check_leadership()
        except NotLeader as refusal:
            return _refused(refusal)
        if not self._handlers:
            return _refused(NotLeader("this coordinator takes over just now; repeat the call in a moment"))
        return self._handlers.get(method)

    def _checked(self, handler: Handler) -> Handler:
        """Return a handler whose answer is told only while this coordinator leads: what it read may be old by then."""

        async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
            answer = await handler(request, context)
            self._check_leadership()
            return answer

        return checked


def _refused(refusal: NotLeader) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler for methods of all kinds, which reads nothing."""

    async def refuse(_requests: Any, _context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ANN401
        raise refusal

    return grpc.stream_stream_rpc_method_handler(refuse)
