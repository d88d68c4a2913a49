"""Measures submits of 1,000 jobs a call, beside bare SQLite inserts of the same rows.

python -m benchmarks submit_batch [--rounds N] [--json]
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from benchmarks.rounds import interleaved, processor_s, ratio, spread
from benchmarks.store import bare_database, insert_rows, jobs
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.job_service_pb2_grpc import JobServiceStub
from tests.e2e.grid import PATIENT, running_grid

BATCH = 1_000
CALLS = 10
"""Of each contender in a round."""
IN_FLIGHT = 2
"""So that one call is read while another is committed, as from two builds of a CI."""
ROUNDS = 5
LEAST_PER_S = 12_000
"""What is promised."""

_numbers = itertools.count(1)


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, running_grid(Path(folder, "grid")) as grid:
        coordinator = grid.coordinator(*PATIENT).process
        assert coordinator is not None
        used_s = processor_s(coordinator.pid)
        with closing(bare_database(Path(folder))) as bare:
            contenders: dict[str, Callable[[], float]] = {
                "qgjob": lambda: asyncio.run(_submit(grid.address)),
                "bare_sqlite": partial(_insert, bare),
            }
            samples = interleaved(contenders, rounds, is_telling=is_telling)
        used_s = processor_s(coordinator.pid) - used_s
    metrics: dict[str, Any] = {f"{name}_jobs_per_s": spread(rates) for name, rates in samples.items()}
    metrics["qgjob_processor_us_a_job"] = round(used_s / ((rounds + 1) * CALLS * BATCH) * 1e6, 1)
    ours = metrics["qgjob_jobs_per_s"]["median"]
    return metrics, {
        "submit_batch_over_bare_sqlite": ratio(samples["qgjob"], samples["bare_sqlite"]),
        "submit_batch_over_promise": round(ours / LEAST_PER_S, 2),
    }


async def _submit(address: str) -> float:
    """Return the jobs a second."""
    calls = [_request() for _ in range(CALLS)]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = JobServiceStub(channel)
        left = iter(calls)

        async def work() -> None:
            for request in left:
                answer = await stub.SubmitJobs(request)
                assert len(answer.jobs) == BATCH

        began_s = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return CALLS * BATCH / (time.perf_counter() - began_s)


def _request() -> SubmitJobsRequest:
    number = next(_numbers)
    specs = [
        JobSpec(
            org_id="acme",
            app_version_id=f"build-{number}",
            test=f"tests/spec{index}.ts",
            target=TARGET_EMULATOR,
            env={"LOCALE": "de"},
            run="nightly",
        )
        for index in range(BATCH)
    ]
    return SubmitJobsRequest(jobs=specs, request_id=f"batch-{number}")


def _insert(database: sqlite3.Connection) -> float:
    """Return the rows a second, each thousand in a transaction of its own."""
    taken_s = 0.0
    for _ in range(CALLS):
        first = next(_numbers) * BATCH
        taken_s += insert_rows(database, jobs(first, BATCH, labels=False))
    return CALLS * BATCH / taken_s
