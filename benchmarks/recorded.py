"""Waits until jobs have ended, as the databases of both sides tell it: nobody is asked who is being measured."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, text

LOOK_S = 0.05
COUNT = "SELECT count(*) FROM jobs WHERE state = 'completed'"


def completed_in_sqlite(data: Path) -> int:
    """Return how many jobs of a coordinator have ended well."""
    with closing(sqlite3.connect(f"file:{data / 'qgjob.db'}?mode=ro", uri=True, timeout=5)) as database:
        return int(database.execute(COUNT).fetchone()[0])


def completed_in_postgresql(database: Engine) -> int:
    """Return how many jobs of the classic stack have ended well."""
    with database.connect() as connection:
        return int(connection.execute(text(COUNT)).scalar_one())


def wait_for(count: Callable[[], int], wanted: int, seconds: float) -> None:
    """Wait until so many have ended.

    Raises:
        AssertionError: They did not in time.
    """
    end_s = time.monotonic() + seconds
    while (found := count()) < wanted:
        assert time.monotonic() < end_s, f"in {seconds:g} s {found} of {wanted} jobs ended"
        time.sleep(LOOK_S)
