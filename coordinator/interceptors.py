"""Lets in who may call; turns refusals into gRPC status with ErrorInfo, and everything unforeseen into INTERNAL."""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from coordinator.complaints import Complaints
from coordinator.core.errors import DatabaseUnavailable, InvalidRequest, QgjobError, VersionUnsupported
from coordinator.core.releases import misfit
from coordinator.store import StoreError
from coordinator.tokens import Role, TokenFile
from coordinator.wire import code_of, told
from qgjob.access import RELEASE_KEY

DOMAIN = "qgjob"
AGENT_METHODS = frozenset(
    {
        "/qgjob.v1.AgentService/Connect",
        "/qgjob.v1.ArtifactService/FetchEarlierReports",
        "/qgjob.v1.ArtifactService/OfferArtifact",
        "/qgjob.v1.ArtifactService/UploadArtifact",
        "/qgjob.v1.BlobService/FetchBlob",
        "/qgjob.v1.LogService/AppendLogs",
    }
)
"""What agents call; everything else is for clients."""

OURS = "/qgjob."
"""How our methods begin; health and reflection have handlers of other kinds."""

Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Once:
    """Wraps the handler of each method once: to do so with every call would take longer than most calls."""

    def __init__(self, wrap: Callable[[AnyHandler, str], AnyHandler]) -> None:
        """Take what wraps the handler of a method."""
        self._wrap = wrap
        self._known: dict[str, tuple[AnyHandler, AnyHandler]] = {}

    def around(self, handler: AnyHandler, method: str) -> AnyHandler:
        """Return a handler wrapped. One that refuses is another with every call, and so is what is around it."""
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = (handler, self._wrap(handler, method))
        return known[1]


def status_of(error: QgjobError) -> Status:
    """Return the rich status of a refusal: code, sentence, and an ErrorInfo with reason and fields."""
    detail = AnyMessage()
    sentence, fields = told(error)
    detail.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=fields))
    return Status(code=code_of(error).grpc.value[0], message=sentence, details=[detail])


class _Unreadable(InvalidRequest):
    """Bytes that are no message of the method: a caller's mistake, of which the operator should know."""

    def __init__(self) -> None:
        super().__init__("message", "the bytes are no message of this method")


class RefusalInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours. Handlers of streams read and write through the context."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, streams: Counter[str] | None = None) -> None:
        """Take a clock in seconds, by which complaints are spaced, and what counts the open streams of each method."""
        self._complaints = Complaints(clock)
        self._streams: Counter[str] = Counter() if streams is None else streams
        self._guarded = Once(self._guard)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, guarded."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(OURS):
            return handler
        return self._guarded.around(handler, method)

    def _guard(self, handler: AnyHandler, method: str) -> AnyHandler:
        read = _reading(handler)
        if handler.request_streaming or handler.response_streaming:
            handler = wrapped(handler, lambda inner: _counting(inner, self._streams, method.rpartition("/")[2]))
        return wrapped(handler, lambda inner: _guard(inner, method, self._complaints), read)


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets in who shows a token for what is called. Health stays open: whoever balances load has no token."""

    def __init__(self, tokens: TokenFile) -> None:
        """Take the tokens that count."""
        self._tokens = tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith("/grpc.health."):
            return handler
        try:
            check_access(self._tokens, method, handler_call_details.invocation_metadata or ())
        except QgjobError as refusal:
            return wrapped(handler, functools.partial(_refusing, refusal))
        return handler


class ReleaseInterceptor(grpc.aio.ServerInterceptor):
    """Tells the coordinator's release at the end of each call, and refuses clients of one too far away.

    A client that names none is let in; agents name theirs in Hello.
    """

    def __init__(self, release: str) -> None:
        """Take the coordinator's release."""
        self._release = release
        self._trailer = ((RELEASE_KEY, release),)
        self._telling = Once(lambda handler, _method: wrapped(handler, self._tell))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, or one that refuses."""
        handler = await continuation(handler_call_details)
        theirs = _first(handler_call_details.invocation_metadata or (), RELEASE_KEY)
        if handler is None or not str(handler_call_details.method).startswith(OURS):
            return handler
        reason = misfit(self._release, theirs, "client") if theirs else None
        if reason is None:
            return self._telling.around(handler, str(handler_call_details.method))
        return wrapped(handler, functools.partial(_refusing, VersionUnsupported(reason, accepted=self._release)))

    def _tell(self, handler: Handler) -> Handler:
        async def tell(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
            context.set_trailing_metadata(self._trailer)
            return await handler(request, context)

        return tell


def _first(metadata: Iterable[tuple[str, str | bytes]], wanted: str) -> str:
    return next((str(value) for key, value in metadata if key == wanted), "")


def check_access(tokens: TokenFile, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Check that the metadata of a call carries a token for its method.

    Raises:
        Unauthenticated: It carries none, or one that nobody has.
        PermissionDenied: It is the token of another role.
    """
    role = Role.AGENT if method in AGENT_METHODS else Role.CLIENT
    tokens.check(_first(metadata, "authorization"), role)


def _refusing(refusal: QgjobError, _handler: Handler) -> Handler:
    async def refuse(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: ANN401
        await _refuse(context, refusal)

    return refuse


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], refusal: QgjobError) -> None:
    """End a call with a refusal; a caller who has gone meanwhile needs none."""
    with contextlib.suppress(grpc.aio.InternalError):
        await context.abort_with_status(to_status(status_of(refusal)))


def wrapped(
    handler: grpc.RpcMethodHandler[Any, Any],
    wrap: Callable[[Handler], Handler],
    deserialize: Callable[[bytes], Any] | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of the same kind whose behaviour is wrapped; with another deserializer where one is given."""
    kinds: dict[tuple[bool, bool], tuple[str, Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    name, make = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
    return make(
        wrap(getattr(handler, name)),
        request_deserializer=deserialize or handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _reading(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[[bytes], Any] | None:
    """Return a deserializer whose failure is a refusal; None for a handler that reads nothing.

    A stream's messages are read under the guard, so it may raise there. The one message of other calls is read before
    any code of ours, and what is raised then would be told as the coordinator's own error.
    """
    parse = handler.request_deserializer
    if parse is None:
        return None

    def read(data: bytes) -> Any:  # noqa: ANN401
        try:
            return parse(data)
        except DecodeError as error:
            if handler.request_streaming:
                raise _Unreadable from error
            return _Unreadable()

    return read


def _counting(handler: Handler, streams: Counter[str], name: str) -> Handler:
    async def counting(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
        streams[name] += 1
        try:
            return await handler(request, context)
        finally:
            streams[name] -= 1
            if not streams[name]:
                del streams[name]

    return counting


def _guard(handler: Handler, method: str, complaints: Complaints) -> Handler:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
        try:
            if isinstance(request, _Unreadable):
                raise request
            return await handler(request, context)
        except _Unreadable as refusal:
            story = "bytes came that are no message of the method"
            complaints.add("message_unreadable", method, story=story, method=method, peer=context.peer())
            await _refuse(context, refusal)
        except QgjobError as refusal:
            await _refuse(context, refusal)
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except StoreError as error:
            structlog.get_logger("coordinator").error("database_unavailable", method=method, reason=str(error))
            await _refuse(context, DatabaseUnavailable())
        except Exception:  # noqa: BLE001 - the top of a call: told to the operator, named to the caller
            incident = uuid.uuid4().hex[:12]
            structlog.get_logger("coordinator").exception("call_failed", method=method, incident=incident)
            await context.abort(
                grpc.StatusCode.INTERNAL, f"an error of the coordinator's own; its diagnostics name it {incident}"
            )

    return guarded
