"""What can go wrong for a client, each with a sentence, a hint and a reason that programs may compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import grpc
    from google.rpc.error_details_pb2 import ErrorInfo

DOMAIN = "qgjob"
"""Domain of the ErrorInfo of every refusal."""

_DETAILS_KEY = "grpc-status-details-bin"


class ClientError(Exception):
    """A call was refused or never arrived."""

    def __init__(
        self, message: str, *, reason: str = "", hint: str = "", fields: Mapping[str, str] | None = None
    ) -> None:
        """Take the sentence, the reason in UPPER_SNAKE, what to do, and the fields that the sentence names."""
        super().__init__(message)
        self.reason = reason
        self.hint = hint
        self.fields = dict(fields or {})


class UsageError(ClientError):
    """The request cannot be right, whoever receives it."""


class LabError(ClientError):
    """The coordinator made a mistake, or has no room."""


class NotAllowed(ClientError):
    """The caller may not do this."""


class NotFound(ClientError):
    """No record has this id."""


class Unreachable(ClientError):
    """No coordinator answered."""


class NoMatchingDevice(ClientError):
    """A strict request that no known device could serve."""


def error_of(error: grpc.RpcError, target: str) -> ClientError:
    """Return what a failed call means."""
    import grpc

    call = cast("grpc.Call", error)
    code, message = call.code(), call.details() or ""
    info = error_info(call)
    reason = info.reason if info is not None else ""
    fields = dict(info.metadata) if info is not None else {}
    if reason == "NO_MATCHING_DEVICE":
        hint = "see `qgjob devices list`, or submit without --strict"
        return NoMatchingDevice(message, reason=reason, hint=hint, fields=fields)
    if reason == "REQUEST_ID_REUSED":
        return UsageError(message, reason=reason, hint="the same key needs the very same jobs", fields=fields)
    if reason == "SHUTTING_DOWN":
        return Unreachable(message, reason=reason, hint="try again in a moment", fields=fields)
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return _handshake_failed(target, message) or unreachable(target)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(
                f"the coordinator at {target} did not answer in time",
                reason="UNREACHABLE",
                hint="try again, or ask its owner",
            )
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(message, reason=reason, hint=_hint_of_missing(fields.get("kind", "")), fields=fields)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(message, reason=reason, hint=_hint_of_access(reason), fields=fields)
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.ALREADY_EXISTS | grpc.StatusCode.FAILED_PRECONDITION:
            return UsageError(message, reason=reason, fields=fields)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if reason:
            hint = "wait until the queue has drained, or cancel jobs"
            return LabError(message, reason=reason, hint=hint, fields=fields)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return UsageError(
                "the message is too large for one call",
                reason="MESSAGE_TOO_LARGE",
                hint="shorten what you send, or ask for less at once",
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return UsageError(f"what answers at {target} is no coordinator of this release", hint="compare --version")
        case _:
            return LabError(message or code.name, reason=reason, hint="the coordinator's diagnostics say more")


def _handshake_failed(target: str, details: str) -> Unreachable | None:
    """Return the error of a TLS handshake, of which gRPC tells in its details alone; None for any other trouble."""
    if "handshake failed" not in details.lower() and "peer name" not in details.lower():
        return None
    if "CERTIFICATE_VERIFY_FAILED" in details:
        why, hint = "its certificate is not of the authority that is trusted here", "check --tls-ca and the host's name"
    elif "peer name" in details.lower():
        why, hint = "its certificate is for another name", "name the coordinator as its certificate does"
    elif "WRONG_VERSION_NUMBER" in details:
        why, hint = "it does not speak TLS", "leave --tls-ca out, or ask the lab's owner for the right port"
    elif "CERTIFICATE_REQUIRED" in details:
        why, hint = "it asks for a certificate of yours", "give --tls-cert and --tls-key"
    else:
        why, hint = "the handshake failed", "check --tls-ca, --tls-cert and --tls-key"
    return Unreachable(f"no TLS with the coordinator at {target}: {why}", reason="TLS_FAILED", hint=hint)


def _hint_of_access(reason: str) -> str:
    if reason == "UNAUTHENTICATED":
        return "set QGJOB_TOKEN or give --token-file; the lab's owner has your token"
    return "ask the lab's owner for access"


def unreachable(target: str) -> Unreachable:
    """Return the error of a coordinator that does not answer."""
    return Unreachable(
        f"no coordinator answers at {target}",
        reason="UNREACHABLE",
        hint="start one with `qgjob-coordinator serve`, or name yours with --coordinator or QGJOB_COORDINATOR",
    )


def is_passing(error: grpc.RpcError) -> bool:
    """Whether a call that failed like this is worth repeating soon: the link broke, or the coordinator stops."""
    import grpc

    call = cast("grpc.Call", error)
    code = call.code()
    if code is grpc.StatusCode.INTERNAL:
        # A link that breaks inside a message reads like this; the coordinator's own mistakes don't.
        return "RST_STREAM" in (call.details() or "")
    return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def error_info(call: grpc.Call) -> ErrorInfo | None:
    """Return our ErrorInfo of a failed call, None where there is none."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import ErrorInfo
    from google.rpc.status_pb2 import Status

    for key, value in call.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            details = Status.FromString(value).details
        except DecodeError:
            return None
        for detail in details:
            info = ErrorInfo()
            if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                return info
    return None


def _hint_of_missing(kind: str) -> str:
    match kind:
        case "device":
            return "`qgjob devices list` shows what there is"
        case "attempt":
            return "`qgjob status job --job-id ID --verbose` shows the attempts"
        case _:
            return "`qgjob jobs list` shows what there is"
