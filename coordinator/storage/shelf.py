"""Where whole blobs lie, each named by the SHA-256 of its bytes. All methods block; they are called in threads.

A blob that is on a shelf was verified, and never changes: who reads it needs no lock, and to put it there twice does
no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

MICROSECONDS_PER_NANOSECOND = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelved:
    """A blob that is there."""

    digest: str
    size: int
    put_us: int
    """Wall time at which it was put there."""


class Shelf(Protocol):
    """Keeps whole blobs. Everything raises OSError when the storage refuses."""

    block_bytes: int
    """How much is best read at once."""

    def size(self, digest: str) -> int | None:
        """Return the bytes of a blob, None where it is not there."""

    def put(self, digest: str, path: Path) -> None:
        """Take a verified file, durably. It is gone from its place afterwards."""

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Return bytes from `offset` on: at most `length`, and none only where there are none."""

    def remove(self, digest: str) -> None:
        """Free the space of a blob; one that is not there is no mistake."""

    def blobs(self) -> Iterator[Shelved]:
        """Yield all blobs, in no order."""


class DirectoryShelf:
    """A directory, on the file system of the uploads' parts."""

    block_bytes = 1_024 * 1_024

    def __init__(self, directory: Path) -> None:
        """Use a directory; it is made when it is needed."""
        self._directory = directory

    def size(self, digest: str) -> int | None:
        """Return the size of the file."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, digest: str, path: Path) -> None:
        """Sync the file and rename it: it is there whole, or not at all."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target = self._path(digest)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.replace(target)
        for folder in (target.parent, self._directory):
            sync_directory(folder)

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Read from the file."""
        with self._path(digest).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def remove(self, digest: str) -> None:
        """Unlink the file; who reads it to its end still can."""
        self._path(digest).unlink(missing_ok=True)

    def blobs(self) -> Iterator[Shelved]:
        """Yield what lies there."""
        for path in self._directory.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            put_us = stat.st_mtime_ns // MICROSECONDS_PER_NANOSECOND
            yield Shelved(digest=path.name, size=stat.st_size, put_us=put_us)

    def _path(self, digest: str) -> Path:
        return self._directory / digest[:2] / digest


def sync_directory(path: Path) -> None:
    """Make durable which names a directory holds."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
