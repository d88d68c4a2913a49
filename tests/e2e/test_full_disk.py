"""A coordinator whose disk fills up: it refuses, loses nothing that it acknowledged, and goes on by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.grid import QUICK, Grid, eventually, running_grid
from tests.e2e.test_simulated_grid import truth
from tests.small_disk import MIB, fill, free, small_disk

pytestmark = pytest.mark.e2e

OPTIONS = (*QUICK, "--min-free", "24MiB")
CANNOT_COMMIT = 70
LAB_TROUBLE = 3


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "coordinator", 96) as disk:
        yield disk


@pytest.fixture
def grid(tmp_path: Path, disk: Path) -> Iterator[Grid]:
    with running_grid(tmp_path) as grid:
        yield grid


def refused_submit(grid: Grid) -> str:
    done = grid.run("submit", "--org-id", "qualgent", "--app-version-id", "a", "--test", "t.spec.ts", code=None)
    assert done.returncode == LAB_TROUBLE, done.stdout + done.stderr
    return done.stderr


def test_little_space_refuses_new_work_and_lets_running_work_end(grid: Grid, disk: Path) -> None:
    grid.coordinator(*OPTIONS)
    grid.agent()
    (job,) = grid.submit("a.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    fill(disk, leave=20 * MIB)
    assert "24 MiB are to stay" in refused_submit(grid)
    eventually(lambda: grid.status(job) == "completed", "the running job ends")
    free(disk)
    assert grid.submit("b.spec.ts")


def test_full_disk_uses_the_ballast_and_loses_nothing(grid: Grid, disk: Path) -> None:
    coordinator = grid.coordinator(*OPTIONS)
    grid.agent()
    jobs = grid.submit(*(f"{number}.spec.ts" for number in range(4)), options=("--env", "QGJOB_SIM_SECONDS=2"))
    eventually(lambda: grid.status(jobs[0]) in ("running", "completed"), "a job has begun")
    fill(disk)
    eventually(lambda: all(grid.status(job) == "completed" for job in jobs), "all that was accepted ends")
    assert "ballast_given_back" in coordinator.diagnostics.read_text()
    assert coordinator.process is not None
    assert coordinator.process.poll() is None
    free(disk)
    grid.run("jobs", "wait", *map(str, grid.submit("later.spec.ts")))
    for job in jobs:
        eventually(lambda job=job: "passed" in grid.log(job), "the log arrives")  # type: ignore[misc]  # bound at once


def test_disk_without_any_room_ends_the_process_and_the_next_serves_reads_until_there_is_room(
    grid: Grid, disk: Path
) -> None:
    coordinator = grid.coordinator(*OPTIONS)
    grid.agent()
    jobs = grid.submit(*(f"{number}.spec.ts" for number in range(40)), options=("--env", "QGJOB_SIM_SECONDS=0.5"))
    eventually(lambda: grid.status(jobs[0]) in ("running", "completed"), "a job has begun")
    fill(disk)
    process = coordinator.process
    assert process is not None

    def has_ended_on_a_full_disk() -> bool:
        fill(disk)
        return process.poll() is not None

    eventually(has_ended_on_a_full_disk, "a commit fails though the ballast was given back")
    assert process.returncode == CANNOT_COMMIT
    fill(disk)
    second = grid.coordinator(*OPTIONS)
    assert grid.status(jobs[-1]) == "queued"
    assert "[" in grid.run("devices", "list", "-o", "json").stdout
    assert "serves reads alone" in refused_submit(grid)
    free(disk)
    grid.run("jobs", "wait", *map(str, jobs))
    assert {grid.status(job) for job in jobs} == {"completed"}
    assert set(Counter(line["attempt"] for line in truth(grid) if line["event"] == "start").values()) == {1}
    assert second.process is not None
    assert second.process.poll() is None
    assert grid.submit("b.spec.ts")


def test_agent_with_a_full_disk_keeps_results_marks_logs_and_begins_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "agent-lab", 16) as disk, running_grid(tmp_path) as grid:
        grid.coordinator()
        agent = grid.agent("lab", "--simulate", "emulator=1")
        # The devices' own truth lies on the same disk, and gets the room for its few lines with this one.
        grid.run("jobs", "wait", *map(str, grid.submit("first.spec.ts")))
        chatty = ("--env", "QGJOB_SIM_LOG_LINES=20000", "--env", "QGJOB_SIM_SECONDS=3")
        running, *waiting = grid.submit(*(f"{number}.spec.ts" for number in range(5)), options=chatty)
        eventually(lambda: grid.status(running) == "running", "the job runs")
        fill(disk)
        eventually(lambda: grid.status(running) == "completed", "the test that runs keeps its result")
        mark = "the rest of the log is missing, the agent could not keep it: No space left on device"
        eventually(lambda: mark in grid.log(running), "the log says that bytes are missing")

        def is_refused_by_the_full_disk() -> bool:
            fill(disk)
            return any(errored_on_a_full_disk(grid, job) for job in waiting)

        eventually(is_refused_by_the_full_disk, "another one is not begun", seconds=20)
        free(disk)
        grid.run("jobs", "wait", *map(str, grid.submit("later.spec.ts")))
        assert agent.process is not None
        assert agent.process.poll() is None


def errored_on_a_full_disk(grid: Grid, job: int) -> bool:
    attempts = grid.job(job)["attempts"]
    failure = attempts[0]["failure_reason"] if attempts else None
    return failure is not None and failure["blame"] == "host" and "No space left" in failure["message"]
