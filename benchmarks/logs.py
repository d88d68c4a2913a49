"""Measures the upload of logs beside a bare stream, and what 1,000 followers cost the one who writes.

python -m benchmarks logs [--rounds N] [--json]

The coordinator's log service runs on a disk and a database in a process of its own; what counts is when all is durable.
A bare stream takes the same messages in and forgets them. `follow` measures the time from a line to its follower.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import uvloop

from benchmarks.bare import APPEND, bare_server
from benchmarks.rounds import interleaved, ratio, spread
from coordinator.changes import Changes
from coordinator.core.model import JobId, SubmitSequence
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease
from coordinator.logstore import LogStore
from coordinator.server import OPTIONS
from coordinator.services.log import LogService
from coordinator.space import Space
from coordinator.storage import Directory
from coordinator.store import Store
from qgjob.v1.lease_pb2 import Fence, LeaseKey
from qgjob.v1.log_pb2 import LogChunk
from qgjob.v1.log_service_pb2 import AppendLogsRequest, AppendLogsResponse, FollowLogsRequest, LogFinished
from qgjob.v1.log_service_pb2_grpc import LogServiceStub, add_LogServiceServicer_to_server
from tests.store.records import a_device, a_job, a_lease, an_attempt

ROUNDS = 4
ONE_BYTES = 16 * 1_024 * 1_024
MANY, MANY_BYTES = 50, 512 * 1_024
"""Logs that are sent at once, each over a connection of its own."""
CHUNK_BYTES = 64 * 1_024
FOLLOWERS, READERS_PER_PROCESS = 1_000, 250
PIECES, PIECE_BYTES, PACE_S = 20, 2_048, 0.25
"""What the writer writes beside its followers: as a test does, 8 KB a second."""
ATTEMPTS = 2_000
"""That are known to the log service; each has one log."""
KEY = LeaseKey(lease_id=1, fence=Fence(epoch=1, number=1))
APPENDED = "/qgjob.v1.LogService/AppendLogs"

_attempts = itertools.count(1)


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    with ExitStack() as stack:
        ours = stack.enter_context(_served())
        bare = stack.enter_context(bare_server()).address
        contenders = {
            "one_log": partial(_rate, ours, APPENDED, 1, ONE_BYTES),
            "one_bare": partial(_rate, bare, APPEND, 1, ONE_BYTES),
            "fifty_logs": partial(_rate, ours, APPENDED, MANY, MANY_BYTES),
            "fifty_bare": partial(_rate, bare, APPEND, MANY, MANY_BYTES),
        }
        samples = interleaved(contenders, rounds, is_telling=is_telling)
        alone_ms, beside_ms = asyncio.run(_followed(ours))
    metrics: dict[str, Any] = {f"{name}_mb_per_s": spread(rates) for name, rates in samples.items()}
    metrics |= {"piece_alone_ms": spread(alone_ms), "piece_beside_followers_ms": spread(beside_ms)}
    return metrics, {
        "one_log_over_bare": ratio(samples["one_log"], samples["one_bare"]),
        "fifty_logs_over_bare": ratio(samples["fifty_logs"], samples["fifty_bare"]),
        "writer_beside_followers_over_alone": round(_writing_s(beside_ms) / _writing_s(alone_ms), 2),
    }


def _writing_s(pieces_ms: list[float]) -> float:
    """Return how long the writer took, which goes on at its pace or once the piece before is durable."""
    return sum(max(PACE_S, piece_ms / 1_000) for piece_ms in pieces_ms)


@contextmanager
def _served() -> Iterator[str]:
    """Run the log service in a process of its own, and yield its address."""
    command = (sys.executable, "-m", "benchmarks.logs", "serve")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


async def _serve() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{folder}/logs.db")
        store.start_epoch()
        store.commit([PutDevice(a_device()), PutLease(a_lease())])
        for number in range(1, ATTEMPTS + 1):
            job = replace(a_job(), id=JobId(number), sequence=SubmitSequence(number), attempt_count=1)
            attempt = replace(an_attempt(number, job=number, of_job=1), start_us=1)
            store.commit([PutJob(job), PutAttempt(attempt)])
        directory = Path(folder)
        server = grpc.aio.server(options=OPTIONS)
        logs = LogStore(Directory(directory), store)
        service = LogService(store, logs, Changes(), Space(directory, min_free=0))
        add_LogServiceServicer_to_server(service, server)
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        await server.start()
        await server.wait_for_termination()


def _rate(address: str, method: str, logs: int, size: int) -> float:
    return asyncio.run(_upload(address, method, logs, size))


async def _upload(address: str, method: str, logs: int, size: int) -> float:
    """Return the megabytes a second in which logs are sent until the last is whole."""
    data = bytes(CHUNK_BYTES)
    digest = hashlib.sha256(bytes(size)).hexdigest()
    began_s = time.perf_counter()
    await asyncio.gather(*(_send(address, method, next(_attempts), data, size, digest) for _ in range(logs)))
    return logs * size / (time.perf_counter() - began_s) / 1e6


async def _send(address: str, method: str, attempt: int, data: bytes, size: int, digest: str) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.stream_stream(method, AppendLogsRequest.SerializeToString, AppendLogsResponse.FromString)()

        async def write() -> None:
            for offset in range(0, size, len(data)):
                chunk = LogChunk(attempt_id=attempt, offset=offset, data=data)
                await call.write(AppendLogsRequest(key=KEY, chunk=chunk))
            end = LogFinished(attempt_id=attempt, size=size, sha256=digest)
            await call.write(AppendLogsRequest(key=KEY, finished=end))
            await call.done_writing()

        writing = asyncio.create_task(write())
        committed = 0
        while isinstance(answer := await call.read(), AppendLogsResponse):
            committed = answer.committed_size
        await writing
        assert committed == size, f"{committed} of {size} bytes are durable"


async def _followed(address: str) -> tuple[list[float], list[float]]:
    """Return how long each piece of a log took until the writer could go on, alone and beside all followers."""
    attempt = next(_attempts)
    async with grpc.aio.insecure_channel(address) as channel:
        call = LogServiceStub(channel).AppendLogs()
        alone_ms = await _write_pieces(call, attempt, 0)
        with ExitStack() as stack:
            readers = []
            for _ in range(FOLLOWERS // READERS_PER_PROCESS):
                command = (sys.executable, "-m", "benchmarks.logs", "follow", address, str(attempt))
                process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
                reader = stack.enter_context(process)
                stack.callback(reader.kill)
                readers.append(reader)
            for reader in readers:
                assert reader.stdout is not None
                assert (await asyncio.to_thread(reader.stdout.readline)).strip() == "following"
            beside_ms = await _write_pieces(call, attempt, PIECES)
        call.cancel()
    return alone_ms, beside_ms


async def _write_pieces(call: Any, attempt: int, first: int) -> list[float]:  # noqa: ANN401 - a call of one of two kinds
    taken_ms = []
    for number in range(first, first + PIECES):
        began_s = time.perf_counter()
        chunk = LogChunk(attempt_id=attempt, offset=number * PIECE_BYTES, data=bytes(PIECE_BYTES))
        await call.write(AppendLogsRequest(key=KEY, chunk=chunk))
        while (await call.read()).committed_size < (number + 1) * PIECE_BYTES:
            pass
        taken_ms.append(1_000 * (time.perf_counter() - began_s))
        await asyncio.sleep(max(0.0, began_s + PACE_S - time.perf_counter()))
    return taken_ms


async def _follow(address: str, job: int) -> None:
    """Follow one log many times over a connection, and say so once each has read what is there."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = LogServiceStub(channel)
        calls = [stub.FollowLogs(FollowLogsRequest(job_id=job, follow=True)) for _ in range(READERS_PER_PROCESS)]
        await asyncio.gather(*(call.read() for call in calls))
        print("following", flush=True)
        await asyncio.gather(*(_read(call) for call in calls))


async def _read(call: Any) -> None:  # noqa: ANN401 - a call of one of two kinds
    while await call.read():
        pass


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(_serve())
    else:
        uvloop.run(_follow(sys.argv[2], int(sys.argv[3])))
