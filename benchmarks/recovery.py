"""Measures how soon a coordinator that was killed in the middle of its work goes on.

python -m benchmarks recovery [--rounds N] [--json]

100 agents are at work on a queue, kill -9 takes the coordinator, and it is started again at once on its data. What
counts is when it is ready, when the first job ends after that, and that every job ends in the end.
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

import grpc

from benchmarks.crowd import crowd
from benchmarks.recorded import completed_in_sqlite, wait_for
from benchmarks.rounds import spread
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.job_service_pb2_grpc import JobServiceStub
from tests.e2e.grid import Grid, Program, running_grid

AGENTS = 100
JOBS = 1_200
BEFORE = 300
"""So many jobs have ended when the coordinator is killed."""
ROUNDS = 3
PATIENCE_S = 120
STEADY = ("--heartbeat", "1", "--lease-ttl", "15")
MOST_S = 20
"""What reliability promises: agents know of a dead link within that, and are back."""

_numbers = itertools.count(1)


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    taken: dict[str, list[float]] = {"ready_s": [], "first_job_s": [], "all_jobs_s": []}
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        coordinator = grid.coordinator(*STEADY)
        stack.enter_context(crowd(grid.address, AGENTS))
        for _ in range(rounds):
            coordinator, spans = _kill(grid, coordinator)
            for name, took_s in spans.items():
                taken[name].append(took_s)
            if is_telling:
                print(spans)
    metrics: dict[str, Any] = {name: spread(spans) for name, spans in taken.items()}
    return metrics, {"first_job_over_promise": round(metrics["first_job_s"]["median"] / MOST_S, 2)}


def _kill(grid: Grid, coordinator: Program) -> tuple[Program, dict[str, float]]:
    """Kill the coordinator under load; return the next one, and how long after the kill each thing was so."""
    count = partial(completed_in_sqlite, grid.directory / "coordinator")
    before = count()
    asyncio.run(_submit(grid.address))
    wait_for(count, before + BEFORE, PATIENCE_S)
    coordinator.kill()
    ended = count()
    began_s = time.perf_counter()
    restarted = grid.coordinator(*STEADY)
    ready_s = time.perf_counter() - began_s
    wait_for(count, ended + 1, PATIENCE_S)
    first_s = time.perf_counter() - began_s
    wait_for(count, before + JOBS, PATIENCE_S)
    all_s = time.perf_counter() - began_s
    return restarted, {"ready_s": ready_s, "first_job_s": first_s, "all_jobs_s": all_s}


async def _submit(address: str) -> None:
    number = next(_numbers)
    specs = [
        JobSpec(
            org_id="acme",
            app_version_id=f"round-{number}-{index // 50}",
            test=f"tests/{index}.spec.ts",
            priority=3,
            target=TARGET_EMULATOR,
        )
        for index in range(JOBS)
    ]
    async with grpc.aio.insecure_channel(address) as channel:
        await JobServiceStub(channel).SubmitJobs(SubmitJobsRequest(jobs=specs, request_id=f"round-{number}"))
