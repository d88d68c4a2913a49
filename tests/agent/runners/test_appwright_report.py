"""What the reporter's lines mean, and that no line can stop the reading."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from agent.core.model import Blame, Outcome, TestState
from agent.runners.appwright_report import (
    MAX_ERROR_CHARACTERS,
    MAX_EVENT_BYTES,
    ErrorRaised,
    EventReader,
    ReporterEvent,
    RunBegan,
    RunEnded,
    Seen,
    TestEvent,
    event_pipe,
    parse_event,
    verdict_of,
)


def line(event: str, **fields: object) -> bytes:
    return json.dumps({"event": event, **fields}).encode() + b"\n"


def ended(status: str, *, expected: str = "passed", error: str = "") -> bytes:
    return line("test_end", id="t1", title="logs in", status=status, expected=expected, duration_ms=1.5, error=error)


def state_of(told: bytes) -> TestState:
    event = parse_event(told)
    assert isinstance(event, TestEvent)
    return event.state


@pytest.mark.parametrize(
    ("status", "expected", "state"),
    [
        ("passed", "passed", TestState.PASSED),
        ("failed", "passed", TestState.FAILED),
        ("failed", "failed", TestState.PASSED),
        ("timedOut", "passed", TestState.TIMED_OUT),
        ("skipped", "skipped", TestState.SKIPPED),
        ("interrupted", "passed", TestState.INTERRUPTED),
        ("somethingNew", "passed", TestState.FAILED),
    ],
)
def test_status_of_a_test_is_read_against_what_was_expected(status: str, expected: str, state: TestState) -> None:
    assert state_of(ended(status, expected=expected)) is state


def test_events_are_read_as_the_reporter_writes_them() -> None:
    assert parse_event(line("begin", tests=2, divisible=True)) == RunBegan(tests=2, is_divisible=True)
    assert parse_event(line("error", message="no such module")) == ErrorRaised(message="no such module")
    assert parse_event(line("end", status="passed")) == RunEnded(status="passed")
    assert parse_event(ended("failed", error="boom")) == TestEvent(
        id="t1", title="logs in", state=TestState.FAILED, duration_us=1_500, error="boom"
    )


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"5",
        b"null",
        b"[]",
        b"not json",
        b"\xff\xfe",
        b'{"event": "begin"}',
        b'{"event": "begin", "tests": "many"}',
        b'{"event": "test_end", "id": "t"}',
        b'{"event": "test_begin", "id": 5, "title": "x"}',
        b'{"event": "unheard-of"}',
        b"[" * 50_000,
        line("test_end", id="t", title="t", status=[], expected="", duration_ms=1, error=""),
        line("test_end", id="t", title="t", status="failed", expected="", duration_ms=float("inf"), error=""),
    ],
)
def test_garbage_is_no_event(garbage: bytes) -> None:
    assert parse_event(garbage) is None


def test_half_a_character_is_made_sendable() -> None:
    event = parse_event(b'{"event": "error", "message": "cut \\ud83d"}')
    assert isinstance(event, ErrorRaised)
    assert event.message.encode("utf-8") == b"cut ?"


def test_long_errors_are_cut() -> None:
    event = parse_event(ended("failed", error="x" * (MAX_ERROR_CHARACTERS + 9)))
    assert isinstance(event, TestEvent)
    assert len(event.error) == MAX_ERROR_CHARACTERS


def read(*pieces: bytes) -> list[ReporterEvent]:
    events: list[ReporterEvent] = []
    reader = EventReader(-1, events.append)
    for piece in pieces:
        reader.feed(piece)
    return events


def test_line_that_comes_in_pieces_is_one_event() -> None:
    whole = line("begin", tests=3)
    assert read(*(whole[at : at + 1] for at in range(len(whole)))) == [RunBegan(tests=3)]


def test_line_without_an_end_is_not_taken_in() -> None:
    assert read(line("begin", tests=3), line("end", status="passed")[:-2]) == [RunBegan(tests=3)]


@pytest.mark.parametrize("piece", [1_000, MAX_EVENT_BYTES * 3])
def test_oversize_line_is_dropped_and_the_next_one_is_read(piece: int) -> None:
    oversize = b"x" * (MAX_EVENT_BYTES * 2) + b"\n"
    pieces = [oversize[at : at + piece] for at in range(0, len(oversize), piece)]
    assert read(*pieces, line("begin", tests=1)) == [RunBegan(tests=1)]


async def test_pipe_is_emptied_whatever_is_written_to_it(tmp_path: Path) -> None:
    events: list[ReporterEvent] = []
    with event_pipe(tmp_path / "events", events.append) as reader:

        def write() -> None:
            with (tmp_path / "events").open("wb", buffering=0) as pipe:
                pipe.write(b"garbage\n" * 40_000)  # several times what a pipe holds
                pipe.write(line("end", status="passed"))

        await asyncio.wait_for(asyncio.to_thread(write), 60)
        reader.read()
    assert events == [RunEnded(status="passed")]
    assert os.listdir(tmp_path) == []


def seen(*lines: bytes) -> Seen:
    told = Seen()
    for event in read(*lines):
        told.take(event)
    return told


BEGIN = line("begin", tests=1)


@pytest.mark.parametrize(
    ("told", "outcome", "reason", "blame", "words"),
    [
        ((BEGIN, ended("failed", error="expected 3\n\ngot 2")), "failed", "TEST_FAILED", "test", "logs in: expected 3"),
        ((BEGIN, ended("timedOut", error="30 s")), "failed", "TEST_FAILED", "test", "30 s"),
        (
            (BEGIN, ended("failed", error="A new session could not be created. Details: boot")),
            "errored",
            "SESSION_FAILED",
            "host",
            "could not be created",
        ),
        (
            (BEGIN, ended("failed", error="invalid session id"), ended("failed", error="expected 3")),
            "failed",
            "TEST_FAILED",
            "test",
            "invalid session id",
        ),
        ((), "failed", "PROJECT_INVALID", "test", "its log says why"),
        ((line("error", message="no config"),), "failed", "PROJECT_INVALID", "test", "no config"),
        ((BEGIN, line("error", message="SyntaxError")), "failed", "SPEC_INVALID", "test", "SyntaxError"),
        ((line("begin", tests=0),), "failed", "NO_TESTS", "test", "holds no test"),
        ((BEGIN,), "errored", "RUN_BROKEN", "host", "ended with 1"),
    ],
)
def test_verdict_tells_the_test_from_the_lab(
    told: tuple[bytes, ...], outcome: str, reason: str, blame: str, words: str
) -> None:
    verdict = verdict_of("a.spec.ts", seen(*told), 1, is_server_up=True)
    assert verdict.failure is not None
    assert (verdict.outcome, verdict.failure.reason) == (Outcome(outcome), reason)
    assert verdict.failure.blame is Blame(blame)
    assert words in verdict.failure.message


@pytest.mark.parametrize(("is_server_up", "reason"), [(True, "TEST_FAILED"), (False, "SESSION_FAILED")])
def test_refused_connection_is_the_labs_fault_only_when_its_server_is_gone(is_server_up: bool, reason: str) -> None:
    told = seen(BEGIN, ended("failed", error="connect ECONNREFUSED 127.0.0.1:8080"))
    verdict = verdict_of("a.spec.ts", told, 1, is_server_up=is_server_up)
    assert verdict.failure is not None
    assert verdict.failure.reason == reason
