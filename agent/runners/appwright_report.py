"""What the reporter inside Playwright tells, and what it means.

Lines come through a named pipe while the run goes on. Tests can write there as well, and a run can be killed in the
middle of a line: whatever makes no sense is dropped, and nothing that is written may stop the reading, for a full pipe
would hold the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.core.model import Blame, Failure, Outcome, TestResult, TestState
from agent.runners.protocol import Verdict

MAX_EVENT_BYTES = 1_024 * 1_024
MAX_ID_CHARACTERS = 128
MAX_TITLE_CHARACTERS = 1_024
MAX_ERROR_CHARACTERS = 16 * 1_024
READ_BYTES = 65_536

_STATES = {
    "passed": TestState.PASSED,
    "failed": TestState.FAILED,
    "skipped": TestState.SKIPPED,
    "timedOut": TestState.TIMED_OUT,
    "interrupted": TestState.INTERRUPTED,
}
_NO_SESSION = re.compile(
    r"new session could not be created|Failed to create session|invalid session id|session is either terminated"
    r"|instrumentation process",
    re.IGNORECASE,
)
_CUT = re.compile(r"ECONNREFUSED|ECONNRESET|socket hang up")
"""Of a server that is gone, or of the test's own backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegan:
    """Playwright has loaded the project and knows its tests."""

    tests: int
    is_divisible: bool = False
    """Whether some of them may run without the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEvent:
    """One test began, or ended."""

    __test__ = False  # the name is the domain's, and pytest shall not collect it

    id: str
    title: str
    state: TestState
    duration_us: int = 0
    error: str = ""

    def result(self, attempt: int) -> TestResult:
        """Return it as one test of an attempt."""
        return TestResult(
            id=self.id,
            title=self.title,
            state=self.state,
            duration_us=self.duration_us,
            error=self.error,
            attempt=attempt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRaised:
    """Something failed outside every test."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """Playwright's own word on the whole."""

    status: str


ReporterEvent = RunBegan | TestEvent | ErrorRaised | RunEnded


def parse_event(line: bytes) -> ReporterEvent | None:
    """Read one line of the reporter; None for what makes no sense."""
    try:
        event = json.loads(line)
        match event["event"]:
            case "begin":
                return RunBegan(tests=int(event["tests"]), is_divisible=event.get("divisible") is True)
            case "test_begin":
                return TestEvent(id=_id(event["id"]), title=_title(event["title"]), state=TestState.RUNNING)
            case "test_end":
                return _ended(event)
            case "error":
                return ErrorRaised(message=_plain(event["message"])[:MAX_ERROR_CHARACTERS])
            case "end":
                return RunEnded(status=_plain(event["status"]))
            case _:
                return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _ended(event: dict[str, object]) -> TestEvent:
    status, duration_ms = event["status"], event["duration_ms"]
    if not isinstance(status, str) or not isinstance(duration_ms, int | float):
        raise TypeError("a status is a text, and a duration a number")
    state = _STATES.get(status, TestState.FAILED)
    if status == event["expected"] and state is TestState.FAILED:
        state = TestState.PASSED  # it was expected to fail, and did
    error = "" if state is TestState.PASSED else _plain(event["error"])[:MAX_ERROR_CHARACTERS]
    return TestEvent(
        id=_id(event["id"]),
        title=_title(event["title"]),
        state=state,
        duration_us=max(0, int(duration_ms * 1_000)),
        error=error,
    )


def _id(value: object) -> str:
    return _plain(value)[:MAX_ID_CHARACTERS]


def _title(value: object) -> str:
    return _plain(value)[:MAX_TITLE_CHARACTERS]


def _plain(value: object) -> str:
    """Return a text that can be sent: JavaScript may cut a character in half, and no wire carries the half."""
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {value!r}")
    return value.encode("utf-8", "replace").decode("utf-8")


class EventReader:
    """Reads lines from the pipe as they come."""

    def __init__(self, descriptor: int, take: Callable[[ReporterEvent], None]) -> None:
        self._descriptor = descriptor
        self._take = take
        self._pending = b""
        self._is_skipping = False
        """In the rest of a line that is too long."""

    def read(self) -> None:
        """Take in all that lies in the pipe now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, READ_BYTES):
                self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take in some bytes of the stream."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if self._is_skipping or len(line) > MAX_EVENT_BYTES:
                self._is_skipping = False
            elif (event := parse_event(line)) is not None:
                self._take(event)
        if len(self._pending) > MAX_EVENT_BYTES:
            self._pending, self._is_skipping = b"", True


@contextlib.contextmanager
def event_pipe(path: Path, take: Callable[[ReporterEvent], None]) -> Iterator[EventReader]:
    """Make a named pipe and read what is written to it, until the block ends."""
    os.mkfifo(path, 0o600)
    # Open for writing too, so that the reading end never meets an end of file.
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    loop = asyncio.get_running_loop()
    reader = EventReader(descriptor, take)
    loop.add_reader(descriptor, reader.read)
    try:
        yield reader
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        path.unlink(missing_ok=True)


@dataclass(slots=True)
class Seen:
    """What the reporter told of a run."""

    begun: int | None = None
    is_divisible: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Title and error of each test that failed."""
    errors: list[str] = field(default_factory=list)
    status: str | None = None

    def take(self, event: ReporterEvent) -> None:
        """Take in one event."""
        match event:
            case RunBegan():
                self.begun, self.is_divisible = event.tests, event.is_divisible
            case TestEvent():
                if event.state in (TestState.FAILED, TestState.TIMED_OUT):
                    self.failures.append((event.title, event.error))
            case ErrorRaised():
                self.errors.append(event.message)
            case RunEnded():
                self.status = event.status


def verdict_of(spec: str, seen: Seen, code: int, *, is_server_up: bool) -> Verdict:
    """Say how a run that did not pass has ended; Playwright's exit code is 1 for every reason.

    Args:
        spec: What was run.
        seen: What the reporter told.
        code: Playwright's exit code.
        is_server_up: Whether the device's Appium still answers.
    """
    if seen.failures:
        title, error = seen.failures[0]
        if all(_NO_SESSION.search(text) or (not is_server_up and _CUT.search(text)) for _, text in seen.failures):
            return _errored("SESSION_FAILED", f"no session on the device: {_first_lines(error)}")
        return _failed("TEST_FAILED", f"{title}: {_first_lines(error)}")
    if seen.begun is None:
        said = f": {_first_lines(seen.errors[0])}" if seen.errors else "; its log says why"
        return _failed("PROJECT_INVALID", f"the project could not be loaded{said}")
    if seen.errors:
        return _failed("SPEC_INVALID", f"{spec} could not be loaded: {_first_lines(seen.errors[0])}")
    if seen.begun == 0:
        return _failed("NO_TESTS", f"{spec} holds no test")
    return _errored("RUN_BROKEN", f"Playwright ended with {code} and without a report")


def _first_lines(text: str) -> str:
    """Return the first lines that say something, as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:500] or "no reason given"


def _failed(reason: str, message: str) -> Verdict:
    return Verdict(outcome=Outcome.FAILED, failure=Failure(reason=reason, message=message, blame=Blame.TEST))


def _errored(reason: str, message: str) -> Verdict:
    return Verdict(outcome=Outcome.ERRORED, failure=Failure(reason=reason, message=message, blame=Blame.HOST))
