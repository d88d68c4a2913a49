"""Puts before each line of a log when it was written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime

Mark = tuple[int, datetime]
"""Offset in the log of an attempt, and when its byte was written."""


class Stamper:
    """Stamps the lines of a log, which come in pieces cut anywhere. A line bears the time of its first byte."""

    def __init__(self) -> None:
        """Begin at the beginning of a line."""
        self._marks: deque[tuple[int, bytes]] = deque()
        self._stamp = b""
        self._is_in_line = False
        self.is_without_times = False
        """Whether a line was told whose time nobody knows."""

    def begin(self) -> None:
        """Go on with the log of another attempt."""
        self._marks.clear()
        self._stamp, self._is_in_line = b"", False

    def feed(self, offset: int, data: bytes, marks: Iterable[Mark]) -> bytes:
        """Return a piece with the time before each line that begins in it, where that is known.

        Args:
            offset: Where the piece begins.
            data: Its bytes.
            marks: When they were written: the one that counts for the first byte, and all further ones.
        """
        self._marks.extend((place, stamp_of(when)) for place, when in marks)
        told = []
        for line in _lines(data):
            if not self._is_in_line:
                told.append(self._stamp_at(offset))
            told.append(line)
            offset += len(line)
            self._is_in_line = not line.endswith(b"\n")
        return b"".join(told)

    def _stamp_at(self, offset: int) -> bytes:
        while self._marks and self._marks[0][0] <= offset:
            self._stamp = self._marks.popleft()[1]
        self.is_without_times |= not self._stamp
        return self._stamp


def stamp_of(when: datetime) -> bytes:
    """Return an instant as it stands before a line: RFC 3339 in UTC, with milliseconds."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode() + b" "


def _lines(data: bytes) -> list[bytes]:
    """Return lines that end with a newline alone: what follows a carriage return is on the same line."""
    *lines, rest = data.split(b"\n")
    return [*(line + b"\n" for line in lines), *([rest] if rest else [])]
