"""A coordinator of this process that serves HTTP as well, and a client of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from coordinator.core.model import AttemptId, Settings
from coordinator.http.services import Services
from coordinator.logstore import LogStore
from qgjob.v1 import job_pb2, lease_pb2
from tests.rpc.grid import AgentOnTheWire, Grid, phone

PATIENCE_S = 60.0


class HttpGrid(Grid):
    """A grid with both ports. The port of HTTP stays the same over restarts, as readers of events expect."""

    def __init__(self, directory: Path, database_url: str = "", settings: Settings | None = None) -> None:
        super().__init__(
            directory, settings or Settings(), http="127.0.0.1:0", database_url=database_url, leader_ttl_s=5.0
        )

    async def start(self) -> None:
        await super().start()
        assert self.server.http_address is not None
        self._http = self.server.http_address
        self.web = httpx2.AsyncClient(base_url=f"http://{self._http}", timeout=PATIENCE_S)

    async def stop(self) -> None:
        await self.web.aclose()
        await super().stop()

    async def get(self, path: str, **fields: Any) -> Any:  # noqa: ANN401 - JSON
        answer = await self.web.get(path, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post_jobs(self, *tests: str, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
        body = {"org_id": "qualgent", "app_version_id": "xyz123", "tests": tests or ["tests/login.spec.ts"], **fields}
        answer = await self.web.post("/jobs/submit", json=body)
        assert answer.status_code == 201, answer.text
        jobs: list[dict[str, Any]] = answer.json()
        return jobs

    async def running_job(self) -> RunningJob:
        """Submit a job and let an agent start it."""
        await self.post_jobs()
        agent = self.agent()
        await agent.hello(phone())
        lease = await agent.lease()
        attempt = lease.jobs[0].attempt_id
        await agent.say(attempt_started={"key": lease.key, "attempt_id": attempt})
        await self.job_when(1, job_pb2.JOB_STATE_RUNNING)
        return RunningJob(self, agent, lease, attempt)


@dataclass
class RunningJob:
    """Job 1 on its phone, and the log that it writes."""

    grid: HttpGrid
    agent: AgentOnTheWire
    lease: lease_pb2.LeaseSpec
    attempt: int
    log: bytes = b""

    async def write(self, data: bytes, written_ms: int | None = None) -> None:
        """Let the log grow, as by an agent's upload."""
        logs = logs_of(self.grid)
        marks = [] if written_ms is None else [(len(self.log), written_ms)]
        await logs.offer(AttemptId(self.attempt), len(self.log), data, marks)
        await logs.committed(AttemptId(self.attempt))
        self.log += data

    async def close_log(self) -> None:
        logs = logs_of(self.grid)
        await logs.finish(AttemptId(self.attempt), len(self.log), hashlib.sha256(self.log).hexdigest())
        await logs.committed(AttemptId(self.attempt))

    async def finish(self) -> None:
        """End the test and its log."""
        await self.agent.finish(self.lease, self.attempt, log_size=len(self.log))
        await self.close_log()


@dataclass(frozen=True)
class ServerSentEvent:
    name: str
    id: str
    data: str


async def events(answer: httpx2.Response) -> AsyncIterator[ServerSentEvent]:
    """Yield events as a browser reads them."""
    name, event_id, data = "", "", list[str]()
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if line == "":
            if data:
                yield ServerSentEvent(name, event_id, "\n".join(data))
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field in ("data", "data:"):
            data.append(value)


def services(grid: Grid) -> Services:
    """What answers in this grid."""
    found = grid.server._services
    assert found is not None
    return found


def logs_of(grid: Grid) -> LogStore:
    return services(grid).logs._logs
