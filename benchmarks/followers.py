"""Measures what readers that stop reading cost the coordinator in memory, and whether they slow a log that grows.

python -m benchmarks.followers [READERS]

Ends with exit code 1 where that is more than what is promised.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from coordinator.changes import Changes
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease
from coordinator.logstore import LogStore
from coordinator.server import OPTIONS
from coordinator.services.log import LogService
from coordinator.space import Space
from coordinator.storage import Directory
from coordinator.store import Store
from qgjob.v1 import lease_pb2, log_pb2, log_service_pb2, log_service_pb2_grpc
from tests.store.records import a_device, a_job, a_lease, an_attempt

MIB = 1_024 * 1_024
CHUNK_BYTES = 65_536
FIRST_BYTES = 16 * MIB
"""Far more than the buffers between a reader and the coordinator hold."""
MORE_BYTES = 2 * MIB
"""All growths together must fit into the 64 MiB of an attempt's log."""
ROUNDS = 7
MOST_EACH_BYTES = 256_000
"""What a reader that has stopped may cost."""
MOST_SLOWDOWN = 1.5
"""How much more work a log may be for the coordinator beside such readers than when they have left: there is no reason
for any, but on a busy machine the measure wavers. Against the time before they came it would be unfair: memory that a
thousand connections have used once stays more costly to allocate from, whether they are there or not."""
READERS_PER_PROCESS = 250
SETTLING_S = 5
KEY = lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=1, number=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one growth of the log: until all was durable, and of processor time in this process."""

    wall_s: float
    work_s: float


async def main(readers: int) -> int:
    """Measure, tell, and return the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(f"sqlite:///{directory}/logs.db")
        store.start_epoch()
        running = replace(an_attempt(), start_us=1)
        store.commit([PutDevice(a_device()), PutLease(a_lease()), PutJob(replace(a_job(), attempt_count=1))])
        store.commit([PutAttempt(running)])
        # Without the pause between two syncs, which would hide what is measured.
        logs = LogStore(Directory(Path(directory), sync_interval_s=0), store)
        server = grpc.aio.server(options=OPTIONS)
        service = LogService(store, logs, Changes(), Space(Path(directory), min_free=0))
        log_service_pb2_grpc.add_LogServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            size = FIRST_BYTES
            await append(channel, 0, size)
            before = [await append(channel, size + number * MORE_BYTES, MORE_BYTES) for number in range(ROUNDS)]
            size += ROUNDS * MORE_BYTES
            at_first = resident_bytes()
            async with stopped_readers(port, readers):
                stuck = (resident_bytes() - at_first) / readers
                beside = [await append(channel, size + number * MORE_BYTES, MORE_BYTES) for number in range(ROUNDS)]
                grown = (resident_bytes() - at_first) / readers
            size += ROUNDS * MORE_BYTES
            await asyncio.sleep(SETTLING_S)
            after = [await append(channel, size + number * MORE_BYTES, MORE_BYTES) for number in range(ROUNDS)]
            slowdown = work_ms(beside) / work_ms(after)
            print(f"{readers} readers that stopped: {stuck / 1_024:.0f} KiB each in the coordinator")
            print(f"after the log grew: {grown / 1_024:.0f} KiB each")
            for when, costs in (("before they came", before), ("beside them", beside), ("when they had left", after)):
                print(f"growth of the log {when}: {rate(costs)} (median of {ROUNDS}), {work_ms(costs):.1f} ms of work")
        await server.stop(None)
        await logs.close()
        store.close()
    return 0 if max(stuck, grown) <= MOST_EACH_BYTES and slowdown <= MOST_SLOWDOWN else 1


def rate(costs: list[Cost]) -> str:
    return f"{MORE_BYTES / statistics.median(cost.wall_s for cost in costs) / 1e6:.0f} MB/s"


def work_ms(costs: list[Cost]) -> float:
    """Return the least: whatever else runs on the machine can only add to it."""
    return min(cost.work_s for cost in costs) * 1_000


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def append(channel: grpc.aio.Channel, start: int, length: int) -> Cost:
    """Append to the log, and return what it cost until all was durable."""
    begun, worked = time.perf_counter(), time.process_time()
    call = log_service_pb2_grpc.LogServiceStub(channel).AppendLogs()
    data = b"x" * CHUNK_BYTES

    async def send() -> None:
        for offset in range(start, start + length, CHUNK_BYTES):
            chunk = log_pb2.LogChunk(attempt_id=1, offset=offset, data=data)
            await call.write(log_service_pb2.AppendLogsRequest(key=KEY, chunk=chunk))
        await call.done_writing()

    sending = asyncio.create_task(send())
    committed = 0
    while isinstance(answer := await call.read(), log_service_pb2.AppendLogsResponse):
        committed = answer.committed_size
    await sending
    assert committed == start + length, f"{committed} of {start + length} bytes are durable"
    return Cost(wall_s=time.perf_counter() - begun, work_s=time.process_time() - worked)


@asynccontextmanager
async def stopped_readers(port: int, readers: int) -> AsyncIterator[None]:
    """Readers in processes of their own, all of which have read once and stopped; they are gone at the end."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for first in range(0, readers, READERS_PER_PROCESS):
            count = min(READERS_PER_PROCESS, readers - first)
            command = [sys.executable, "-m", "benchmarks.followers", "--stop-reading", str(port), str(count)]
            process = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
            processes.append(process)
            assert process.stdout is not None
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == "stopped"
        # What the coordinator still writes into their buffers is part of the cost.
        await asyncio.sleep(SETTLING_S)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def stop_reading(port: int, readers: int) -> None:
    """Follow over as many connections, read once from each, and never again."""
    calls = []
    for _ in range(readers):
        options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        call = log_service_pb2_grpc.LogServiceStub(channel).FollowLogs(
            log_service_pb2.FollowLogsRequest(job_id=1, follow=True)
        )
        await call.read()
        calls.append((channel, call))
    print("stopped", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stop-reading"]:
        asyncio.run(stop_reading(int(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)))
