"""What a test prints must not command the CI service that shows its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgjob.cli.harmless import Harmless
from qgjob.v1.job_pb2 import JOB_STATE_FAILED, LOG_STATE_COMPLETE, LOG_STATE_OPEN, Job
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import StandIn
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
HOSTILE = b"ok\n::add-mask::a\n \t::error::b\nat ::here::\n##[group]c\n"
HARMLESS = "ok\n\\::add-mask::a\n \t\\::error::b\nat ::here::\n#\\#[group]c\n"


def shown(*pieces: bytes) -> bytes:
    harmless = Harmless()
    return b"".join([*map(harmless.feed, pieces), harmless.feed(b"", is_end=True)])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"::error::x\n", b"\\::error::x\n"),
        (b"a\r::error::x", b"a\r\\::error::x"),
        ("\u00a0\u2003::error::x".encode(), "\u00a0\u2003\\::error::x".encode()),
        (b"a ##[error]x", b"a #\\#[error]x"),
        (b"std::vector ::x #[derive] :x", b"std::vector ::x #[derive] :x"),
        (b"no text: \xff\xfe\n", b"no text: \xff\xfe\n"),
        (b" " * 5_000 + b"::error::x", b" " * 5_000 + b"\\::error::x"),
    ],
    ids=["begin", "carriage return", "spaces of Unicode", "old form", "no command", "no UTF-8", "many spaces"],
)
def test_only_a_line_that_would_be_a_command_is_marked(written: bytes, read: bytes) -> None:
    assert shown(written) == read


@given(pieces=st.lists(st.text("a:# [\n\r\u2003é", max_size=8), max_size=12))
def test_wherever_the_stream_is_cut_no_command_passes_and_nothing_else_changes(pieces: list[str]) -> None:
    text = "".join(pieces)
    told = shown(*(piece.encode() for piece in pieces)).decode()
    assert not [line for line in re.split(r"[\r\n]", told) if line.lstrip().startswith("::") or "##[" in line]
    assert told.replace("\\", "") == text
    data = text.encode()
    assert shown(*(data[index : index + 1] for index in range(len(data)))).decode() == told


def follow(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
    yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
    yield LogChunk(attempt_id=5, offset=0, data=HOSTILE[:20])
    yield LogChunk(attempt_id=5, offset=20, data=HOSTILE[20:])
    yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)


def run(stand_in: StandIn, *arguments: str, github: str = "true") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address, "GITHUB_ACTIONS": github}
    env.pop("GITHUB_STEP_SUMMARY", None)
    return subprocess.run([QGJOB, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_on_github_a_followed_log_gives_the_runner_no_commands(stand_in: StandIn) -> None:
    stand_in.follows = [follow, follow]
    assert run(stand_in, "logs", "7", "--follow").stdout == HARMLESS
    assert run(stand_in, "logs", "7", github="").stdout.encode() == HOSTILE


def test_on_github_what_may_become_a_command_is_shown_when_no_more_comes(stand_in: StandIn) -> None:
    def stops(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\n :")

    stand_in.follows = [stops]
    assert run(stand_in, "logs", "7").stdout == "one\n :"


def test_on_github_a_log_that_goes_to_a_file_stays_as_it_is(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.follows = [follow]
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address, "GITHUB_ACTIONS": "true"}
    with (tmp_path / "log").open("wb") as file:
        subprocess.run([QGJOB, "logs", "7"], env=env, stdout=file, timeout=60, check=True)
    assert (tmp_path / "log").read_bytes() == HOSTILE


def test_on_github_the_reason_of_a_failure_is_told_without_commands_and_annotated(stand_in: StandIn) -> None:
    def fail(request: object) -> Iterator[Job]:
        job = job_message(7, state=JOB_STATE_FAILED)
        job.end_time.FromJsonString("2026-01-02T03:04:18Z")
        job.failure.reason, job.failure.message = "TEST_FAILED", "##[stop-commands]x"
        yield job

    stand_in.watches = [fail]
    lines = run(stand_in, "jobs", "wait", "7").stderr.splitlines()
    assert "  TEST_FAILED: #\\#[stop-commands]x" in lines
    # The runner looks for no second command in a line that is one.
    assert lines[-1] == "::error title=tests/login.spec.js failed::job 7: TEST_FAILED: ##[stop-commands]x"
