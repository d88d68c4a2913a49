"""Measures how long a line takes from its writing by an agent to its arrival at a follower.

The agent's spool and uploader, the coordinator's log service on a disk, and the client's followers each run in a
process of their own, over loopback. Quiet logs write a line now and then: what they wait for is the way alone. Chatty
logs write a hundred lines a second, which share the syncs of the disk, and wait for the next of those too. Quiet logs
are measured once more as `qgjob logs --follow` writes them to a pipe.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from agent.core.model import AttemptId, Fence, LeaseId, LeaseKey
from agent.spool import Spool
from agent.uploader import Uploader
from benchmarks.figures import quantile
from coordinator.changes import Changes
from coordinator.core.model import JobId, SubmitSequence
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease
from coordinator.logstore import LogStore
from coordinator.server import OPTIONS
from coordinator.services.log import LogService
from coordinator.space import Space
from coordinator.storage import Directory
from coordinator.storage.directory import SYNC_INTERVAL_S
from coordinator.store import Store
from qgjob.client import Client
from qgjob.v1 import log_service_pb2_grpc
from qgjob.v1.job_pb2 import LOG_STATE_OPEN
from tests.e2e.grid import BIN
from tests.store.records import a_device, a_job, a_lease, an_attempt

MOST_P50_MS, MOST_P99_MS = 20.0, 100.0
"""What is promised beyond the interval of syncs."""
KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))
LIMIT_S = 120
"""For all; it takes a fifth of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Logs that are written at the same time, with these pauses between lines."""

    logs: int
    lines: int
    least_pause_s: float
    most_pause_s: float


LOADS = {
    # Longer apart than the interval, so that no line waits for it.
    "quiet": Load(logs=6, lines=60, least_pause_s=0.12, most_pause_s=0.2),
    "chatty": Load(logs=4, lines=500, least_pause_s=0.008, most_pause_s=0.012),
    "command": Load(logs=4, lines=60, least_pause_s=0.12, most_pause_s=0.2),
}


def run(is_talkative: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Measure; return the metrics, and their ratios to what is promised."""
    metrics: dict[str, float] = {"sync_interval_ms": SYNC_INTERVAL_S * 1_000}
    for name, load in LOADS.items():
        delays_us = asyncio.run(_measure(name, load))
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            metrics[f"{name}_{label}_ms"] = round(quantile(delays_us, share) / 1_000, 1)
        metrics[f"{name}_lines"] = len(delays_us)
        if is_talkative:
            print(f"{name}: p50 {metrics[f'{name}_p50_ms']} ms, p99 {metrics[f'{name}_p99_ms']} ms")
    ratios = {
        "quiet_p50_over_promise": round(metrics["quiet_p50_ms"] / MOST_P50_MS, 2),
        "quiet_p99_over_promise": round(metrics["quiet_p99_ms"] / MOST_P99_MS, 2),
        "command_p50_over_promise": round(metrics["command_p50_ms"] / MOST_P50_MS, 2),
        "command_p99_over_promise": round(metrics["command_p99_ms"] / MOST_P99_MS, 2),
        "chatty_p50_over_promise": round(metrics["chatty_p50_ms"] / (SYNC_INTERVAL_S * 1_000 + MOST_P50_MS), 2),
        "chatty_p99_over_promise": round(metrics["chatty_p99_ms"] / (SYNC_INTERVAL_S * 1_000 + MOST_P99_MS), 2),
    }
    return metrics, ratios


async def _measure(name: str, load: Load) -> list[int]:
    """Return how long each line took, in microseconds."""
    async with asyncio.timeout(LIMIT_S):
        return await _delays_us(name, load)


async def _delays_us(name: str, load: Load) -> list[int]:
    with tempfile.TemporaryDirectory() as directory:
        what = "show" if name == "command" else "read"
        async with _serving(Path(directory), load.logs) as port, _child(what, name, port) as reader:
            assert reader.stdout is not None
            assert (await reader.stdout.readline()).strip() == b"following"
            async with _child("write", name, port) as writer:
                delays = json.loads(await reader.stdout.readline())
                assert await writer.wait() == 0
            return [int(delay) for delay in delays]


