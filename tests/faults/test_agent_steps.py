"""kill -9 of an agent at each step of a run: one counted outcome, and the log that the device wrote."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.grid import DEADLINE_S, PATIENT, Grid, Program, eventually, running_grid
from tests.faults.failing_agent import POINTS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
DEVICE = ("--simulate", "emulator=1", "--sim-install-seconds", "0", "--sim-test-seconds", "0.1")
KEPT = frozenset({"after-result", "before-acknowledgement", "after-acknowledgement"})
"""Points at which the result is on the disk, or was told."""


def failing_agent(grid: Grid, point: str) -> Program:
    command = [sys.executable, "-m", "tests.faults.failing_agent", point, "run", "--coordinator", grid.address]
    command += ["--name", "one", "--state-dir", str(grid.directory / "agent-one"), *DEVICE]
    env = {**grid.env, "PYTHONPATH": str(ROOT)}
    return Program("failing", command, grid.directory, env).start()


def truth(grid: Grid) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (grid.directory / "agent-one" / "device-truth.jsonl").read_text().splitlines()]


def attempts_of(grid: Grid, job: int) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = grid.job(job)["attempts"]
    return attempts


def states_of_logs(grid: Grid, job: int, point: str) -> set[str]:
    """How the logs stand that were begun: before the journal none was, and nobody will hand it in."""
    begun = [one for one in attempts_of(grid, job) if one["outcome"] == "passed" or point != "before-journal"]
    return {one["log"] for one in begun}


@pytest.mark.parametrize("point", POINTS)
def test_agent_killed_at_a_step_costs_at_most_one_attempt(tmp_path: Path, point: str) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator(*PATIENT)
        agent = failing_agent(grid, point)
        (job,) = grid.submit("t.spec.ts", options=("--env", "QGJOB_SIM_LOG_LINES=200"))
        assert agent.process is not None
        assert agent.process.wait(DEADLINE_S) == -9
        grid.agent("one", *DEVICE)
        grid.run("jobs", "wait", str(job))
        outcomes = [attempt["outcome"] for attempt in attempts_of(grid, job)]
        if point == "before-journal":
            # Nobody knows that it never ran; it is lost if the coordinator was told that it starts.
            assert outcomes in (["lost", "passed"], ["released", "passed"])
        else:
            assert outcomes == (["passed"] if point in KEPT else ["lost", "passed"])
        eventually(lambda: states_of_logs(grid, job, point) == {"complete"}, "all logs are handed in")
        log = grid.run("logs", str(job), "--attempt", str(len(outcomes))).stdout.encode()
        written = {(event["log_size"], event["log_sha256"]) for event in truth(grid) if event["event"] == "end"}
        assert (len(log), hashlib.sha256(log).hexdigest()) in written
        starts = Counter(event["attempt"] for event in truth(grid) if event["event"] == "start")
        assert set(starts.values()) == {1}, "an attempt ran twice"
