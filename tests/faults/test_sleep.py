"""Streams to a server that sleeps, wakes up and leaves, as a leader does that has slept through its time: each ends.

With gRPC's own retries some of them waited for ever, though nothing was left to wait for: in every second run of 15
rounds, and in each of 80.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from qgjob.channel import open_channel
from tests.e2e.grid import eventually
from tests.faults.sleeper import METHOD, SERVICE

ROOT = Path(__file__).parents[2]
READERS = 24
SEED = 1

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Reader:
    """Opens one stream after the other, and reads a few messages or all of each."""

    def __init__(self, channel: grpc.Channel, seed: int) -> None:
        self._stream: Any = channel.unary_stream(f"/{SERVICE}/{METHOD}")
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self.begun_s = 0.0
        """When its newest stream was opened."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.begun_s = time.monotonic()
            call = self._stream(b"")
            try:
                self._read(call, self._random.choice((1, 3, 30)))
            except grpc.RpcError:
                self._stopping.wait(self._random.uniform(0.05, 0.3))
            finally:
                call.cancel()

    @staticmethod
    def _read(call: Iterator[bytes], most: int) -> None:
        for count, _ in enumerate(call, 1):
            if count >= most:
                return

    def stop(self) -> None:
        self._stopping.set()


def start_server(port: int) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "tests.faults.sleeper", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    with server.stdout as out:
        return server, int(out.readline())


@contextmanager
def killed_at_the_end() -> Iterator[list[subprocess.Popen[str]]]:
    servers: list[subprocess.Popen[str]] = []
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()
            server.wait()


@pytest.mark.parametrize("rounds", [15, pytest.param(80, marks=pytest.mark.soak)])
def test_no_stream_to_a_server_that_sleeps_and_then_leaves_waits_for_ever(rounds: int) -> None:
    chance = random.Random(SEED)
    with ExitStack() as stack:
        servers = stack.enter_context(killed_at_the_end())
        server, port = start_server(0)
        servers.append(server)
        channel = open_channel(f"127.0.0.1:{port}")
        stack.callback(channel.close)
        readers = [Reader(channel, number) for number in range(READERS)]
        for reader in readers:
            stack.callback(reader.stop)
        for _ in range(rounds):
            threading.Event().wait(chance.uniform(0.1, 0.4))
            os.kill(server.pid, signal.SIGSTOP)
            threading.Event().wait(chance.uniform(0.1, 0.6))
            os.kill(server.pid, signal.SIGUSR1)
            os.kill(server.pid, signal.SIGCONT)
            server.wait(30)
            server, _ = start_server(port)
            servers.append(server)
            now_s = time.monotonic()
            eventually(lambda: all(one.begun_s > now_s for one in readers), "every stream has ended", seconds=15)  # noqa: B023
