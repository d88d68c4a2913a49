"""Bytes that no client sends: they end the stream they came on, and nobody else notices."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qgjob.v1 import agent_service_pb2, log_service_pb2
from tests.e2e.grid import QUICK, Grid, eventually, running_grid

PATIENCE_S = 60.0
EXAMPLES = 200
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS = {
    "/qgjob.v1.AgentService/Connect": agent_service_pb2.ConnectRequest(
        hello=agent_service_pb2.Hello(agent_id="fuzz", boot_id="b", version="0.1.0", protocol=1)
    ).SerializeToString(),
    "/qgjob.v1.LogService/AppendLogs": log_service_pb2.AppendLogsRequest().SerializeToString(),
}
CLEAR = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""How a stream of garbage may end: never with an error of the coordinator's own."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def busy_grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A coordinator with an honest agent, which every test here must leave alone."""
    with running_grid(tmp_path_factory.mktemp("frames")) as grid:
        grid.coordinator(*QUICK)
        grid.agent("honest", "--simulate", "emulator=1", "--sim-install-seconds", "0", "--sim-test-seconds", "0.1")
        yield grid


class Bystander:
    """A job that runs while garbage comes in."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        (self._job,) = grid.submit("honest.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=1"))

    def is_unharmed(self) -> None:
        eventually(lambda: self._grid.status(self._job) == "completed", "the honest agent's test ends")
        assert [attempt["outcome"] for attempt in self._grid.job(self._job)["attempts"]] == ["passed"]


def end_of(channel: grpc.Channel, method: str, messages: list[bytes]) -> grpc.StatusCode:
    """Send raw messages on a stream of its own and return how it ended."""
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(method)
    call = stream(iter(messages), timeout=PATIENCE_S)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass  # the code tells it
    code: grpc.StatusCode = call.code()
    return code


def noise() -> st.SearchStrategy[list[bytes]]:
    """Messages of noise, of protobuf-like pieces, and of a sound first message with a few bytes changed."""
    field = st.builds(
        lambda number, kind, rest: bytes([(number << 3 | kind) & 0x7F]) + rest,
        st.integers(1, 15),
        st.sampled_from((0, 1, 2, 5)),
        st.binary(max_size=24),
    )
    return st.lists(st.one_of(st.binary(max_size=64), field, st.just(b"")), min_size=1, max_size=4)


@pytest.mark.parametrize("method", STREAMS)
def test_streams_of_garbage_end_alone_and_with_a_clear_status(busy_grid: Grid, method: str) -> None:
    seen: set[grpc.StatusCode] = set()
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(busy_grid.address))

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(noise(), st.booleans())
        def ends_clearly(garbage: list[bytes], is_late: bool) -> None:
            code = end_of(channel, method, [STREAMS[method], *garbage] if is_late else garbage)
            seen.add(code)
            assert code in CLEAR, f"{code} after {garbage}"

        bystander = Bystander(busy_grid)
        ends_clearly()
        bystander.is_unharmed()
    assert "call_failed" not in (busy_grid.directory / "coordinator.err").read_text()
    assert seen != {grpc.StatusCode.OK}, "all of it was taken as sound: this run proves nothing"


@pytest.mark.parametrize("method", STREAMS)
def test_message_beyond_the_limit_ends_its_stream_alone(busy_grid: Grid, method: str) -> None:
    bystander = Bystander(busy_grid)
    with grpc.insecure_channel(busy_grid.address, options=(("grpc.max_send_message_length", -1),)) as channel:
        code = end_of(channel, method, [bytes(8 * 1_024 * 1_024)])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    bystander.is_unharmed()


@pytest.mark.parametrize("preface", [b"", PREFACE], ids=["no HTTP/2 at all", "frames of noise"])
def test_connections_of_noise_are_closed_and_others_live(busy_grid: Grid, preface: bytes) -> None:
    source = random.Random(1)
    host, _, port = busy_grid.address.rpartition(":")
    bystander = Bystander(busy_grid)
    for size in (1, 9, 100, 5_000, 100_000) * 4:
        with socket.create_connection((host, int(port)), PATIENCE_S) as connection:
            try:
                connection.sendall(preface + source.randbytes(size))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass
            except TimeoutError:
                raise
            except OSError:
                pass  # closed as well, only less politely
    bystander.is_unharmed()
