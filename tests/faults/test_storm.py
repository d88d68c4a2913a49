"""A whole lab that reconnects at once after its coordinator was killed: all come back in time, and no lease is lost."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from qgjob.client import Client
from qgjob.v1.agent_pb2 import AGENT_STATE_CONNECTED
from qgjob.v1.job_pb2 import JOB_STATE_RUNNING, JobFilter, JobSpec
from tests.e2e.grid import COORDINATOR, Grid, eventually, running_grid

BACK_WITHIN_S = 30.0
FEW_FILES = ("sh", "-c", 'ulimit -Sn 256 && exec "$0" "$@"', *COORDINATOR)
"""A host that lets a program open fewer files, to begin with, than agents connect."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Storm:
    """A crowd of agents, and how many of them the coordinator sees."""

    def __init__(self, grid: Grid, agents: int) -> None:
        self._grid = grid
        self._agents = agents
        self.client = Client(grid.address)
        command = [sys.executable, "-m", "tests.faults.crowd", grid.address, str(agents)]
        grid.start("crowd", command).ready_line()

    def connected(self) -> int:
        return sum(agent.state == AGENT_STATE_CONNECTED for agent in self.client.list_agents())

    def running(self) -> int:
        return sum(lane.running for lane in self.client.queue_status().lanes)

    def all_are_there(self, seconds: float) -> float:
        """Wait until every agent is connected, and return how long that took."""
        begun = time.monotonic()
        eventually(lambda: self.connected() == self._agents, f"{self._agents} agents are connected", seconds=seconds)
        return time.monotonic() - begun

    def everybody_works(self) -> None:
        """Give each device a job that never ends, of an app of its own: no two share a batch."""
        specs = [JobSpec(org_id="q", app_version_id=f"v{n}", test="t.spec.ts") for n in range(self._agents)]
        self.client.submit_jobs(specs)
        eventually(self.all_run, "every agent runs a test")

    def all_run(self) -> bool:
        jobs = self.client.iter_jobs(JobFilter(states=[JOB_STATE_RUNNING]))
        return sum(job.attempt == 1 for job in jobs) == self._agents


def weather(directory: Path, agents: int, pace: tuple[str, ...], ttl_s: float) -> None:
    with running_grid(directory) as grid:
        coordinator = grid.coordinator(*pace, program=FEW_FILES)
        storm = Storm(grid, agents)
        first_s = storm.all_are_there(120)
        storm.everybody_works()
        coordinator.kill()
        grid.coordinator(*pace, program=FEW_FILES)
        back_s = storm.all_are_there(BACK_WITHIN_S)
        # No lease expires in the first time to live of a coordinator; those that nobody renews do so after it.
        threading.Event().wait(1.5 * ttl_s)
        assert storm.all_run(), f"{agents - storm.running()} of {agents} leases were lost"
        storm.client.close()
        print(f"{agents} agents: connected in {first_s:.1f} s, back {back_s:.1f} s after the restart")  # noqa: T201


def test_hundreds_of_agents_are_back_in_time_after_a_restart_and_no_lease_is_lost(tmp_path: Path) -> None:
    weather(tmp_path, 300, ("--heartbeat", "2", "--lease-ttl", "10"), 10)


@pytest.mark.soak
def test_thousands_of_agents_are_back_in_time_after_a_restart_and_no_lease_is_lost(tmp_path: Path) -> None:
    weather(tmp_path, 2_000, ("--heartbeat", "5", "--lease-ttl", "30"), 30)
