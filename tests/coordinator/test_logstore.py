from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import logstore
from coordinator.core.errors import InvalidRequest
from coordinator.core.logfile import LogRecord, LogRestart, LogState, LogWrite
from coordinator.core.model import AttemptId, AttemptOutcome, Counters
from coordinator.core.step import PutCounters
from coordinator.logstore import Committed, LogStore
from coordinator.storage import Directory
from coordinator.store import Store
from tests.coordinator.conftest import MakeStorage
from tests.store.records import an_attempt

ONE = AttemptId(1)
TEXT = b"".join(b"line %d\n" % number for number in range(2_000))
SHA256 = hashlib.sha256(TEXT).hexdigest()
RUNNING = replace(an_attempt(), start_us=1)
ENDED = replace(RUNNING, end_us=10, outcome=AttemptOutcome.PASSED, log_size=len(TEXT))

Open = Callable[[], LogStore]

looks_at_files = pytest.mark.parametrize("kind", ["directory"], indirect=True)


@pytest.fixture
async def open_logs(make_storage: MakeStorage, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same storage and database, as often as it is asked to, each time in a new epoch."""
    opened: list[tuple[Store, LogStore]] = []

    def open_it() -> LogStore:
        store = open_store(tmp_path)
        logs = LogStore(make_storage(), store, patience_us=100, read_wall_us=lambda: 50)
        opened.append((store, logs))
        return logs

    yield open_it
    for store, logs in opened:
        await logs.close()
        store.close()


def open_store(directory: Path) -> Store:
    store = Store.open(f"sqlite:///{directory / 'qgjob.db'}")
    store.start_epoch()
    return store


def storage(directory: Path, sync_interval_s: float = 0.001) -> Directory:
    return Directory(directory, sync_interval_s=sync_interval_s)


@pytest.fixture
def logs(open_logs: Open) -> LogStore:
    return open_logs()


async def append(logs: LogStore, data: bytes, offset: int = 0, attempt: AttemptId = ONE) -> Committed:
    await logs.offer(attempt, offset, data)
    return await logs.committed(attempt)


async def content(logs: LogStore, attempt: AttemptId = ONE) -> bytes:
    found = b""
    while piece := await logs.read(attempt, len(found)):
        found += piece
    return found


async def test_whole_log_is_complete_and_closed(logs: LogStore) -> None:
    await append(logs, TEXT)
    assert await logs.state(RUNNING) is LogState.OPEN
    await logs.finish(ONE, len(TEXT), SHA256)
    assert await logs.committed(ONE) == Committed(size=len(TEXT), is_closed=True)
    assert await logs.state(RUNNING) is LogState.COMPLETE
    assert await content(logs) == TEXT


async def test_end_may_be_announced_before_the_last_bytes(logs: LogStore) -> None:
    await logs.finish(ONE, len(TEXT), SHA256)
    assert await append(logs, TEXT[:100]) == Committed(size=100, is_closed=False)
    assert await append(logs, TEXT[100:], 100) == Committed(size=len(TEXT), is_closed=True)


async def test_empty_log_is_complete(logs: LogStore) -> None:
    await logs.finish(ONE, 0, hashlib.sha256().hexdigest())
    assert await logs.committed(ONE) == Committed(size=0, is_closed=True)
    assert await logs.state(RUNNING) is LogState.COMPLETE


async def test_gap_is_answered_with_what_is_there(logs: LogStore) -> None:
    await append(logs, TEXT[:100])
    assert await append(logs, TEXT[200:300], 200) == Committed(size=100, is_closed=False)
    assert await append(logs, TEXT[100:200], 100) == Committed(size=200, is_closed=False)


async def test_overlap_and_echo_are_trimmed(logs: LogStore) -> None:
    await append(logs, TEXT[:100])
    await append(logs, TEXT[:100])
    await append(logs, TEXT[50:150], 50)
    assert await content(logs) == TEXT[:150]


async def test_wrong_hash_truncates(logs: LogStore) -> None:
    await append(logs, TEXT)
    await logs.finish(ONE, len(TEXT), "0" * 64)
    assert (await logs.committed(ONE)).is_closed
    assert await logs.state(RUNNING) is LogState.TRUNCATED


async def test_random_chunks_of_many_logs_all_become_complete(logs: LogStore) -> None:
    async def send(attempt: AttemptId) -> None:
        chance = random.Random(attempt)
        size = 0
        while size < len(TEXT):
            for _ in range(chance.randint(1, 5)):
                offset = max(0, size + chance.randint(-300, 300))
                await logs.offer(attempt, offset, TEXT[offset : offset + chance.randint(0, 2_000)])
            size = (await logs.committed(attempt)).size
        await logs.finish(attempt, len(TEXT), SHA256)
        assert (await logs.committed(attempt)).is_closed

    attempts = [AttemptId(number) for number in range(1, 21)]
    await asyncio.gather(*(send(attempt) for attempt in attempts))
    for attempt in attempts:
        assert await content(logs, attempt) == TEXT


async def test_state_and_bytes_survive_a_restart(logs: LogStore, open_logs: Open) -> None:
    await append(logs, TEXT[:100])
    await append(logs, TEXT, attempt=AttemptId(2))
    await logs.finish(AttemptId(2), len(TEXT), SHA256)
    await logs.committed(AttemptId(2))
    again = open_logs()
    assert await again.size(ONE) == 100
    assert await again.state(replace(RUNNING, id=AttemptId(2))) is LogState.COMPLETE
    await append(again, TEXT[100:], 100)
    await again.finish(ONE, len(TEXT), SHA256)
    assert await again.committed(ONE) == Committed(size=len(TEXT), is_closed=True)


@looks_at_files
async def test_bytes_that_a_loss_of_power_damaged_are_asked_for_again(
    logs: LogStore, open_logs: Open, tmp_path: Path
) -> None:
    await append(logs, TEXT[:100])
    (path,) = (tmp_path / "logs").rglob("*.log")
    path.write_bytes(TEXT[:100] + b"\0" * 50)
    again = open_logs()
    await append(again, TEXT, 0)
    await again.finish(ONE, len(TEXT), SHA256)
    assert await again.committed(ONE) == Committed(size=0, is_closed=False)
    await append(again, TEXT, 0)
    await again.finish(ONE, len(TEXT), SHA256)
    assert await again.committed(ONE) == Committed(size=len(TEXT), is_closed=True)
    assert await content(again) == TEXT


async def test_beginning_anew_that_could_not_be_recorded_is_tried_again(
    logs: LogStore, open_logs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(logs, b"\0" * len(TEXT))
    again = open_logs()
    put_logs = Store.put_logs

    def refuse_to_begin_anew(store: Store, writes: list[LogWrite]) -> None:
        if any(isinstance(write, LogRestart) for write in writes):
            refuse(errno.EIO)
        put_logs(store, writes)

    await again.finish(ONE, len(TEXT), SHA256)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_logs", refuse_to_begin_anew)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await again.committed(ONE)
    await again.finish(ONE, len(TEXT), SHA256)
    assert await again.committed(ONE) == Committed(size=0, is_closed=False)
    await append(again, TEXT)
    await again.finish(ONE, len(TEXT), SHA256)
    assert await again.committed(ONE) == Committed(size=len(TEXT), is_closed=True)
    assert await content(again) == TEXT


@looks_at_files
async def test_what_is_not_durable_is_not_shown(logs: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    sync = os.fdatasync

    def slow_sync(descriptor: int) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(timeout=60)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    await logs.offer(ONE, 0, b"hello")
    committing = asyncio.create_task(logs.committed(ONE))
    assert await logs.read(ONE, 0) == b""
    assert not committing.done()
    gate.set()
    assert (await committing).size == 5
    assert await logs.read(ONE, 0) == b"hello"


async def test_many_chunks_share_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    sync = os.fdatasync

    def counted_sync(descriptor: int) -> None:
        syncs.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted_sync)
    logs = LogStore(storage(tmp_path, sync_interval_s=0.05), open_store(tmp_path))
    for number in range(500):
        await logs.offer(ONE, 4 * number, b"abcd")
    assert (await logs.committed(ONE)).size == 2_000
    await logs.close()
    assert len(syncs) < 20


async def test_acknowledgement_does_not_wait_for_a_log_to_fall_silent(logs: LogStore) -> None:
    """A log that grows all the time must not starve the answer to its first bytes."""
    is_over = False

    async def chatter() -> None:
        size = 0
        while not is_over:
            await logs.offer(ONE, size, b"x" * 100)
            size += 100
            await asyncio.sleep(0)

    chattering = asyncio.create_task(chatter())
    for _ in range(5):
        await asyncio.wait_for(logs.committed(ONE), 60)
    is_over = True
    await chattering


async def test_writer_that_outruns_the_disk_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        os, "fdatasync", lambda _: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(timeout=60)
    )
    monkeypatch.setattr(logstore, "MAX_BUFFERED_BYTES", 1_000)
    logs = LogStore(storage(tmp_path), open_store(tmp_path))
    await logs.offer(ONE, 0, b"a" * 1_000)
    waiting = asyncio.create_task(logs.offer(ONE, 1_000, b"b" * 1_000))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    gate.set()
    await waiting
    assert (await logs.committed(ONE)).size == 2_000
    await logs.close()


async def test_follower_is_woken_by_growth_and_by_the_end(logs: LogStore) -> None:
    growing = asyncio.create_task(logs.grown(ONE, 0))
    await append(logs, b"hello")
    await asyncio.wait_for(growing, 60)
    ending = asyncio.create_task(logs.grown(ONE, 5))
    await logs.finish(ONE, 5, hashlib.sha256(b"hello").hexdigest())
    await asyncio.wait_for(ending, 60)


async def test_follower_is_woken_though_its_log_is_long_forgotten(
    logs: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = asyncio.create_task(logs.grown(ONE, 0))
    for number in range(2, logstore.REMEMBERED_LOGS + 10):
        await logs.size(AttemptId(number))
    await append(logs, b"hello")
    await asyncio.wait_for(following, 60)


@looks_at_files
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
async def test_refusal_of_the_disk_is_told_once_and_nothing_of_the_chunk_counts(
    logs: LogStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    await append(logs, TEXT[:100])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: refuse(code))
        await logs.offer(ONE, 100, TEXT[100:200])
        with pytest.raises(OSError, match=os.strerror(code)):
            await logs.committed(ONE)
    assert await logs.committed(ONE) == Committed(size=100, is_closed=False)
    assert await append(logs, TEXT[200:300], 200) == Committed(size=100, is_closed=False)
    assert await append(logs, TEXT[100:], 100) == Committed(size=len(TEXT), is_closed=False)
    assert await content(logs) == TEXT


def refuse(code: int) -> int:
    raise OSError(code, os.strerror(code))


@looks_at_files
async def test_write_that_was_cut_short_leaves_nothing_behind(
    logs: LogStore, open_logs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(logs, TEXT[:100])
    pwrite = os.pwrite
    calls: list[int] = []

    def half(descriptor: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        return pwrite(descriptor, data[: len(data) // 2], offset) if len(calls) == 1 else refuse(errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="space"):
            await append(logs, TEXT[100:200], 100)
    assert await open_logs().size(ONE) == 100


async def test_verdict_that_could_not_be_written_is_not_told(logs: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await append(logs, TEXT)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_logs", lambda *_: refuse(errno.ENOSPC))
        await logs.finish(ONE, len(TEXT), SHA256)
        with pytest.raises(OSError, match="space"):
            await logs.committed(ONE)
        assert await logs.state(RUNNING) is LogState.OPEN
    await logs.finish(ONE, len(TEXT), SHA256)
    assert (await logs.committed(ONE)).is_closed


async def test_end_that_could_not_be_recorded_is_recorded_again_for_those_who_wait(
    logs: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs._patience_us = 1
    await append(logs, TEXT)
    following = asyncio.create_task(logs.grown(ONE, len(TEXT)))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put_logs", lambda *_: refuse(errno.ENOSPC))
        await logs.finish(ONE, len(TEXT), SHA256)
        with pytest.raises(OSError, match="space"):
            await logs.committed(ONE)
        pause_s = await logs.patience_s(ENDED)
        assert pause_s is not None
        assert logstore.RECORD_AGAIN_S - 1 < pause_s <= logstore.RECORD_AGAIN_S
    assert not following.done()
    monkeypatch.setattr(logstore, "RECORD_AGAIN_S", 0)
    await logs.patience_s(ENDED)
    await asyncio.wait_for(following, 60)
    assert await logs.state(ENDED) is LogState.COMPLETE


async def test_rest_that_never_comes_truncates_for_readers_but_not_for_its_writer(tmp_path: Path) -> None:
    now_us = [50]
    logs = LogStore(storage(tmp_path), open_store(tmp_path), patience_us=100, read_wall_us=lambda: now_us[0])
    await append(logs, TEXT[:100])
    assert await logs.state(ENDED) is LogState.OPEN
    assert await logs.patience_s(ENDED) == 100 / 1_000_000
    now_us[0] = 150
    assert await logs.patience_s(ENDED) == 0
    assert await logs.state(ENDED) is LogState.TRUNCATED
    await append(logs, TEXT[100:], 100)
    assert await logs.state(ENDED) is LogState.OPEN
    await logs.finish(ONE, len(TEXT), SHA256)
    await logs.committed(ONE)
    assert await logs.state(ENDED) is LogState.COMPLETE
    await logs.close()


async def test_attempt_that_wrote_nothing_is_complete_at_once(logs: LogStore) -> None:
    assert await logs.state(replace(ENDED, log_size=0)) is LogState.COMPLETE
    assert await logs.state(an_attempt(outcome=AttemptOutcome.RELEASED)) is LogState.COMPLETE


async def test_reads_stay_within_what_is_there(logs: LogStore) -> None:
    await append(logs, b"hello")
    assert await logs.read(ONE, 0, 2) == b"he"
    assert await logs.read(ONE, 4) == b"o"
    for offset in (5, 6, 2**62, -1, -(2**62)):
        assert await logs.read(ONE, offset) == b""
    assert await logs.read(AttemptId(77), 0) == b""


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
        (b"x" * 200_000 + b"\nend\n", 1, b"end\n"),
        (b"one\n" + b"x" * 200_000 + b"\nend\n", 2, b"x" * 200_000 + b"\nend\n"),
    ],
)
async def test_tail_begins_at_a_line(logs: LogStore, text: bytes, lines: int, expected: bytes) -> None:
    await append(logs, text)
    assert text[await logs.tail_offset(ONE, lines) :] == expected


@pytest.mark.parametrize("attempt", [0, -1, -(2**62)])
async def test_garbage_ids_make_no_files(logs: LogStore, tmp_path: Path, attempt: int) -> None:
    with pytest.raises(InvalidRequest):
        await logs.offer(AttemptId(attempt), 0, b"x")
    assert not list(tmp_path.rglob("*.log"))


async def test_negative_length_is_refused(logs: LogStore) -> None:
    with pytest.raises(InvalidRequest):
        await logs.finish(ONE, -1, "")


@looks_at_files
async def test_files_lie_in_shards_and_belong_to_us_alone(logs: LogStore, tmp_path: Path) -> None:
    for number in (1, 255, 256, 2**62):
        await append(logs, b"x", attempt=AttemptId(number))
    paths = [path.relative_to(tmp_path / "logs") for path in (tmp_path / "logs").rglob("*.log")]
    assert sorted(str(path) for path in paths) == ["00/256.1.log", f"00/{2**62}.1.log", "01/1.1.log", "ff/255.1.log"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.log")} == {0o600}


@pytest.fixture
async def sole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[LogStore, list[AttemptId]]]:
    """The only log store of an epoch, and the attempts that it looks for in the database; it remembers one log."""
    monkeypatch.setattr(logstore, "REMEMBERED_LOGS", 1)
    store = open_store(tmp_path)
    asked: list[AttemptId] = []
    look_up = store.log_of

    def note(attempt: AttemptId) -> LogRecord:
        asked.append(attempt)
        return look_up(attempt)

    monkeypatch.setattr(store, "log_of", note)
    logs = LogStore(storage(tmp_path), store, is_sole=True)
    yield logs, asked
    await logs.close()
    store.close()


async def test_log_that_begins_is_looked_for_nowhere(sole: tuple[LogStore, list[AttemptId]]) -> None:
    logs, asked = sole
    await append(logs, TEXT)
    await logs.finish(ONE, len(TEXT), SHA256)
    assert (await logs.committed(ONE)).is_closed
    assert asked == []


async def test_log_that_has_left_memory_is_read_again(sole: tuple[LogStore, list[AttemptId]]) -> None:
    logs, asked = sole
    await append(logs, TEXT)
    await append(logs, b"another", attempt=AttemptId(2))
    assert await content(logs) == TEXT
    assert asked == [ONE]


async def test_log_whose_bytes_were_taken_is_truncated_though_nobody_had_asked_for_it(
    sole: tuple[LogStore, list[AttemptId]],
) -> None:
    logs, asked = sole
    assert await logs.empty([ONE]) == 1
    assert await logs.state(RUNNING) is LogState.TRUNCATED
    assert asked == [ONE]


async def test_log_of_an_earlier_epoch_is_looked_for(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    logs = LogStore(storage(tmp_path), first, is_sole=True)
    await append(logs, TEXT)
    first.commit([PutCounters(Counters(epoch=first.epoch, next_attempt=2))])
    await logs.close()
    first.close()
    second = open_store(tmp_path)
    logs = LogStore(storage(tmp_path), second, is_sole=True)
    assert await content(logs) == TEXT
    await logs.close()
    second.close()
