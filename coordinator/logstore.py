"""Append-by-offset log files around `core.logfile`.

Chunks are taken in on the event loop, into a small buffer of their log; a flush per log writes what has gathered, and
only what `fdatasync` has returned for is acknowledged or shown. A log is flushed at once after a pause, but not again
within a short interval, so that chatty logs share their syncs. File work and hashing run in a few threads.

Followers pull by offset and wait for growth: a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from coordinator.core.errors import InvalidRequest
from coordinator.core.logfile import PATIENCE_US, LogFile, LogState
from coordinator.core.model import SECOND_US, Attempt, AttemptId

MAX_CHUNK_BYTES = 64 * 1_024
SYNC_INTERVAL_S = 0.1
ENOUGH_TO_SYNC_BYTES = 512 * 1_024
"""A buffer of this size is flushed without regard to the interval."""
MAX_BUFFERED_BYTES = 1_024 * 1_024
"""A writer waits while its log has more than this in its buffer."""
MAX_BUFFERED_IN_ALL_BYTES = 64 * 1_024 * 1_024
DISK_THREADS = 4
REMEMBERED_LOGS = 1_024
"""Logs that stay in memory though nobody uses them; others are read from disk again."""

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


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Log:
    """One log in memory."""

    attempt: AttemptId
    file: LogFile
    """With what the buffer holds."""
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
    error: OSError | None = None
    """What the disk refused, until its writer is told."""
    is_urgent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the flush shall not rest."""
    changed: _Signal = field(default_factory=_Signal)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is wanted, and that is durable."""
        return self.has_verdict and self.flush is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a writer may forget: the bytes before `size`, and all of the log if it is closed."""

    size: int
    is_closed: bool


class LogStore:
    """The logs of all attempts in a directory. All methods are called on the event loop's thread."""

    def __init__(
        self,
        directory: Path,
        *,
        patience_us: int = PATIENCE_US,
        sync_interval_s: float = SYNC_INTERVAL_S,
        read_wall_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """Use a directory; it is made with the first log.

        Args:
            directory: Where the logs lie.
            patience_us: How long the rest of an ended attempt's log is waited for.
            sync_interval_s: Least time between two syncs of one log.
            read_wall_us: The wall clock.
        """
        self._directory = directory
        self._patience_us = patience_us
        self._sync_interval_s = sync_interval_s
        self._read_wall_us = read_wall_us
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="logs")
        # Whoever uses a log holds it, so all who use it share one; the queue holds the last few for those to come.
        self._logs: WeakValueDictionary[AttemptId, _Log] = WeakValueDictionary()
        self._recent: deque[_Log] = deque(maxlen=REMEMBERED_LOGS)
        self._buffered = 0
        self._has_room = _Signal()

    # Writers

    async def offer(self, attempt: AttemptId, offset: int, data: bytes) -> None:
        """Take in what is new of a chunk; `committed` tells when it is durable. Waits only for room.

        Raises:
            OSError: The disk refused what was to be read or written before.
        """
        log = await self._log(attempt)
        while log.buffered >= MAX_BUFFERED_BYTES or self._buffered >= MAX_BUFFERED_IN_ALL_BYTES:
            await self._has_room.wait()
        log.file, take = log.file.taken(offset, len(data))
        if take.length:
            log.buffer.append(data[take.skip : take.skip + take.length])
            log.buffered += take.length
            self._buffered += take.length
        if log.buffered >= ENOUGH_TO_SYNC_BYTES or log.file.is_due:
            log.is_urgent.set()
        self._start_flush(log)

    async def finish(self, attempt: AttemptId, size: int, sha256: str) -> None:
        """Take the writer's word on length and hash; `committed` tells what became of it.

        Raises:
            InvalidRequest: The size is negative.
            OSError: The disk refused to be read.
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
            OSError: The disk refused; what was not durable before is forgotten.
        """
        log = await self._log(attempt)
        taken = log.file.size
        while log.flush is not None and (log.durable < taken or log.file.is_due or log.file.is_closed):
            await log.changed.wait()
        if log.error is not None:
            error, log.error = log.error, None
            raise error
        return Committed(size=log.durable, is_closed=log.is_closed)

    def _start_flush(self, log: _Log) -> None:
        is_verdict_due = log.file.is_due or (log.file.is_closed and not log.has_verdict)
        if log.flush is None and (log.buffer or is_verdict_due):
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
            if log.file.is_closed and not log.has_verdict:
                await self._run(_write_verdict, self._verdict_path(log.attempt), log.file)
                log.has_verdict = True
        except OSError as error:
            self._forget_buffer(log)
            log.error = error
        finally:
            log.flush = None
            log.changed.give()

    async def _rest(self, log: _Log) -> None:
        pause_s = log.synced_s + self._sync_interval_s - time.monotonic()
        if pause_s <= 0:
            return
        try:
            await asyncio.wait_for(log.is_urgent.wait(), pause_s)
        except TimeoutError:
            return

    async def _write_buffer(self, log: _Log) -> None:
        data = b"".join(log.buffer)
        log.buffer.clear()
        log.is_urgent.clear()
        try:
            await self._run(_append, self._path(log.attempt), log.durable, data)
        except OSError:
            log.file = log.file.without(len(data))
            self._free(log, len(data))
            raise
        log.durable += len(data)
        log.synced_s = time.monotonic()
        log.grown_us = self._read_wall_us()
        self._free(log, len(data))
        log.changed.give()

    def _forget_buffer(self, log: _Log) -> None:
        """Give up what was not written; the writer sends it again from the durable size."""
        if log.buffered:
            log.file = log.file.without(log.buffered)
        log.buffer.clear()
        self._free(log, log.buffered)

    def _free(self, log: _Log, length: int) -> None:
        log.buffered -= length
        self._buffered -= length
        self._has_room.give()

    async def _judge(self, log: _Log) -> None:
        path = self._path(log.attempt)
        sha256 = await self._run(_sha256, path)
        log.file = log.file.judged(sha256)
        if not log.file.size and log.durable:
            # It begins anew.
            await self._run(_clear, path)
            log.durable = 0

    # Readers

    async def state(self, attempt: Attempt) -> LogState:
        """Return whether an attempt's log can still grow, as far as a reader needs to know."""
        log = await self._log(attempt.id)
        if log.file.is_closed and not log.is_closed:
            return LogState.OPEN
        return log.file.state_for(attempt, self._quiet_us(log, attempt), self._patience_us)

    async def size(self, attempt: AttemptId) -> int:
        """Return how many bytes are durable."""
        return (await self._log(attempt)).durable

    async def read(self, attempt: AttemptId, offset: int, limit: int = MAX_CHUNK_BYTES) -> bytes:
        """Return durable bytes from `offset` on, at most `limit`; none where there are none yet."""
        log = await self._log(attempt)
        length = min(limit, log.durable - offset)
        if offset < 0 or length <= 0:
            return b""
        return await self._run(_read, self._path(attempt), offset, length)

    async def grown(self, attempt: AttemptId, offset: int) -> None:
        """Wait until more than `offset` bytes are durable or the log is closed."""
        log = await self._log(attempt)
        while log.durable <= offset and not log.is_closed:
            await log.changed.wait()

    async def patience_s(self, attempt: Attempt) -> float | None:
        """Return how long the rest of a log will be waited for, in seconds; None while the attempt goes on."""
        if attempt.outcome is None:
            return None
        log = await self._log(attempt.id)
        return max(0, self._patience_us - self._quiet_us(log, attempt)) / SECOND_US

    def _quiet_us(self, log: _Log, attempt: Attempt) -> int:
        return self._read_wall_us() - max(log.grown_us, attempt.end_us or 0)

    async def tail_offset(self, attempt: AttemptId, lines: int) -> int:
        """Return the offset at which the last `lines` lines begin."""
        log = await self._log(attempt)
        return await self._run(_tail_offset, self._path(attempt), log.durable, lines)

    async def close(self) -> None:
        """Wait for what is being written."""
        for log in list(self._logs.values()):
            log.is_urgent.set()
            if log.flush is not None:
                await asyncio.wait([log.flush])
        self._disk.shutdown(wait=True)

    # Memory and paths

    async def _log(self, attempt: AttemptId) -> _Log:
        log = self._logs.get(attempt)
        if log is None:
            loaded = await self._run(_load, attempt, self._path(attempt), self._verdict_path(attempt))
            log = self._logs.setdefault(attempt, loaded)
            self._recent.append(log)
        return log

    def _path(self, attempt: AttemptId) -> Path:
        if attempt < 1:
            raise InvalidRequest("attempt_id", f"attempt {attempt} cannot be")
        return self._directory / f"{attempt % 256:02x}" / f"{attempt:d}.log"

    def _verdict_path(self, attempt: AttemptId) -> Path:
        return self._path(attempt).with_suffix(".end")

    async def _run(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, lambda: work(*args, **kwargs))


