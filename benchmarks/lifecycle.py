"""Measures jobs a second from submit to recorded result, with 200 simulated agents, beside Celery end to end.

python -m benchmarks lifecycle [--rounds N] [--json]

Installs and tests take no time; each job writes 20 lines of log. Both sides are sent calls of 50 jobs.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from sqlalchemy import Engine, create_engine

from benchmarks.classic.stack import Classic, classic_stack
from benchmarks.crowd import crowd
from benchmarks.recorded import completed_in_postgresql, completed_in_sqlite, wait_for
from benchmarks.rounds import interleaved, processor_s, ratio, spread
from benchmarks.submit import as_json
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.job_service_pb2_grpc import JobServiceStub
from tests.e2e.grid import Grid, running_grid

AGENTS = 200
JOBS, CELERY_JOBS = 1_000, 300
"""In a round: about as long a time for each side."""
A_CALL = 50
IN_FLIGHT = 4
WORKERS = 8
"""Of Celery. Two would do for two cores, but each waits for the disk twice a job."""
ROUNDS = 3
PATIENCE_S = 120
STEADY = ("--heartbeat", "5", "--lease-ttl", "60")
"""Busy as the machine is, no lease shall run out."""

_numbers = itertools.count(1)


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        coordinator = grid.coordinator(*STEADY).process
        assert coordinator is not None
        stack.enter_context(crowd(grid.address, AGENTS))
        celery = {
            "celery": stack.enter_context(classic_stack(fsync="always", workers=WORKERS)),
            "celery_plain_redis": stack.enter_context(classic_stack(fsync="everysec", workers=WORKERS)),
        }
        used_s = processor_s(coordinator.pid)
        contenders = {"qgjob": partial(_rate, grid)}
        contenders |= {
            name: partial(_celery_rate, classic, create_engine(classic.database)) for name, classic in celery.items()
        }
        samples = interleaved(contenders, rounds, is_telling=is_telling)
        used_s = processor_s(coordinator.pid) - used_s
    metrics: dict[str, Any] = {f"{name}_jobs_per_s": spread(rates) for name, rates in samples.items()}
    metrics["qgjob_processor_us_a_job"] = round(used_s / ((rounds + 1) * JOBS) * 1e6)
    return metrics, {
        "lifecycle_over_celery": ratio(samples["qgjob"], samples["celery"]),
        "lifecycle_over_celery_plain_redis": ratio(samples["qgjob"], samples["celery_plain_redis"]),
    }


def _calls(jobs: int) -> list[SubmitJobsRequest]:
    return [_call(next(_numbers)) for _ in range(jobs // A_CALL)]


def _call(number: int) -> SubmitJobsRequest:
    specs = [
        JobSpec(
            org_id="qualgent",
            app_version_id=f"build-{number}",
            test=f"tests/spec-{index}.spec.ts",
            priority=3,
            target=TARGET_EMULATOR,
            env={"QGJOB_SIM_LOG_LINES": "20"},
        )
        for index in range(A_CALL)
    ]
    return SubmitJobsRequest(jobs=specs, request_id=f"call-{number}")


def _rate(grid: Grid) -> float:
    count = partial(completed_in_sqlite, grid.directory / "coordinator")
    before = count()
    began_s = time.perf_counter()
    asyncio.run(_submit(grid.address))
    wait_for(count, before + JOBS, PATIENCE_S)
    return JOBS / (time.perf_counter() - began_s)


async def _submit(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = JobServiceStub(channel)
        left = iter(_calls(JOBS))

        async def work() -> None:
            for call in left:
                await stub.SubmitJobs(call)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def _celery_rate(classic: Classic, database: Engine) -> float:
    count = partial(completed_in_postgresql, database)
    before = count()
    began_s = time.perf_counter()
    asyncio.run(_submit_classic(classic.url))
    wait_for(count, before + CELERY_JOBS, PATIENCE_S)
    return CELERY_JOBS / (time.perf_counter() - began_s)


async def _submit_classic(url: str) -> None:
    async with aiohttp.ClientSession(url) as client:
        left = iter(_calls(CELERY_JOBS))

        async def work() -> None:
            for call in left:
                async with client.post("/jobs/submit", json=as_json(call)) as answer:
                    assert answer.status == 201, await answer.text()

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
