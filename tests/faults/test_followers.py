"""Followers that stop reading: each costs the coordinator little, and the log grows as if they were not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(400)]


def costs_what_is_promised(readers: int) -> None:
    """Run the benchmark, which knows the limits, in a process whose memory is nobody else's."""
    command = [sys.executable, "-m", "benchmarks.followers", str(readers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)  # noqa: T201
    assert done.returncode == 0, done.stdout + done.stderr


def test_hundred_stuck_followers_cost_little_and_slow_no_log() -> None:
    costs_what_is_promised(100)


def test_thousand_stuck_followers_cost_little_and_slow_no_log() -> None:
    costs_what_is_promised(1_000)
