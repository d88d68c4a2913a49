"""The logs of all attempts: appended by offset, around `core.logfile`, over a storage and the database.

Chunks are taken in on the event loop, into a small buffer of their log; a flush per log writes what has gathered, and
only what the storage has made durable is acknowledged or shown. A log is flushed at once after a pause, but not again
within a short interval, so that chatty logs share their writes. Storage, database and hashing run in a few threads.

The database says of which parts a log consists (`core.logfile`). When this epoch first writes to a log, it records
from which byte it goes on; whoever wrote in an earlier epoch and does not know that its time is over can still write to
its own part, but can record nothing, and asks before each acknowledgement whether it may give one.

Followers pull by offset and wait for growth: a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from coordinator.complaints import Complaints
from coordinator.core.errors import InvalidRequest, ShuttingDown, StorageUnavailable
from coordinator.core.logfile import (
    PATIENCE_US,
    LogEnd,
    LogFile,
    LogPart,
    LogRestart,
    LogState,
    LogWrite,
)
from coordinator.core.model import SECOND_US, Attempt, AttemptId
from coordinator.logtimes import MARK, LogTimes, Mark
from coordinator.newlogs import NewLogs
from coordinator.storage import Storage, Stored
from coordinator.store import StaleEpoch, Store, StoreError, StoreFull

MAX_CHUNK_BYTES = 64 * 1_024
BLOCK_BYTES = 1_024 * 1_024
ENOUGH_TO_WRITE_BYTES = 512 * 1_024
"""A buffer of this size is flushed without regard to the interval."""
MAX_BUFFERED_BYTES = 1_024 * 1_024
"""A writer waits while its log has more than this in its buffer."""
MAX_BUFFERED_IN_ALL_BYTES = 64 * 1_024 * 1_024
RECORD_AGAIN_S = 5.0
"""Between two tries to record the end of a log, while somebody waits for it."""
THREADS = 4
REMEMBERED_LOGS = 1_024
TAIL_BYTES = 16 * 1_024
"""Of each of them that stay in memory: a thousand followers would read them a thousand times from the disk."""
"""Logs that stay in memory though nobody uses them; others are read from the storage again."""

Args = ParamSpec("Args")
Result = TypeVar("Result")


class _Signal:
    """Wakes all who wait, each time that it is given."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    def give(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class _Hash:
    """The SHA-256 of a log, taken as it is written, so that it need not be read again for that."""

    __slots__ = ("_found", "_size")

    def __init__(self) -> None:
        self._found = hashlib.sha256()
        self._size = 0

    def take(self, offset: int, data: bytes) -> None:
        """Take bytes in if they go on from those before; else nothing is known of the whole any more."""
        if offset == self._size:
            self._found.update(data)
            self._size += len(data)

    def of(self, size: int) -> str | None:
        """Return the hash of a log of that size, None where it has to be read for that."""
        return self._found.hexdigest() if size == self._size else None


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Log:
    """One log in memory."""

    attempt: AttemptId
    file: LogFile
    """With what the buffer holds."""
    parts: tuple[LogPart, ...]
    """What is recorded, in order."""
    durable: int
    """Bytes that may be acknowledged and shown."""
    grown_us: int
    """Wall time of the last growth; 0 if nothing was ever stored."""
    buffer: list[bytes] = field(default_factory=list)
    buffered: int = 0
    flush: asyncio.Task[None] | None = None
    synced_s: float = 0.0
    """Monotonic time of the last flush."""
    has_verdict: bool = False
    """Whether its end is durable."""
    judged_s: float = 0.0
    """Monotonic time of the last try to make it so."""
    error: OSError | ShuttingDown | None = None
    """Why the storage took nothing, until its writer is told."""
    is_urgent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the flush shall not rest."""
    changed: _Signal = field(default_factory=_Signal)
    times: LogTimes | None = None
    """When its bytes were written; None until that is asked for the first time."""
    marks: list[Mark] = field(default_factory=list)
    """Of bytes that the buffer holds."""
    hash: _Hash = field(default_factory=_Hash)
    tail: bytes = b""
    """The last bytes that are durable, for the followers who wait for them."""

    @classmethod
    def begun(cls, attempt: AttemptId) -> _Log:
        """Return a log of which there is nothing yet."""
        return cls(attempt=attempt, file=LogFile(), parts=(), durable=0, grown_us=0)

    def with_times(self, loaded: LogTimes) -> LogTimes:
        """Keep and return what was loaded, unless somebody else was first."""
        if self.times is None:
            self.times = loaded
        return self.times

    def known(self, offset: int, length: int) -> bytes | None:
        """Return durable bytes that are still in memory; None where they must be read."""
        first = offset - (self.durable - len(self.tail))
        return self.tail[first : first + length] if first >= 0 else None

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is wanted, and that is durable."""
        return self.has_verdict and self.flush is None

    @property
    def is_verdict_due(self) -> bool:
        """Whether its end is known, and not recorded."""
        return self.file.is_closed and not self.has_verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a writer may forget: the bytes before `size`, and all of the log if it is closed."""

    size: int
    is_closed: bool


class _Recorder:
    """Records what several logs have to record in one transaction: one is under way while the next gathers."""

    def __init__(self, store: Store, run: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._store = store
        self._run = run
        self._gathering: list[LogWrite] = []
        self._next: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def record(self, write: LogWrite) -> None:
        """Return when it is durable.

        Raises:
            OSError: The database cannot take it.
            ShuttingDown: It is not ours any more.
        """
        self._gathering.append(write)
        if self._next is None:
            self._next = asyncio.create_task(self._commit())
        await asyncio.shield(self._next)

    async def _commit(self) -> None:
        async with self._turn:
            writes, self._gathering, self._next = self._gathering, [], None
            try:
                await self._run(lambda: self._store.put_logs(writes))
            except StaleEpoch as error:
                raise ShuttingDown(str(error)) from error
            except StoreFull as error:
                raise OSError(errno.ENOSPC, str(error)) from error
            except StoreError as error:
                raise OSError(errno.EIO, str(error)) from error


def _for_readers(
    method: Callable[Concatenate[LogStore, Args], Awaitable[Result]],
) -> Callable[Concatenate[LogStore, Args], Coroutine[None, None, Result]]:
    """Tell readers that the storage does not answer, and the operator why."""

    @functools.wraps(method)
    async def read(self: LogStore, /, *args: Args.args, **kwargs: Args.kwargs) -> Result:
        try:
            return await method(self, *args, **kwargs)
        except OSError as error:
            story = "readers of logs are told to come again"
            self._complaints.add("storage_unavailable", reason=str(error), story=story)
            raise StorageUnavailable from error

    return read


class LogStore:
    """The logs of all attempts. All methods are called on the event loop's thread."""

    def __init__(
        self,
        storage: Storage,
        store: Store,
        *,
        patience_us: int = PATIENCE_US,
        read_wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        may_acknowledge: Callable[[], bool] = lambda: True,
        is_sole: bool = False,
    ) -> None:
        """Use a storage and a database that belong together.

        Args:
            storage: Where the bytes lie.
            store: Where it is recorded which bytes count.
            patience_us: How long the rest of an ended attempt's log is waited for.
            read_wall_us: The wall clock.
            may_acknowledge: Whether this coordinator still leads; asked after each write and before each word of it.
            is_sole: Whether all logs of the store's epoch come here, so that one that never came is new.
        """
        self._storage = storage
        self._store = store
        self._patience_us = patience_us
        self._read_wall_us = read_wall_us
        self._may_acknowledge = may_acknowledge
        self._is_sole = is_sole
        self._new = NewLogs()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="logs")
        self._recorder = _Recorder(store, self._run)
        # Whoever uses a log holds it, so all who use it share one; the queue holds the last few for those to come.
        self._logs: WeakValueDictionary[AttemptId, _Log] = WeakValueDictionary()
        self._recent: deque[_Log] = deque(maxlen=REMEMBERED_LOGS)
        self._buffered = 0
        self._has_room = _Signal()
        self._complaints = Complaints()

    # Writers

    async def offer(self, attempt: AttemptId, offset: int, data: bytes, marks: Sequence[Mark] = ()) -> None:
        """Take in what is new of a chunk; `committed` tells when it is durable. Waits only for room.

        Args:
            attempt: Whose log it is.
            offset: Where the chunk belongs.
            data: Its bytes.
            marks: When they were written.

        Raises:
            OSError: The storage refused to be read.
        """
        log = await self._log(attempt)
        while log.buffered >= MAX_BUFFERED_BYTES or self._buffered >= MAX_BUFFERED_IN_ALL_BYTES:
            await self._has_room.wait()
        log.file, take = log.file.taken(offset, len(data))
        if take.length:
            log.buffer.append(data[take.skip : take.skip + take.length])
            first = offset + take.skip
            log.marks += [mark for mark in marks if first <= mark[0] < first + take.length]
            log.buffered += take.length
            self._buffered += take.length
        if log.buffered >= ENOUGH_TO_WRITE_BYTES or log.file.is_due:
            log.is_urgent.set()
        self._start_flush(log)

    async def finish(self, attempt: AttemptId, size: int, sha256: str) -> None:
        """Take the writer's word on length and hash; `committed` tells what became of it.

        Raises:
            InvalidRequest: The size is negative.
            OSError: The storage refused to be read.
        """
        if size < 0:
            raise InvalidRequest("finished.size", f"a log of {size} bytes cannot be")
        log = await self._log(attempt)
        log.file = log.file.announced(size, sha256)
        if log.file.is_due:
            log.is_urgent.set()
        self._start_flush(log)

    async def committed(self, attempt: AttemptId) -> Committed:
        """Wait until all that was taken in is durable, and judged if it can be; return how far the log has come.

        Raises:
            OSError: The storage refused; what was not durable before is forgotten.
            ShuttingDown: This coordinator does not lead any more.
        """
        log = await self._log(attempt)
        taken = log.file.size
        while log.flush is not None and (log.durable < taken or log.file.is_due or log.file.is_closed):
            await log.changed.wait()
        if log.error is not None:
            error, log.error = log.error, None
            raise error
        self._check_leadership()
        return Committed(size=log.durable, is_closed=log.is_closed)

    def _start_flush(self, log: _Log) -> None:
        if log.flush is None and (log.buffer or log.file.is_due or log.is_verdict_due):
            log.flush = asyncio.create_task(self._flush(log))

    async def _flush(self, log: _Log) -> None:
        """Write until nothing is left to write."""
        try:
            while log.buffer or log.file.is_due:
                while log.buffer:
                    await self._rest(log)
                    await self._write_buffer(log)
                if log.file.is_due:
                    await self._judge(log)
            if log.is_verdict_due:
                log.judged_s = time.monotonic()
                await self._record(LogEnd(attempt=log.attempt, state=log.file.state, size=log.file.size))
                log.has_verdict = True
        except (OSError, ShuttingDown) as error:
            self._forget_buffer(log)
            log.error = error
        finally:
            log.flush = None
            log.changed.give()

    async def _rest(self, log: _Log) -> None:
        pause_s = log.synced_s + self._storage.sync_interval_s - time.monotonic()
        if pause_s <= 0:
            return
        try:
            async with asyncio.timeout(pause_s):
                await log.is_urgent.wait()
        except TimeoutError:
            return

    async def _write_buffer(self, log: _Log) -> None:
        data = b"".join(log.buffer)
        log.buffer.clear()
        log.is_urgent.clear()
        try:
            await self._store_bytes(log, data)
        except (OSError, ShuttingDown):
            log.file = log.file.without(len(data))
            self._free(log, len(data))
            raise
        log.durable += len(data)
        log.tail = data[-TAIL_BYTES:]
        await self._take_times(log)
        log.synced_s = time.monotonic()
        log.grown_us = self._read_wall_us()
        self._free(log, len(data))
        log.changed.give()
        await self._store_times(log)

    async def _take_times(self, log: _Log) -> None:
        """Let the marks count whose bytes are durable. Whatever becomes of them, the log goes on."""
        due = [mark for mark in log.marks if mark[0] < log.durable]
        if not due:
            return
        log.marks = [mark for mark in log.marks if mark[0] >= log.durable]
        try:
            (await self._times(log)).add(due)
        except OSError as error:
            self._complain_of_times(log, error)

    async def _store_times(self, log: _Log) -> None:
        times = log.times
        if times is None or times.is_stored:
            return
        records, stored = times.own_records(), times.stored * MARK.size
        try:
            await self._run(self._storage.write_times, log.attempt, self._store.epoch, records, stored)
        except OSError as error:
            self._complain_of_times(log, error)
        else:
            times.stored = len(records) // MARK.size

    async def _forget_times(self, log: _Log) -> None:
        log.times = LogTimes()
        try:
            await self._run(self._storage.write_times, log.attempt, self._store.epoch, b"", 0)
        except OSError as error:
            self._complain_of_times(log, error)

    def _complain_of_times(self, log: _Log, error: OSError) -> None:
        story = "the log itself is kept"
        self._complaints.add("log_times_not_stored", attempt=log.attempt, reason=str(error), story=story)

    async def _times(self, log: _Log) -> LogTimes:
        """Return when the bytes of a log were written.

        Raises:
            OSError: The storage refused to be read.
        """
        if log.times is None:
            parts = log.parts
            found = await self._run(self._load_times, log.attempt, parts)
            return log.with_times(LogTimes.loaded(parts, found, self._store.epoch))
        return log.times

    def _load_times(self, attempt: AttemptId, parts: tuple[LogPart, ...]) -> dict[int, bytes]:
        return {epoch: self._storage.read_times(attempt, epoch) for epoch in {part.epoch for part in parts} if epoch}

    async def _store_bytes(self, log: _Log, data: bytes) -> None:
        """Write behind what is durable, to a part of this epoch.

        A part that grows is recorded before its first byte is written, so that nothing counts that is not recorded; one
        that never changes is recorded after it is there as a whole.
        """
        self._check_leadership()
        if self._storage.can_append:
            part = await self._growing_part(log)
            await self._run(self._write, log, part, data)
        else:
            part = LogPart(attempt=log.attempt, epoch=self._store.epoch, start=log.durable, size=len(data))
            await self._run(self._write, log, part, data)
            await self._record(part)
            log.parts += (part,)
        self._check_leadership()

    def _write(self, log: _Log, part: LogPart, data: bytes) -> None:
        self._storage.write(part, log.durable, data)
        log.hash.take(log.durable, data)

    async def _growing_part(self, log: _Log) -> LogPart:
        epoch = self._store.epoch
        if log.parts and log.parts[-1].epoch == epoch:
            return log.parts[-1]
        if log.parts:
            # From here on it counts that the bytes before survive a loss of power, whoever wrote them.
            await self._run(self._storage.settle, log.parts)
        else:
            log.with_times(LogTimes())  # of a log that begins there are none to load
        part = LogPart(attempt=log.attempt, epoch=epoch, start=log.durable)
        await self._record(part)
        log.parts += (part,)
        return part

    async def _record(self, write: LogWrite) -> None:
        await self._recorder.record(write)

    def _check_leadership(self) -> None:
        if not self._may_acknowledge():
            raise ShuttingDown("this coordinator does not lead any more; repeat the call in a moment")

    def _forget_buffer(self, log: _Log) -> None:
        """Give up what was not written; the writer sends it again from the durable size."""
        log.marks.clear()
        if log.buffered:
            log.file = log.file.without(log.buffered)
        log.buffer.clear()
        self._free(log, log.buffered)

    def _free(self, log: _Log, length: int) -> None:
        log.buffered -= length
        self._buffered -= length
        self._has_room.give()

    async def _judge(self, log: _Log) -> None:
        found = log.hash.of(log.durable)
        if found is None:
            found = await self._run(self._sha256, log.parts, log.durable)
        judged = log.file.judged(found)
        if not judged.size and log.durable:
            # It begins anew, once that is recorded; nothing is taken in before.
            await self._record(LogRestart(log.attempt))
            log.parts = ()
            log.durable = 0
            log.hash, log.tail = _Hash(), b""
            await self._forget_times(log)
        log.file = judged

    def _sha256(self, parts: tuple[LogPart, ...], size: int) -> str:
        found = hashlib.sha256()
        offset = 0
        while offset < size and (block := self._storage.read(parts, offset, min(BLOCK_BYTES, size - offset))):
            found.update(block)
            offset += len(block)
        return found.hexdigest()

    # Readers. They raise StorageUnavailable where the storage does not answer.

    @_for_readers
    async def state(self, attempt: Attempt) -> LogState:
        """Return whether an attempt's log can still grow, as far as a reader needs to know."""
        log = await self._log(attempt.id)
        if log.file.is_closed and not log.is_closed:
            return LogState.OPEN
        return log.file.state_for(attempt, self._quiet_us(log, attempt), self._patience_us)

    @_for_readers
    async def size(self, attempt: AttemptId) -> int:
        """Return how many bytes are durable."""
        return (await self._log(attempt)).durable

    @_for_readers
    async def read(self, attempt: AttemptId, offset: int, limit: int = MAX_CHUNK_BYTES) -> bytes:
        """Return durable bytes from `offset` on, at most `limit`; none where there are none yet."""
        log = await self._log(attempt)
        length = min(limit, log.durable - offset)
        if offset < 0 or length <= 0:
            return b""
        known = log.known(offset, length)
        return known if known is not None else await self._run(self._storage.read, log.parts, offset, length)

    @_for_readers
    async def times(self, attempt: AttemptId, start: int, end: int) -> list[Mark]:
        """Return when the bytes of a range were written, as `LogTimes.between` does."""
        return (await self._times(await self._log(attempt))).between(start, end)

    @_for_readers
    async def grown(self, attempt: AttemptId, offset: int) -> None:
        """Wait until more than `offset` bytes are durable or the log is closed."""
        log = await self._log(attempt)
        while log.durable <= offset and not log.is_closed:
            await log.changed.wait()

    @_for_readers
    async def patience_s(self, attempt: Attempt) -> float | None:
        """Return how long the rest of a log will be waited for, in seconds; None while the attempt goes on.

        An end that the database refused is recorded again: its writer may not come back, and readers wait for it.
        """
        if attempt.outcome is None:
            return None
        log = await self._log(attempt.id)
        if log.is_verdict_due:
            return self._record_again_s(log)
        return max(0, self._patience_us - self._quiet_us(log, attempt)) / SECOND_US

    def _record_again_s(self, log: _Log) -> float:
        """Try to record a known end if that was not tried lately; return when to ask again, in seconds."""
        pause_s = log.judged_s + RECORD_AGAIN_S - time.monotonic()
        if pause_s > 0:
            return pause_s
        self._start_flush(log)
        return RECORD_AGAIN_S

    def _quiet_us(self, log: _Log, attempt: Attempt) -> int:
        return self._read_wall_us() - max(log.grown_us, attempt.end_us or 0)

    @_for_readers
    async def tail_offset(self, attempt: AttemptId, lines: int) -> int:
        """Return the offset at which the last `lines` lines begin."""
        log = await self._log(attempt)
        return await self._run(self._tail_offset, log.parts, log.durable, lines)

    def _tail_offset(self, parts: tuple[LogPart, ...], size: int, lines: int) -> int:
        """Look for line ends from the end of the log backwards, a block at a time."""
        if lines <= 0 or not size:
            return size
        # The end of the last line begins no further one.
        end = size - 1
        while end > 0:
            start = max(0, end - MAX_CHUNK_BYTES)
            for found in _line_ends_backwards(self._read_fully(parts, start, end)):
                lines -= 1
                if not lines:
                    return start + found + 1
            end = start
        return 0

    def _read_fully(self, parts: tuple[LogPart, ...], start: int, end: int) -> bytes:
        """Return the bytes of a range that may lie in several parts."""
        found = b""
        while start + len(found) < end:
            offset = start + len(found)
            piece = self._storage.read(parts, offset, end - offset)
            if not piece:
                raise OSError(errno.EIO, f"bytes {offset} to {end} of a log are missing")
            found += piece
        return found

    async def forget(self, attempts: Sequence[AttemptId]) -> int:
        """Free the bytes of logs that cannot be read any more, and then forget of which parts they consisted.

        Returns:
            How many; those that are just being written are left for another time.

        Raises:
            OSError: The storage refused.
            StoreError: The database refused.
        """
        idle = self._closed(attempts)
        for attempt in idle:
            await self._run(self._storage.remove, attempt)
        await self._run(self._store.forget_parts, idle)
        return len(idle)

    async def empty(self, attempts: Sequence[AttemptId]) -> int:
        """Take the bytes from logs whose attempts stay: to readers they are truncated at once; `forget` frees the room.

        Returns:
            How many; those that are just being written are left for another time.

        Raises:
            StoreError: The database refused.
        """
        idle = self._closed(attempts)
        ends = [LogEnd(attempt=attempt, state=LogState.TRUNCATED, size=0) for attempt in idle]
        await self._run(self._store.put_logs, ends)
        return len(idle)

    def _closed(self, attempts: Sequence[AttemptId]) -> list[AttemptId]:
        """Close in memory those logs that nobody writes to now, so that nobody begins to, and return them."""
        idle: list[AttemptId] = []
        for attempt in attempts:
            self._is_new(attempt)  # what is recorded of it now must be read by whoever comes later
            log = self._logs.get(attempt)
            if log is not None:
                if log.flush is not None:
                    continue
                log.file = LogFile(size=0, state=LogState.TRUNCATED)
                log.parts, log.durable, log.has_verdict = (), 0, True
                log.times, log.tail = LogTimes(), b""
                log.changed.give()
                # Whoever comes later reads anew what is recorded.
                del self._logs[attempt]
            idle.append(attempt)
        return idle

    async def used(self) -> dict[AttemptId, int]:
        """Return the space that each log takes."""
        return await self._run(self._used)

    def _used(self) -> dict[AttemptId, int]:
        found: dict[AttemptId, int] = {}
        for attempt, size in self._storage.sizes():
            found[attempt] = found.get(attempt, 0) + size
        return found

    async def close(self) -> None:
        """Wait for what is being written."""
        for log in list(self._logs.values()):
            log.is_urgent.set()
            if log.flush is not None:
                await asyncio.wait([log.flush])
        self._threads.shutdown(wait=True)

    # Memory

    async def _log(self, attempt: AttemptId) -> _Log:
        log = self._logs.get(attempt)
        if log is None:
            if attempt < 1:
                raise InvalidRequest("attempt_id", f"attempt {attempt} cannot be")
            loaded = _Log.begun(attempt) if self._is_new(attempt) else await self._run(self._load, attempt)
            log = self._logs.setdefault(attempt, loaded)
            self._recent.append(log)
        return log

    def _is_new(self, attempt: AttemptId) -> bool:
        """Whether a log cannot be there yet: most that are asked for begin just then. From now on it can."""
        return self._is_sole and self._new.meet(attempt, self._store.first_attempt)

    def _load(self, attempt: AttemptId) -> _Log:
        record = self._store.log_of(attempt)
        if record.end is None:
            stored = self._storage.load(record.parts)
        else:
            stored = Stored(size=record.end.size, state=record.end.state)
        return _Log(
            attempt=attempt,
            file=LogFile(size=stored.size, state=stored.state, is_inherited=stored.size > 0),
            parts=record.parts,
            durable=stored.size,
            grown_us=stored.grown_us,
            has_verdict=stored.state is not LogState.OPEN,
        )

    async def _run(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


def _line_ends_backwards(block: bytes) -> list[int]:
    return [index for index in range(len(block) - 1, -1, -1) if block[index] == 0x0A]
