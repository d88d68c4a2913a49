"""kill -9 of coordinators and agents at random moments under load: nothing is lost, nothing ends twice."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qgjob.client import Client
from tests.e2e.grid import Grid, Program, running_grid
from tests.faults.checker import Verdict
from tests.faults.load import Load

POINTS = {
    "before_commit": 40,
    "within_commit": 40,
    "during_commit": 40,
    "after_commit": 40,
    "before_send": 40,
    "after_log": 5,
}
"""Of tests/faults/fatal_coordinator.py, and at which visit the coordinator dies at the latest."""
KILLS = int(os.environ.get("QGJOB_KILLS", "6"))
SEED = int(os.environ.get("QGJOB_KILL_SEED", "1"))
# A lease outlives the two seconds that a coordinator takes to come back on a busy machine, and the agents' pauses.
PACE = (
    "--heartbeat",
    "0.2",
    "--lease-ttl",
    "8",
    "--signal-grace",
    "0.5",
    "--preempt-grace",
    "0.5",
    "--canary-wait",
    "0.2",
)
DEVICES = ("--simulate", "emulator=3,device=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
AGENTS = ("one", "two")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 12 * KILLS)]


class Lab:
    """Two agents under load, and what is killed among them."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.random = random.Random(SEED)
        self.coordinator = grid.coordinator(*PACE)
        self.agents = {name: grid.agent(name, *DEVICES) for name in AGENTS}
        self._points = itertools.cycle(POINTS.items())

    def pause(self) -> None:
        """Let work go on for a moment of random length."""
        threading.Event().wait(self.random.uniform(0.3, 1.5))

    def kill_coordinator(self) -> None:
        self.coordinator.kill()
        self.coordinator = self.grid.coordinator(*PACE)

    def kill_agent(self) -> None:
        name = self.random.choice(AGENTS)
        victim: Program = self.agents[name]
        self.random.choice((victim.kill, victim.kill_group))()
        self.agents[name] = self.grid.agent(name, *DEVICES)

    def reach_fail_point(self) -> None:
        """Let the coordinator die at the next point, under load."""
        point, most = next(self._points)
        self.coordinator.kill()
        fatal = (sys.executable, "-m", "tests.faults.fatal_coordinator", point, str(self.random.randint(3, most)))
        self.coordinator = self.grid.coordinator(*PACE, program=fatal)
        self.coordinator.wait_for_death()
        self.coordinator = self.grid.coordinator(*PACE)


def judged(directory: Path, kill: Callable[[Lab], None], kills: int = KILLS) -> Verdict:
    """Run the load through all kills, let everything come to its end, and check every promise."""
    with running_grid(directory) as grid:
        lab = Lab(grid)
        load = Load(grid.address, SEED)
        with load.running():
            for _ in range(kills):
                lab.pause()
                kill(lab)
        load.wait_until_all_ended(60)
        with Client(grid.address) as client:
            verdict = Verdict.gather(client, directory, load)
            compared = verdict.keeps_every_promise()
            followed = verdict.followers_saw_the_logs()
        load.close()
        print(f"{kills} kills, {len(load.accepted)} jobs, {load.repeated} calls repeated, {compared} logs compared,")  # noqa: T201
        print(f"{len(load.cancelled)} jobs cancelled, {len(load.followed)} followers, {followed} logs seen whole")  # noqa: T201
        print(dict(verdict.outcomes()))  # noqa: T201
        assert compared > kills
    assert grid.processes() == [], "processes are left behind"
    return verdict


def test_killed_coordinators_cost_no_job_no_log_and_no_running_test(tmp_path: Path) -> None:
    verdict = judged(tmp_path, Lab.kill_coordinator)
    assert verdict.outcomes()["lost"] == 0


def test_coordinators_that_die_around_a_commit_cost_no_job_no_log_and_no_running_test(tmp_path: Path) -> None:
    verdict = judged(tmp_path, Lab.reach_fail_point, len(POINTS) * max(1, KILLS // 20))
    assert verdict.outcomes()["lost"] == 0


def test_killed_agents_cost_attempts_and_never_a_job(tmp_path: Path) -> None:
    verdict = judged(tmp_path, Lab.kill_agent)
    assert verdict.outcomes()["lost"] > 0, "no kill hit a running test: this run proves nothing"
