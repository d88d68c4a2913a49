"""The example of the client library, as its first lines say that it is run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.grid import Grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]


def run(grid: Grid, *tests: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.from_python", *tests]
    return subprocess.run(command, capture_output=True, text=True, env=grid.env, cwd=ROOT, timeout=60, check=False)


def test_the_example_submits_follows_waits_and_lists(grid: Grid) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
    done = run(grid, "tests/login.spec.ts", "tests/signup.spec.ts")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [
        "job 2 tests/signup.spec.ts: completed on emulator-1@lab",
        "job 1 tests/login.spec.ts: completed on emulator-1@lab",
    ]
    assert done.stdout.startswith(grid.run("logs", "1").stdout)


def test_the_example_tells_of_a_refusal_in_two_lines(grid: Grid) -> None:
    done = run(grid, "../outside.spec.ts")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
