"""What the log store asks of a storage. All methods block; they are called in threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.core.logfile import LogPart, LogState
from coordinator.core.model import AttemptId
from coordinator.storage.shelf import Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a storage holds of a log."""

    size: int = 0
    grown_us: int = 0
    """Wall time of the last growth; 0 if nothing was ever stored."""
    state: LogState = LogState.OPEN
    """Not OPEN only where the end of an old log is told by the storage instead of the database."""


class Storage(Protocol):
    """Keeps the parts of logs, and blobs. Which of them count is the database's business.

    Everything that reads or writes raises OSError when the storage refuses.
    """

    can_append: bool
    """Whether a part can grow; otherwise each write makes a part of its own."""
    sync_interval_s: float
    """Least time between two writes of one log."""

    def shelf(self) -> Shelf:
        """Return where blobs lie beside the logs."""

    def read_storage_id(self) -> str:
        """Return the name that the storage bears, empty where it bears none."""

    def write_storage_id(self, storage_id: str) -> None:
        """Give the storage a name, durably."""

    def where_storage_id(self) -> str:
        """Return where the name stands, for people."""

    def load(self, parts: Sequence[LogPart]) -> Stored:
        """Return how far a log goes."""

    def settle(self, parts: Sequence[LogPart]) -> None:
        """Make durable what the parts of earlier epochs hold, before a new one goes on from there."""

    def write(self, part: LogPart, offset: int, data: bytes) -> None:
        """Write to a part all or nothing, durably.

        Args:
            part: Which; a new one is made.
            offset: The place of the data in the log; what the part holds from there on is dropped.
            data: The bytes.
        """

    def read(self, parts: Sequence[LogPart], offset: int, length: int) -> bytes:
        """Return bytes of the log from `offset` on: at most `length`, and none only where there are none."""

    def write_times(self, attempt: AttemptId, epoch: int, records: bytes, stored: int) -> None:
        """Keep when the bytes were written that an epoch has added to a log. It need not survive a loss of power.

        Args:
            attempt: Whose log.
            epoch: Which.
            records: All of its records; what was kept beyond is dropped.
            stored: How many bytes of them are kept already.
        """

    def read_times(self, attempt: AttemptId, epoch: int) -> bytes:
        """Return the records that were kept of an epoch, none where there are none."""

    def remove(self, attempt: AttemptId) -> None:
        """Free the space of all parts of a log, recorded or not."""

    def sizes(self) -> Iterator[tuple[AttemptId, int]]:
        """Yield the space that each log takes, in no order; one may come several times."""
