"""`qgjob logs` and `--follow` where something happens meanwhile: an attempt ends, a coordinator dies, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qgjob.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_RUNNING,
    LOG_STATE_COMPLETE,
    LOG_STATE_OPEN,
    LOG_STATE_TRUNCATED,
    LogState,
)
from qgjob.v1.job_service_pb2 import SubmitJobsResponse
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import StandIn
from tests.cli.pseudo_terminal import INTERRUPTIBLE, in_terminal
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
FOLLOW = [QGJOB, "logs", "7", "--follow"]
LONG_S = 120


def env(stand_in: StandIn, **more: str) -> dict[str, str]:
    return {**os.environ, "QGJOB_COORDINATOR": stand_in.address, **more}


def cut(number: int, state: LogState.ValueType = LOG_STATE_OPEN) -> LogCut:
    return LogCut(attempt_id=number + 4, attempt_number=number, state=state)


def chunk(number: int, offset: int, data: bytes) -> LogChunk:
    return LogChunk(attempt_id=number + 4, offset=offset, data=data)


def start(stand_in: StandIn, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env(stand_in),
    )


def hanging_after(stand_in: StandIn, *pieces: LogChunk | LogCut) -> None:
    """A log of which no more comes."""

    def hang(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield from pieces
        stand_in.released.wait(LONG_S)

    stand_in.follows = [hang]


def dying_after(stand_in: StandIn, *pieces: LogChunk | LogCut) -> None:
    """A log whose coordinator is gone before the rest comes; then the rest, from where the follower says."""
    whole = b"one\ntwo\nthree\n"

    def go_on(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield cut(1)
        yield chunk(1, request.from_offset, whole[request.from_offset :])
        yield cut(1, LOG_STATE_COMPLETE)

    hanging_after(stand_in, *pieces)
    stand_in.follows.append(go_on)


@pytest.mark.parametrize("command", [FOLLOW, [QGJOB, "jobs", "wait", "7", "--follow"]], ids=["logs", "wait"])
def test_a_coordinator_that_dies_in_mid_follow_and_comes_back_costs_no_line(
    stand_in: StandIn, command: list[str]
) -> None:
    dying_after(stand_in, cut(1), chunk(1, 0, b"one\ntw"))
    running, ended = job_message(7), job_message(7, state=JOB_STATE_COMPLETED)
    running.attempt = ended.attempt = 1
    ended.end_time.FromJsonString("2026-01-02T03:04:18Z")

    def run(_request: object) -> Iterator[object]:
        yield running
        stand_in.released.wait(LONG_S)

    stand_in.watches = [run, lambda _request: iter([ended])]  # type: ignore[list-item]
    process = start(stand_in, command)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.read(6) == "one\ntw"
        stand_in.die()
        told = process.stderr.readline()
        while not told.startswith("the connection was lost"):
            told = process.stderr.readline()
        assert told.endswith("; trying again\n")
        stand_in.begin()
        rest, more = process.communicate(timeout=LONG_S)
    assert (process.returncode, rest) == (0, "o\nthree\n")
    assert "lost" not in more


def test_a_coordinator_that_died_before_it_ever_answered_is_not_waited_for(stand_in: StandIn) -> None:
    stand_in.die()
    process = start(stand_in, FOLLOW)
    out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (6, "")
    assert err.splitlines()[-2:] == [
        f"error: no coordinator answers at {stand_in.address}",
        "hint: start one with `qgjob-coordinator serve`, or name yours with --coordinator or QGJOB_COORDINATOR",
    ]


def attempts(stand_in: StandIn) -> None:
    """A log of three attempts, of which the second was cut off in the middle of a line."""

    def tell(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield cut(1)
        yield chunk(1, 0, b"one\n")
        yield cut(1, LOG_STATE_COMPLETE)
        yield cut(2)
        yield chunk(2, 0, b"tw")
        yield cut(2, LOG_STATE_TRUNCATED)
        yield cut(3)
        yield chunk(3, 0, b"three\n")
        yield cut(3, LOG_STATE_COMPLETE)

    stand_in.follows = [tell]


def test_between_attempts_stands_a_line_on_stderr_and_what_never_came_is_told(stand_in: StandIn) -> None:
    attempts(stand_in)
    process = start(stand_in, FOLLOW)
    out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (0, "one\ntwthree\n")
    assert err.splitlines() == [
        "--- job 7, attempt 2 ---",
        "--- the rest of the log of job 7, attempt 2, never came ---",
        "--- job 7, attempt 3 ---",
    ]


def test_on_a_terminal_what_is_told_between_attempts_begins_a_line_of_its_own(stand_in: StandIn) -> None:
    attempts(stand_in)
    with in_terminal(FOLLOW, env(stand_in)) as terminal:
        assert terminal.end() == 0
        assert terminal.lines == [
            "one",
            "--- job 7, attempt 2 ---",
            "tw",
            "--- the rest of the log of job 7, attempt 2, never came ---",
            "--- job 7, attempt 3 ---",
            "three",
            "",
        ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "job 7 has no log yet; `qgjob logs 7 --follow` waits until it has one, or has ended\n"),
        (("--follow",), "job 7 has ended without a log\n"),
    ],
)
def test_a_job_without_a_log_is_said_to_have_none(stand_in: StandIn, options: tuple[str, ...], said: str) -> None:
    stand_in.follows = [lambda request: iter([])]
    process = start(stand_in, [QGJOB, "logs", "7", *options])
    assert process.communicate(timeout=LONG_S) == ("", said)
    assert process.returncode == 0


def test_ctrl_c_ends_a_follow_with_130_and_says_how_to_go_on(stand_in: StandIn) -> None:
    hanging_after(stand_in, cut(1), chunk(1, 0, b"one\ntw"))
    process = start(stand_in, FOLLOW)
    assert process.stdout is not None
    with process:
        assert process.stdout.read(6) == "one\ntw"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (130, "")
    assert err == "detached; follow again with `qgjob logs 7 --follow`\n"


def test_ctrl_c_in_a_terminal_loses_nothing_of_what_has_come(stand_in: StandIn) -> None:
    # The last character is cut in two, and its rest has not come.
    hanging_after(stand_in, cut(1), chunk(1, 0, "one\nloading \u2026".encode()[:-1]))
    with in_terminal(FOLLOW, env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: lines[-1] == "loading")
        terminal.type(b"\x03")
        assert terminal.end() == 130
        # The terminal itself shows which key was pressed.
        assert terminal.lines == [
            "one",
            "loading ^C\N{REPLACEMENT CHARACTER}",
            "detached; follow again with `qgjob logs 7 --follow`",
            "",
        ]


def test_ctrl_c_in_a_wait_that_follows_detaches_with_130(stand_in: StandIn) -> None:
    hanging_after(stand_in, cut(1), chunk(1, 0, b"one\n"))
    job = job_message(7)
    job.attempt = 1

    def run(_request: object) -> Iterator[object]:
        yield job
        stand_in.released.wait(LONG_S)

    stand_in.submits = [lambda _request: SubmitJobsResponse(jobs=[job_message(7)])]
    stand_in.watches = [run]  # type: ignore[list-item]
    process = start(stand_in, [QGJOB, "submit", "--org-id=q", "--app-version-id=x", "--test=a", "--follow"])
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "one\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "detached; the jobs go on. Wait again with `qgjob jobs wait 7`"


def test_ctrl_c_in_a_terminal_ends_the_line_of_a_log_that_is_waited_for(stand_in: StandIn) -> None:
    is_begun = threading.Event()

    def log(_request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield cut(1)
        assert is_begun.wait(LONG_S)
        yield chunk(1, 0, b"one\nloading")
        stand_in.released.wait(LONG_S)

    stand_in.follows = [log]
    job = job_message(7)
    job.attempt = 1

    def run(_request: object) -> Iterator[object]:
        yield job
        stand_in.released.wait(LONG_S)

    stand_in.watches = [run]  # type: ignore[list-item]
    with in_terminal([QGJOB, "jobs", "wait", "7", "--follow"], env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: lines[0].startswith("job 7 ") and len(lines) > 1)
        is_begun.set()
        terminal.wait_until(lambda lines: lines[-1] == "loading")
        terminal.type(b"\x03")
        assert terminal.end() == 130
        assert terminal.lines[-3:] == [
            "loading^C",
            "detached; the jobs go on. Wait again with `qgjob jobs wait 7`",
            "",
        ]


class BreakingOff:
    """A log that stands in the middle of a line when its job ends, and goes on after it."""

    def __init__(self, stand_in: StandIn) -> None:
        self.is_begun, self.has_ended, self.goes_on = threading.Event(), threading.Event(), threading.Event()
        stand_in.follows = [self._log]
        stand_in.watches = [self._run]  # type: ignore[list-item]

    def _log(self, _request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield cut(1)
        assert self.is_begun.wait(LONG_S)
        yield chunk(1, 0, b"one\nloading")
        assert self.goes_on.wait(LONG_S)
        yield chunk(1, 11, b" done\n")
        yield cut(1, LOG_STATE_COMPLETE)

    def _run(self, _request: object) -> Iterator[object]:
        running, ended = job_message(7, state=JOB_STATE_RUNNING), job_message(7, state=JOB_STATE_COMPLETED)
        running.attempt = ended.attempt = 1
        ended.end_time.FromJsonString("2026-01-02T03:04:18Z")
        yield running
        assert self.has_ended.wait(LONG_S)
        yield ended


def test_a_message_ends_the_line_that_a_log_has_begun_on_the_terminal(stand_in: StandIn) -> None:
    log = BreakingOff(stand_in)
    with in_terminal([QGJOB, "jobs", "wait", "7", "--follow"], env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: lines[0].endswith("running") and len(lines) > 1)
        log.is_begun.set()
        terminal.wait_until(lambda lines: lines[-1] == "loading")
        log.has_ended.set()
        terminal.wait_until(lambda lines: lines[-2].endswith("completed"))
        log.goes_on.set()
        assert terminal.end() == 0
    about = "job 7 login.spec.js"
    assert terminal.lines == [f"{about}: running", "one", "loading", f"{about}: completed", " done", ""]


@pytest.mark.parametrize(
    ("stderr", "ended"),
    [(subprocess.STDOUT, ["\n", "job 7 login.spec.js: completed\n"]), (subprocess.PIPE, [])],
    ids=["in the same pipe", "in another pipe"],
)
def test_a_message_ends_the_line_that_a_log_has_begun_in_the_same_pipe_and_in_no_other(
    stand_in: StandIn, stderr: int, ended: list[str]
) -> None:
    log = BreakingOff(stand_in)
    command = [QGJOB, "jobs", "wait", "7", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env(stand_in)) as process:
        assert process.stdout is not None
        said = process.stderr or process.stdout
        assert said.readline() == "job 7 login.spec.js: running\n"
        log.is_begun.set()
        assert process.stdout.read(len("one\nloading")) == "one\nloading"
        log.has_ended.set()
        assert [process.stdout.readline() for _ in ended] == ended
        if not ended:
            assert said.readline() == "job 7 login.spec.js: completed\n"
        log.goes_on.set()
        rest, _ = process.communicate(timeout=LONG_S)
    assert (process.returncode, rest) == (0, " done\n")
