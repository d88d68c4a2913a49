"""What a lab has done, read back for `replay`."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from coordinator.core.model import SECOND_US, DeviceKind
from coordinator.store import Store, StoreUnreadable
from coordinator.store.dialect import checked_url, history_engine, writer_engine
from coordinator.store.history import read_history
from tests.core.lab import START_WALL_US
from tests.store.past import recorded


def test_history_tells_of_the_jobs_that_ran_and_of_the_devices_that_ran_them(store: Store, url: str) -> None:
    recorded(store)
    history = read_history(url, 0)
    assert [(one.job.id, one.duration_us) for one in history.runs] == [(job, 20 * SECOND_US) for job in range(1, 5)]
    assert history.devices == {"e1@lab": DeviceKind.EMULATOR}
    assert history.others == 1
    assert history.installs == 3  # the urgent one came in between
    assert sorted(history.install_us.values()) == [10 * SECOND_US] * 2


def test_history_begins_where_it_is_asked_to(store: Store, url: str) -> None:
    recorded(store)
    assert not read_history(url, START_WALL_US + 1).runs


def test_reader_of_a_history_cannot_write(store: Store, url: str) -> None:
    engine = history_engine(checked_url(url))
    with engine.connect() as connection, pytest.raises(DBAPIError, match=r"read-?only|readonly"):
        connection.execute(text("DELETE FROM counters"))
    engine.dispose()


def test_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreadable, match="there is no database"):
        read_history(f"sqlite:///{tmp_path / 'none.db'}", 0)
    assert not list(tmp_path.iterdir())


def test_database_of_an_earlier_release_is_not_read(store: Store, url: str) -> None:
    engine = writer_engine(checked_url(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    with pytest.raises(StoreUnreadable, match="older release"):
        read_history(url, 0)
