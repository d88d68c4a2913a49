"""When the bytes of a log were written, as far as its agent told.

Marks come with the chunks that they belong to, and count when those bytes are durable. They lie beside the log, for
each epoch apart as its parts do, and are no part of its bytes: a log whose times are lost is whole all the same.
"""

from __future__ import annotations

import bisect
import struct
from array import array
from collections.abc import Iterable, Sequence

from coordinator.core.logfile import LogPart, spans

MOST_MARKS = 100_000
"""Of a log; what comes after the last one bears its time."""
MARK = struct.Struct(">qq")

Mark = tuple[int, int]
"""Offset, and milliseconds since 1970."""


class LogTimes:
    """The marks of one log, by rising offsets."""

    def __init__(self) -> None:
        """Begin with none."""
        self._offsets = array("q")
        self._times_ms = array("q")
        self._own = 0
        """Where those of this epoch begin."""
        self.stored = 0
        """How many of this epoch lie in the storage."""

    @classmethod
    def loaded(cls, parts: Sequence[LogPart], records: dict[int, bytes], epoch: int) -> LogTimes:
        """Return what a storage holds.

        Args:
            parts: Of which the log consists.
            records: For each epoch what was stored in it.
            epoch: This one.
        """
        times = cls()
        bounds: dict[int, tuple[int, int | None]] = {}
        for span in spans(parts):
            start, _ = bounds.get(span.part.epoch, (span.part.start, None))
            bounds[span.part.epoch] = start, span.until
        for writer, (start, until) in bounds.items():
            if writer == epoch:
                times._own = len(times._offsets)
            data = records.get(writer, b"")
            # A record may have been cut by a loss of power.
            whole = data[: len(data) // MARK.size * MARK.size]
            times.add(
                mark for mark in MARK.iter_unpack(whole) if start <= mark[0] and (until is None or mark[0] < until)
            )
        if epoch not in bounds:
            times._own = len(times._offsets)
        times.stored = len(times._offsets) - times._own
        return times

    def add(self, marks: Iterable[Mark]) -> None:
        """Take marks in; those that do not go on from the last one, or are too many, are left out."""
        for offset, time_ms in marks:
            if len(self._offsets) < MOST_MARKS and (not self._offsets or offset > self._offsets[-1]):
                self._offsets.append(offset)
                self._times_ms.append(time_ms)

    @property
    def is_stored(self) -> bool:
        """Whether the storage has all marks of this epoch."""
        return self._own + self.stored == len(self._offsets)

    def own_records(self) -> bytes:
        """Return the marks of this epoch as they are stored."""
        own = zip(self._offsets[self._own :], self._times_ms[self._own :], strict=True)
        return b"".join(MARK.pack(offset, time_ms) for offset, time_ms in own)

    def between(self, start: int, end: int) -> list[Mark]:
        """Return the mark that counts for the byte at `start`, if there is one, and all further ones before `end`."""
        first = max(0, bisect.bisect_right(self._offsets, start) - 1)
        last = bisect.bisect_left(self._offsets, end, first)
        return list(zip(self._offsets[first:last], self._times_ms[first:last], strict=True))
