"""When the bytes of a log were written: kept with them, and never in their way."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coordinator import logtimes
from coordinator.core.model import AttemptId
from coordinator.logstore import Committed, LogStore
from coordinator.logtimes import LogTimes, Mark
from coordinator.storage import Directory
from coordinator.store import Store
from tests.coordinator.conftest import MakeStorage
from tests.coordinator.test_logstore import ONE, SHA256, TEXT, append, looks_at_files

Open = Callable[[], LogStore]


@pytest.fixture
async def open_logs(make_storage: MakeStorage, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same storage and database, each time in a new epoch."""
    opened: list[tuple[Store, LogStore]] = []

    def open_it() -> LogStore:
        store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
        store.start_epoch()
        opened.append((store, LogStore(make_storage(), store)))
        return opened[-1][1]

    yield open_it
    for store, logs in opened:
        await logs.close()
        store.close()


async def offer(logs: LogStore, start: int, end: int, *marks: Mark) -> None:
    await logs.offer(ONE, start, TEXT[start:end], marks)
    await logs.committed(ONE)


async def test_times_are_told_with_the_one_that_counts_for_the_first_byte(open_logs: Open) -> None:
    logs = open_logs()
    await offer(logs, 0, 100, (0, 1_000), (50, 2_000))
    await offer(logs, 100, 200, (120, 3_000))
    assert await logs.times(ONE, 0, 200) == [(0, 1_000), (50, 2_000), (120, 3_000)]
    assert await logs.times(ONE, 49, 50) == [(0, 1_000)]
    assert await logs.times(ONE, 60, 121) == [(50, 2_000), (120, 3_000)]


async def test_bytes_before_the_first_mark_have_no_time(open_logs: Open) -> None:
    logs = open_logs()
    await offer(logs, 0, 100)
    assert await logs.times(ONE, 0, 100) == []
    await offer(logs, 100, 200, (150, 1_000))
    assert await logs.times(ONE, 100, 200) == [(150, 1_000)]


async def test_marks_of_bytes_that_were_there_or_never_came_do_not_count(open_logs: Open) -> None:
    logs = open_logs()
    await offer(logs, 0, 100, (0, 1_000), (100, 9_000))
    await offer(logs, 50, 150, (60, 2_000), (110, 3_000))
    await offer(logs, 170, 180, (170, 4_000))
    assert await logs.times(ONE, 0, 200) == [(0, 1_000), (110, 3_000)]


async def test_times_survive_restarts_as_their_bytes_do(open_logs: Open) -> None:
    await offer(open_logs(), 0, 100, (0, 1_000))
    second = open_logs()
    await offer(second, 100, 200, (100, 2_000), (150, 2_500))
    await offer(second, 200, 300, (250, 3_000))
    marks = [(0, 1_000), (100, 2_000), (150, 2_500), (250, 3_000)]
    assert await second.times(ONE, 0, 300) == marks
    third = open_logs()
    assert await third.times(ONE, 0, 300) == marks
    await third.offer(ONE, 300, TEXT[300:], [(300, 4_000)])
    await third.finish(ONE, len(TEXT), SHA256)
    assert await third.committed(ONE) == Committed(size=len(TEXT), is_closed=True)
    assert await open_logs().times(ONE, 0, len(TEXT)) == [*marks, (300, 4_000)]


@looks_at_files
async def test_old_leader_that_writes_on_changes_no_time(open_logs: Open) -> None:
    old = open_logs()
    await offer(old, 0, 100, (0, 1_000))
    new = open_logs()
    await offer(new, 100, 200, (100, 2_000))
    await offer(old, 100, 200, (100, 7_000), (150, 8_000))
    assert await open_logs().times(ONE, 0, 200) == [(0, 1_000), (100, 2_000)]


async def test_times_of_a_log_that_begins_anew_are_forgotten(open_logs: Open) -> None:
    first = open_logs()
    await first.offer(ONE, 0, b"\0" * len(TEXT), [(0, 1_000), (100, 2_000)])
    await first.committed(ONE)
    logs = open_logs()
    await logs.finish(ONE, len(TEXT), SHA256)
    assert (await logs.committed(ONE)).size == 0
    await offer(logs, 0, len(TEXT), (0, 5_000))
    assert await logs.times(ONE, 0, len(TEXT)) == [(0, 5_000)]
    assert await open_logs().times(ONE, 0, len(TEXT)) == [(0, 5_000)]


@looks_at_files
async def test_log_whose_times_cannot_be_kept_is_kept_whole(open_logs: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    logs = open_logs()
    with monkeypatch.context() as patch, capture_logs() as told:
        patch.setattr(Directory, "write_times", refuse)
        await offer(logs, 0, 100, (0, 1_000))
        await logs.finish(ONE, 100, hashlib.sha256(TEXT[:100]).hexdigest())
        assert (await logs.committed(ONE)).is_closed
    assert [line["event"] for line in told][:1] == ["log_times_not_stored"]
    assert await open_logs().times(ONE, 0, 100) == []


@looks_at_files
async def test_times_that_were_refused_once_are_kept_with_the_next(
    open_logs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    logs = open_logs()
    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(Directory, "write_times", refuse)
        await offer(logs, 0, 100, (0, 1_000))
        # Its flush has ended when the next chunk is durable.
        await offer(logs, 100, 200)
    await offer(logs, 200, 300, (200, 2_000))
    await logs.close()
    assert await open_logs().times(ONE, 0, 300) == [(0, 1_000), (200, 2_000)]


async def test_times_go_when_their_log_goes(open_logs: Open, tmp_path: Path) -> None:
    logs = open_logs()
    await offer(logs, 0, 100, (0, 1_000))
    await logs.finish(ONE, 100, hashlib.sha256(TEXT[:100]).hexdigest())
    await logs.committed(ONE)
    again = open_logs()
    assert await again.times(ONE, 0, 100) == [(0, 1_000)]
    assert await again.forget([ONE]) == 1
    assert list((await again.used()).values()) == []
    assert list(tmp_path.rglob("*.times")) == []


def test_a_log_has_no_more_marks_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logtimes, "MOST_MARKS", 3)
    times = LogTimes()
    times.add((number, number) for number in range(9))
    assert times.between(0, 9) == [(0, 0), (1, 1), (2, 2)]


def test_marks_that_go_back_are_left_out() -> None:
    times = LogTimes()
    times.add([(5, 1), (3, 2), (5, 3), (7, 0)])
    assert times.between(0, 9) == [(5, 1), (7, 0)]


async def test_logs_of_others_have_times_of_their_own(open_logs: Open) -> None:
    logs = open_logs()
    await offer(logs, 0, 100, (0, 1_000))
    await append(logs, TEXT, attempt=AttemptId(2))
    assert await logs.times(AttemptId(2), 0, 100) == []
