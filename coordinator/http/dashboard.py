"""The dashboard: a page of this package alone, so that it works in a lab without internet."""

from __future__ import annotations

from importlib.resources import files
from os import PathLike, stat_result

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = str(files("coordinator.http") / "static" / "dashboard")
PATH = "/dashboard"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    # Asked for again each time, and sent only if it has changed: another release brings other files.
    "Cache-Control": "no-cache",
}


class Files(StaticFiles):
    """What the page is made of."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return a file, or that it has not changed."""
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers.update(HEADERS)
        return answer


def make_router() -> APIRouter:
    """Return the path of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(f"{FOLDER}/index.html", headers=HEADERS)

    return router
