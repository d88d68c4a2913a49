"""When the bytes of a log were written: marks beside it on the disk, each (offset, wall time).

A mark counts for all bytes from its offset to the next one. There is one for at most each 100 ms, later for each
second, so a day's log has no more than 100,000. They are for people who read the log: that they cannot be kept costs
nothing but the times.
"""

from __future__ import annotations

import bisect
import os
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

INTERVAL_MS = 100
LATER_INTERVAL_MS = 1_000
MANY_MARKS = 10_000
"""After which the interval grows."""
MOST_IN_A_CHUNK = 1_000
_MARK = struct.Struct(">qq")

Mark = tuple[int, int]
"""Offset, and milliseconds since 1970."""


def read_wall_ms() -> int:
    """Return the wall time in milliseconds."""
    return time.time_ns() // 1_000_000


class TimesWriter:
    """Writes the marks of one log."""

    def __init__(self, path: Path, read_ms: Callable[[], int] = read_wall_ms) -> None:
        """Begin a file."""
        self._file = path.open("wb", buffering=0)
        self._read_ms = read_ms
        self._count = 0
        self._next_ms = 0
        self.lost: str | None = None
        """Why the rest is missing; None when it is not."""

    def note(self, offset: int) -> None:
        """Take down, if it is time, that the byte at an offset is written now; call it before the byte is."""
        now_ms = self._read_ms()
        # A clock that was set back begins anew.
        is_soon = self._next_ms - LATER_INTERVAL_MS <= now_ms < self._next_ms
        if is_soon or self.lost is not None:
            return
        try:
            self._file.write(_MARK.pack(offset, now_ms))
        except OSError as error:
            self.lost = error.strerror or str(error)
            return
        self._count += 1
        self._next_ms = now_ms + (INTERVAL_MS if self._count < MANY_MARKS else LATER_INTERVAL_MS)

    def close(self) -> None:
        """Write no more."""
        self._file.close()


class _Marks(Sequence[Mark]):
    """The marks of a file, each read when it is looked at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._count = os.fstat(descriptor).st_size // _MARK.size

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Mark: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mark]: ...
    def __getitem__(self, index: int | slice) -> Mark | list[Mark]:
        if isinstance(index, int):
            offset, time_ms = _MARK.unpack(os.pread(self._descriptor, _MARK.size, index * _MARK.size))
            return offset, time_ms
        start, stop, step = index.indices(self._count)
        data = os.pread(self._descriptor, max(0, stop - start) * _MARK.size, start * _MARK.size)
        return [(offset, time_ms) for offset, time_ms in _MARK.iter_unpack(data)][::step]


def marks_between(path: Path, start: int, end: int) -> list[Mark]:
    """Return the marks of a range of bytes; of very many some are left out, and none where there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    try:
        marks = _Marks(descriptor)
        first = bisect.bisect_left(marks, (start, 0))
        last = bisect.bisect_left(marks, (end, 0), first)
        step = -(-(last - first) // MOST_IN_A_CHUNK) or 1
        return marks[first:last:step]
    finally:
        os.close(descriptor)
