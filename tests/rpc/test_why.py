"""`jobs why` over all doors: gRPC, HTTP and the command line say the same, and follow the job."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from qgjob import resources
from qgjob.v1 import device_service_pb2, job_pb2, job_service_pb2, queue_service_pb2
from tests.http.grid import HttpGrid
from tests.rpc.grid import phone, refusal, spec

QGJOB = str(Path(sys.executable).parent / "qgjob")


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[HttpGrid]:
    grid = HttpGrid(tmp_path)
    await grid.start()
    yield grid
    await grid.stop()


async def why(grid: HttpGrid, job_id: int) -> dict[str, Any]:
    """Ask over gRPC and over HTTP; what is estimated may differ by the moment between the two."""
    request = job_service_pb2.ExplainJobRequest(job_id=job_id)
    told = resources.explanation((await grid.jobs.ExplainJob(request)).explanation)
    assert (await grid.get(f"/jobs/{job_id}/why")).keys() == told.keys()
    return told


async def qgjob(grid: HttpGrid, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "QGJOB_COORDINATOR": grid.address, **environment}
    process = await asyncio.create_subprocess_exec(QGJOB, *arguments, env=env, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_job_is_explained_from_its_submit_to_its_end(grid: HttpGrid) -> None:
    await grid.submit(spec("a"), spec("b", app_version_id="other"))
    assert (await why(grid, 1))["reason"] == "nothing_matches"
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    assert (await why(grid, 1))["reason"] == "assigned"
    attempt = lease.jobs[0].attempt_id
    await agent.say(attempt_started={"key": lease.key, "attempt_id": attempt})
    await grid.job_when(1, job_pb2.JOB_STATE_RUNNING)
    assert (await why(grid, 1))["message"] == "It runs on phone-1."
    waiting = await why(grid, 2)
    assert {name: waiting[name] for name in ("reason", "device", "blocking_job", "queue_position")} == {
        "reason": "busy",
        "device": "phone-1",
        "blocking_job": 1,
        "queue_position": 1,
    }
    await agent.finish(lease, attempt)
    ended = await why(grid, 1)
    assert (ended["status"], ended["reason"], ended["device"]) == ("completed", "ended", "phone-1")


async def test_command_line_says_it_in_sentences_and_in_json(grid: HttpGrid) -> None:
    await grid.submit(spec("a"))
    assert json.loads(await qgjob(grid, "jobs", "why", "1")) == await why(grid, 1)
    printed = await qgjob(grid, "jobs", "why", "1", QGJOB_OUTPUT="table", COLUMNS="40")
    assert printed == (
        "Job 1 (queued)\nNo device is known; start an agent with\n`qgjob-agent run`. It is the first in\nline.\n"
    )


async def test_what_an_operator_holds_is_named_over_the_wire(grid: HttpGrid) -> None:
    await grid.agent().hello(phone())
    held = device_service_pb2.QuarantineDeviceRequest(device_id="phone-1", reason="a cracked screen")
    await grid.devices.QuarantineDevice(held)
    await grid.submit(spec("a"))
    assert (await why(grid, 1))["reason"] == "quarantined"


async def test_waiting_job_and_queue_tell_when_they_are_expected_to_be_done(grid: HttpGrid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    await grid.submit(spec("a"))
    await agent.lease()
    await grid.submit(spec("b", app_version_id="other"))
    explained = await why(grid, 2)
    listed = resources.job((await grid.jobs.ListJobs(job_service_pb2.ListJobsRequest())).jobs[0])
    queue = resources.queue_status((await grid.queue.GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())).status)
    shown = resources.job(await grid.job(2))
    for job in (listed, shown, queue["waiting"][0]):
        assert job["create_time"] < job["expected_start_time"] < queue["expected_drain_time"]
    assert explained["queue_position"] == shown["queue_position"] == 1
    assert queue["devices"] in ({"reserved": 1}, {"leased": 1})
    assert [(one["device"], one["jobs_left"]) for one in queue["batches"]] == [("phone-1", 1)]


async def test_unknown_job_has_no_explanation(grid: HttpGrid) -> None:
    code, sentence, _ = await refusal(grid.jobs.ExplainJob(job_service_pb2.ExplainJobRequest(job_id=7)))
    assert (code, "job 7" in sentence) == (grpc.StatusCode.NOT_FOUND, True)
    assert (await grid.web.get("/jobs/7/why")).status_code == 404
