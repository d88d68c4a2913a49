"""What signals do to a coordinator and to an agent at work."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.grid import DEADLINE_S, Program, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def terminate(program: Program) -> None:
    assert program.process is not None
    program.process.terminate()


def exit_code(program: Program) -> int:
    assert program.process is not None
    return program.process.wait(DEADLINE_S)


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, -signal.SIGTERM)])
def test_second_signal_ends_a_coordinator_that_a_caller_holds_up(tmp_path: Path, signals: int, code: int) -> None:
    with running_grid(tmp_path) as grid, contextlib.ExitStack() as stack:
        coordinator = grid.coordinator()
        channel = stack.enter_context(grpc.insecure_channel(grid.address))
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        terminate(coordinator)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        if signals == 2:
            terminate(coordinator)
        assert exit_code(coordinator) == code
