"""Measures durable submits of one job each, beside a bare echo of the same message and the classic stack.

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
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from benchmarks.bare import SUBMIT, bare_server
from benchmarks.classic.stack import classic_stack
from benchmarks.rounds import interleaved, processor_s, ratio, spread
from qgjob.v1.job_pb2 import TARGET_EMULATOR, JobSpec
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse
from tests.e2e.grid import PATIENT, running_grid

IN_FLIGHT = (32, 128)
ROUNDS = 3
ROUND_S = 1.0
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
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        bare = stack.enter_context(bare_server())
        plain = stack.enter_context(classic_stack(fsync="everysec"))
        durable = stack.enter_context(classic_stack(fsync="always"))
        coordinator = grid.coordinator(*PATIENT).process
        assert coordinator is not None
        ours = Server(grid.address, coordinator.pid, METHOD, SubmitJobsResponse.FromString)
        ceiling = Server(bare.address, bare.pid, SUBMIT, SubmitJobsRequest.FromString)
        for in_flight in IN_FLIGHT:
            contenders = {
                "qgjob": partial(ours.rate, in_flight),
                "bare": partial(ceiling.rate, in_flight),
                "classic": partial(_classic_rate, durable.url, in_flight),
                "classic_plain_redis": partial(_classic_rate, plain.url, in_flight),
            }
            samples = interleaved(contenders, rounds, is_telling=is_telling)
            metrics |= {f"{name}_per_s_{in_flight}": spread(rates) for name, rates in samples.items()}
            ratios |= {
                f"submit_over_bare_echo_{in_flight}": ratio(samples["qgjob"], samples["bare"]),
                f"submit_over_classic_{in_flight}": ratio(samples["qgjob"], samples["classic"]),
                f"submit_over_classic_plain_redis_{in_flight}": ratio(samples["qgjob"], samples["classic_plain_redis"]),
            }
        metrics |= {"qgjob_processor_us": ours.processor_us(), "bare_processor_us": ceiling.processor_us()}
    return metrics, ratios


WithJobs = SubmitJobsResponse | SubmitJobsRequest
"""What answers a submit: jobs, or the request itself from who only echoes."""


class Server:
    """A gRPC server that takes submits."""

    def __init__(self, address: str, pid: int, method: str, read: Callable[[bytes], WithJobs]) -> None:
        self._address = address
        self._pid = pid
        self._method = method
        self._read = read
        self._answered = 0
        self._used_s = processor_s(pid)

    def rate(self, in_flight: int) -> float:
        """Return the submits a second."""
        return asyncio.run(self._submit(in_flight))

    def processor_us(self) -> float:
        """Return the processor time that the server has used for a submit."""
        return round((processor_s(self._pid) - self._used_s) / self._answered * 1e6)

    async def _submit(self, in_flight: int) -> float:
        async with grpc.aio.insecure_channel(self._address) as channel:
            send = channel.unary_unary(self._method, SubmitJobsRequest.SerializeToString, self._read)

            async def submit() -> None:
                told = await send(a_submit())
                assert len(told.jobs) == 1
                self._answered += 1

            return await rate(submit, in_flight, ROUND_S)


def _classic_rate(url: str, in_flight: int) -> float:
    return asyncio.run(_submit_classic(url, in_flight))


async def _submit_classic(url: str, in_flight: int) -> float:
    """Return the submits a second of the same jobs to the classic stack."""
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=in_flight)) as client:

        async def submit() -> None:
            async with client.post("/jobs/submit", json=as_json(a_submit())) as answer:
                told = await answer.json()
                assert answer.status == 201, told
                assert len(told) == 1

        return await rate(submit, in_flight, ROUND_S)


def as_json(submit: SubmitJobsRequest) -> dict[str, Any]:
    """Return a submit as the API of the classic stack takes it."""
    specs = [
        {
            "app_version_id": spec.app_version_id,
            "test": spec.test,
            "priority": spec.priority,
            "target": "emulator",
            "env": dict(spec.env),
        }
        for spec in submit.jobs
    ]
    return {"org_id": submit.jobs[0].org_id, "jobs": specs, "request_id": submit.request_id}


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
