"""What an attempt's log may take in: the pure rules of append by offset.

A chunk is appended only at the committed size. What lies before is trimmed, what would leave a gap is refused, and the
sender goes on from the size that it is told. The log is COMPLETE when its length and SHA-256 are what the agent wrote,
TRUNCATED when the rest never came; bytes that come after that are still stored for later readers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MAX_LOG_BYTES = 64 * 1_024 * 1_024 + 4_096
"""What an agent may write for one attempt, with room for the mark where it cut."""


class LogState(StrEnum):
    """Whether a log can still grow."""

    OPEN = "open"
    COMPLETE = "complete"
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """What to write of a chunk: `data[skip : skip + length]` at the committed size."""

    skip: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """The state of one attempt's log."""

    size: int = 0
    state: LogState = LogState.OPEN
    final_size: int | None = None
    final_sha256: str = ""

    def take(self, offset: int, length: int) -> Take:
        """Return how much of a chunk is new and fits; nothing for a gap, an overlap, or a full or complete log."""
        skip = self.size - offset
        if self.state is LogState.COMPLETE or offset < 0 or skip < 0 or skip >= length:
            return Take(skip=0, length=0)
        limit = MAX_LOG_BYTES if self.final_size is None else self.final_size
        return Take(skip=skip, length=max(0, min(length - skip, limit - self.size)))

    def grown(self, length: int) -> LogFile:
        """Return the log with more bytes."""
        return replace(self, size=self.size + length)

    def announced(self, size: int, sha256: str) -> LogFile:
        """Return the log with the length and the hash that its writer gave; the first word counts."""
        if self.final_size is not None or size > MAX_LOG_BYTES:
            return self
        return replace(self, final_size=size, final_sha256=sha256)

    @property
    def is_whole(self) -> bool:
        """Whether every announced byte is here, so that the hash can be compared."""
        return self.final_size is not None and self.size >= self.final_size

    def judged(self, sha256: str) -> LogFile:
        """Return the log as its hash proves it: COMPLETE, or TRUNCATED when it is not what was written."""
        matches = sha256 == self.final_sha256 and self.size == self.final_size
        return replace(self, state=LogState.COMPLETE if matches else LogState.TRUNCATED)

    def abandoned(self) -> LogFile:
        """Return the log after the wait for the rest is over."""
        return self if self.state is LogState.COMPLETE else replace(self, state=LogState.TRUNCATED)
