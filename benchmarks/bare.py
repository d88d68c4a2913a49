"""The ceiling: a server that does nothing but gRPC, in a process of its own.

python -m benchmarks.bare

Prints its port. It answers a submit with the submit, each message of a stream with that message, and takes in logs
without a look at them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from coordinator.server import OPTIONS
from qgjob.v1.agent_service_pb2 import ConnectRequest
from qgjob.v1.job_service_pb2 import SubmitJobsRequest
from qgjob.v1.log_service_pb2 import AppendLogsRequest, AppendLogsResponse

SUBMIT, CONVERSE, APPEND = "/bare/Submit", "/bare/Converse", "/bare/Append"
"""Methods. What they read and write are the messages of our own services."""

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """A server that runs."""

    address: str
    pid: int


@contextmanager
def bare_server() -> Iterator[Bare]:
    """Run the server."""
    command = (sys.executable, "-m", "benchmarks.bare")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield Bare(address=f"127.0.0.1:{server.stdout.readline().strip()}", pid=server.pid)
        finally:
            server.kill()


async def _echo(request: SubmitJobsRequest, _context: Context) -> SubmitJobsRequest:
    return request


async def _converse(_requests: object, context: Context) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


async def _append(_requests: object, context: Context) -> None:
    sizes: dict[int, int] = {}
    while (message := await context.read()) is not grpc.aio.EOF:
        if message.HasField("chunk"):
            attempt = message.chunk.attempt_id
            sizes[attempt] = sizes.get(attempt, 0) + len(message.chunk.data)
    for attempt, size in sizes.items():
        await context.write(AppendLogsResponse(attempt_id=attempt, committed_size=size))


async def main() -> None:
    server = grpc.aio.server(options=OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Submit": grpc.unary_unary_rpc_method_handler(
            _echo, SubmitJobsRequest.FromString, SubmitJobsRequest.SerializeToString
        ),
        "Converse": grpc.stream_stream_rpc_method_handler(
            _converse, ConnectRequest.FromString, ConnectRequest.SerializeToString
        ),
        "Append": grpc.stream_stream_rpc_method_handler(
            _append, AppendLogsRequest.FromString, AppendLogsResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
