"""The leader row: which of the coordinators that share a database leads.

Whoever holds it renews it, and each renewal raises its term. No clock is compared with any other: others take the row
if its term has stood still, by their own clock, for as long as the holder said that it holds it. The row says who may
begin an epoch; what may be written is decided by the epoch alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import URL, ColumnElement, Connection, and_, select, update

from coordinator.store import tables
from coordinator.store.dialect import leader_engine, translated
from coordinator.store.errors import StaleEpoch

_ROW = tables.leadership
NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """What the row says."""

    holder: str
    """Who leads; empty where nobody does."""
    address: str
    """Where the holder can be reached, for people."""
    term: int
    """Rises with every change and every renewal."""
    ttl_us: int
    """How long the holder counts on having it, after a renewal."""

    @property
    def is_free(self) -> bool:
        """Whether nobody holds the row."""
        return self.holder == NOBODY


def free(connection: Connection) -> None:
    """Let nobody hold the row, whoever did."""
    connection.execute(update(_ROW).values(holder=NOBODY, address=NOBODY, term=_ROW.c.term + 1))


class LeaderRow:
    """The row as one coordinator uses it, over a connection of its own. Methods raise `StoreError`."""

    def __init__(self, url: URL, ttl_s: float) -> None:
        """Take the database, and how long the row is held after a renewal."""
        self.holder = uuid.uuid4().hex
        """Names this process alone: nothing of an earlier life is taken for its own."""
        self._url = url
        self._ttl_s = ttl_s
        self._engine = leader_engine(url, ttl_s)

    def close(self) -> None:
        """Close the connection."""
        self._engine.dispose()

    def read(self) -> Reign:
        """Return what the row says."""
        with translated(self._url), self._engine.begin() as connection:
            row = connection.execute(select(_ROW)).one()
        return Reign(holder=row.holder, address=row.address, term=row.term, ttl_us=row.ttl_us)

    def take(self, seen: Reign, address: str) -> bool:
        """Take the row if it still is as it was seen; return whether it is ours now."""
        is_as_seen = and_(_ROW.c.holder == seen.holder, _ROW.c.term == seen.term)
        values: dict[str, str | int] = {
            "holder": self.holder,
            "address": address,
            "ttl_us": int(self._ttl_s * 1_000_000),
        }
        return self._change(is_as_seen, values)

    def renew(self) -> bool:
        """Hold the row for longer; return whether it was ours."""
        return self._change(_ROW.c.holder == self.holder, {})

    def release(self) -> None:
        """Let another take the row at once."""
        self._change(_ROW.c.holder == self.holder, {"holder": NOBODY, "address": NOBODY})

    def _change(self, condition: ColumnElement[bool], values: dict[str, str | int]) -> bool:
        statement = update(_ROW).where(condition).values({"term": _ROW.c.term + 1, **values})
        with translated(self._url), self._engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def check(self, connection: Connection) -> None:
        """Make sure, within a transaction of another connection that has the counters locked, that the row is ours.

        Raises:
            StaleEpoch: Another coordinator has it.
        """
        if connection.scalar(select(_ROW.c.holder)) != self.holder:
            raise StaleEpoch("another coordinator has taken over before this one began its epoch")