def _load(attempt: AttemptId, path: Path, verdict_path: Path) -> _Log:
    try:
        stat = path.stat()
    except FileNotFoundError:
        size, grown_us = 0, 0
    else:
        size, grown_us = stat.st_size, stat.st_mtime_ns // 1_000
    file = LogFile(size=size, state=_load_verdict(verdict_path), is_inherited=size > 0)
    return _Log(attempt=attempt, file=file, durable=size, grown_us=grown_us, has_verdict=file.is_closed)


def _load_verdict(path: Path) -> LogState:
    try:
        return LogState(json.loads(path.read_bytes())["state"])
    except FileNotFoundError:
        return LogState.OPEN


def _append(path: Path, size: int, data: bytes) -> None:
    is_new = not path.exists()
    if is_new:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _write_at(descriptor, size, data)
    finally:
        os.close(descriptor)
    if is_new:
        _sync_directory(path.parent)


def _write_at(descriptor: int, size: int, data: bytes) -> None:
    """Write all or nothing: the size of the file is what a restart believes."""
    try:
        # What an interrupted write may have left.
        os.ftruncate(descriptor, size)
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], size + written)
        # macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _clear(path: Path) -> None:
    os.truncate(path, 0)


def _write_verdict(path: Path, file: LogFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    verdict = {"state": file.state.value, "size": file.size}
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump(verdict, out)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return hashlib.sha256().hexdigest()


def _tail_offset(path: Path, size: int, lines: int) -> int:
    """Look for line ends from the end of the file backwards, a block at a time."""
    if lines <= 0 or not size:
        return size
    with path.open("rb") as file:
        # The end of the last line begins no further one.
        end = size - 1
        while end > 0:
            start = max(0, end - MAX_CHUNK_BYTES)
            file.seek(start)
            block = file.read(end - start)
            for found in _line_ends_backwards(block):
                lines -= 1
                if not lines:
                    return start + found + 1
            end = start
    return 0


def _line_ends_backwards(block: bytes) -> list[int]:
    return [index for index in range(len(block) - 1, -1, -1) if block[index] == 0x0A]
