"""What signals do to a coordinator and to an agent at work."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.grid import DEADLINE_S, Grid, Program, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ONE = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1")


def terminate(program: Program) -> None:
    assert program.process is not None
    program.process.terminate()


def exit_code(program: Program) -> int:
    assert program.process is not None
    return program.process.wait(DEADLINE_S)


def history(grid: Grid, job: int) -> list[tuple[str, str]]:
    return [(attempt["agent"], attempt["outcome"]) for attempt in grid.job(job)["attempts"]]


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


def test_agent_that_is_told_to_stop_gives_back_at_once_what_has_not_started(grid: Grid) -> None:
    (long,) = grid.submit("long.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=600"))
    (rest,) = grid.submit("rest.spec.ts")
    one = grid.agent("one", *ONE)
    eventually(lambda: (grid.status(long), grid.status(rest)) == ("running", "assigned"), "one agent has both")
    terminate(one)
    grid.agent("two", *ONE)
    grid.run("jobs", "wait", str(rest), seconds=20)
    assert (grid.status(long), grid.job(long)["agent"]) == ("running", "one")
    assert history(grid, rest)[-1] == ("two", "passed")
    assert {outcome for _, outcome in history(grid, rest)} <= {"released", "passed"}
    grid.run("jobs", "cancel", str(long))
    assert exit_code(one) == 0


def test_agent_that_is_told_to_stop_lets_its_test_end(grid: Grid) -> None:
    one = grid.agent("one", *ONE)
    (job,) = grid.submit("slow.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3"))
    eventually(lambda: grid.status(job) == "running", "the test runs")
    terminate(one)
    assert exit_code(one) == 0
    assert history(grid, job) == [("one", "passed")]


def test_agent_that_is_told_twice_ends_its_test_which_is_put_down_to_nobody(grid: Grid) -> None:
    one = grid.agent("one", *ONE)
    (job,) = grid.submit("long.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=600"))
    eventually(lambda: grid.status(job) == "running", "the test runs")
    terminate(one)
    eventually(lambda: "what runs has 60 s to end: emulator-1@one" in one.diagnostics.read_text(), "it drains")
    terminate(one)
    assert exit_code(one) == 0
    assert "what runs is ended: emulator-1@one" in one.diagnostics.read_text()
    assert grid.status(job) == "queued"
    grid.run("jobs", "cancel", str(job))
    assert history(grid, job) == [("one", "released")]
