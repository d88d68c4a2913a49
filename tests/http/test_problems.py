"""Each refusal as a problem, with the status of the one table."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from coordinator import wire
from coordinator.core import errors
from coordinator.core.errors import QgjobError
from coordinator.store import StoreError
from tests.http.grid import HttpGrid, services

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES: list[QgjobError] = [
    errors.InvalidRequest("priority", "priority 7 is out of range"),
    errors.NotFound("job", 7),
    errors.RequestIdReused("push-7"),
    errors.InvalidTransition("job 7 has not ended"),
    errors.LeaseFenced("lease 7 is spent"),
    errors.QueueFull("the queue is full", limit=10),
    errors.TooManyFollowers("too many follow", limit=10),
    errors.StorageFull("there is no space", free=1),
    errors.BuildRegistered("another binary has this name", digest="d" * 64),
    errors.BlobTooLarge("5 GiB, and 4 GiB is the limit", limit=4),
    errors.DigestMismatch("other bytes came"),
    errors.UploadBroken("nothing came"),
    errors.TooManyArtifacts("200 artifacts, and 200 is the limit"),
    errors.ArtifactRecorded("report.json is recorded with other bytes"),
    errors.Conflict("another agent has this name"),
    errors.Unauthenticated("the call has no token"),
    errors.PermissionDenied("not of this role", role="client"),
    errors.VersionUnsupported("too old", accepted="0.1.0"),
    errors.NoMatchingDevice("no device"),
    errors.ShuttingDown("the coordinator is stopping"),
    errors.NotLeader("another coordinator leads"),
    errors.DatabaseUnavailable(),
    errors.StorageUnavailable(),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HttpGrid]:
    """One coordinator for all: nothing here changes it."""
    grid = HttpGrid(tmp_path_factory.mktemp("grid"))
    await grid.start()
    yield grid
    await grid.stop()


async def test_there_is_an_example_of_each_refusal() -> None:
    assert {error.reason for error in EXAMPLES} == set(wire.CODES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.reason)
async def test_refusal_is_a_problem_with_the_status_of_the_table(
    grid: HttpGrid, error: QgjobError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_request: object) -> None:
        raise error

    monkeypatch.setattr(services(grid).queue, "GetQueueStatus", refuse)
    answer = await grid.web.get("/queues/status")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": f"urn:qgjob:problem:{error.reason.lower()}",
        "title": error.reason.replace("_", " ").capitalize(),
        "status": answer.status_code,
        "detail": str(error),
        "reason": error.reason,
        "fields": {name: str(value) for name, value in error.fields.items()},
    }
    assert answer.status_code == wire.CODES[error.reason].http
    assert ("retry-after" in answer.headers) is (answer.status_code == 503)
    assert ("www-authenticate" in answer.headers) is (error.reason == "UNAUTHENTICATED")


async def test_error_of_our_own_is_told_by_a_number_that_the_diagnostics_have(
    grid: HttpGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(services(grid).queue, "GetQueueStatus", fail)
    with capture_logs() as told:
        answer = await grid.web.get("/queues/status")
    assert (answer.status_code, answer.json()["reason"]) == (500, "INTERNAL")
    assert "secret" not in answer.text
    failed = [entry for entry in told if entry["event"] == "call_failed"]
    assert [entry["incident"] for entry in failed] == [answer.json()["fields"]["incident"]]


async def test_request_whose_query_fails_may_be_repeated(grid: HttpGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_request: object) -> None:
        raise StoreError("the connection was lost")

    monkeypatch.setattr(services(grid).queue, "GetQueueStatus", fail)
    answer = await grid.web.get("/queues/status")
    assert (answer.status_code, answer.json()["reason"]) == (503, "DATABASE_UNAVAILABLE")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"priority": 7}, "priority", "less than or equal to 5"),
        ({"target": "toaster"}, "target", "'any', 'emulator', 'device' or 'browserstack'"),
        ({"retries": -1}, "retries", "greater than or equal to 0"),
        ({"timeout_seconds": 0}, "timeout_seconds", "greater than or equal to 1"),
        ({"test": "../etc/passwd"}, "test", "must be a path inside the project"),
        ({"test": None}, "body", "give test or tests"),
        ({"tests": ["a.spec.ts"]}, "body", "give test or tests"),
        ({"org_id": "\ud800"}, "org_id", "valid string"),
        ({"env": {"PATH": "/evil"}}, "env", "it would change the lab's tools"),
        ({"prioritty": 3}, "prioritty", "no parameter prioritty here; /docs shows"),
    ],
)
async def test_wrong_submit_names_the_field(grid: HttpGrid, body: dict[str, Any], field: str, sentence: str) -> None:
    right = {"org_id": "q", "app_version_id": "x", "test": "a.spec.ts"}
    content = json.dumps({**right, **body})
    answer = await grid.web.post("/jobs/submit", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_REQUEST")
    assert answer.json()["fields"] == {"field": field}
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "form", "sentence"),
    [
        (b'{"org_id": ', "application/json", "the body is no JSON"),
        (b"[]", "application/json", "must be a JSON object"),
        (b"", "application/json", "must be a JSON object"),
        (b'{"org_id": "q"}', "text/plain", "sent with Content-Type: application/json"),
        (b"[" * 100_000, "application/json", ""),
        (b'{"priority": NaN}', "application/json", ""),
    ],
    ids=["cut", "list", "empty", "text", "deep", "nan"],
)
async def test_body_that_is_no_json_object_is_a_problem(
    grid: HttpGrid, content: bytes, form: str, sentence: str
) -> None:
    answer = await grid.web.post("/jobs/submit", content=content, headers={"Content-Type": form})
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_REQUEST")
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND"),
        ("GET", "/jobs/7", 404, "NOT_FOUND"),
        ("DELETE", "/jobs/7", 404, "NOT_FOUND"),
        ("GET", "/jobs/7/logs", 404, "NOT_FOUND"),
        ("GET", "/jobs/0", 400, "INVALID_REQUEST"),
        ("GET", f"/jobs/{2**63}", 400, "INVALID_REQUEST"),
        ("GET", "/jobs/seven", 400, "INVALID_REQUEST"),
        ("PUT", "/jobs/7", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/jobs?state=queued", 400, "INVALID_REQUEST"),
        ("GET", "/jobs?status=sleeping", 400, "INVALID_REQUEST"),
        ("GET", "/jobs?label=branch", 400, "INVALID_REQUEST"),
        ("GET", "/jobs?limit=1001", 400, "INVALID_REQUEST"),
        ("GET", "/jobs?limit=0", 400, "INVALID_REQUEST"),
        ("GET", "/jobs?page_token=x", 400, "INVALID_REQUEST"),
        ("GET", "/devices?limit=1001", 400, "INVALID_REQUEST"),
    ],
)
async def test_wrong_path_or_query_is_a_problem(
    grid: HttpGrid, method: str, path: str, status: int, reason: str
) -> None:
    answer = await grid.web.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["reason"] == reason
