"""What simulated runs leave behind, from the agent's disk to the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.grid import PATIENT, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

FAST = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")


def names(grid: Grid, job: int) -> list[str]:
    return [artifact["name"] for artifact in grid.json("artifacts", "list", str(job))]


def test_files_of_a_run_are_listed_and_downloaded_without_its_secrets(grid: Grid, tmp_path: Path) -> None:
    grid.env["TOKEN"] = "tests/login"  # a secret that the simulated run is sure to tell
    options = ("--env", "QGJOB_SIM_ARTIFACTS=2", "--secret", "TOKEN")
    (job, bare) = grid.submit("tests/login.spec.ts", options=options) + grid.submit("tests/bare.spec.ts")
    grid.agent("lab", *FAST)
    grid.run("jobs", "wait", str(job), str(bare))
    expected = ["results.json", "simulated-1.txt", "simulated-2.txt"]
    eventually(lambda: names(grid, job) == expected, "the artifacts come after the verdict")
    listed = grid.json("artifacts", "list", str(job), "--kind", "results")
    assert [(one["attempt"], one["kind"], one["content_type"]) for one in listed] == [
        (1, "results", "application/json; charset=utf-8")
    ]
    got = grid.json("artifacts", "download", str(job), "--to", str(tmp_path / "got"))
    assert [Path(one["path"]).relative_to(tmp_path / "got").as_posix() for one in got] == [
        f"attempt-1/{name}" for name in expected
    ]
    texts = [Path(one["path"]).read_text() for one in got]
    assert "tests/login" not in "".join(texts)
    assert texts[1].startswith("file 1 of ***.spec.ts on emulator-1@lab")
    assert grid.json("artifacts", "list", str(bare)) == []
    verbose = grid.json("status", "job", "--job-id", str(job), "--verbose")
    assert [one["name"] for one in verbose["artifacts"]] == expected
    unreported = grid.run("artifacts", "open", str(job), code=5)
    assert f"error: job {job} has no HTML report" in unreported.stderr
    missing = grid.run("artifacts", "list", "99", code=5)
    assert "error: there is no job 99" in missing.stderr
    wrong = grid.run("artifacts", "list", str(job), "--kind", "film", code=2)
    assert "hint: use one of" in wrong.stderr


def test_what_a_cut_off_and_killed_agent_has_kept_comes_with_its_next_life(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator(*PATIENT)
        options = ("--env", "QGJOB_SIM_ARTIFACTS=1", "--env", "QGJOB_SIM_SECONDS=3")
        (job,) = grid.submit("tests/login.spec.ts", options=options)
        agent = grid.agent("lab", *FAST)
        # Not by a command, which on a busy machine takes longer than the job.
        eventually(lambda: "event=job_started" in agent.diagnostics.read_text(), "the job runs")
        coordinator.kill()
        spool = tmp_path / "agent-lab" / "artifacts"
        eventually(lambda: list(spool.glob("*/manifest.json")), "the agent keeps what the run has left")
        agent.kill()
        grid.coordinator(*PATIENT)
        agent.start()
        eventually(lambda: names(grid, job) == ["results.json", "simulated-1.txt"], "the artifacts come")
        eventually(lambda: not list(spool.iterdir()), "the agent's disk is free again")
        assert grid.status(job) == "completed"
