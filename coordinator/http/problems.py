"""Refusals as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from coordinator import wire
from coordinator.core.errors import (
    DatabaseUnavailable,
    InvalidRequest,
    NotLeader,
    QgjobError,
    ShuttingDown,
    StorageUnavailable,
    Unauthenticated,
)
from coordinator.store import StoreError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


def problem(
    status: int, reason: str, detail: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return a problem. `reason` is what programs compare, `detail` what people read."""
    content = _content(status, reason, detail, fields)
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _content(status: int, reason: str, detail: str, fields: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": f"urn:qgjob:problem:{reason.lower()}",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "reason": reason,
        "fields": dict(fields),
    }


def problem_of(error: QgjobError) -> JSONResponse:
    """Return a refusal of the domain, with the status that `wire` has for it."""
    sentence, fields = wire.told(error)
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, (ShuttingDown, NotLeader, DatabaseUnavailable, StorageUnavailable)):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return problem(wire.code_of(error).http, error.reason, sentence, fields, headers)


def internal(incident: str) -> JSONResponse:
    """Return what is told of an error of our own."""
    return problem(
        500,
        "INTERNAL",
        f"an error of the coordinator's own; its diagnostics name it {incident}",
        {"incident": incident},
    )


def problems(*statuses: int, authenticated: bool = True) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI says of an operation's refusals: these, and those of any."""
    always = (401, 403, 500, 503) if authenticated else (403, 500)
    return {status: _described(status) for status in sorted({*statuses, *always})}


def _described(status: int) -> dict[str, Any]:
    reason, detail, fields = _EXAMPLES[status]
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": _content(status, reason, detail, fields)}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: content}}


_EXAMPLES: dict[int, tuple[str, str, dict[str, str]]] = {
    400: ("INVALID_REQUEST", "priority: Input should be less than or equal to 5", {"field": "priority"}),
    401: ("UNAUTHENTICATED", "this coordinator does not know the token", {}),
    403: ("PERMISSION_DENIED", "the token of lab-1 is not one of role client", {"name": "lab-1", "role": "client"}),
    404: ("NOT_FOUND", "there is no job 124", {"kind": "job", "id": "124"}),
    409: (
        "REQUEST_ID_REUSED",
        "idempotency key 'push-7' was used before with other jobs; use a new key",
        {"request_id": "push-7"},
    ),
    413: ("REQUEST_TOO_LARGE", f"the body has more than {wire.MAX_MESSAGE_BYTES} bytes", {}),
    429: ("TOO_MANY_FOLLOWERS", "the log of job 123 has 2000 followers, and that is the limit", {"limit": "2000"}),
    500: (
        "INTERNAL",
        "an error of the coordinator's own; its diagnostics name it 3f9c01a2b7d4",
        {"incident": "3f9c01a2b7d4"},
    ),
    503: ("SHUTTING_DOWN", "the coordinator is stopping; repeat the call in a moment", {}),
    507: ("STORAGE_FULL", "the coordinator has 100 MiB free in /data, and 512 MiB are to stay", {"free": "104857600"}),
}


def add_handlers(app: FastAPI) -> None:
    """Let an app answer every refusal with a problem."""

    def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, QgjobError)
        return problem_of(error)

    def unread(request: Request, error: Exception) -> JSONResponse:
        structlog.get_logger("coordinator").error("database_unavailable", path=request.url.path, reason=str(error))
        return problem_of(DatabaseUnavailable())

    def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return problem_of(_invalid_request(error))

    def unanswered(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        reason = _REASONS.get(error.status_code, "REFUSED")
        detail = _SENTENCES.get(error.status_code, error.detail)
        return problem(error.status_code, reason, detail, {}, error.headers)

    def unforeseen(request: Request, _error: Exception) -> JSONResponse:
        return internal(request.state.incident)

    app.add_exception_handler(QgjobError, refused)
    app.add_exception_handler(StoreError, unread)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unanswered)
    app.add_exception_handler(Exception, unforeseen)


_REASONS = {
    400: "INVALID_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
}
_SENTENCES = {
    404: "there is nothing at this path; /docs shows what there is",
    405: "this path has no such method; /docs shows what it has",
}
"""For what the router says in two words."""


def _invalid_request(error: RequestValidationError) -> InvalidRequest:
    """Return the first of what is wrong."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest("body", f"the body is no JSON: {first['ctx']['error']}")
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_attributes_type"):
        return InvalidRequest("body", "the body must be a JSON object, sent with Content-Type: application/json")
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    field = ".".join(place) or "body"
    if first["type"] == "extra_forbidden":
        return InvalidRequest(field, f"there is no parameter {field} here; /docs shows those that there are")
    sentence = str(first["msg"]).removeprefix("Value error, ")
    return InvalidRequest(field, f"{field}: {sentence}")
