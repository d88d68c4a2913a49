"""The OpenAPI tells the truth, and its page needs nothing from outside."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from coordinator import wire
from tests.http.grid import PATIENCE_S, HttpGrid

EXAMPLES = 25
PROMISED = {
    ("post", "/jobs/submit"),
    ("get", "/jobs/{job_id}"),
    ("get", "/jobs/{job_id}/why"),
    ("get", "/jobs"),
    ("delete", "/jobs/{job_id}"),
    ("post", "/jobs/{job_id}/retry"),
    ("get", "/jobs/{job_id}/logs"),
    ("get", "/jobs/{job_id}/artifacts"),
    ("get", "/jobs/{job_id}/artifacts/{attempt}/{name}"),
    ("get", "/jobs/{job_id}/report"),
    ("get", "/jobs/{job_id}/report/{attempt}/{name}"),
    ("get", "/devices"),
    ("get", "/queues/status"),
    ("get", "/agents"),
    ("get", "/builds"),
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


async def test_openapi_has_what_was_promised_and_no_422(grid: HttpGrid) -> None:
    schema = await grid.get("/openapi.json")
    operations = {(method, path): told for path, methods in schema["paths"].items() for method, told in methods.items()}
    assert set(operations) == PROMISED
    for told in operations.values():
        assert "422" not in told["responses"]
        assert told["description"]
        for status, response in told["responses"].items():
            if status[0] in "45":
                (problem,) = response["content"].values()
                assert problem["example"]["status"] == int(status)
                assert problem["example"]["reason"] in {*wire.CODES, "INTERNAL", "REQUEST_TOO_LARGE"}
    job = schema["components"]["schemas"]["Job"]
    assert set(job["examples"][0]) == set(job["properties"])
    assert schema["components"]["schemas"]["Submission"]["examples"]


async def test_page_and_all_that_it_loads_come_from_here(grid: HttpGrid) -> None:
    page = await grid.web.get("/docs")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert [link for link in loaded if not link.startswith(("/", "data:"))] == []
    for link in loaded:
        if link.startswith("/"):
            answer = await grid.web.get(link)
            assert answer.status_code == 200
            assert answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript", "application/json")


WITHOUT_INPUT = {("get", path) for path in ("/healthz", "/readyz", "/metrics", "/queues/status")}


class InThread:
    """A grid that serves from a thread of its own, for a client that blocks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        grid, stopping = HttpGrid(self._directory), asyncio.Event()
        await grid.start()
        running = await grid.running_job()
        await running.write(b"a line\n")
        await running.finish()
        self._started.set_result((str(grid.server.http_address), asyncio.get_running_loop(), stopping))
        await stopping.wait()
        await grid.stop()

    def start(self) -> str:
        self._thread.start()
        address, self._loop, self._stopping = self._started.result(PATIENCE_S)
        return address

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    grid = InThread(tmp_path_factory.mktemp("grid"))
    yield grid.start()
    grid.stop()


@pytest.fixture(scope="module")
def api(address: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"http://{address}/openapi.json")


ASKED = [(GenerationMode.POSITIVE, *operation) for operation in sorted(PROMISED)]
ASKED += [(GenerationMode.NEGATIVE, *operation) for operation in sorted(PROMISED - WITHOUT_INPUT)]


@pytest.mark.parametrize(("mode", "method", "path"), ASKED)
def test_no_request_is_answered_otherwise_than_the_openapi_says(
    api: BaseSchema, mode: GenerationMode, method: str, path: str
) -> None:
    @given(case=api[path][method].as_strategy(mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case[Any]) -> None:
        # What its schema allows may still be refused: unprintable labels, paths that lead out of the project.
        case.call_and_validate(timeout=PATIENCE_S, excluded_checks=[positive_data_acceptance])

    ask()
