"""Logs in a directory: one file for each attempt and epoch, in 256 folders.

Beside it may lie when its bytes were written. A log that was begun before epochs had files of their own is one file
without a number of an epoch; a small file beside it tells how it ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from coordinator.core.errors import InvalidRequest
from coordinator.core.logfile import LogPart, LogState, spans
from coordinator.core.model import AttemptId
from coordinator.storage.protocol import Stored
from coordinator.storage.shelf import DirectoryShelf, sync_directory

SYNC_INTERVAL_S = 0.1
STORAGE_ID = "storage_id"
TIMES = ".times"
SHARDS = 256


class Directory:
    """A directory of this host, or one that several hosts share."""

    can_append = True

    def __init__(self, directory: Path, *, sync_interval_s: float = SYNC_INTERVAL_S) -> None:
        """Use a directory; what lies in it is made when it is needed.

        Args:
            directory: Bears the name of the storage, and holds the logs in `logs`.
            sync_interval_s: Least time between two writes of one log.
        """
        self._directory = directory
        self._logs = directory / "logs"
        self.sync_interval_s = sync_interval_s

    def __str__(self) -> str:
        return f"data directory {self._directory}"

    def shelf(self) -> DirectoryShelf:
        """Return where blobs lie beside the logs."""
        return DirectoryShelf(self._directory / "blobs")

    def read_storage_id(self) -> str:
        """Return the name that the directory bears, empty where it bears none."""
        try:
            return (self._directory / STORAGE_ID).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def write_storage_id(self, storage_id: str) -> None:
        """Give the directory a name, durably."""
        _replace(self._directory / STORAGE_ID, f"{storage_id}\n")

    def where_storage_id(self) -> str:
        """Return the file that holds the name."""
        return str(self._directory / STORAGE_ID)

    def load(self, parts: Sequence[LogPart]) -> Stored:
        """Return how far a log goes: the last file that counts tells."""
        counting = spans(parts)
        if not counting:
            return Stored()
        last = counting[-1].part
        state = self._old_state(last)
        try:
            stat = self._path(last).stat()
        except FileNotFoundError:
            # It was recorded, and nothing was written yet.
            return Stored(size=last.start, state=state)
        return Stored(size=last.start + stat.st_size, grown_us=stat.st_mtime_ns // 1_000, state=state)

    def _old_state(self, part: LogPart) -> LogState:
        if part.epoch:
            return LogState.OPEN
        try:
            return LogState(json.loads(self._path(part).with_suffix(".end").read_bytes())["state"])
        except FileNotFoundError:
            return LogState.OPEN

    def settle(self, parts: Sequence[LogPart]) -> None:
        """Sync the file that was written last: a process that was killed may not have come to it."""
        for part in parts[-1:]:
            try:
                descriptor = os.open(self._path(part), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def write(self, part: LogPart, offset: int, data: bytes) -> None:
        """Append to a file, or begin it."""
        path = self._path(part)
        is_new = not path.exists()
        if is_new:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write_at(descriptor, offset - part.start, data)
        finally:
            os.close(descriptor)
        if is_new:
            sync_directory(path.parent)
            sync_directory(path.parent.parent)

    def read(self, parts: Sequence[LogPart], offset: int, length: int) -> bytes:
        """Read from the file that holds the place."""
        for span in spans(parts):
            if span.until is None or offset < span.until:
                length = length if span.until is None else min(length, span.until - offset)
                with self._path(span.part).open("rb") as file:
                    file.seek(offset - span.part.start)
                    return file.read(length)
        return b""

    def write_times(self, attempt: AttemptId, epoch: int, records: bytes, stored: int) -> None:
        """Append to a file beside the log's."""
        descriptor = os.open(self._times_path(attempt, epoch), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, stored)
            view = memoryview(records)
            while stored < len(view):
                stored += os.pwrite(descriptor, view[stored:], stored)
        finally:
            os.close(descriptor)

    def read_times(self, attempt: AttemptId, epoch: int) -> bytes:
        """Read the file beside the log's."""
        try:
            return self._times_path(attempt, epoch).read_bytes()
        except FileNotFoundError:
            return b""

    def remove(self, attempt: AttemptId) -> None:
        """Unlink all files of a log."""
        shard = self._shard(attempt)
        if not shard.exists():
            return
        for path in shard.glob(f"{attempt:d}.*"):
            path.unlink(missing_ok=True)

    def sizes(self) -> Iterator[tuple[AttemptId, int]]:
        """Yield the length of each file."""
        for shard in range(SHARDS):
            folder = self._logs / f"{shard:02x}"
            if not folder.exists():
                continue
            for path in (*folder.glob("*.log"), *folder.glob(f"*{TIMES}")):
                attempt = path.name.partition(".")[0]
                try:
                    size = path.stat().st_size
                except FileNotFoundError:
                    continue
                if attempt.isdecimal():
                    yield AttemptId(int(attempt)), size

    def _shard(self, attempt: AttemptId) -> Path:
        return self._logs / f"{attempt % SHARDS:02x}"

    def _times_path(self, attempt: AttemptId, epoch: int) -> Path:
        return self._shard(attempt) / f"{attempt:d}.{epoch:d}{TIMES}"

    def _path(self, part: LogPart) -> Path:
        if part.attempt < 1:
            raise InvalidRequest("attempt_id", f"attempt {part.attempt} cannot be")
        name = f"{part.attempt:d}.{part.epoch:d}.log" if part.epoch else f"{part.attempt:d}.log"
        return self._shard(part.attempt) / name


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


def _replace(path: Path, text: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
