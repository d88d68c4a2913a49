"""`python -m benchmarks NAME --json` as a script uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.e2e
def test_the_last_line_is_one_json_object_and_nothing_else_is_printed() -> None:
    done = run("cli_startup", "--rounds", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert list(found) == ["name", "metrics", "ratios", "machine"]
    assert found["name"] == "cli_startup"
    assert found["metrics"]["help_ms"]["median"] > 0
    assert all(isinstance(ratio, float) for ratio in found["ratios"].values())
    assert found["machine"].keys() == {"cpus", "load", "python"}


def test_a_size_that_a_benchmark_does_not_have_is_refused() -> None:
    done = run("cli_startup", "--agents", "3")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: cli_startup has no --agents\nhint: leave it out\n"


def test_a_benchmark_that_there_is_not_is_refused_with_the_names() -> None:
    done = run("startup")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'startup' (choose from 'builds', 'cells', 'cli_startup'," in done.stderr
