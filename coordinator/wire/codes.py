"""The table of refusals: reason -> gRPC code and HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import grpc

from coordinator.core.errors import QgjobError
from coordinator.wire.limits import MAX_TOLD_BYTES, MAX_TOLD_FIELD_BYTES


class Code(NamedTuple):
    """What a refusal is called on the wire."""

    grpc: grpc.StatusCode
    http: int


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "INVALID_REQUEST": Code(grpc.StatusCode.INVALID_ARGUMENT, 400),
        "NOT_FOUND": Code(grpc.StatusCode.NOT_FOUND, 404),
        "REQUEST_ID_REUSED": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "INVALID_TRANSITION": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "LEASE_FENCED": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "QUEUE_FULL": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "TOO_MANY_FOLLOWERS": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "BLOB_TOO_LARGE": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
        "TOO_MANY_ARTIFACTS": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
        "ARTIFACT_RECORDED": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "BUILD_REGISTERED": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "DIGEST_MISMATCH": Code(grpc.StatusCode.DATA_LOSS, 400),
        "UPLOAD_BROKEN": Code(grpc.StatusCode.UNAVAILABLE, 409),
        "STORAGE_FULL": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        "UNAUTHENTICATED": Code(grpc.StatusCode.UNAUTHENTICATED, 401),
        "PERMISSION_DENIED": Code(grpc.StatusCode.PERMISSION_DENIED, 403),
        "CONFLICT": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "VERSION_UNSUPPORTED": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "SHUTTING_DOWN": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "NOT_LEADER": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "DATABASE_UNAVAILABLE": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "STORAGE_UNAVAILABLE": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "NO_MATCHING_DEVICE": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
    }
)


def code_of(error: QgjobError) -> Code:
    """Return the codes of a refusal."""
    return CODES[error.reason]


def told(error: QgjobError) -> tuple[str, dict[str, str]]:
    """Return the sentence and the fields of a refusal, bounded: what a caller sent must not come back whole."""
    fields = {name: _shortened(str(value), MAX_TOLD_FIELD_BYTES) for name, value in error.fields.items()}
    return _shortened(str(error), MAX_TOLD_BYTES), fields


def _shortened(text: str, most_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode(errors="ignore") + "..."
