from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coordinator.core.errors import ShuttingDown
from coordinator.core.logfile import LogPart, LogState
from coordinator.core.model import AttemptId
from coordinator.logstore import Committed, LogStore
from coordinator.storage import Directory
from coordinator.store import Store
from tests.coordinator.conftest import MakeStorage
from tests.coordinator.test_logstore import ONE, RUNNING, SHA256, TEXT, append, content, looks_at_files

TakeOver = Callable[..., LogStore]


@pytest.fixture
async def take_over(make_storage: MakeStorage, tmp_path: Path) -> AsyncIterator[TakeOver]:
    """Begins an epoch on the same database and directory; those before do not hear of it."""
    opened: list[tuple[Store, LogStore]] = []

    def begin(may_acknowledge: Callable[[], bool] = lambda: True) -> LogStore:
        store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
        store.start_epoch()
        logs = LogStore(make_storage(), store, may_acknowledge=may_acknowledge)
        opened.append((store, logs))
        return logs

    yield begin
    for store, logs in opened:
        await logs.close()
        store.close()


@looks_at_files
async def test_old_leader_that_writes_on_changes_nothing_that_anyone_reads(take_over: TakeOver) -> None:
    old = take_over()
    await append(old, TEXT[:100])
    new = take_over()
    await append(new, TEXT[100:200], 100)
    await append(old, b"x" * 500, 100)
    assert await content(new) == TEXT[:200]
    newest = take_over()
    assert await content(newest) == TEXT[:200]
    await append(newest, TEXT[200:], 200)
    await newest.finish(ONE, len(TEXT), SHA256)
    assert await newest.committed(ONE) == Committed(size=len(TEXT), is_closed=True)


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
async def test_old_leader_that_uploads_on_changes_nothing_and_is_told(take_over: TakeOver) -> None:
    old = take_over()
    await append(old, TEXT[:100])
    new = take_over()
    await append(new, TEXT[100:200], 100)
    with pytest.raises(ShuttingDown):
        await append(old, b"x" * 500, 100)
    newest = take_over()
    assert await content(newest) == TEXT[:200]
    await append(newest, TEXT[200:], 200)
    await newest.finish(ONE, len(TEXT), SHA256)
    assert await newest.committed(ONE) == Committed(size=len(TEXT), is_closed=True)


async def test_old_leader_can_begin_no_log_and_end_none(take_over: TakeOver) -> None:
    old = take_over()
    await append(old, TEXT)
    new = take_over()
    with pytest.raises(ShuttingDown):
        await append(old, b"late", attempt=AttemptId(2))
    await old.finish(ONE, len(TEXT), SHA256)
    with pytest.raises(ShuttingDown):
        await old.committed(ONE)
    assert await new.size(AttemptId(2)) == 0
    assert await new.state(RUNNING) is LogState.OPEN


async def test_whoever_does_not_lead_any_more_acknowledges_nothing(take_over: TakeOver) -> None:
    leads = True
    logs = take_over(lambda: leads)
    await append(logs, TEXT[:100])
    leads = False
    with pytest.raises(ShuttingDown):
        await logs.committed(ONE)
    with pytest.raises(ShuttingDown):
        await append(logs, TEXT[100:200], 100)
    assert await logs.read(ONE, 100) == b""