@asynccontextmanager
async def _serving(directory: Path, logs: int) -> AsyncIterator[int]:
    store = Store.open(f"sqlite:///{directory}/logs.db")
    store.start_epoch()
    store.commit([PutDevice(a_device()), PutLease(a_lease())])
    for number in range(1, logs + 1):
        job = replace(a_job(), id=JobId(number), sequence=SubmitSequence(number), attempt_count=1)
        attempt = replace(an_attempt(number, job=number, of_job=1), start_us=1)
        store.commit([PutJob(job), PutAttempt(attempt)])
    log_store = LogStore(Directory(directory), store)
    server = grpc.aio.server(options=OPTIONS)
    service = LogService(store, log_store, Changes(), Space(directory, min_free=0))
    log_service_pb2_grpc.add_LogServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
        await log_store.close()
        store.close()


@asynccontextmanager
async def _child(what: str, name: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "benchmarks.follow", what, name, str(port))
    # A line of its output holds all that it has measured.
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, limit=16 * 1_024 * 1_024)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def write(load: Load, port: int) -> None:
    """Be an agent whose tests write lines; each says when it was written."""
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            uploader = Uploader(spool, lambda: channel)
            uploading = asyncio.create_task(uploader.run())
            await asyncio.gather(*(_write_log(spool, uploader, load, number + 1) for number in range(load.logs)))
            await uploader.flushed()
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
        spool.close()


async def _write_log(spool: Spool, uploader: Uploader, load: Load, number: int) -> None:
    attempt, pauses = AttemptId(number), random.Random(number)
    writer = spool.open_log(attempt, KEY)
    for _ in range(load.lines):
        await asyncio.sleep(pauses.uniform(load.least_pause_s, load.most_pause_s))
        # This clock is the same in all processes of a machine.
        writer.append(b"%d\n" % time.monotonic_ns())
        uploader.note(attempt)
    spool.end_log(attempt, writer)
    uploader.note(attempt)


def read(load: Load, port: int) -> None:
    """Follow all logs, and tell how long each line took."""
    delays_us: list[int] = []
    is_begun = threading.Semaphore(0)

    def follow(job: int) -> None:
        rest = b""
        for piece in client.follow_logs(job):
            now_ns = time.monotonic_ns()
            if piece.state == LOG_STATE_OPEN:
                is_begun.release()
                continue
            if piece.state is not None:
                return  # the log is whole; its job, which nobody ends here, is not waited for
            *lines, rest = (rest + piece.data).split(b"\n")
            delays_us.extend((now_ns - int(line)) // 1_000 for line in lines)

    with Client(f"127.0.0.1:{port}") as client:
        threads = [threading.Thread(target=follow, args=(job,), daemon=True) for job in range(1, load.logs + 1)]
        for thread in threads:
            thread.start()
        for _ in threads:
            is_begun.acquire()
        print("following", flush=True)
        for thread in threads:
            thread.join()
    assert len(delays_us) == load.logs * load.lines, f"{len(delays_us)} lines came"
    print(json.dumps(delays_us), flush=True)


def show(load: Load, port: int) -> None:
    """Read what the command prints of all logs, and tell how long each line took to come out of it.

    Nothing tells that a command has begun but its first line. So what was written before the first lines of all had
    come waited for their start, and is left out.
    """
    came: list[list[tuple[int, int]]] = [[] for _ in range(load.logs)]

    def take(process: subprocess.Popen[bytes], lines: list[tuple[int, int]]) -> None:
        assert process.stdout is not None
        for _ in range(load.lines):
            written = int(process.stdout.readline())
            lines.append((written, time.monotonic_ns()))

    with ExitStack() as commands:
        threads = []
        for job, lines in enumerate(came, 1):
            command = (str(BIN / "qgjob"), "--coordinator", f"127.0.0.1:{port}", "logs", str(job), "--follow")
            process = commands.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            commands.callback(process.kill)  # it waits for the end of a job that nobody ends here
            threads.append(threading.Thread(target=take, args=(process, lines), daemon=True))
            threads[-1].start()
        print("following", flush=True)
        for thread in threads:
            thread.join()
    begun_ns = max(lines[0][1] for lines in came)
    delays_us = [(now - written) // 1_000 for lines in came for written, now in lines if written > begun_ns]
    assert len(delays_us) > load.logs * load.lines // 2, f"{len(delays_us)} lines came after the commands had begun"
    print(json.dumps(delays_us), flush=True)


if __name__ == "__main__":
    _, what, name, port = sys.argv
    if what == "write":
        asyncio.run(write(LOADS[name], int(port)))
    else:
        {"read": read, "show": show}[what](LOADS[name], int(port))
