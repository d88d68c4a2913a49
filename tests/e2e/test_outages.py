"""Agents that freeze, agents that a job kills, and coordinators that are away for long."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.grid import QUICK, Grid, Program, eventually, running_grid

OUTAGE_S = float(os.environ.get("QGJOB_OUTAGE_S", "4"))
"""How long the coordinator is away. `make soak` takes two minutes."""
TTL_S = 3.0
FREEZING = ("--heartbeat", "0.3", "--lease-ttl", str(TTL_S), "--signal-grace", "1", "--preempt-grace", "2")
AWAY = ("--heartbeat", "0.5", "--lease-ttl", "30", "--signal-grace", "1", "--preempt-grace", "2")
"""After a long outage an agent may come back 25 s after the coordinator."""
ONE = ("--simulate", "emulator=1", "--sim-install-seconds", "0", "--sim-test-seconds", "0.1")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 2 * OUTAGE_S)]


def attempts_of(grid: Grid, job: int) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = grid.job(job)["attempts"]
    return attempts


def history(grid: Grid, job: int) -> list[tuple[str, str]]:
    return [(attempt["agent"], attempt["outcome"]) for attempt in attempts_of(grid, job)]


def truth(grid: Grid, agent: str) -> list[dict[str, Any]]:
    path = grid.directory / f"agent-{agent}" / "device-truth.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def has_started(grid: Grid, agent: str, count: int) -> bool:
    """Whether an agent's device has begun exactly so many tests."""
    return len([event for event in truth(grid, agent) if event["event"] == "start"]) == count


def ends(grid: Grid, agent: str) -> list[tuple[int, str]]:
    return [(event["log_size"], event["log_sha256"]) for event in truth(grid, agent) if event["event"] == "end"]


def last_log(grid: Grid, job: int) -> tuple[int, str]:
    """Return size and hash of the log of a job's last attempt."""
    log = grid.run("logs", str(job), "--attempt", str(len(attempts_of(grid, job)))).stdout.encode()
    return len(log), hashlib.sha256(log).hexdigest()


def send(program: Program, number: int) -> None:
    assert program.process is not None
    program.process.send_signal(number)


def device_states(grid: Grid) -> set[str]:
    return {device["state"] for device in grid.devices()}


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_agent_that_freezes_around_the_life_of_its_lease_has_one_counted_outcome(tmp_path: Path, times: float) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator(*FREEZING)
        one = grid.agent("one", *ONE)
        (job,) = grid.submit("t.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=8", "--env", "QGJOB_SIM_LOG_LINES=100"))
        eventually(lambda: grid.status(job) == "running", "the test runs")
        grid.agent("two", *ONE)
        eventually(lambda: len(grid.devices()) == 2, "there is somewhere to go")
        send(one, signal.SIGSTOP)
        threading.Event().wait(times * TTL_S)
        if times > 1:
            eventually(lambda: history(grid, job)[0] == ("one", "lost"), "the lease has run out")
        send(one, signal.SIGCONT)
        grid.run("jobs", "wait", str(job))
        counted = [(agent, outcome) for agent, outcome in history(grid, job) if outcome != "lost"]
        if times < 1:
            assert history(grid, job) == [("one", "passed")]
        elif times > 1:
            assert history(grid, job) == [("one", "lost"), ("two", "passed")]
        assert [outcome for _, outcome in counted] == ["passed"]
        eventually(lambda: attempts_of(grid, job)[-1]["log"] == "complete", "the log is whole")
        assert last_log(grid, job) in ends(grid, counted[0][0])
        before = history(grid, job)
        eventually(lambda: device_states(grid) == {"idle"}, "both devices are free again")
        eventually(lambda: len(ends(grid, "one")) == 1, "the frozen agent has ended its test")
        assert history(grid, job) == before, "a late result was obeyed"


def test_job_that_kills_three_agents_in_a_row_ends_errored_with_its_history(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator()
        (job,) = grid.submit("killer.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
        for tries in (1, 2, 3):
            agent = grid.agent("one", *ONE)
            eventually(functools.partial(has_started, grid, "one", tries), f"try {tries} runs")
            agent.kill()
        grid.agent("one", *ONE)
        grid.run("jobs", "wait", str(job), code=None)
        found = grid.job(job)
        assert (found["status"], history(grid, job)) == ("errored", [("one", "lost")] * 3)
        assert {attempt["failure_reason"]["reason"] for attempt in attempts_of(grid, job)} == {"AGENT_LOST"}
        (innocent,) = grid.submit("innocent.spec.ts")
        grid.run("jobs", "wait", str(innocent))


def test_cut_off_agent_ends_its_test_after_the_orphan_limit(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        pace = (*QUICK, "--orphan-limit", "2")
        coordinator = grid.coordinator(*pace)
        grid.agent("one", *ONE)
        jobs = grid.submit("a.spec.ts", "b.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
        eventually(lambda: grid.status(jobs[0]) == "running", "the first test runs")
        coordinator.kill()
        eventually(lambda: len(ends(grid, "one")) == 1, "the agent has stopped its test")
        assert has_started(grid, "one", 1), "it began the next one"
        grid.coordinator(*pace)
        eventually(lambda: grid.status(jobs[0]) == "running", "the job runs again")
        grid.run("jobs", "cancel", *map(str, jobs))


def test_coordinator_that_is_away_for_long_costs_no_running_test(tmp_path: Path) -> None:
    """The first test ends while it is away, the second begins in that time and goes on.

    A test takes nearly as long as the outage: that one runs is seen late on a busy machine.
    """
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator(*AWAY)
        grid.agent("one", *ONE)
        steer = ("--env", f"QGJOB_SIM_SECONDS={OUTAGE_S * 0.95}", "--env", "QGJOB_SIM_LOG_LINES=500")
        jobs = grid.submit("a.spec.ts", "b.spec.ts", options=steer)
        eventually(lambda: grid.status(jobs[0]) == "running", "the first test runs")
        coordinator.kill()
        threading.Event().wait(OUTAGE_S)
        eventually(lambda: ends(grid, "one"), "the first test ends")
        assert len(ends(grid, "one")) == 1
        grid.coordinator(*AWAY)
        grid.run("jobs", "wait", *map(str, jobs), seconds=60 + OUTAGE_S)
        assert [history(grid, job) for job in jobs] == [[("one", "passed")]] * 2
        eventually(lambda: all(attempts_of(grid, job)[-1]["log"] == "complete" for job in jobs), "the logs are whole")
        assert [last_log(grid, job) for job in jobs] == ends(grid, "one")
