"""Measures how long it takes in an idle lab from the submit call to the agent's start of the job.

python -m benchmarks dispatch [--rounds N] [--json]

Beside it stand a bare stream's round trip, and the same from the call of the classic stack's API to the start of the
task by a Celery worker. The agent is a real one with a simulated device, with its spool on the disk.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from benchmarks.bare import CONVERSE, bare_server
from benchmarks.classic.records import NOTE
from benchmarks.classic.stack import Classic, classic_stack
from benchmarks.rounds import shares
from benchmarks.submit import as_json
from qgjob.v1.agent_service_pb2 import ConnectRequest, LeaseAdopted
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.job_service_pb2_grpc import JobServiceStub
from tests.e2e.grid import PATIENT, Grid, running_grid

ROUNDS = 8
SAMPLES = 15
"""Of each contender in a round."""
PAUSE_S = 0.03
"""After each job has ended, so that the lab is idle again."""
PATIENCE_S = 20.0
LOOK_S = 0.005
"""Between two looks whether a job has begun. When it did it has said itself."""
SIMULATED = ("--simulate", "emulator=1", "--sim-install-seconds", "0", "--sim-test-seconds", "0")


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        grid = stack.enter_context(running_grid(folder / "grid"))
        grid.coordinator(*PATIENT)
        grid.agent("lab", *SIMULATED)
        bare = stack.enter_context(bare_server())
        plain = stack.enter_context(classic_stack(fsync="everysec", workers=1))
        durable = stack.enter_context(classic_stack(fsync="always", workers=1))
        contenders: dict[str, Callable[[], list[float]]] = {
            "qgjob": partial(_dispatches, grid),
            "bare_round_trip": lambda: asyncio.run(_round_trips(bare.address)),
            "celery": partial(_celery_dispatches, durable, folder / "always"),
            "celery_plain_redis": partial(_celery_dispatches, plain, folder / "everysec"),
        }
        samples = {name: contend()[:0] for name, contend in contenders.items()}  # what is cold is forgotten
        for number in range(rounds):
            for name in list(contenders) if number % 2 == 0 else list(reversed(contenders)):
                samples[name] += contenders[name]()
    metrics = {f"{name}_ms": shares([1_000 * one for one in taken]) for name, taken in samples.items()}
    ours, trip = metrics["qgjob_ms"], metrics["bare_round_trip_ms"]["p50"]
    if is_telling:
        print(metrics)
    return metrics, {
        "dispatch_p50_over_round_trip": round(ours["p50"] / trip, 1),
        "dispatch_p99_over_round_trip": round(ours["p99"] / trip, 1),
        "dispatch_p50_over_celery": round(ours["p50"] / metrics["celery_ms"]["p50"], 3),
        "dispatch_p50_over_celery_plain_redis": round(ours["p50"] / metrics["celery_plain_redis_ms"]["p50"], 3),
    }


def _a_job(**env: str) -> SubmitJobsRequest:
    spec = JobSpec(
        org_id="acme", app_version_id="v1", test="tests/login.spec.ts", priority=3, target=TARGET_EMULATOR, env=env
    )
    return SubmitJobsRequest(jobs=[spec], request_id=f"key-{time.monotonic_ns()}")


def _dispatches(grid: Grid) -> list[float]:
    return asyncio.run(_dispatch(grid))


async def _dispatch(grid: Grid) -> list[float]:
    """Return how long some jobs took to start, one after the other."""
    truth = grid.directory / "agent-lab" / "device-truth.jsonl"
    taken = []
    async with grpc.aio.insecure_channel(grid.address) as channel:
        stub = JobServiceStub(channel)
        for _ in range(SAMPLES):
            already = _starts(truth)
            began_s = time.time()
            await stub.SubmitJobs(_a_job())
            taken.append(await _next_start(truth, _starts, len(already)) - began_s)
            await asyncio.sleep(PAUSE_S)
    return taken


def _starts(truth: Path) -> list[float]:
    """Return when tests began, of which there are as many ends once the last is over."""
    events = [json.loads(line) for line in truth.read_text().splitlines()]
    starts = [event["t"] for event in events if event["event"] == "start"]
    return starts[: sum(event["event"] == "end" for event in events)]


async def _next_start(path: Path, read: Callable[[Path], list[float]], already: int) -> float:
    end_s = time.monotonic() + PATIENCE_S
    while len(starts := read(path)) <= already:
        assert time.monotonic() < end_s, "a job did not start"
        await asyncio.sleep(LOOK_S)
    return starts[-1]


async def _round_trips(address: str) -> list[float]:
    """Return how long a small message takes over an open stream and back."""
    message = ConnectRequest(lease_adopted=LeaseAdopted())
    taken = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(CONVERSE, ConnectRequest.SerializeToString, ConnectRequest.FromString)()
        for _ in range(SAMPLES):
            began_s = time.perf_counter()
            await call.write(message)
            await call.read()
            taken.append(time.perf_counter() - began_s)
            await asyncio.sleep(PAUSE_S)
        call.cancel()
    return taken[1:]


def _celery_dispatches(classic: Classic, notes: Path) -> list[float]:
    notes.touch()
    return asyncio.run(_celery_dispatch(classic, notes))


async def _celery_dispatch(classic: Classic, notes: Path) -> list[float]:
    taken = []
    async with aiohttp.ClientSession(classic.url) as client:
        for _ in range(SAMPLES):
            already = _noted(notes)
            began_s = time.time()
            async with client.post("/jobs/submit", json=as_json(_a_job(**{NOTE: str(notes)}))) as answer:
                assert answer.status == 201, await answer.text()
            taken.append(await _next_start(notes, _noted, len(already)) - began_s)
            await asyncio.sleep(PAUSE_S)
    return taken


def _noted(notes: Path) -> list[float]:
    return [float(line.split()[1]) for line in notes.read_text().splitlines()]
