"""A database that was restored from a backup, while agents hold work of a later time."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.grid import BIN, PATIENT, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ONE = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1")


def back_up(data: Path, backup: Path) -> None:
    backup.mkdir()
    source, copy = sqlite3.connect(data / "qgjob.db"), sqlite3.connect(backup / "qgjob.db")
    source.backup(copy)
    source.close()
    copy.close()
    shutil.copytree(data / "logs", backup / "logs")
    shutil.copy(data / "storage_id", backup / "storage_id")


def restored(data: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "qgjob-coordinator"), "restored", "--data-dir", str(data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def outcomes(grid: Grid, job: int) -> list[str]:
    return [attempt["outcome"] for attempt in grid.job(job)["attempts"]]


def test_lab_goes_on_from_a_backup_and_mixes_nothing_up_with_what_came_after_it(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        data, backup = grid.directory / "coordinator", tmp_path / "backup"
        coordinator = grid.coordinator(*PATIENT)
        grid.agent("lab", *ONE)
        (first,) = grid.submit(
            "first.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3", "--env", "QGJOB_SIM_LOG_LINES=50")
        )
        eventually(lambda: grid.status(first) == "running", "the first job runs")
        back_up(data, backup)
        grid.run("jobs", "wait", str(first))
        (later,) = grid.submit("later.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=600"))
        eventually(lambda: grid.status(later) == "running", "a job that the backup does not know runs")
        coordinator.kill()
        shutil.rmtree(data)
        shutil.copytree(backup, data)

        done = restored(data)
        assert done.returncode == 0, done.stderr
        grid.coordinator(*PATIENT)
        grid.run("jobs", "wait", str(first))
        (other,) = grid.submit("other.spec.ts")
        assert other == later
        grid.run("jobs", "wait", str(other))
        assert (outcomes(grid, first), outcomes(grid, other)) == (["lost", "passed"], ["passed"])
        assert "other.spec.ts" in grid.run("logs", str(other)).stdout


def test_database_in_use_cannot_be_called_restored(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator(*PATIENT)
        done = restored(grid.directory / "coordinator")
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "in use by another coordinator" in done.stderr


def test_nothing_is_made_where_no_database_was_put_back(tmp_path: Path) -> None:
    done = restored(tmp_path / "empty")
    assert done.returncode == 2
    assert "no database" in done.stderr
    assert not (tmp_path / "empty").exists()
