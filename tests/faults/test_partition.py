"""Hosts that a network tears apart without a word: both ends know in time, and the lease decides what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.grid import AGENT, COORDINATOR, Grid, Program, eventually, running_grid
from tests.faults.test_half_open import DEFAULTS, PHONE, agent_state, both_ends_see_it
from tests.network import Network, running_network

LINES = 1_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An agent and a user, each on a host apart from the coordinator's."""

    network: Network
    grid: Grid
    agent: Program
    job: int
    follower: Program

    def unplug_all(self) -> None:
        self.network.unplug("lab")
        self.network.unplug("desk")

    def plug_all(self) -> None:
        self.network.plug("lab")
        self.network.plug("desk")

    def outcomes(self) -> list[str]:
        return [attempt["outcome"] for attempt in self.grid.job(self.job)["attempts"]]


@contextmanager
def scene(directory: Path, pace: tuple[str, ...], seconds: int) -> Iterator[Scene]:
    """A test that runs for so long and writes its lines all the while, and a user who follows them."""
    with ExitStack() as stack:
        network = stack.enter_context(running_network("office", "lab", "desk"))
        grid = stack.enter_context(running_grid(directory))
        here = ("--listen", f"{network.address('office')}:0", "--insecure")
        grid.coordinator(*pace, *here, program=(*network.on("office"), *COORDINATOR))
        agent = grid.agent("lab", *PHONE, program=(*network.on("lab"), *AGENT))
        plain = grid.client
        grid.client = (*network.on("office"), *plain)
        options = ("--env", f"QGJOB_SIM_SECONDS={seconds}", "--env", f"QGJOB_SIM_LOG_LINES={LINES}")
        (job,) = grid.submit("a.spec.ts", options=options)
        eventually(lambda: grid.status(job) == "running", "the test runs")
        follower = grid.start("follower", [*network.on("desk"), *plain, "logs", str(job), "--follow"])
        eventually(lambda: "line 1 " in follower.output.read_text(), "the user sees the first line")
        yield Scene(network=network, grid=grid, agent=agent, job=job, follower=follower)


def test_partition_is_seen_at_both_ends_in_time_and_costs_neither_test_nor_line(tmp_path: Path) -> None:
    with scene(tmp_path, DEFAULTS, seconds=24) as lab:
        lab.unplug_all()
        both_ends_see_it(lab.grid, lab.agent)
        lab.plug_all()
        eventually(lambda: agent_state(lab.grid) == "connected", "the agent comes back")
        eventually(lambda: lab.grid.status(lab.job) == "completed", "the test ends")
        assert lab.outcomes() == ["passed"]
        assert lab.follower.wait() == 0, lab.follower.diagnostics.read_text()
    lines = [line for line in lab.follower.output.read_text().splitlines() if line.startswith("line ")]
    assert lines == [f"line {number} of {LINES}" for number in range(1, LINES + 1)]


@pytest.mark.soak
def test_partition_that_outlives_the_lease_costs_the_attempt_and_no_device_runs_two(tmp_path: Path) -> None:
    with scene(tmp_path, ("--heartbeat", "1", "--lease-ttl", "6"), seconds=40) as lab:
        lab.unplug_all()
        eventually(lambda: lab.outcomes() == ["lost"], "the lease runs out", seconds=20)
        both_ends_see_it(lab.grid, lab.agent)
        lab.plug_all()
        eventually(lambda: lab.grid.status(lab.job) == "completed", "the job runs again", seconds=90)
        assert lab.outcomes() == ["lost", "passed"]
        truth = (tmp_path / "agent-lab" / "device-truth.jsonl").read_text()
    events = [event for event in ("boot", "start", "end") for _ in range(truth.count(f'"event": "{event}"'))]
    assert events == ["boot", "start", "start", "end", "end"]
