"""`doctor` of client and agent, the releases, and what a shell completes with, on a grid."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.e2e.grid import BIN, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def findings(grid: Grid, code: int, *options: str) -> dict[str, str]:
    found = json.loads(grid.run(*options, "doctor", code=code).stdout)
    return {check["name"]: check["finding"] for check in found}


def agent_doctor(grid: Grid, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "qgjob-agent"), "doctor", "--state-dir", str(grid.directory / "state"), *options]
    return subprocess.run(command, capture_output=True, text=True, env=grid.env, timeout=60, check=False)


def test_doctor_says_what_a_lab_lacks(grid: Grid) -> None:
    assert findings(grid, 3) == {"settings": "ok", "coordinator": "ok", "agents": "failed", "devices": "failed"}
    grid.agent()
    eventually(lambda: grid.devices(), "the agent's devices are known")
    assert findings(grid, 0) == {"settings": "ok", "coordinator": "ok", "agents": "ok", "devices": "ok"}
    first = grid.devices()[0]["id"]
    grid.run("devices", "quarantine", first, "--reason", "its screen is cracked")
    (told,) = (check for check in json.loads(grid.run("doctor").stdout) if check["name"] == "devices")
    assert (told["finding"], told["message"]) == ("warning", "1 idle, 1 quarantined")
    mend = f"(once it is mended: `qgjob devices readmit {first}`)"
    assert told["hint"] == f"{first} is quarantined: its screen is cracked {mend}"


def test_doctor_without_a_coordinator_ends_with_the_code_of_that(empty_grid: Grid) -> None:
    assert findings(empty_grid, 6, "--coordinator", "127.0.0.1:1") == {"settings": "ok", "coordinator": "failed"}


def test_an_agents_doctor_looks_at_the_coordinator_and_the_project(grid: Grid, tmp_path: Path) -> None:
    well = agent_doctor(grid, "--simulate", "emulator=2", "--name", "lab-1")
    assert (well.returncode, well.stderr) == (0, "")
    assert [line.split()[:2] for line in well.stdout.splitlines()] == [
        ["ok", "state"],
        ["ok", "disk"],
        ["ok", "coordinator"],
        ["ok", "simulated"],
    ]
    ill = agent_doctor(grid, "--coordinator", "127.0.0.1:1", "--workspace", str(tmp_path), "--adb-port", "1")
    assert ill.returncode == 3
    assert "failed   coordinator  no coordinator answers at 127.0.0.1:1\n" in ill.stdout
    assert f"failed   project      {tmp_path} has no appwright.config.ts;" in ill.stdout
    assert "warning  devices      no adb server on port 1\n" in ill.stdout


def test_an_agents_doctor_knows_a_token_that_counts_for_agents_alone(tmp_path: Path) -> None:
    agents = f"agent-{'a' * 32}"
    tokens = tmp_path / "tokens"
    tokens.write_text(f"lab agent {agents}\n")
    with running_grid(tmp_path) as grid:
        grid.coordinator("--token-file", str(tokens))
        (tmp_path / "token").write_text(agents)
        (tmp_path / "wrong").write_text("b" * 40)
        known = agent_doctor(grid, "--simulate", "emulator=1", "--token-file", str(tmp_path / "token"))
        assert "answers, and knows the token of lab" in known.stdout
        assert known.returncode == 0
        unknown = agent_doctor(grid, "--simulate", "emulator=1", "--token-file", str(tmp_path / "wrong"))
        assert "failed   coordinator  this coordinator does not know the token" in unknown.stdout
        assert unknown.returncode == 3


def test_version_tells_both_releases(empty_grid: Grid) -> None:
    done = empty_grid.run("--coordinator", empty_grid.address, "--version")
    assert done.stdout == f"qgjob {version('qgjob')}\ncoordinator {version('qgjob')} at {empty_grid.address}\n"


def completed(grid: Grid, line: str) -> list[str]:
    """What bash is told to complete a line with."""
    words = line.split(" ")
    env = {**grid.env, "_QGJOB_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([str(BIN / "qgjob")], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_completes_ids(grid: Grid) -> None:
    grid.submit("a.spec.ts", "b.spec.ts")
    grid.run("jobs", "cancel", "2")
    grid.agent("lab", "--simulate", "browserstack=1")
    eventually(lambda: grid.devices(), "the agent's devices are known")
    assert completed(grid, "qgjob jobs wait ") == ["2", "1"]
    assert completed(grid, "qgjob jobs cancel ") == ["1"]
    assert completed(grid, "qgjob jobs retry ") == ["2"]
    assert completed(grid, "qgjob logs 1") == ["1"]
    assert completed(grid, "qgjob status job --job-id ") == ["2", "1"]
    assert completed(grid, "qgjob agents drain ") == ["lab"]
    assert completed(grid, "qgjob devices drain b") == ["browserstack-1@lab"]
    assert completed(grid, "qgjob --coordinator 127.0.0.1:1 jobs wait ") == []
