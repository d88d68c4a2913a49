"""What an attempt's log may take in: the pure rules of append by offset.

A chunk is taken in only at the size that is there: what lies before is trimmed, a gap is refused, and the sender goes
on from the size that it is told. When the writer has said how long the log is and what it hashes to, and every byte has
come, the log is judged: COMPLETE if the hash is right. If it is not, and some of the bytes were written by an earlier
life of the process, a loss of power may have damaged them, and the log begins anew once. Otherwise it is TRUNCATED, as
is one that grew past the limit.

A log whose rest does not come is TRUNCATED for those who look at it after a while, but it stays open for its writer:
what comes late is stored for later readers, and can still make it COMPLETE.

A log consists of parts. Each epoch writes to parts of its own, from the byte at which it took the log over, and a part
counts once it is recorded in the database under the check of the epoch. What an earlier epoch writes to its own part
after that is seen by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.model import Attempt, AttemptId, AttemptOutcome, changed

MAX_LOG_BYTES = 64 * 1_024 * 1_024 + 4_096
"""What an agent may write for one attempt, with room for the mark where it cut."""
PATIENCE_US = 600 * 1_000_000
"""How long after the end of an attempt, and after its last bytes, the rest is waited for."""


class LogState(StrEnum):
    """Whether a log can still grow."""

    OPEN = "open"
    COMPLETE = "complete"
    TRUNCATED = "truncated"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """Some of a log's bytes, written in one epoch."""

    attempt: AttemptId
    epoch: int
    """0 for the one file of a log that was begun before there were parts."""
    start: int
    """The place of its first byte in the log."""
    size: int | None = None
    """Bytes of a part that never changes; None while it can grow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """That nothing more is wanted of a log."""

    attempt: AttemptId
    state: LogState
    size: int


@dataclass(frozen=True, slots=True)
class LogRestart:
    """That a log begins anew: its parts do not count any more."""

    attempt: AttemptId


LogWrite = LogPart | LogEnd | LogRestart


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """What is recorded of a log."""

    parts: tuple[LogPart, ...] = ()
    """In the order of their epochs and starts."""
    end: LogEnd | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """What counts of a part: the bytes of the log from `part.start` to `until`, None for as far as it goes."""

    part: LogPart
    until: int | None


def spans(parts: Sequence[LogPart]) -> list[Span]:
    """Return what counts of each part, in the order of the log; each gives way to those that were begun after it.

    Args:
        parts: In the order of their epochs and starts.
    """
    found: list[Span] = []
    bound: int | None = None
    for part in reversed(parts):
        own = None if part.size is None else part.start + part.size
        until = min((end for end in (own, bound) if end is not None), default=None)
        if until is None or until > part.start:
            found.append(Span(part, until))
        bound = part.start if bound is None else min(bound, part.start)
    return found[::-1]


@dataclass(frozen=True, slots=True)
class Take:
    """What to write of a chunk: `data[skip : skip + length]`, at the size that the log had."""

    skip: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """One attempt's log: how much was taken in, and what is known of its end."""

    size: int = 0
    state: LogState = LogState.OPEN
    final_size: int | None = None
    final_sha256: str = ""
    is_inherited: bool = False
    """Whether some bytes were written by an earlier life of the process."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is wanted from the writer."""
        return self.state is not LogState.OPEN

    @property
    def is_due(self) -> bool:
        """Whether it can be judged now."""
        return not self.is_closed and self.final_size is not None and self.size >= self.final_size

    def taken(self, offset: int, length: int) -> tuple[LogFile, Take]:
        """Return the log with what is new of a chunk, and what that is: nothing for a gap, an echo or a closed log.

        Args:
            offset: Where the chunk belongs.
            length: Its bytes.
        """
        skip = self.size - offset
        if self.is_closed or offset < 0 or not 0 <= skip < length:
            return self, Take()
        if self.final_size is not None:
            length = min(length, max(skip, self.final_size - offset))
        take = Take(skip, min(length - skip, MAX_LOG_BYTES - self.size))
        state = LogState.OPEN if skip + take.length == length else LogState.TRUNCATED
        return changed(self, size=self.size + take.length, state=state), take

    def announced(self, size: int, sha256: str) -> LogFile:
        """Return the log with the length and the hash that its writer gave. The last word counts until all is here."""
        if self.is_closed or self.is_due:
            return self
        if size > MAX_LOG_BYTES:
            return changed(self, state=LogState.TRUNCATED)
        return changed(self, final_size=size, final_sha256=sha256.lower())

    def judged(self, sha256: str) -> LogFile:
        """Return the log after its bytes were hashed.

        Args:
            sha256: Of all bytes that are there, in hexadecimal.
        """
        assert self.is_due
        if self.size == self.final_size and sha256 == self.final_sha256:
            return changed(self, state=LogState.COMPLETE)
        return LogFile() if self.is_inherited else changed(self, state=LogState.TRUNCATED)

    def without(self, length: int) -> LogFile:
        """Return the log after the disk refused the last `length` bytes that were taken in."""
        return changed(self, size=self.size - length, state=LogState.OPEN)

    def state_for(self, attempt: Attempt, quiet_us: int, patience_us: int = PATIENCE_US) -> LogState:
        """Return what a reader of an attempt's log is told.

        Args:
            attempt: Whose log it is.
            quiet_us: Time since the attempt ended and since the last byte came, whichever is shorter.
            patience_us: How long to wait for the rest.
        """
        if self.is_closed or attempt.outcome is None:
            return self.state
        if self.size == 0 and _wrote_nothing(attempt):
            return LogState.COMPLETE
        return LogState.TRUNCATED if quiet_us >= patience_us else LogState.OPEN


def _wrote_nothing(attempt: Attempt) -> bool:
    """Whether an ended attempt is known to have no log. Of a lost one only its agent knows."""
    return attempt.start_us is None or (attempt.log_size == 0 and attempt.outcome is not AttemptOutcome.LOST)
