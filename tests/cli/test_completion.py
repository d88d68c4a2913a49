"""What a shell is offered to complete a line with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.coordinator_stand_in import StandIn
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")


def offered(line: str, coordinator: str = "127.0.0.1:1") -> list[str]:
    """The words that a shell would offer where the line ends."""
    env = {
        **os.environ,
        "QGJOB_COORDINATOR": coordinator,
        "_QGJOB_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run([QGJOB], capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("qgjob jobs re", ["recent", "retry"]),
        ("qgjob submit --target e", ["emulator"]),
        ("qgjob jobs list --status-filter running,c", ["running,completed", "running,cancelled"]),
        ("qgjob devices list -o json", ["json", "jsonl"]),
        ("qgjob logs ", []),
    ],
)
def test_words_need_no_coordinator(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_jobs_and_runs_are_those_of_the_lab(stand_in: StandIn) -> None:
    messages = [job_message(number) for number in (12, 11, 7)]
    for message, run in zip(messages, ("nightly", "nightly", ""), strict=True):
        message.spec.run = run
    stand_in.stored = messages
    assert offered("qgjob logs 1", stand_in.address) == ["12", "11"]
    assert offered("qgjob jobs wait --run ", stand_in.address) == ["nightly"]
