"""Lets several threads share a transaction: while one is under way, the works of the others gather for the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from coordinator.store.errors import OutcomeUnknown, StaleEpoch, StoreBusy

Work = Callable[[Connection], object]


@dataclass(slots=True, eq=False)
class _Entry:
    work: Work
    is_taken: bool = False
    error: Exception | None = field(
        default_factory=lambda: OutcomeUnknown("the thread that was to commit it has ended")
    )


class GroupCommit:
    """Does works in transactions. Each returns once it is durable, whoever's transaction it was in."""

    def __init__(self, transact: Callable[[Work], object]) -> None:
        """Take what does a work in a transaction of its own, and returns once that is durable."""
        self._transact = transact
        self._gathering: list[_Entry] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock()

    def do(self, work: Work) -> None:
        """Do a work, with those that others hand in meanwhile: all of it is durable then, or nothing.

        A work that fails fails alone: the others are done without it.

        Raises:
            Exception: What the work or its transaction raised.
        """
        entry = _Entry(work)
        with self._lock:
            self._gathering.append(entry)
        with self._turn:
            if not entry.is_taken:
                self._do_all(self._take())
        if entry.error is not None:
            raise entry.error

    def _take(self) -> list[_Entry]:
        with self._lock:
            taken, self._gathering = self._gathering, []
        for entry in taken:
            entry.is_taken = True
        return taken

    def _do_all(self, entries: Sequence[_Entry]) -> None:
        try:
            self._transact(lambda connection: [entry.work(connection) for entry in entries])
        except (OutcomeUnknown, StaleEpoch, StoreBusy) as error:
            # The first may have happened, the others would happen again, a wait each: nothing is tried a second time.
            _end(entries, error)
        except Exception as error:  # noqa: BLE001 - each work gets what it raised
            if len(entries) == 1:
                _end(entries, error)
            else:
                for entry in entries:
                    self._do_all([entry])
        else:
            _end(entries, None)


def _end(entries: Sequence[_Entry], error: Exception | None) -> None:
    for entry in entries:
        entry.error = error
