"""Measures a coordinator with 10,000 connected agents of 4 devices each and 1,000,000 queued jobs.

python -m benchmarks scale [--agents N] [--jobs N] [--json]

The queued jobs want devices that nobody has, so they stay; the rows are written before the coordinator starts. Beside
them 210 jobs a second come for devices that are free, and each notes how long it took from its submit to its start by
an agent. Agents run in processes of their own, with heartbeats each 5 s. Meanwhile the health of the coordinator is
asked for each 20 ms: the longest answer is the longest pause of its loop, or of the machine. Which of them is full is
told by the shares of a processor: of the coordinator, of its loop alone, and of the agents.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.crowd import SENT_NS, crowd
from benchmarks.recorded import completed_in_sqlite, wait_for
from benchmarks.rounds import loop_s, processor_s, shares
from benchmarks.store import jobs as made_jobs
from coordinator.config import DATABASE
from coordinator.core.model import Job, Target
from coordinator.core.step import PutCounters, PutJob
from coordinator.store import Store
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    from qgjob.v1.job_service_pb2_grpc import JobServiceAsyncStub
from tests.e2e.grid import Grid, Program, running_grid

AGENTS, DEVICES, JOBS = 10_000, 4, 1_000_000
PROCESSES = 4
ORGS = 20
"""Organisations of the queued jobs, each below its limit."""
A_FAMILY = 100
INSERTS = 20_000
"""Rows in a transaction."""
A_SECOND, SECONDS = 210, 15
"""Jobs that come, and for how long: a little more than is promised, for what comes faster than it can go only waits."""
PATIENCE_S = 300
PROBE_S = 0.02
STEADY = ("--heartbeat", "5", "--lease-ttl", "60")
MOST_GB, LEAST_GRANTS, MOST_P99_MS, MOST_CONNECT_S, MOST_READY_S = 2.5, 200, 50, 30, 45
"""What is promised."""


def run(is_telling: bool, agents: int = AGENTS, jobs: int = JOBS) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, running_grid(Path(folder, "grid")) as grid:
        data = grid.directory / "coordinator"
        metrics: dict[str, Any] = {"agents": agents, "devices": agents * DEVICES, "queued_jobs": jobs}
        metrics["insert_s"] = _seconds(lambda: _fill(data, jobs))
        _tell(metrics, is_telling=is_telling)
        began_s = time.perf_counter()
        coordinator = grid.coordinator(*STEADY)
        metrics["start_s"] = round(time.perf_counter() - began_s, 1)
        metrics["resident_gb_queued"] = _resident_gb(coordinator)
        _tell(metrics, is_telling=is_telling)
        began_s = time.perf_counter()
        with crowd(grid.address, agents, devices=DEVICES, processes=PROCESSES, notes=Path(folder)) as crowded:
            metrics["connect_s"] = round(time.perf_counter() - began_s, 1)
            _tell(metrics, is_telling=is_telling)
            metrics |= _dispatch(grid, coordinator, crowded, Path(folder))
            metrics["resident_gb"] = _resident_gb(coordinator)
            _tell(metrics, is_telling=is_telling)
            coordinator.kill()
            metrics["restart_s"] = _seconds(lambda: grid.coordinator(*STEADY))
            _tell(metrics, is_telling=is_telling)
    p99_ms = metrics["dispatch_ms"]["p99"]
    return metrics, {
        "resident_over_promise": round(metrics["resident_gb"] / MOST_GB, 2),
        "grants_over_promise": round(metrics["grants_per_s"] / LEAST_GRANTS, 2),
        "dispatch_p99_over_promise": round(p99_ms / MOST_P99_MS, 2),
        "connect_over_promise": round(metrics["connect_s"] / MOST_CONNECT_S, 2),
        "restart_over_promise": round(metrics["restart_s"] / MOST_READY_S, 2),
    }


def _tell(metrics: dict[str, Any], *, is_telling: bool) -> None:
    """Tell how far it has come."""
    if is_telling:
        print(metrics, file=sys.stderr)


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return round(time.perf_counter() - began_s, 1)


def _fill(data: Path, count: int) -> None:
    """Write the rows of queued jobs, and that their ids are taken."""
    data.mkdir(parents=True)
    with closing(Store.open(f"sqlite:///{data / DATABASE}")) as store:
        counters = store.start_epoch()
        for first in range(1, count + 1, INSERTS):
            written = made_jobs(first, min(INSERTS, count + 1 - first), labels=False)
            store.commit([PutJob(_queued(job)) for job in written])
        store.commit([PutCounters(replace(counters, next_job=count + 1, next_sequence=count + 1))])


def _queued(job: Job) -> Job:
    family = job.id // A_FAMILY
    spec = replace(
        job.spec,
        org_id=f"org-{family % ORGS}",
        app_version_id=f"build-{family}",
        target=Target.DEVICE,
        priority=1 + job.id % 5,
    )
    return replace(job, spec=spec)


def _resident_gb(coordinator: Program) -> float:
    assert coordinator.process is not None
    status = Path(f"/proc/{coordinator.process.pid}/status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1_024**2, 2)


def _dispatch(grid: Grid, coordinator: Program, agents: Sequence[int], notes: Path) -> dict[str, Any]:
    """Let jobs come for some time; return how fast they were given out, and what the loop did meanwhile."""
    assert coordinator.process is not None
    pid = coordinator.process.pid
    began_with = _used(pid, agents)
    began_s = time.perf_counter()
    pauses_ms = asyncio.run(_trickle(grid.address))
    wait_for(partial(completed_in_sqlite, grid.directory / "coordinator"), A_SECOND * SECONDS, PATIENCE_S)
    took_s = time.perf_counter() - began_s
    used = {name: round((s - began_with[name]) / took_s, 2) for name, s in _used(pid, agents).items()}
    taken_us = [int(line) for file in notes.glob("*.txt") for line in file.read_text().split()]
    assert len(taken_us) == A_SECOND * SECONDS, f"{len(taken_us)} jobs began"
    return {
        "grants_per_s": round(len(taken_us) / took_s),
        "dispatch_ms": shares([taken / 1_000 for taken in taken_us]),
        "answer_ms": shares(pauses_ms),
        "longest_answer_ms": round(max(pauses_ms), 1),
        **used,
    }


def _used(coordinator: int, agents: Sequence[int]) -> dict[str, float]:
    """Return the processor time of each side, and of the coordinator's loop alone: both share the processors here."""
    return {
        "processor_share": processor_s(coordinator),
        "loop_share": loop_s(coordinator),
        "agents_share": sum(map(processor_s, agents)),
    }


