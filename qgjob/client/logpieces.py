"""The pieces of a job's log, and where in it a follower stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from qgjob.v1.job_pb2 import (
    LOG_STATE_OPEN,
    LogState,
)

if TYPE_CHECKING:
    # The services that only some commands use are loaded by them.
    from qgjob.v1.log_pb2 import LogChunk, LogCut
    from qgjob.v1.log_service_pb2 import FollowLogsRequest, FollowLogsResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of a job's log: bytes, or the beginning or end of an attempt."""

    attempt: int
    """Number of the attempt, from 1."""
    data: bytes = b""
    state: LogState.ValueType | None = None
    """OPEN where the attempt begins, COMPLETE or TRUNCATED where it ends, None for bytes."""
    offset: int = 0
    """Where the bytes begin in the log of the attempt."""
    times: tuple[tuple[int, datetime], ...] = ()
    """When bytes were written, if that was asked for and is known: an offset, and the time of all bytes up to the next.

    The first one counts for the first byte, and may name an earlier offset.
    """


class LogCursor:
    """Where a follower stands in a job's log: which attempt, and which of its bytes comes next."""

    def __init__(self) -> None:
        self._number = 0
        self._attempt_id = 0
        self._next_byte: int | None = None
        """None until the first bytes of the attempt: a tail begins somewhere in the middle."""
        self._is_closed = False
        self.has_gap = False

    def aim(self, request: FollowLogsRequest) -> None:
        """Let a request go on where this stands."""
        self.has_gap = False
        if self._is_closed:
            request.from_attempt_number = self._number + 1
            request.tail_lines = 0
        elif self._next_byte is not None:
            request.from_attempt_number = self._number
            request.from_offset = self._next_byte
            request.tail_lines = 0
        else:
            request.from_attempt_number = self._number

    def has_ended(self, number: int) -> bool:
        """Whether the end of this attempt's log has come."""
        return self._is_closed and self._number >= number

    def take(self, message: FollowLogsResponse) -> LogPiece | None:
        """Return what is new in a message, None where nothing is."""
        match message.WhichOneof("piece"):
            case "cut":
                return self._cut(message.cut)
            case "chunk":
                return self._chunk(message.chunk)
            case _:
                return None

    def _cut(self, cut: LogCut) -> LogPiece | None:
        if cut.state == LOG_STATE_OPEN:
            if cut.attempt_number <= self._number:
                return None
            self._number, self._attempt_id = cut.attempt_number, cut.attempt_id
            self._next_byte, self._is_closed = None, False
        else:
            if cut.attempt_number != self._number or self._is_closed:
                return None
            self._is_closed = True
        return LogPiece(attempt=cut.attempt_number, state=cut.state)

    def _chunk(self, chunk: LogChunk) -> LogPiece | None:
        if chunk.attempt_id != self._attempt_id or self._is_closed:
            return None
        if self._next_byte is None:
            self._next_byte = chunk.offset
        if chunk.offset > self._next_byte:
            self.has_gap = True
            return None
        data = chunk.data[self._next_byte - chunk.offset :]
        offset, self._next_byte = self._next_byte, self._next_byte + len(data)
        times = tuple((mark.offset, mark.time.ToDatetime(UTC)) for mark in chunk.marks)
        return LogPiece(attempt=self._number, data=data, offset=offset, times=times) if data else None
