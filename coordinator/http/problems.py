"""Refusals as RFC 9457 problem details."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from coordinator import wire
from coordinator.core.errors import InvalidRequest, QgjobError, ShuttingDown, Unauthenticated
from coordinator.http.models import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


def problem(
    status: int, reason: str, detail: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return a problem. `reason` is what programs compare, `detail` what people read."""
    content = {
        "type": f"urn:qgjob:problem:{reason.lower()}",
        "title": reason.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "reason": reason,
        "fields": dict(fields),
    }
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(error: QgjobError) -> JSONResponse:
    """Return a refusal of the domain, with the status that `wire` has for it."""
    sentence, fields = wire.told(error)
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, ShuttingDown):
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
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *always})
    }


def add_handlers(app: FastAPI) -> None:
    """Let an app answer every refusal with a problem."""

    def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, QgjobError)
        return problem_of(error)

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
    sentence = str(first["msg"]).removeprefix("Value error, ")
    return InvalidRequest(field, f"{field}: {sentence}")