async def _trickle(address: str) -> list[float]:
    """Submit at a steady pace, whatever becomes of it; return how long the coordinator took to say that it is well."""
    async with grpc.aio.insecure_channel(address) as channel:
        probing = asyncio.create_task(_probe(channel))
        stub = JobServiceStub(channel)
        began_s = time.perf_counter()
        submits = []
        for number in range(A_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, began_s + number / A_SECOND - time.perf_counter()))
            submits.append(asyncio.create_task(_submit(stub, number)))
        await asyncio.gather(*submits)
        probing.cancel()
        (pauses,) = await asyncio.gather(probing)
        return pauses


async def _submit(stub: JobServiceAsyncStub, number: int) -> None:
    spec = JobSpec(
        org_id="qualgent",
        app_version_id=f"urgent-{number}",
        test="tests/login.spec.ts",
        priority=4,
        target=TARGET_EMULATOR,
        env={SENT_NS: str(time.monotonic_ns())},
    )
    await stub.SubmitJobs(SubmitJobsRequest(jobs=[spec], request_id=f"key-{number}"))


async def _probe(channel: grpc.aio.Channel) -> list[float]:
    """Ask for the health again and again until cancelled; return how long each answer took, in milliseconds."""
    # Its published types tell none of its methods.
    stub: Any = health_pb2_grpc.HealthStub(channel)
    taken_ms: list[float] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            began_s = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest())
            taken_ms.append(1_000 * (time.perf_counter() - began_s))
            await asyncio.sleep(PROBE_S)
    return taken_ms
