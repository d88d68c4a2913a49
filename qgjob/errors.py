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
    if reason == "VERSION_UNSUPPORTED":
        return UsageError(message, reason=reason, hint="releases may be one minor release apart", fields=fields)
    if reason == "BUILD_REGISTERED":
        hint = "choose another app version, or use `qgjob builds upload --replace`: accepted jobs keep their build"
        return UsageError(message, reason=reason, hint=hint, fields=fields)
    if reason == "BLOB_TOO_LARGE":
        return UsageError(message, reason=reason, hint="the coordinator's owner may raise --max-upload", fields=fields)
    if reason in ("SHUTTING_DOWN", "DATABASE_UNAVAILABLE", "STORAGE_UNAVAILABLE", "UPLOAD_BROKEN"):
        return Unreachable(message, reason=reason, hint="try again in a moment", fields=fields)
    if reason == "NOT_LEADER":
        hint = "name all coordinators with --coordinator or QGJOB_COORDINATOR, with commas between them"
        return Unreachable(message, reason=reason, hint=hint, fields=fields)
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return connection_fault(f"the coordinator at {target}", message) or unreachable(target)
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
        case grpc.StatusCode.RESOURCE_EXHAUSTED if reason == "STORAGE_FULL":
            hint = "ask the coordinator's owner to free space; what was accepted before goes on"
            return LabError(message, reason=reason, hint=hint, fields=fields)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if reason == "TOO_MANY_FOLLOWERS":
            hint = "look at what is there without --follow, or try again later"
            return LabError(message, reason=reason, hint=hint, fields=fields)
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
        case _ if is_passing(error):
            return unreachable(target)
        case _:
            return LabError(message or code.name, reason=reason, hint="the coordinator's diagnostics say more")


def connection_fault(whom: str, details: str) -> Unreachable | None:
    """Return the error of a connection that failed over how it is secured; None for any other trouble.

    Args:
        whom: How the sentence calls the other side.
        details: What gRPC says; it tells of these faults nowhere else.
    """
    if (told := _handshake_fault(details)) is not None:
        why, hint = told
        return Unreachable(f"no TLS with {whom}: {why}", reason="TLS_FAILED", hint=hint)
    if "failed to connect" in details and "Socket closed" in details:
        return Unreachable(
            f"no coordinator answers as it is asked: {whom} closed the connection at once",
            reason="UNREACHABLE",
            hint="if it speaks TLS, give --tls-ca; if it asks for a certificate of yours, --tls-cert and --tls-key too",
        )
    return None


def _handshake_fault(details: str) -> tuple[str, str] | None:
    """Return why a handshake failed and what to do, None where none did."""
    if "Hostname Verification Check failed" in details:
        return "its certificate is for another name", "name the coordinator as its certificate does"
    if "handshake failed" not in details.lower():
        return None
    if "certificate has expired" in details:
        return "its certificate has expired", "ask the lab's owner for a new one"
    if "certificate is not yet valid" in details:
        return "its certificate is not valid yet", "do the clocks of both hosts tell the right time?"
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate is not of the authority that is trusted here", "check --tls-ca"
    if "WRONG_VERSION_NUMBER" in details:
        return "it does not speak TLS", "leave --tls-ca out, or ask the lab's owner for the right port"
    return "the handshake failed", "check --tls-ca, --tls-cert and --tls-key"


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
    # A link that breaks inside a message, or carries noise, reads like this; the coordinator's own mistakes don't.
    sign = {grpc.StatusCode.INTERNAL: "RST_STREAM", grpc.StatusCode.UNKNOWN: "Stream removed"}.get(call.code())
    if sign is not None:
        return sign in (call.details() or "")
    return call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def has_reached(error: grpc.RpcError) -> bool:
    """Whether a call that failed had a link: it broke under the call, which somebody may have heard."""
    details = cast("grpc.Call", error).details() or ""
    return not any(sign in details for sign in ("failed to connect", "DNS resolution failed"))


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
        case "agent":
            return "`qgjob agents list` shows what there is"
        case "blob":
            return "it was never uploaded, or was dropped because nothing names it; upload it again"
        case "artifact":
            return "`qgjob artifacts list ID` shows what there is; what is old is removed"
        case "attempt":
            return "`qgjob status job --job-id ID --verbose` shows the attempts"
        case _:
            return "`qgjob jobs list` shows what there is"
