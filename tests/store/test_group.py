"""Works of several threads in one transaction, without a database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest
from sqlalchemy import Connection

from coordinator.store.errors import OutcomeUnknown, StaleEpoch, StoreError
from coordinator.store.group import GroupCommit, Work, _Entry

PATIENCE_S = 60.0


class Gathering(list[_Entry]):
    """Says how many works have arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Semaphore(0)

    def append(self, entry: _Entry) -> None:
        super().append(entry)
        self.arrived.release()


class Killed(BaseException):
    """Ends a thread."""


class Database:
    """Commits nothing until it is let; remembers which works each transaction held."""

    def __init__(self) -> None:
        self.is_busy = threading.Event()
        self.may_go_on = threading.Event()
        self.committed: list[list[str]] = []
        self.tries = 0
        self.lost_at: int | None = None
        """Number of the try whose outcome nobody learns, from 1."""
        self.killed_at: int | None = None

    def transact(self, work: Work) -> None:
        self.tries += 1
        self.is_busy.set()
        assert self.may_go_on.wait(PATIENCE_S)
        if self.tries == self.killed_at:
            raise Killed
        done: list[str] = []
        work(cast("Connection", done))
        if self.tries == self.lost_at:
            raise OutcomeUnknown("the connection was lost")
        self.committed.append(done)


def named(name: str) -> Work:
    return lambda connection: cast("list[str]", connection).append(name)


def failing(error: Exception) -> Work:
    def work(_connection: Connection) -> None:
        raise error

    return work


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def handed_in(database: Database, works: list[Work], threads: ThreadPoolExecutor) -> list[Future[None]]:
    """Hand the first work in, the others while its transaction is under way, and then let all go on."""
    group = GroupCommit(database.transact)
    futures = [threads.submit(group.do, works[0])]
    assert database.is_busy.wait(PATIENCE_S)
    group._gathering = gathering = Gathering()
    futures += [threads.submit(group.do, work) for work in works[1:]]
    for _ in works[1:]:
        assert gathering.arrived.acquire(timeout=PATIENCE_S)
    database.may_go_on.set()
    for future in futures:
        future.exception(PATIENCE_S)
    return futures


def test_works_that_come_during_a_transaction_share_the_next(threads: ThreadPoolExecutor) -> None:
    database = Database()
    futures = handed_in(database, [named("a"), named("b"), named("c"), named("d")], threads)
    assert [future.exception() for future in futures] == [None] * 4
    first, second = database.committed
    assert (first, sorted(second)) == (["a"], ["b", "c", "d"])


def test_work_that_fails_in_company_fails_alone(threads: ThreadPoolExecutor) -> None:
    database, error = Database(), StoreError("a row that cannot be")
    futures = handed_in(database, [named("a"), named("b"), failing(error), named("d")], threads)
    assert [future.exception() for future in futures] == [None, None, error, None]
    assert sorted(name for done in database.committed for name in done) == ["a", "b", "d"]


def test_work_that_fails_alone_is_not_tried_again(threads: ThreadPoolExecutor) -> None:
    database, error = Database(), StoreError("a row that cannot be")
    (future,) = handed_in(database, [failing(error)], threads)
    assert (future.exception(), database.tries) == (error, 1)


def test_transaction_whose_outcome_is_unknown_is_not_repeated(threads: ThreadPoolExecutor) -> None:
    database = Database()
    database.lost_at = 2
    futures = handed_in(database, [named("a"), named("b"), named("c")], threads)
    assert [type(future.exception()) for future in futures] == [type(None), OutcomeUnknown, OutcomeUnknown]
    assert database.committed == [["a"]]
    assert database.tries == 2


def test_end_of_the_epoch_ends_all_works(threads: ThreadPoolExecutor) -> None:
    database, error = Database(), StaleEpoch("another coordinator has taken over")
    futures = handed_in(database, [named("a"), failing(error), named("c")], threads)
    assert [future.exception() for future in futures] == [None, error, error]
    assert database.tries == 2


def test_work_whose_thread_was_ended_for_it_is_not_called_done(threads: ThreadPoolExecutor) -> None:
    database = Database()
    database.killed_at = 2
    first, *others = handed_in(database, [named("a"), named("b"), named("c")], threads)
    assert first.exception() is None
    assert {type(future.exception()) for future in others} == {Killed, OutcomeUnknown}
