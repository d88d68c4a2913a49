"""Turns the domain's refusals into gRPC status with ErrorInfo, and everything unforeseen into INTERNAL."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from coordinator.core.errors import QgjobError
from coordinator.wire import code_of

DOMAIN = "qgjob"

MAX_SENTENCE_BYTES = 800
MAX_FIELD_BYTES = 200
"""A status travels in HTTP/2 trailers, for which gRPC allows 8 KiB: what a caller sent must not come back whole."""

Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


def status_of(error: QgjobError) -> Status:
    """Return the rich status of a refusal: code, sentence, and an ErrorInfo with reason and fields."""
    detail = AnyMessage()
    fields = {name: _shortened(str(value), MAX_FIELD_BYTES) for name, value in error.fields.items()}
    detail.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=fields))
    return Status(code=code_of(error).value[0], message=_shortened(str(error), MAX_SENTENCE_BYTES), details=[detail])


def _shortened(text: str, most_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode(errors="ignore") + "..."


class RefusalInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of ours. Handlers of streams read and write through the context."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, guarded."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith("/qgjob."):
            return handler
        kinds: dict[tuple[bool, bool], tuple[str, Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
            (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
            (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
            (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
            (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
        }
        name, make = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
        guarded = _guard(getattr(handler, name), method)
        return make(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard(handler: Handler, method: str) -> Handler:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ANN401
        try:
            return await handler(request, context)
        except QgjobError as refusal:
            await context.abort_with_status(to_status(status_of(refusal)))
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:  # noqa: BLE001 - the top of a call: told to the operator, named to the caller
            incident = uuid.uuid4().hex[:12]
            structlog.get_logger("coordinator").exception("call_failed", method=method, incident=incident)
            await context.abort(
                grpc.StatusCode.INTERNAL, f"an error of the coordinator's own; its diagnostics name it {incident}"
            )

    return guarded