@looks_at_files
async def test_leadership_that_is_lost_during_the_sync_counts(
    take_over: TakeOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    leads = True
    logs = take_over(lambda: leads)
    write = Directory.write

    def write_slowly(*arguments: object) -> None:
        nonlocal leads
        write(*arguments)  # type: ignore[arg-type]  # passed on as they came
        leads = False

    monkeypatch.setattr(Directory, "write", write_slowly)
    with pytest.raises(ShuttingDown):
        await append(logs, TEXT[:100])
    assert await logs.size(ONE) == 0


async def test_log_of_many_epochs_is_read_as_one(take_over: TakeOver) -> None:
    logs = take_over()
    await append(logs, TEXT[:5_000])
    for offset in range(5_000, len(TEXT), 5_000):
        logs = take_over()
        assert await logs.size(ONE) == offset
        await append(logs, TEXT[offset : offset + 5_000], offset)
    await logs.finish(ONE, len(TEXT), SHA256)
    assert (await logs.committed(ONE)).is_closed
    again = take_over()
    assert await again.state(RUNNING) is LogState.COMPLETE
    assert await content(again) == TEXT
    lines = TEXT.splitlines(keepends=True)
    for count in (1, 700, 1_999):
        assert TEXT[await again.tail_offset(ONE, count) :] == b"".join(lines[-count:])


@looks_at_files
async def test_takeover_that_was_killed_before_its_first_byte_costs_nothing(
    take_over: TakeOver, tmp_path: Path
) -> None:
    await append(take_over(), TEXT[:100])
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    epoch = store.start_epoch().epoch
    store.put_logs([LogPart(attempt=ONE, epoch=epoch, start=100)])
    store.close()
    logs = take_over()
    assert await content(logs) == TEXT[:100]
    await append(logs, TEXT[100:], 100)
    assert await content(logs) == TEXT


@looks_at_files
async def test_log_of_one_file_from_an_earlier_release_is_read_and_goes_on(take_over: TakeOver, tmp_path: Path) -> None:
    shard = tmp_path / "logs" / "01"
    shard.mkdir(parents=True)
    (shard / "1.log").write_bytes(TEXT[:300])
    first = take_over()
    first._store.put_logs([LogPart(attempt=ONE, epoch=0, start=0)])
    assert await content(first) == TEXT[:300]
    await append(first, TEXT[300:], 300)
    await first.finish(ONE, len(TEXT), SHA256)
    assert (await first.committed(ONE)).is_closed
    assert (shard / "1.log").read_bytes() == TEXT[:300]


@looks_at_files
async def test_end_of_a_log_from_an_earlier_release_counts(take_over: TakeOver, tmp_path: Path) -> None:
    shard = tmp_path / "logs" / "01"
    shard.mkdir(parents=True)
    (shard / "1.log").write_bytes(TEXT)
    (shard / "1.end").write_text(json.dumps({"state": "complete", "size": len(TEXT)}))
    logs = take_over()
    logs._store.put_logs([LogPart(attempt=ONE, epoch=0, start=0)])
    assert await logs.state(RUNNING) is LogState.COMPLETE
    assert await append(logs, b"more", len(TEXT)) == Committed(size=len(TEXT), is_closed=True)


@looks_at_files
async def test_log_that_began_anew_outlives_the_parts_that_it_had(take_over: TakeOver, tmp_path: Path) -> None:
    await append(take_over(), TEXT[:100])
    (path,) = (tmp_path / "logs").rglob("*.log")
    path.write_bytes(b"\0" * 100)
    second = take_over()
    await append(second, TEXT[100:], 100)
    await second.finish(ONE, len(TEXT), SHA256)
    assert await second.committed(ONE) == Committed(size=0, is_closed=False)
    await append(second, TEXT[:50])
    third = take_over()
    assert await content(third) == TEXT[:50]
    await append(third, TEXT[50:], 50)
    await third.finish(ONE, len(TEXT), hashlib.sha256(TEXT).hexdigest())
    assert (await third.committed(ONE)).is_closed


async def test_logs_that_begin_together_are_recorded_together(
    take_over: TakeOver, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = take_over()
    put_logs = logs._store.put_logs
    commits: list[int] = []

    def counted(writes: list[LogPart]) -> None:
        commits.append(len(writes))
        put_logs(writes)

    monkeypatch.setattr(logs._store, "put_logs", counted)
    parts = [LogPart(attempt=AttemptId(number), epoch=1, start=0) for number in range(1, 101)]
    await asyncio.gather(*(logs._record(part) for part in parts))
    assert commits == [100]
    assert [logs._store.log_of(part.attempt).parts for part in parts] == [(part,) for part in parts]
