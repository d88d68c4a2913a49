"""Live views in a terminal, and as a stream of JSON objects on a pipe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qgjob.v1.job_pb2 import JOB_STATE_COMPLETED, JOB_STATE_RUNNING, LANE_NORMAL, Job
from qgjob.v1.job_service_pb2 import WatchJobsRequest
from qgjob.v1.queue_pb2 import LaneStatus, QueueStatus
from tests.cli.coordinator_stand_in import Dropped, StandIn
from tests.cli.pseudo_terminal import PseudoTerminal, in_terminal
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
ALTERNATE_SCREEN, MAIN_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
ACTIVE = [QGJOB, "jobs", "active", "--watch"]
MONITOR = [QGJOB, "queue", "monitor", "--watch"]


def env(stand_in: StandIn, **more: str) -> dict[str, str]:
    return {**os.environ, "QGJOB_COORDINATOR": stand_in.address, **more}


def thirty_jobs(stand_in: StandIn) -> None:
    """Jobs of which nothing changes."""

    def stay(request: WatchJobsRequest) -> Iterator[Job | None]:
        for number in range(1, 31):
            yield job_message(number, test=f"tests/case-{number}.spec.ts")
        yield None
        stand_in.released.wait()

    stand_in.watches = [stay]


def numbers(lines: list[str]) -> list[int]:
    """The ids that a view of jobs shows."""
    return [int(line.split()[0]) for line in lines if line.split()[:1] and line.split()[0].isdecimal()]


def test_a_view_is_turned_by_keys_and_left_with_q(stand_in: StandIn) -> None:
    thirty_jobs(stand_in)
    with in_terminal(ACTIVE, env(stand_in), rows=12) as terminal:
        lines = terminal.wait_until(lambda lines: lines[-1].startswith("1-10 of 30 |"))
        assert numbers(lines) == list(range(30, 20, -1))
        terminal.type(b" ")
        assert numbers(terminal.wait_until(lambda lines: lines[-1].startswith("10-19 of 30 |"))) == [*range(21, 11, -1)]
        terminal.type(b"G")
        assert terminal.wait_until(lambda lines: lines[-1].startswith("21-30 of 30 |"))[0].split()[:2] == [
            "ID",
            "State",
        ]
        terminal.type(b"\x1b[A")
        terminal.wait_until(lambda lines: lines[-1].startswith("20-29 of 30 |"))
        terminal.type(b"q")
        assert terminal.end() == 0
        assert terminal.written.count(ALTERNATE_SCREEN) == terminal.written.count(MAIN_SCREEN) == 1
        assert "Traceback" not in terminal.written


@pytest.mark.parametrize(
    ("leave", "code"),
    [
        (lambda terminal: terminal.type(b"\x03"), 130),
        (lambda terminal: terminal.process.terminate(), 128 + signal.SIGTERM),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_whoever_ends_a_view_finds_a_clean_screen(
    stand_in: StandIn, leave: Callable[[PseudoTerminal], None], code: int
) -> None:
    thirty_jobs(stand_in)
    with in_terminal(ACTIVE, env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: lines[-1].startswith("1-22 of 30 |"))
        leave(terminal)
        assert terminal.end() == code
        assert terminal.written.rpartition(MAIN_SCREEN)[1]
        assert "Traceback" not in terminal.written


def test_a_view_takes_the_size_that_its_terminal_takes(stand_in: StandIn) -> None:
    thirty_jobs(stand_in)
    with in_terminal(ACTIVE, env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: lines[-1].startswith("1-22 of 30 |"))
        terminal.resize(40, 8)
        lines = terminal.wait_until(lambda lines: lines[-1].startswith("1-6 of 30 |"))
        assert len(lines) == 8
        assert max(map(len, lines)) <= 40


def test_a_view_says_that_the_connection_is_lost_and_goes_on(stand_in: StandIn) -> None:
    def breaks(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(7)
        yield None
        stand_in.heard.wait(120)
        raise Dropped

    def goes_on(request: WatchJobsRequest) -> Iterator[Job | None]:
        stand_in.gone_on.wait(120)
        yield job_message(8)
        yield None
        stand_in.released.wait()

    ended = job_message(7, state=JOB_STATE_COMPLETED)
    ended.end_time.FromJsonString("2026-01-02T03:04:18Z")
    stand_in.stored = [ended]
    stand_in.watches = [breaks, goes_on]
    with in_terminal(ACTIVE, env(stand_in)) as terminal:
        terminal.wait_until(lambda lines: numbers(lines) == [7])
        stand_in.heard.set()
        lines = terminal.wait_until(lambda lines: lines[-1].startswith("connection lost"))
        assert numbers(lines) == [7]
        stand_in.gone_on.set()
        terminal.wait_until(lambda lines: numbers(lines) == [8] and lines[-1] == "live | q: quit")


def queue(*running: int) -> QueueStatus:
    lane = LaneStatus(lane=LANE_NORMAL, running=len(running))
    jobs = [job_message(number, state=JOB_STATE_RUNNING) for number in running]
    return QueueStatus(lanes=[lane], running=jobs)


def test_the_monitor_keeps_the_lanes_on_top(stand_in: StandIn) -> None:
    stand_in.queues = [queue(*range(1, 31))]
    with in_terminal(MONITOR, env(stand_in), columns=60, rows=10) as terminal:
        terminal.wait_until(lambda lines: lines[-1].startswith("1-6 of 32 |"))
        terminal.type(b"G")
        lines = terminal.wait_until(lambda lines: lines[-1].startswith("27-32 of 32 |"))
        assert lines[:2] == ["Queue Status Summary", "Normal Priority Queue: 30 active (0 queued, 30 running)"]
        assert lines[-2].startswith("  Job 30 (P3) - login.spec.js on")


def test_a_terminal_that_cannot_be_painted_on_gets_one_view_below_the_other(stand_in: StandIn) -> None:
    stand_in.queues = [queue(1), queue(1, 2)]
    with in_terminal(MONITOR, env(stand_in, TERM="dumb")) as terminal:
        terminal.wait_until(lambda lines: any(line.startswith("  Job 2 (P3)") for line in lines))
        assert "\x1b" not in terminal.written
        assert terminal.lines.count("Queue Status Summary") == 2


@pytest.mark.parametrize("kind", ["dumb", "xterm-256color"])
def test_the_monitor_folds_what_is_too_long_for_a_narrow_terminal(stand_in: StandIn, kind: str) -> None:
    stand_in.queues = [queue(1)]
    with in_terminal(MONITOR, env(stand_in, TERM=kind), columns=40) as terminal:
        lines = terminal.wait_until(lambda lines: any(line.endswith(" in queue)") for line in lines))
        assert lines[1:3] == ["Normal Priority Queue: 1 active", "  (0 queued, 1 running)"]
        assert max(map(len, lines)) <= 40


def test_a_view_fits_a_narrow_terminal_that_cannot_be_painted_on(stand_in: StandIn) -> None:
    thirty_jobs(stand_in)
    with in_terminal(ACTIVE, env(stand_in, TERM="dumb"), columns=40) as terminal:
        lines = terminal.wait_until(lambda lines: numbers(lines)[-1:] == [1])
        assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("width", [80, 200])
def test_no_color_leaves_a_view_without_colours(stand_in: StandIn, width: int) -> None:
    thirty_jobs(stand_in)
    command = ["env", "NO_COLOR=1", *ACTIVE]
    with in_terminal(command, env(stand_in), columns=width) as terminal:
        terminal.wait_until(lambda lines: lines[-1].startswith("1-22 of 30 |"))
        assert "m" not in {sequence[-1] for sequence in _sequences(terminal)}


def _sequences(terminal: PseudoTerminal) -> list[str]:
    return re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", terminal.written)


def test_on_a_pipe_each_change_of_an_active_job_is_one_object(stand_in: StandIn) -> None:
    def change(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(7)
        yield None
        yield job_message(7, state=JOB_STATE_RUNNING)
        yield job_message(7, state=JOB_STATE_COMPLETED)
        stand_in.released.wait()

    stand_in.watches = [change]
    assert piped(stand_in, ACTIVE, 3, lambda job: (job["id"], job["status"])) == [
        (7, "queued"),
        (7, "running"),
        (7, "completed"),
    ]


def test_on_a_pipe_each_change_of_the_queue_is_one_object(stand_in: StandIn) -> None:
    stand_in.queues = [queue(1), queue(1), queue(1, 2)]
    assert piped(stand_in, MONITOR, 2, lambda status: len(status["running"])) == [1, 2]


def test_on_a_pipe_what_is_only_estimated_anew_is_no_change_of_the_queue(stand_in: StandIn) -> None:
    looks = [queue(1), queue(1), queue(1, 2)]
    for number, look in enumerate(looks):
        look.waiting.append(job_message(9))
        look.expected_drain_time.FromSeconds(1_700_000_000 + number)
        look.waiting[0].expected_start_time.FromSeconds(1_700_000_000 + number)
    stand_in.queues = looks
    assert piped(stand_in, MONITOR, 2, lambda status: len(status["running"])) == [1, 2]


def piped(stand_in: StandIn, command: list[str], count: int, shown: Callable[[Any], object]) -> list[object]:
    """Read so many lines of a program that goes on, and close the pipe."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env(stand_in)) as process:
        assert process.stdout is not None
        found = [shown(json.loads(process.stdout.readline())) for _ in range(count)]
        process.kill()
    return found


@pytest.mark.parametrize("command", [[*ACTIVE, "-o", "jsonl"], [*ACTIVE, "-o", "table"]], ids=["objects", "tables"])
def test_a_watch_ends_at_once_when_nobody_reads_it_any_more(stand_in: StandIn, command: list[str]) -> None:
    thirty_jobs(stand_in)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(stand_in))
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        # Nothing follows these jobs, so that no write could find out.
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (0, b"")


def test_a_watch_goes_on_when_nobody_reads_its_messages(stand_in: StandIn) -> None:
    def drop(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(1)
        yield None
        stand_in.gone_on.wait()
        raise Dropped

    def go_on(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(1, state=JOB_STATE_RUNNING)
        yield None

    stand_in.watches = [drop, go_on]
    process = subprocess.Popen(ACTIVE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(stand_in))
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert json.loads(process.stdout.readline())["status"] == "queued"
        process.stderr.close()
        stand_in.gone_on.set()
        assert json.loads(process.stdout.readline())["status"] == "running"
        process.kill()
