"""The page that shows the API: Swagger UI from a package, so that it works in a lab without internet."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response

from coordinator.http.models import Device, Explanation, Job, Problem

SWAGGER = files("fastapi_standalone_docs") / "static" / "swagger"
OURS = files("coordinator.http") / "static"
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
"""Swagger UI sets styles and draws its icons from data."""
OPEN = frozenset({"/healthz", "/readyz"})


def make_router() -> APIRouter:
    """Return the paths of the page."""
    router = APIRouter(prefix="/docs", include_in_schema=False)

    @router.get("")
    async def page() -> Response:
        text = (OURS / "docs.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    @router.get("/init.js")
    async def script() -> Response:
        return _file(OURS, "init.js")

    @router.get("/swagger-ui.css")
    async def style() -> Response:
        return _file(SWAGGER, "swagger-ui.css")

    @router.get("/swagger-ui-bundle.js")
    async def swagger() -> Response:
        return _file(SWAGGER, "swagger-ui-bundle.js")

    return router


def _file(folder: Any, name: str) -> Response:  # noqa: ANN401 - what a package's files are
    return FileResponse(str(folder / name), headers={"Cache-Control": "max-age=3600"})


def describe(app: FastAPI) -> None:
    """Complete the OpenAPI: tokens, and that what is wrong with a request is told as a problem with 400, not 422."""
    make = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, methods in schema["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    operation["security"] = [] if path in OPEN else [{}, {"token": []}]
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            for model in (Job, Explanation, Device):  # FastAPI takes the nulls out of examples
                schema["components"]["schemas"][model.__name__]["examples"] = [model.example]
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # as its documentation has it
