"""What can go wrong for a client, each with a sentence, a hint and a reason that scripts may compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

if TYPE_CHECKING:
    import grpc


class ClientError(Exception):
    """A call was refused or never arrived."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, reason: str = "", hint: str = "") -> None:
        """Take the sentence, the reason in UPPER_SNAKE, and what to do."""
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class UsageError(ClientError):
    """The request cannot be right, whoever receives it."""

    exit_code = 2


class LabError(ClientError):
    """The coordinator made a mistake, or has no room."""

    exit_code = 3


class NotAllowed(ClientError):
    """The caller may not do this."""

    exit_code = 4


class NotFound(ClientError):
    """No record has this id."""

    exit_code = 5


class Unreachable(ClientError):
    """No coordinator answered."""

    exit_code = 6


class NoMatchingDevice(ClientError):
    """A strict request that no known device could serve."""

    exit_code = 9


def error_of(error: grpc.RpcError, target: str) -> ClientError:
    """Return what a failed call means."""
    import grpc

    call = cast("grpc.Call", error)
    code, message = call.code(), call.details() or ""
    reason = _reason_of(call)
    if reason == "NO_MATCHING_DEVICE":
        return NoMatchingDevice(message, reason=reason, hint="see `qgjob devices list`, or submit without --strict")
    if reason == "VERSION_UNSUPPORTED":
        return UsageError(message, reason=reason)
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            if reason:
                return Unreachable(message, reason=reason, hint="try again in a moment")
            return _unreachable(target)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unreachable(
                f"the coordinator at {target} did not answer in time", hint="try again, or ask its owner"
            )
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(message, reason=reason, hint="`qgjob jobs list` shows what there is")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(message, reason=reason, hint="check QGJOB_TOKEN")
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.ALREADY_EXISTS | grpc.StatusCode.FAILED_PRECONDITION:
            return UsageError(message, reason=reason)
        case grpc.StatusCode.RESOURCE_EXHAUSTED if not reason:
            return UsageError("the request is too large for one call", hint="submit fewer jobs, or shorter names")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return LabError(message, reason=reason, hint="wait until the queue has drained, or cancel jobs")
        case grpc.StatusCode.UNIMPLEMENTED:
            return UsageError(f"the coordinator at {target} is of another release", hint="install the same release")
        case _:
            return LabError(message or code.name, reason=reason, hint="the coordinator's diagnostics say more")


def is_passing(error: grpc.RpcError) -> bool:
    """Whether a call that failed like this is worth repeating soon."""
    import grpc

    return cast("grpc.Call", error).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def _unreachable(target: str) -> Unreachable:
    return Unreachable(
        f"no coordinator answers at {target}",
        reason="UNREACHABLE",
        hint="start one with `qgjob-coordinator serve`, or name yours with --coordinator or QGJOB_COORDINATOR",
    )


def _reason_of(error: grpc.Call) -> str:
    """Return the reason of the call's ErrorInfo, empty where there is none."""
    from google.rpc.error_details_pb2 import ErrorInfo
    from grpc_status.rpc_status import from_call

    status = from_call(error)
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Is(ErrorInfo.DESCRIPTOR) and detail.Unpack(info) and info.domain == "qgjob":
            return str(info.reason)
    return ""
