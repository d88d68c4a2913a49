"""What reaches the terminal: text without control sequences, and logs as they come."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from qgjob.cli import harmless

# CSI, then OSC and other strings, then two-character escapes, then every other control character but tab and newline,
# then marks that turn the direction of writing round and so could make a name read as another.
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
_ESCAPE = r"\x1b[ -/]*[0-~]"
_OTHER = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
_CONTROL = re.compile(f"{_CSI}|{_STRING}|{_ESCAPE}|{_OTHER}")
# A sequence that has begun and not ended. It is held back until its end has come.
_OPEN = re.compile(
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*\x1b?|\x1b[ -/]*)$"
)
_MOST_HELD = 4_096
STDOUT, STDERR = 1, 2


class _Line:
    """The line that a log has begun where messages stand too: a message does not go on with it."""

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._is_open = False

    @contextmanager
    def written(self) -> Iterator[None]:
        """Let nobody else write there meanwhile."""
        with self._turn:
            yield

    @property
    def is_open(self) -> bool:
        """Whether what was written last ended no line."""
        return self._is_open

    def note(self, *, ends_line: bool) -> None:
        """Note how what was written ended."""
        self._is_open = not ends_line


_beside_messages = _Line()


def clean(text: str) -> str:
    """Return text without control sequences."""
    return _CONTROL.sub("", text)


def say(text: str) -> None:
    """Print a message or progress: never on stdout, which is for results. That nobody reads it changes nothing."""
    say_as_it_is(harmless.marked(clean(text), STDERR))


def say_as_it_is(text: str) -> None:
    """Print a message that a CI service may obey, on a line of its own also where a log has begun one.

    That stderr takes nothing, as on a full disk, changes no verdict.
    """
    with _beside_messages.written():
        begin = "\n" if _beside_messages.is_open else ""
        _beside_messages.note(ends_line=True)
        try:
            sys.stderr.write(f"{begin}{text}\n")
            sys.stderr.flush()
        except OSError:
            _abandon(sys.stderr)


class ReaderGone(Exception):
    """Whoever read our stdout has enough, as `| head` has. No OSError: Typer would end the program with 1."""


def abandon_readers() -> None:
    """Let what is still buffered for a reader of stdout who has gone not complain at exit.

    Where stderr goes to the same reader, as with `2>&1 | head`, nothing that is said while the program ends may fail
    either: Python would end with 120.
    """
    _abandon(sys.stdout)
    if _has_no_reader(STDERR):
        _abandon(sys.stderr)


def abandon_broken_stdout() -> None:
    """Write what is still buffered, or let it go where stdout takes nothing: Python would complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        _abandon(sys.stdout)


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    # No event is asked for: that the other end of a pipe is closed is told always.
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def _is_where_messages_go(descriptor: int) -> bool:
    try:
        return os.path.sameopenfile(descriptor, STDERR)
    except OSError:  # closed by the caller
        return False


def _abandon(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Cleaner:
    """Cleans a stream of bytes, where a character or a sequence may be cut in two anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes, *, is_end: bool = False) -> str:
        """Return what may be shown now."""
        text = self._held + self._decoder.decode(data, final=is_end)
        begun = None if is_end else _OPEN.search(text)
        if begun is not None and len(text) - begun.start() <= _MOST_HELD:
            self._held = text[begun.start() :]
            text = text[: begun.start()]
        else:
            self._held = ""
        return clean(text)


class LogWriter:
    """Writes a log: byte for byte on a pipe, without control sequences on a terminal.

    Where GitHub's runner reads along, the log gives it no commands. Where it goes to the same place as messages, as on
    a terminal or with `2>&1`, a message ends the line that the log has begun.
    """

    def __init__(self, descriptor: int = STDOUT) -> None:
        """Write to stdout, or to stderr where stdout is for something else."""
        self._stream = sys.stderr if descriptor == STDERR else sys.stdout
        self._cleaner = Cleaner() if self._stream.isatty() else None
        self._harmless = harmless.Harmless() if harmless.is_wanted(descriptor) else None
        self._line = _beside_messages if _is_where_messages_go(descriptor) else _Line()

    def write(self, data: bytes) -> None:
        """Write the next bytes, at once."""
        self._put(data, is_end=False)

    def end(self) -> None:
        """Write what was held back at the end of an attempt's log; what is said next begins a line on a terminal."""
        self._put(b"", is_end=True)
        with self._line.written():
            if self._cleaner is not None and self._line.is_open:
                self._show("\n")

    def abandon(self) -> None:
        """Let what is still buffered, and all that comes, go where nothing is refused."""
        _abandon(self._stream)

    def _put(self, data: bytes, *, is_end: bool) -> None:
        with self._line.written():
            if self._cleaner is not None:
                self._show(self._cleaner.feed(data, is_end=is_end))
                return
            if self._harmless is not None:
                data = self._harmless.feed(data, is_end=is_end)
            self._stream.buffer.write(data)
            self._stream.buffer.flush()
            if data:
                self._line.note(ends_line=data.endswith(b"\n"))

    def _show(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        if text:
            self._line.note(ends_line=text.endswith("\n"))
