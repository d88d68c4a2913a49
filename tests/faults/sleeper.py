"""A gRPC server that streams, and leaves when it gets SIGUSR1: `python -m tests.faults.sleeper PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc

from qgjob import links

SERVICE, METHOD = "test.Sleeper", "Stream"
MESSAGES = 20
PAUSE_S = 0.02


async def _stream(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    for _ in range(MESSAGES):
        await context.write(b"message")
        await asyncio.sleep(PAUSE_S)


async def _serve(port: int) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *links.SERVER, ("grpc.http2.bdp_probe", 0)])
    handlers: dict[str, Any] = {METHOD: grpc.unary_stream_rpc_method_handler(_stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    leaving = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, leaving.set)
    print(bound, flush=True)  # noqa: T201 - the test reads it
    await leaving.wait()
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
