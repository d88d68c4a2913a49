"""Leaders are killed, and put to sleep past their time, under load: the standby takes over and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qgjob.client import Client
from tests.e2e.grid import Grid, Program, eventually, running_grid
from tests.faults.checker import Verdict
from tests.faults.load import Load
from tests.postgresql import running_postgresql, running_replica, url_of
from tests.s3 import Bucket, running_s3

FAILOVERS = int(os.environ.get("QGJOB_FAILOVERS", "2"))
SEED = int(os.environ.get("QGJOB_KILL_SEED", "1"))
# A lease outlives a takeover and the agents' pauses on a busy machine.
PACE = ("--heartbeat", "0.2", "--lease-ttl", "12", "--leader-ttl", "1.5", "--signal-grace", "0.5")
DEVICES = ("--simulate", "emulator=3,device=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 20 * FAILOVERS)]


class Lab:
    """Two coordinators and two agents; one of the coordinators leads."""

    def __init__(self, grid: Grid, *options: str, homes: tuple[str, str] = ("coordinator", "coordinator")) -> None:
        """Start everything.

        Args:
            grid: Where.
            options: What both coordinators are told.
            homes: The data directory of each, one and the same where they share it.
        """
        self.grid = grid
        self.random = random.Random(SEED)
        self._options = (*PACE, *options)
        self.lives = 0
        self._homes = homes
        self.leader = self._start("127.0.0.1:0", homes[0])
        self.standby = self._start("127.0.0.1:0", homes[1])
        grid.address = ",".join(address_of(program) for program in (self.leader, self.standby))
        for name in ("one", "two"):
            grid.agent(name, *DEVICES)

    def _start(self, listen: str, home: str) -> Program:
        self.lives += 1
        directory = ("--data-dir", str(self.grid.directory / home))
        return self.grid.one_coordinator(f"coordinator-{self.lives}", listen, *self._options, *directory)

    def pause(self) -> None:
        """Let work go on for a moment of random length."""
        threading.Event().wait(self.random.uniform(0.5, 2))

    def fail_over(self, times: int) -> None:
        """Kill the leader, or put it to sleep, in turn."""
        for number in range(times):
            self.pause()
            if number % 2:
                self.freeze_leader()
            else:
                self.kill_leader()

    def kill_leader(self) -> None:
        self.leader.kill()
        self._wait_for_takeover()
        self._take_turns()

    def freeze_leader(self) -> None:
        """SIGSTOP until another leads; what wakes up then has to end by itself."""
        assert self.leader.process is not None
        os.kill(self.leader.process.pid, signal.SIGSTOP)
        self._wait_for_takeover()
        os.kill(self.leader.process.pid, signal.SIGCONT)
        assert self.leader.process.wait(20) == 75
        self._take_turns()

    def revive(self, load: Load) -> None:
        """Start again what ends, as a service manager does, until a job is accepted once more."""
        before = len(load.accepted)

        def is_back() -> bool:
            self._start_what_has_ended()
            return len(load.accepted) > before

        eventually(is_back, "a job is accepted again", seconds=30)

    def _start_what_has_ended(self) -> None:
        here, there = self._homes
        self.leader = self._started_again(self.leader, here)
        self.standby = self._started_again(self.standby, there)

    def _started_again(self, program: Program, home: str) -> Program:
        assert program.process is not None
        if program.process.poll() is None:
            return program
        assert program.process.returncode in (70, 75), program.diagnostics.read_text()[-4_000:]
        return self._start(address_of(program), home)

    def _wait_for_takeover(self) -> None:
        eventually(lambda: "took_over" in self.standby.diagnostics.read_text(), "the standby takes over", seconds=30)

    def _take_turns(self) -> None:
        fallen, self.leader = self.leader, self.standby
        home, other = self._homes
        self._homes = (other, home)
        self.standby = self._start(address_of(fallen), home)
        assert self.standby.ready_line().endswith(" role=standby")


def address_of(program: Program) -> str:
    return program.ready_line().partition("grpc=")[2].split()[0]


def test_leaders_that_fall_or_sleep_cost_no_job_no_log_and_no_running_test(tmp_path: Path, postgresql: str) -> None:
    with running_grid(tmp_path) as grid:
        lab = Lab(grid, "--database-url", postgresql)
        survive(lab, lambda _load: lab.fail_over(FAILOVERS))


def test_leaders_that_share_a_bucket_alone_find_each_others_logs(tmp_path: Path, postgresql: str) -> None:
    with running_s3() as endpoint, running_grid(tmp_path) as grid:
        bucket = Bucket(endpoint, "lab")
        grid.env.update(bucket.env)
        homes = ("here", "there")
        lab = Lab(grid, "--database-url", postgresql, "--storage", bucket.url, homes=homes)
        survive(lab, lambda _load: lab.fail_over(FAILOVERS // 2))
        assert not [home for home in homes if (tmp_path / home / "logs").exists()]


def test_promoted_replica_has_all_that_was_accepted_and_told(tmp_path: Path) -> None:
    with running_postgresql() as primary, running_replica(primary) as replica, running_grid(tmp_path) as grid:
        lab = Lab(grid, "--database-url", url_of(primary, replica))

        def lose_the_primary(load: Load) -> None:
            lab.pause()
            primary.stop("immediate")
            lab.pause()
            replica.promote()
            lab.revive(load)
            lab.pause()

        survive(lab, lose_the_primary)


def survive(lab: Lab, befall: Callable[[Load], None]) -> None:
    """Let something befall a lab while users submit, cancel and follow, and judge what came of it."""
    load = Load(lab.grid.address, SEED)
    with load.running():
        befall(load)
    load.wait_until_all_ended(60)
    with Client(lab.grid.address) as client:
        verdict = Verdict.gather(client, lab.grid.directory, load)
        compared = verdict.keeps_every_promise()
    load.close()
    print(f"{lab.lives} lives of coordinators, {len(load.accepted)} jobs, {compared} logs compared,")  # noqa: T201
    print(dict(verdict.outcomes()))  # noqa: T201
    assert compared > lab.lives
    assert verdict.outcomes()["lost"] == 0
