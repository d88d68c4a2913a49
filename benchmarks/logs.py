"""Measures log upload over gRPC into files that are synced.

python -m benchmarks.logs [LOGS]
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import grpc

from coordinator.changes import Changes
from coordinator.core.model import JobId, SubmitSequence
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease
from coordinator.logstore import LogStore
from coordinator.server import OPTIONS
from coordinator.services.log import LogService
from coordinator.space import Space
from coordinator.storage import Directory
from coordinator.store import Store
from qgjob.v1 import lease_pb2, log_pb2, log_service_pb2, log_service_pb2_grpc
from tests.store.records import a_device, a_job, a_lease, an_attempt

LOG_BYTES = 1_024 * 1_024
KEY = lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=1, number=1))


async def main(logs: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(f"sqlite:///{directory}/logs.db")
        store.start_epoch()
        store.commit([PutDevice(a_device()), PutLease(a_lease())])
        for number in range(1, 3 * logs + 1):
            job = replace(a_job(), id=JobId(number), sequence=SubmitSequence(number), attempt_count=1)
            store.commit([PutJob(job), PutAttempt(replace(an_attempt(number, job=number, of_job=1), start_us=1))])
        log_store = LogStore(Directory(Path(directory)), store)
        space = Space(Path(directory), min_free=0)
        server = grpc.aio.server(options=OPTIONS)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(LogService(store, log_store, Changes(), space), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            stub = log_service_pb2_grpc.LogServiceStub(channel)
            for first, chunk_bytes in ((1, 65_536), (logs + 1, 2_048)):
                started = time.perf_counter()
                await asyncio.gather(*(upload(stub, first + number, chunk_bytes) for number in range(logs)))
                took_s = time.perf_counter() - started
                rate = logs * LOG_BYTES / took_s / 1e6
                print(f"{logs} logs of 1 MiB in chunks of {chunk_bytes}: {took_s:.2f} s, {rate:.0f} MB/s")
        await server.stop(None)
        await log_store.close()
        store.close()


async def upload(stub: log_service_pb2_grpc.LogServiceAsyncStub, attempt: int, chunk_bytes: int) -> None:
    data = bytes(LOG_BYTES)
    call = stub.AppendLogs()

    async def send() -> None:
        for offset in range(0, LOG_BYTES, chunk_bytes):
            chunk = log_pb2.LogChunk(attempt_id=attempt, offset=offset, data=data[offset : offset + chunk_bytes])
            await call.write(log_service_pb2.AppendLogsRequest(key=KEY, chunk=chunk))
        end = log_service_pb2.LogFinished(attempt_id=attempt, size=LOG_BYTES, sha256=hashlib.sha256(data).hexdigest())
        await call.write(log_service_pb2.AppendLogsRequest(key=KEY, finished=end))

    sending = asyncio.create_task(send())
    while isinstance(answer := await call.read(), log_service_pb2.AppendLogsResponse):
        if answer.closed:
            break
    await sending
    await call.done_writing()
    call.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
