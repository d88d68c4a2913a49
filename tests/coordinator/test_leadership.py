"""When a coordinator counts on leading, and when another may: by clocks that tests turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.core.errors import NotLeader
from coordinator.leadership import RowLeadership, Watch
from coordinator.store import LeaderRow, Reign, Store, StoreError
from coordinator.store.dialect import checked_url

TTL_S = 10.0


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def reign(holder: str = "other", term: int = 7) -> Reign:
    return Reign(holder=holder, address="a:1", term=term, ttl_us=10_000_000)


# Standing by


def test_row_that_nobody_holds_may_be_taken_at_once() -> None:
    assert Watch("me").may_take(reign(holder=""), 0.0)


def test_row_that_bears_our_own_name_may_be_taken_at_once() -> None:
    assert Watch("me").may_take(reign(holder="me"), 0.0)


def test_row_whose_term_stood_still_for_the_ttl_of_its_holder_may_be_taken() -> None:
    watch = Watch("me")
    assert [watch.may_take(reign(), now_s) for now_s in (50.0, 55.0, 59.9, 60.0)] == [False, False, False, True]


def test_each_renewal_is_waited_for_anew() -> None:
    watch = Watch("me")
    seen = [watch.may_take(reign(term=term), now_s) for term, now_s in ((1, 0.0), (2, 9.0), (2, 18.0), (2, 19.0))]
    assert seen == [False, False, False, True]


def test_another_holder_is_waited_for_anew() -> None:
    watch = Watch("me")
    watch.may_take(reign(), 0.0)
    assert not watch.may_take(reign(holder="third"), 10.0)


# Leading


class Row:
    """The leader row of a database, which can be made to fail, or slow by a clock."""

    def __init__(self, row: LeaderRow, clock: Clock) -> None:
        self.row = row
        self.holder = row.holder
        self.takes_s = 0.0
        self.error: StoreError | None = None
        self._clock = clock

    def read(self) -> Reign:
        self._wait()
        return self.row.read()

    def take(self, seen: Reign, address: str) -> bool:
        self._wait()
        return self.row.take(seen, address)

    def renew(self) -> bool:
        self._wait()
        return self.row.renew()

    def release(self) -> None:
        self._wait()
        self.row.release()

    def _wait(self) -> None:
        self._clock.now_s += self.takes_s
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rows(tmp_path: Path, clock: Clock) -> Iterator[list[Row]]:
    """One row as two coordinators use it."""
    url = f"sqlite:///{tmp_path / 'qgjob.db'}"
    Store.open(url).close()
    found = [Row(LeaderRow(checked_url(url), TTL_S), clock) for _ in range(2)]
    yield found
    for row in found:
        row.row.close()


def leadership(row: Row, clock: Clock) -> RowLeadership:
    return RowLeadership(row, TTL_S, f"{row.holder[:4]}:1", clock)  # type: ignore[arg-type]  # it has all that is used


async def test_leader_counts_on_leading_from_before_it_asked(rows: list[Row], clock: Clock) -> None:
    ours = leadership(rows[0], clock)
    assert not ours.leads()
    rows[0].takes_s = 3.0
    assert await ours.try_to_take()
    clock.now_s += TTL_S - 3.1
    assert ours.leads()
    clock.now_s += 0.1
    assert not ours.leads()


async def test_standby_refuses_and_tells_who_leads(rows: list[Row], clock: Clock) -> None:
    first, second = (leadership(row, clock) for row in rows)
    assert await first.try_to_take()
    assert not await second.try_to_take()
    with pytest.raises(NotLeader, match=f"{rows[0].holder[:4]}:1 does") as refusal:
        second.check()
    assert refusal.value.fields == {"leader": f"{rows[0].holder[:4]}:1"}


async def test_standby_takes_over_once_the_leader_has_been_silent_and_not_before(rows: list[Row], clock: Clock) -> None:
    first, second = (leadership(row, clock) for row in rows)
    assert await first.try_to_take()
    assert not await second.try_to_take()
    clock.now_s += TTL_S - 0.1
    assert not await second.try_to_take()
    assert first.leads()
    clock.now_s += 0.1
    assert await second.try_to_take()
    assert not first.leads()
    assert second.leads()


async def test_renewal_lets_lead_for_as_long_again(rows: list[Row], clock: Clock) -> None:
    ours = leadership(rows[0], clock)
    assert await ours.try_to_take()
    clock.now_s += 9.0
    await ours._renew()
    clock.now_s += 9.0
    assert ours.leads()


async def test_renewal_that_comes_back_too_late_is_none(rows: list[Row], clock: Clock) -> None:
    ours = leadership(rows[0], clock)
    assert await ours.try_to_take()
    rows[0].takes_s = TTL_S
    with pytest.raises(NotLeader, match="could not be renewed within 10 s"):
        await ours._renew()
    assert not ours.leads()


async def test_leader_that_slept_does_not_even_ask(rows: list[Row], clock: Clock) -> None:
    ours = leadership(rows[0], clock)
    assert await ours.try_to_take()
    term = rows[1].read().term
    clock.now_s += TTL_S
    with pytest.raises(NotLeader):
        await ours._renew()
    assert rows[1].read().term == term


async def test_leader_whose_row_was_taken_is_none_from_that_moment_on(rows: list[Row], clock: Clock) -> None:
    ours = leadership(rows[0], clock)
    assert await ours.try_to_take()
    assert rows[1].take(rows[1].read(), "b:1")
    with pytest.raises(NotLeader, match="another coordinator has taken over"):
        await ours._renew()
    assert not ours.leads()


async def test_database_that_does_not_answer_ends_a_leadership_when_it_has_run_out(
    rows: list[Row], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = leadership(rows[0], clock)
    assert await ours.try_to_take()
    rows[0].error = StoreError("gone")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_s += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(NotLeader, match="could not be renewed"):
        await ours.keep()
    assert sum(slept) == pytest.approx(TTL_S)
    assert len(slept) == 8


async def test_standby_outlives_a_database_that_does_not_answer(
    rows: list[Row], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = leadership(rows[0], clock)
    rows[0].error = StoreError("gone")
    tries = 0

    async def sleep(_seconds: float) -> None:
        nonlocal tries
        tries += 1
        if tries == 5:
            rows[0].error = None

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await ours.win()
    assert (tries, ours.leads()) == (5, True)


async def test_released_leadership_is_free_for_the_next(rows: list[Row], clock: Clock) -> None:
    first, second = (leadership(row, clock) for row in rows)
    assert await first.try_to_take()
    await first.release()
    assert not first.leads()
    assert await second.try_to_take()


async def test_standby_that_stops_leaves_the_row_to_the_leader(rows: list[Row], clock: Clock) -> None:
    first, second = (leadership(row, clock) for row in rows)
    assert await first.try_to_take()
    assert not await second.try_to_take()
    await second.release()
    await first._renew()
    assert first.leads()
