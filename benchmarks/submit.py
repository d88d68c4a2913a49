"""Measures durable submits of one job each, beside a bare echo of the same message.

python -m benchmarks submit [--rounds N] [--json]

The coordinator runs in a process of its own with its defaults: SQLite that syncs every commit, the real scheduler.
Each submit bears an idempotency key, as those of our client do.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from benchmarks.bare import SUBMIT, bare_server
from benchmarks.rounds import interleaved, ratio, spread
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse
from tests.e2e.grid import PATIENT, running_grid

IN_FLIGHT = (32, 128)
ROUNDS = 5
ROUND_S = 1.5
"""How long a contender submits in a round."""
METHOD = "/qgjob.v1.JobService/SubmitJobs"

_numbers = itertools.count(1)


def a_submit() -> SubmitJobsRequest:
    """Return a submit that nobody has made yet."""
    number = next(_numbers)
    spec = JobSpec(
        org_id="qualgent",
        app_version_id=f"build-{number // 100}",
        test=f"tests/spec-{number % 100}.spec.ts",
        priority=3,
        target=TARGET_EMULATOR,
        env={"LOCALE": "de"},
    )
    return SubmitJobsRequest(jobs=[spec], request_id=f"key-{number}")


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    metrics: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, running_grid(Path(folder)) as grid, bare_server() as bare:
        grid.coordinator(*PATIENT)
        for in_flight in IN_FLIGHT:
            contenders = {
                "qgjob": partial(_rate, grid.address, METHOD, SubmitJobsResponse, in_flight),
                "bare": partial(_rate, bare, SUBMIT, SubmitJobsRequest, in_flight),
            }
            samples = interleaved(contenders, rounds, is_telling=is_telling)
            metrics |= {f"{name}_per_s_{in_flight}": spread(rates) for name, rates in samples.items()}
            ratios[f"submit_over_bare_echo_{in_flight}"] = ratio(samples["qgjob"], samples["bare"])
    return metrics, ratios


def _rate(address: str, method: str, answer: type[Message], in_flight: int) -> float:
    return asyncio.run(_submit(address, method, answer, in_flight))


async def _submit(address: str, method: str, answer: type[Message], in_flight: int) -> float:
    """Return the submits a second."""
    async with grpc.aio.insecure_channel(address) as channel:
        send = channel.unary_unary(method, SubmitJobsRequest.SerializeToString, answer.FromString)

        async def submit() -> None:
            told = await send(a_submit())
            assert len(told.jobs) == 1

        return await rate(submit, in_flight, ROUND_S)


async def rate(call: Callable[[], Awaitable[None]], in_flight: int, seconds: float) -> float:
    """Return how often a second a call is answered of which so many are under way at any time."""
    answered = 0
    began_s = time.perf_counter()
    end_s = began_s + seconds

    async def repeat() -> None:
        nonlocal answered
        while time.perf_counter() < end_s:
            await call()
            answered += 1

    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    return answered / (time.perf_counter() - began_s)
