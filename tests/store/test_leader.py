"""Who of several holds the leader row, and what that lets them do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from coordinator.core.step import PutCounters, PutJob
from coordinator.store import LeaderRow, StaleEpoch, Store, tables
from coordinator.store.dialect import checked_url, lock_schema
from tests.store.conftest import OpenStore
from tests.store.records import a_job

TTL_S = 3.0

MakeRow = Callable[[], LeaderRow]


@pytest.fixture
def row_of(url: str, open_store: OpenStore) -> Iterator[MakeRow]:
    """Makes the row as one more coordinator uses it."""
    open_store()
    made: list[LeaderRow] = []

    def make() -> LeaderRow:
        made.append(LeaderRow(checked_url(url), TTL_S))
        return made[-1]

    yield make
    for row in made:
        row.close()


def test_nobody_holds_the_row_of_a_new_database(row_of: MakeRow) -> None:
    assert row_of().read().is_free


def test_of_two_who_saw_the_row_free_one_gets_it(row_of: MakeRow) -> None:
    first, second = row_of(), row_of()
    seen = first.read()
    assert [first.take(seen, "a:1"), second.take(seen, "b:1")] == [True, False]
    reign = second.read()
    assert (reign.holder, reign.address, reign.ttl_us) == (first.holder, "a:1", int(TTL_S * 1_000_000))


def test_renewal_keeps_the_row_from_who_saw_it_before(row_of: MakeRow) -> None:
    first, second = row_of(), row_of()
    assert first.take(first.read(), "a:1")
    seen = second.read()
    assert first.renew()
    assert not second.take(seen, "b:1")
    assert second.read().holder == first.holder


def test_who_has_lost_the_row_cannot_renew_or_release_it(row_of: MakeRow) -> None:
    first, second = row_of(), row_of()
    assert first.take(first.read(), "a:1")
    assert second.take(second.read(), "b:1")
    assert not first.renew()
    first.release()
    assert second.read().holder == second.holder
    assert second.renew()


def test_released_row_is_free_and_its_term_goes_on(row_of: MakeRow) -> None:
    row = row_of()
    assert row.take(row.read(), "a:1")
    held = row.read()
    row.release()
    freed = row.read()
    assert freed.is_free
    assert freed.address == ""
    assert freed.term == held.term + 1


@pytest.fixture
def stores(postgresql: str) -> Iterator[Callable[[], Store]]:
    """Opens a database on PostgreSQL as coordinators do that share it."""
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(Store.open(postgresql, is_sole=True, leader_ttl_s=TTL_S))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


def take(store: Store) -> None:
    assert store.leader_row is not None
    assert store.leader_row.take(store.leader_row.read(), "a:1")


def test_epoch_is_begun_by_the_holder_alone(stores: Callable[[], Store]) -> None:
    first, second = stores(), stores()
    take(first)
    with pytest.raises(StaleEpoch):
        second.start_epoch()
    assert first.start_epoch().epoch == 1


def test_who_wakes_up_between_taking_the_row_and_its_epoch_disturbs_nobody(stores: Callable[[], Store]) -> None:
    first, second = stores(), stores()
    take(first)
    take(second)
    counters = second.start_epoch()
    with pytest.raises(StaleEpoch):
        first.start_epoch()
    second.commit([PutJob(a_job()), PutCounters(replace(counters, next_job=2))])


def test_renewal_waits_for_no_commit(stores: Callable[[], Store]) -> None:
    leader = stores()
    take(leader)
    leader.start_epoch()
    assert leader.leader_row is not None
    with leader._writer.begin() as connection:
        connection.execute(update(tables.counters).values(next_job=100))
        assert leader.leader_row.renew()


def test_leader_that_stands_still_within_a_commit_keeps_nobody_out(stores: Callable[[], Store]) -> None:
    frozen, standby = stores(), stores()
    take(frozen)
    counters = frozen.start_epoch()
    with frozen._writer.connect() as connection:
        connection.execute(update(tables.counters).values(next_job=counters.next_job + 100))
        take(standby)
        before = time.monotonic()
        taken = standby.start_epoch()
        assert time.monotonic() - before < TTL_S
        with pytest.raises(DBAPIError, match="idle-in-transaction"):
            connection.execute(text("SELECT 1"))
    assert (taken.epoch, taken.next_job) == (counters.epoch + 1, counters.next_job)
    with pytest.raises(StaleEpoch):
        frozen.commit([PutJob(a_job())])


def test_migration_may_stand_still_for_longer_than_a_commit(stores: Callable[[], Store]) -> None:
    store = stores()
    engine = store._writer
    with engine.begin() as connection:
        lock_schema(connection)
        assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "1min"
    with engine.begin() as connection:
        usual = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one()
        assert usual == f"{int(TTL_S * 500)}ms"


def test_standby_leaves_the_schema_alone_until_it_has_taken_over(
    stores: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = stores()
    take(leader)
    leader.start_epoch()
    migrated: list[str] = []
    monkeypatch.setattr("coordinator.store.store.migrate", lambda _connection, name: migrated.append(name))
    newer = stores()
    assert (migrated, newer.storage_id, newer.is_new) == ([], leader.storage_id, False)
    take(newer)
    newer.take_over()
    assert len(migrated) == 1


def test_restored_database_is_led_by_nobody_and_who_stood_by_learns_its_new_name(stores: Callable[[], Store]) -> None:
    dead = stores()
    take(dead)
    dead.start_epoch()
    standby, operator = stores(), stores()
    operator.begin_new_cluster()
    assert standby.leader_row is not None
    assert standby.leader_row.read().is_free
    take(standby)
    standby.take_over()
    assert dead.cluster_id != standby.cluster_id == operator.cluster_id
    with pytest.raises(StaleEpoch):
        dead.commit([PutJob(a_job())])
