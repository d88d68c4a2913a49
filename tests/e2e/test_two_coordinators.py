"""Which coordinator may serve from a database, what else may befall it, and how those who call find it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.grid import BIN, QUICK, Grid, eventually, running_grid
from tests.postgresql import running_postgresql

# An agent tries two addresses in turn, which can take longer than the leases of the other tests live.
PATIENT = ("--heartbeat", "0.2", "--lease-ttl", "10", "--signal-grace", "1")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def start_a_second(grid: Grid, *options: str, directory: str = "coordinator") -> subprocess.CompletedProcess[str]:
    """Start another coordinator, if not told otherwise on the grid's data directory, and wait until it ends."""
    command = [str(BIN / "qgjob-coordinator"), "serve", "--listen", "127.0.0.1:0"]
    command += ["--data-dir", str(grid.directory / directory), *QUICK, *options]
    return subprocess.run(command, capture_output=True, text=True, env=grid.env, timeout=30, check=False)


def test_second_coordinator_on_one_data_directory_is_refused_and_the_first_goes_on(grid: Grid) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1")
    (job,) = grid.submit("slow.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    second = start_a_second(grid)
    assert (second.returncode, second.stdout) == (2, "")
    assert re.fullmatch(
        r"error: database \S+/qgjob\.db is in use by another coordinator\n"
        r"hint: stop that one first, or give this one a --data-dir of its own\n",
        second.stderr,
    )
    grid.run("jobs", "wait", str(job))
    assert [attempt["outcome"] for attempt in grid.job(job)["attempts"]] == ["passed"]


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
