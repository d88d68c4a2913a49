"""Which coordinator may serve from a database, what else may befall it, and how those who call find it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from coordinator.store.dialect import checked_url
from tests.e2e.grid import BIN, QUICK, Grid, Program, eventually, running_grid
from tests.postgresql import running_postgresql

# An agent tries two addresses in turn, which can take longer than the leases of the other tests live.
PATIENT = ("--heartbeat", "0.2", "--lease-ttl", "10", "--signal-grace", "1")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def start_a_second(grid: Grid, *options: str, directory: str = "coordinator") -> subprocess.CompletedProcess[str]:
    """Start another coordinator, if not told otherwise on the grid's data directory, and wait until it ends."""
    command = [str(BIN / "qgjob-coordinator"), "serve", "--listen", "127.0.0.1:0"]
    command += ["--data-dir", str(grid.directory / directory), *QUICK, *options]
    return subprocess.run(command, capture_output=True, text=True, env=grid.env, timeout=60, check=False)


def test_second_coordinator_on_one_data_directory_is_refused_and_the_first_goes_on(grid: Grid) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1")
    (job,) = grid.submit("slow.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    second = start_a_second(grid)
    assert (second.returncode, second.stdout) == (2, "")
    assert re.fullmatch(
        r"error: database \S+/qgjob\.db is in use by another coordinator\n"
        r"hint: stop that one first, or give this one a --data-dir of its own\n",
        second.stderr,
    )
    grid.run("jobs", "cancel", str(job))
    grid.run("jobs", "wait", str(job), code=7)
    assert [attempt["outcome"] for attempt in grid.job(job)["attempts"]] == ["cancelled"]


def test_coordinator_on_postgresql_needs_the_storage_of_its_database(tmp_path: Path) -> None:
    with running_postgresql() as server, running_grid(tmp_path) as grid:
        on_postgresql = (*QUICK, "--database-url", server.url)
        first = grid.coordinator(*on_postgresql)
        (job,) = grid.submit("a.spec.ts")
        first.stop()
        elsewhere = start_a_second(grid, "--database-url", server.url, directory="elsewhere")
        assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
        assert "elsewhere does not hold the logs of this database\nhint: give the --data-dir" in elsewhere.stderr
        grid.coordinator(*on_postgresql)
        assert grid.status(job) == "queued"


def test_coordinator_that_starts_at_its_other_address_is_found_by_all_that_wait(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator(*PATIENT).kill()
        first, grid.address = grid.address, ""
        serving = grid.coordinator(*PATIENT)
        second = grid.address
        both = grid.env["QGJOB_COORDINATOR"] = grid.address = f"{first},{second}"
        grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1")
        submit = ("submit", "--org-id", "q", "--app-version-id", "v", "--test", "t.spec.ts", "--wait", "--follow")
        waiting = grid.follow(*submit, "--env", "QGJOB_SIM_SECONDS=4", "--env", "QGJOB_SIM_LOG_LINES=200")
        eventually(lambda: any(job["status"] == "running" for job in grid.json("jobs", "list")), "the job runs")
        serving.kill()
        grid.address = first
        grid.coordinator(*PATIENT)
        grid.env["QGJOB_COORDINATOR"] = both
        shown, told = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, told
        (job,) = grid.json("jobs", "list")
        assert (job["status"], len(grid.job(job["id"])["attempts"])) == ("completed", 1)
        assert shown == grid.run("logs", str(job["id"])).stdout
        assert shown.count("\n") >= 200


def test_coordinator_outlives_a_crash_of_postgresql_between_two_commits(tmp_path: Path) -> None:
    with running_postgresql() as server, running_grid(tmp_path) as grid:
        coordinator = grid.coordinator(*QUICK, "--database-url", server.url)
        (before,) = grid.submit("a.spec.ts")
        server.stop("immediate")
        server.start()
        (after,) = grid.submit("b.spec.ts")
        assert [grid.status(job) for job in (before, after)] == ["queued", "queued"]
        assert coordinator.process is not None
        assert coordinator.process.poll() is None


class Pair:
    """Two coordinators of one grid, on one database and one data directory."""

    def __init__(self, grid: Grid, url: str, *options: str) -> None:
        self.grid = grid
        self._options = (*PATIENT, "--database-url", url, *options)
        self._engine = create_engine(checked_url(url), isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        self.leader = grid.one_coordinator("first", "127.0.0.1:0", *self._options)
        self.standby = grid.one_coordinator("second", "127.0.0.1:0", *self._options)
        self.addresses = [address_of(program) for program in (self.leader, self.standby)]
        grid.address = grid.env["QGJOB_COORDINATOR"] = ",".join(self.addresses)

    def close(self) -> None:
        self._engine.dispose()

    def start_again(self, name: str, address: str) -> Program:
        return self.grid.one_coordinator(name, address, *self._options)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def sessions(self, condition: str) -> list[int]:
        """Return which connections to the database are so."""
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
        return [int(pid) for (pid,) in self.rows(query)]

    def until_taken_over(self) -> float:
        """Wait until the standby leads; return how many seconds that took."""
        begun = time.monotonic()
        eventually(lambda: "took_over" in self.standby.diagnostics.read_text(), "the standby takes over", seconds=20)
        return time.monotonic() - begun

    @contextmanager
    def locked_jobs(self) -> Iterator[None]:
        """Let every commit of new jobs wait, in the middle of its transaction."""
        with self._engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            connection.execute(text("LOCK TABLE jobs IN EXCLUSIVE MODE"))
            yield


def stands_by(program: Program) -> bool:
    return program.ready_line().endswith(" role=standby")


def address_of(program: Program) -> str:
    return program.ready_line().partition("grpc=")[2].split()[0]


@contextmanager
def running_pair(directory: Path, url: str, *options: str) -> Iterator[Pair]:
    """Two coordinators that are stopped at the end, whatever happened."""
    with running_grid(directory) as grid:
        pair = Pair(grid, url, *options)
        try:
            yield pair
        finally:
            pair.close()


def submit_and_follow(grid: Grid, seconds: float, lines: int) -> subprocess.Popen[str]:
    submit = ("submit", "--org-id", "q", "--app-version-id", "followed", "--test", "f.spec.ts", "--wait", "--follow")
    return grid.follow(*submit, "--env", f"QGJOB_SIM_SECONDS={seconds}", "--env", f"QGJOB_SIM_LOG_LINES={lines}")


def running_jobs(pair: Pair) -> int:
    return int(pair.rows("SELECT count(*) FROM jobs WHERE state = 'running'")[0][0])


def assert_each_job_ended_once(pair: Pair, count: int) -> None:
    """Every job passes, in one attempt: nothing that ran was interrupted, nothing ran twice."""
    unfinished = "SELECT count(*) FROM jobs WHERE end_us IS NULL"
    eventually(lambda: pair.rows(unfinished) == [(0,)], "every job ends")
    ends = pair.rows("SELECT j.state, a.outcome FROM jobs j LEFT JOIN attempts a ON a.job = j.id")
    assert ends == [("completed", "passed")] * count


def test_standby_takes_over_from_a_killed_leader_and_nothing_that_ran_is_interrupted(
    tmp_path: Path, postgresql: str
) -> None:
    with running_pair(tmp_path, postgresql, "--leader-ttl", "2") as pair:
        grid = pair.grid
        assert [stands_by(program) for program in (pair.leader, pair.standby)] == [False, True]
        grid.agent("lab", "--simulate", "emulator=2", "--sim-install-seconds", "0.1")
        following = submit_and_follow(grid, 6, 400)
        grid.submit("a.spec.ts", "b.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3"))
        eventually(lambda: running_jobs(pair) == 2, "two jobs run")
        granted = pair.rows("SELECT max(id) FROM leases")
        pair.leader.kill()
        killed = time.monotonic()
        assert pair.until_taken_over() < 2 + 10
        (late,) = grid.submit("late.spec.ts", app="other", options=("--env", "QGJOB_SIM_SECONDS=0.2"))
        shown, told = following.communicate(timeout=60)
        assert following.returncode == 0, told
        eventually(lambda: grid.status(late) == "completed", "what was submitted after the takeover runs")
        assert pair.rows("SELECT max(id) FROM leases") > granted
        assert time.monotonic() - killed < 2 + 10
        assert_each_job_ended_once(pair, 4)
        (followed,) = (job["id"] for job in grid.json("jobs", "list", "--app-version-id", "followed"))
        assert shown == grid.run("logs", str(followed)).stdout
        assert shown.count("\n") >= 400
        assert stands_by(pair.start_again("first-again", pair.addresses[0]))


def test_leader_that_slept_through_its_time_tells_nothing_and_ends(tmp_path: Path, postgresql: str) -> None:
    with running_pair(tmp_path, postgresql, "--leader-ttl", "2") as pair:
        grid = pair.grid
        assert pair.leader.process is not None
        grid.agent("lab", "--simulate", "emulator=2", "--sim-install-seconds", "0.1")
        following = submit_and_follow(grid, 6, 400)
        eventually(lambda: running_jobs(pair) == 1, "the job runs")
        ((epoch,),) = pair.rows("SELECT epoch FROM counters")
        with pair.locked_jobs():
            submit = ("submit", "--org-id", "q", "--app-version-id", "v", "--test", "t.spec.ts")
            submitting = grid.follow(*submit, "--env", "QGJOB_SIM_SECONDS=0.2")
            waiting = "wait_event_type = 'Lock'"
            eventually(lambda: pair.sessions(waiting), "a commit is under way")
            (commit,) = pair.sessions(waiting)
            os.kill(pair.leader.process.pid, signal.SIGSTOP)
        # Within its transaction it stands still, and holds the counters locked.
        eventually(lambda: not pair.sessions(f"pid = {commit}"), "PostgreSQL ends the frozen commit")
        assert pair.until_taken_over() < 2 + 10
        before = fenced_off(pair, epoch)
        os.kill(pair.leader.process.pid, signal.SIGCONT)
        assert pair.leader.process.wait(10) == 75
        assert "not_leading" in pair.leader.diagnostics.read_text()
        shown, told = following.communicate(timeout=60)
        assert following.returncode == 0, told
        _, told = submitting.communicate(timeout=60)
        assert submitting.returncode == 0, told
        assert_each_job_ended_once(pair, 2)
        assert fenced_off(pair, epoch) == before
        (followed,) = (job["id"] for job in grid.json("jobs", "list", "--app-version-id", "followed"))
        assert shown == grid.run("logs", str(followed)).stdout
        assert stands_by(pair.start_again("first-again", pair.addresses[0]))


def fenced_off(pair: Pair, epoch: int) -> list[object]:
    """Return all that bears the mark of an epoch, in the database and in files."""
    files = sorted((pair.grid.directory / "coordinator" / "logs").rglob(f"*.{epoch}.log"))
    return [
        pair.rows(f"SELECT count(*) FROM leases WHERE fence_epoch = {epoch}"),
        pair.rows(f"SELECT * FROM log_parts WHERE epoch = {epoch} ORDER BY attempt, start"),
        [(path.name, path.read_bytes()) for path in files],
    ]


def test_stop_of_the_leader_hands_over_at_once(tmp_path: Path, postgresql: str) -> None:
    with running_pair(tmp_path, postgresql, "--leader-ttl", "30") as pair:
        (job,) = pair.grid.submit("a.spec.ts")
        assert pair.leader.stop() == 0
        assert pair.until_taken_over() < 15
        assert pair.grid.status(job) == "queued"


def test_crash_of_postgresql_under_load_heals_by_itself(tmp_path: Path) -> None:
    with running_postgresql() as server, running_pair(tmp_path, server.url, "--leader-ttl", "2") as pair:
        grid = pair.grid
        grid.agent("lab", "--simulate", "emulator=3", "--sim-install-seconds", "0.1")
        specs = [flag for number in range(20) for flag in ("--test", f"{number}.spec.ts")]
        submit = (
            "submit",
            "--org-id",
            "q",
            "--app-version-id",
            "v",
            *specs,
            "--wait",
            "--env",
            "QGJOB_SIM_SECONDS=0.5",
        )
        waiting = grid.follow(*submit)
        eventually(lambda: running_jobs(pair) == 3, "three jobs run")
        server.stop("immediate")
        server.start()
        _, told = waiting.communicate(timeout=40)
        assert waiting.returncode == 0, told
        assert_each_job_ended_once(pair, 20)


def test_standby_without_the_storage_of_the_leader_refuses(tmp_path: Path, postgresql: str) -> None:
    with running_pair(tmp_path, postgresql) as pair:
        elsewhere = start_a_second(pair.grid, "--database-url", postgresql, directory="elsewhere")
        assert (elsewhere.returncode, elsewhere.stdout) == (2, "")
        assert "elsewhere does not hold the logs of this database\nhint: give the --data-dir" in elsewhere.stderr
