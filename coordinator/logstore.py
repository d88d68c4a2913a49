"""Append-by-offset log files around `core.logfile`.

Bytes are acknowledged after fdatasync. File work runs in threads; each attempt has its own lock, so attempts don't wait
for each other. Followers pull by offset and wait for growth: a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.core.logfile import LogFile, LogState
from coordinator.core.model import AttemptId

MAX_CHUNK_BYTES = 64 * 1_024
IDLE_LOGS = 1_024
"""Logs that are kept in memory after their last use; the others are read from disk again."""


@dataclass(slots=True)
class _Log:
    """One log in memory."""

    file: LogFile
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    has_grown: asyncio.Event = field(default_factory=asyncio.Event)


class LogStore:
    """The logs of all attempts in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs: OrderedDict[AttemptId, _Log] = OrderedDict()

    async def append(self, attempt: AttemptId, offset: int, data: bytes) -> int:
        """Store what is new of a chunk and return the durable size.

        Raises:
            OSError: The disk refused; nothing of the chunk is acknowledged.
        """
        log = await self._log(attempt)
        async with log.lock:
            take = log.file.take(offset, len(data))
            if take.length:
                piece = data[take.skip : take.skip + take.length]
                await asyncio.to_thread(_append, self._path(attempt), log.file.size, piece)
                log.file = log.file.grown(take.length)
                _wake(log)
            await self._judge(attempt, log)
            return log.file.size

    async def finish(self, attempt: AttemptId, size: int, sha256: str) -> LogState:
        """Take the writer's word on length and hash, and return the log's state."""
        log = await self._log(attempt)
        async with log.lock:
            log.file = log.file.announced(size, sha256)
            await self._judge(attempt, log)
            return log.file.state

    async def abandon(self, attempt: AttemptId) -> None:
        """Stop to wait for the rest of a log."""
        log = await self._log(attempt)
        async with log.lock:
            if log.file.state is LogState.OPEN:
                await self._close(attempt, log, log.file.abandoned())

    async def _judge(self, attempt: AttemptId, log: _Log) -> None:
        if log.file.state is LogState.OPEN and log.file.is_whole:
            sha256 = await asyncio.to_thread(_sha256, self._path(attempt))
            await self._close(attempt, log, log.file.judged(sha256))

    async def _close(self, attempt: AttemptId, log: _Log, file: LogFile) -> None:
        verdict = {"state": file.state, "size": file.final_size, "sha256": file.final_sha256}
        await asyncio.to_thread(_write_whole, self._verdict_path(attempt), json.dumps(verdict).encode())
        log.file = file
        _wake(log)

    async def state(self, attempt: AttemptId) -> LogState:
        """Return whether an attempt's log can still grow."""
        return (await self._log(attempt)).file.state

    async def size(self, attempt: AttemptId) -> int:
        """Return an attempt's durable size."""
        return (await self._log(attempt)).file.size

    async def read(self, attempt: AttemptId, offset: int, most: int = MAX_CHUNK_BYTES) -> bytes:
        """Return durable bytes from `offset` on, at most `most`."""
        log = await self._log(attempt)
        length = min(most, log.file.size - offset)
        if length <= 0:
            return b""
        return await asyncio.to_thread(_read, self._path(attempt), offset, length)

    async def grown(self, attempt: AttemptId, offset: int) -> None:
        """Wait until there is more than `offset` bytes, or the log is closed."""
        log = await self._log(attempt)
        while log.file.size <= offset and log.file.state is LogState.OPEN:
            await log.has_grown.wait()

    async def tail_offset(self, attempt: AttemptId, lines: int) -> int:
        """Return the offset of the last `lines` lines."""
        size = await self.size(attempt)
        return await asyncio.to_thread(_tail_offset, self._path(attempt), size, lines)

    async def close(self) -> None:
        """Wait for what is being written."""
        for log in list(self._logs.values()):
            async with log.lock:
                log.has_grown.set()

    async def _log(self, attempt: AttemptId) -> _Log:
        log = self._logs.get(attempt)
        if log is None:
            file = await asyncio.to_thread(_load, self._path(attempt), self._verdict_path(attempt))
            log = self._logs.setdefault(attempt, _Log(file))
            self._forget_idle()
        self._logs.move_to_end(attempt)
        return log

    def _forget_idle(self) -> None:
        for attempt in list(self._logs):
            if len(self._logs) <= IDLE_LOGS:
                return
            log = self._logs[attempt]
            if log.file.state is not LogState.OPEN and not log.lock.locked():
                del self._logs[attempt]

    def _path(self, attempt: AttemptId) -> Path:
        return self._directory / f"{attempt % 256:02x}" / f"{int(attempt)}.log"

    def _verdict_path(self, attempt: AttemptId) -> Path:
        return self._path(attempt).with_suffix(".end")


def _wake(log: _Log) -> None:
    log.has_grown.set()
    log.has_grown = asyncio.Event()


def _load(path: Path, verdict_path: Path) -> LogFile:
    size = path.stat().st_size if path.exists() else 0
    file = LogFile(size=size)
    if not verdict_path.exists():
        return file
    verdict = json.loads(verdict_path.read_bytes())
    return replace(file, state=LogState(verdict["state"]), final_size=verdict["size"], final_sha256=verdict["sha256"])


def _append(path: Path, size: int, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # A write that a full disk cut short must not count: the size of the file is what a restart believes.
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _sha256(path: Path) -> str:
    if not path.exists():
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tail_offset(path: Path, size: int, lines: int) -> int:
    if not size:
        return 0
    wanted = lines
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - MAX_CHUNK_BYTES)
            file.seek(start)
            block = file.read(end - start)
            if end == size and block.endswith(b"\n"):
                block = block[:-1]
            while (cut := block.rfind(b"\n")) >= 0:
                wanted -= 1
                if not wanted:
                    return start + cut + 1
                block = block[:cut]
            end = start
    return 0
