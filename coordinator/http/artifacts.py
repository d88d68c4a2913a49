"""What jobs left behind: lists, files, and the pages of reports.

A report is a page that a test project wrote, and it is served from where the dashboard is. So it runs in a sandbox,
without an origin of its own: it reads nothing of this site, and sends nothing anywhere. There is no local storage in
such a sandbox, which Playwright's pages want for their settings: they are shown with one that forgets. Everything else
is a download, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.responses import StreamingResponse

from coordinator.core.artifacts import MAX_NAME_BYTES, Artifact, ArtifactKind
from coordinator.core.errors import NotFound
from coordinator.http import models
from coordinator.http.answers import answer, next_link
from coordinator.http.problems import problems
from coordinator.http.services import FindServices
from coordinator.services.artifact import ArtifactService
from qgjob import resources
from qgjob.v1 import artifact_service_pb2

REPORT_POLICY = (
    "sandbox allow-scripts allow-popups allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval';"
    " style-src 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src data:;"
    " worker-src blob:; connect-src data: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
FILE_POLICY = "sandbox; default-src 'none'; frame-ancestors 'none'"
INLINE = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4", "video/webm"})
"""What pages of a report show; no browser runs anything of it."""

STORAGE = b"""<script>
for (const name of ["localStorage", "sessionStorage"]) {
  const kept = new Map();
  const storage = {
    getItem: (key) => kept.get(String(key)) ?? null,
    setItem: (key, value) => void kept.set(String(key), String(value)),
    removeItem: (key) => void kept.delete(String(key)),
    clear: () => kept.clear(),
    key: (index) => [...kept.keys()][index] ?? null,
    get length() { return kept.size; },
  };
  Object.defineProperty(window, name, { value: storage });
}
</script>"""
HEAD = b"<head>"
MAX_PAGE_BYTES = 64 * 1_024 * 1_024
"""Of a page that is shown; a larger one can be downloaded."""

JobNumber = Annotated[int, Path(ge=1, le=models.MAX_ID)]
AttemptNumber = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Path(min_length=1, max_length=MAX_NAME_BYTES)]


def make_router(find: FindServices) -> APIRouter:
    """Return the paths of artifacts."""
    router = APIRouter(prefix="/jobs", tags=["Artifacts"])

    @router.get(
        "/{job_id}/artifacts",
        response_model=list[models.Artifact],
        responses=problems(400, 404),
        summary="List what a job left behind",
    )
    async def list_artifacts(request: Request, job_id: JobNumber, page: Annotated[models.Page, Query()]) -> Response:
        """Return a page of a job's artifacts, by attempt and name; a `Link` header leads to the next page."""
        found = await find().artifacts.ListArtifacts(
            artifact_service_pb2.ListArtifactsRequest(job_id=job_id, page_size=page.limit, page_token=page.page_token)
        )
        return await answer(
            find,
            lambda: [resources.artifact(artifact) for artifact in found.artifacts],
            headers=next_link(request, found.next_page_token),
        )

    @router.get(
        "/{job_id}/report",
        response_class=RedirectResponse,
        status_code=307,
        responses={307: {"description": "To the first page of the report."}, **problems(400, 404)},
        summary="Open the HTML report of a job",
    )
    async def open_report(job_id: JobNumber) -> Response:
        """Lead to the HTML report of the last attempt that has one."""
        report = await find().artifacts.report(job_id)
        return RedirectResponse(f"/jobs/{job_id}/report/{report.attempt_number}/{quote(report.name)}")

    @router.get(
        "/{job_id}/report/{attempt}/{name:path}",
        response_class=Response,
        responses={
            200: {"description": "The page, or a file that it shows.", "content": {"text/html": {}}},
            **problems(400, 404),
        },
        summary="Show a file of an HTML report",
    )
    async def show_report(job_id: JobNumber, attempt: AttemptNumber, name: Name) -> Response:
        """Return a page of a report in a sandbox, or a picture or film of it; the rest is a download."""
        artifacts = find().artifacts
        artifact = await artifacts.find(job_id, attempt, name)
        if artifact.kind is not ArtifactKind.HTML_REPORT:
            raise NotFound("page", f"{name!r} in the report of attempt {attempt} of job {job_id}")
        if artifact.content_type.startswith("text/html") and artifact.size <= MAX_PAGE_BYTES:
            page = b"".join([block async for _, block in artifacts.read(artifact)])
            return Response(page.replace(HEAD, HEAD + STORAGE, 1), headers=_headers(artifact, REPORT_POLICY, "inline"))
        is_shown = artifact.content_type in INLINE
        return await _whole(artifacts, artifact, _headers(artifact, FILE_POLICY, "inline" if is_shown else ""))

    @router.get(
        "/{job_id}/artifacts/{attempt}/{name:path}",
        response_class=Response,
        responses={
            200: {
                "description": "The bytes of the artifact.",
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            },
            304: {"description": "`If-None-Match` names the bytes."},
            **problems(400, 404),
        },
        summary="Fetch an artifact",
    )
    async def read_artifact(request: Request, job_id: JobNumber, attempt: AttemptNumber, name: Name) -> Response:
        """Return a file that an attempt left behind, byte for byte, as a download."""
        artifacts = find().artifacts
        artifact = await artifacts.find(job_id, attempt, name)
        headers = {**_headers(artifact, FILE_POLICY), "ETag": f'"{artifact.digest}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return await _whole(artifacts, artifact, headers)

    return router


async def _whole(artifacts: ArtifactService, artifact: Artifact, headers: dict[str, str]) -> Response:
    blocks = await _begun(artifacts, artifact)
    return StreamingResponse(blocks, headers={**headers, "Content-Length": str(artifact.size)})


async def _begun(artifacts: ArtifactService, artifact: Artifact) -> AsyncIterator[bytes]:
    """Return the blocks of an artifact once its first one is read: what hinders that can still be told.

    Raises:
        NotFound: It was forgotten just now.
        StorageUnavailable: The storage does not answer.
    """
    reading = artifacts.read(artifact)
    first = await anext(reading)

    async def blocks() -> AsyncIterator[bytes]:
        async with aclosing(reading):
            yield first[1]
            async for _, block in reading:
                yield block

    return blocks()


def _headers(artifact: Artifact, policy: str, disposition: str = "") -> dict[str, str]:
    name = quote(artifact.name.rpartition("/")[2])
    return {
        "Content-Type": artifact.content_type,
        "Content-Disposition": disposition or f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": policy,
        "Cache-Control": "private, no-cache",
    }
