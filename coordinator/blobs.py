"""Keeps builds, bundles and artifacts, each known by the SHA-256 of its bytes and stored once.

An upload writes a *part*, a file beside the shelf that is named by the digest it shall have. One that breaks off leaves
its part, and the next goes on there. A part becomes a blob when its bytes hash to its name; else it is dropped. One
upload of a blob goes on at a time: a second waits, and finds the blob there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from coordinator.core.errors import DigestMismatch, InvalidRequest, UploadBroken
from coordinator.storage import Shelf

WRITE_BYTES = 1_024 * 1_024
"""Chunks are written together: each write is a turn of a thread."""
Named = Callable[[Collection[str]], Awaitable[Collection[str]]]
"""Says which of some blobs are named."""
UNUSED_S = 7 * 24 * 3_600.0
"""So long a part waits for the rest, and a blob for somebody who names it: a job may be tried again days later."""


class BlobStore:
    """A shelf of whole blobs, and a directory of parts. It belongs to the coordinator that leads."""

    def __init__(self, shelf: Shelf, parts: Path) -> None:
        """Take where blobs lie, and a directory for parts, which is made when it is needed."""
        self._shelf = shelf
        self._parts = parts
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._found_s: dict[str, float] = {}
        """Blobs that somebody was told to be there, and when: they are not dropped before they can be named."""

    @property
    def block_bytes(self) -> int:
        """How much is best read at once."""
        return self._shelf.block_bytes

    async def size(self, digest: str) -> int | None:
        """Return the bytes of a blob, None where it is not there."""
        self._found_s[digest] = time.monotonic()
        return await asyncio.to_thread(self._shelf.size, digest)

    @asynccontextmanager
    async def found(self, digest: str) -> AsyncIterator[int | None]:
        """Yield the bytes of a blob, None where it is not there; it stays as it is until the block ends."""
        async with self._alone(digest):
            yield await asyncio.to_thread(self._shelf.size, digest)

    async def begun(self, digest: str) -> int:
        """Return how many bytes of an upload are there."""
        return await asyncio.to_thread(_size, self._parts / digest)

    async def read(self, digest: str, offset: int, length: int) -> bytes:
        """Return bytes of a blob from `offset` on: at most `length`, and none only where there are none."""
        return await asyncio.to_thread(self._shelf.read, digest, offset, length)

    @asynccontextmanager
    async def receive(
        self, digest: str, size: int, *, is_named_at_once: bool = False
    ) -> AsyncIterator[Receiver | None]:
        """Take an upload in, after any other of the same blob; yield None where there is nothing to take.

        Args:
            digest: SHA-256 of the blob.
            size: Its bytes.
            is_named_at_once: Whether it is named before the block ends, rather than some time later.
        """
        async with self._alone(digest):
            if not is_named_at_once:
                self._found_s[digest] = time.monotonic()
            if await asyncio.to_thread(self._shelf.size, digest) is not None:
                yield None
                return
            path = self._parts / digest
            part = await asyncio.to_thread(_Part, path, size)
            receiver = Receiver(part, self._shelf, digest, size)
            try:
                yield receiver
            finally:
                await receiver.close()

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(digest, asyncio.Lock())
        self._waiting[digest] += 1
        try:
            async with lock:
                yield
        finally:
            self._waiting[digest] -= 1
            if not self._waiting[digest]:
                del self._waiting[digest], self._locks[digest]

    async def prune(self, named: Named, *, now_s: float) -> int:
        """Drop the parts that nobody went on with, and the blobs that nobody names; return how many.

        Args:
            named: Says which blobs are named; asked only where something is old enough.
            now_s: Wall time.
        """
        old = await asyncio.to_thread(self._old, now_s - UNUSED_S)
        if not old:
            return 0
        return await self.drop(old - {*await named(old), *self._waiting}, named)

    async def drop(self, digests: Collection[str], named: Named) -> int:
        """Drop those of some blobs that nobody names, and that nobody was told of lately; return how many."""
        since_s = time.monotonic() - UNUSED_S
        self._found_s = {digest: found_s for digest, found_s in self._found_s.items() if found_s >= since_s}
        count = 0
        for digest in digests:
            async with self._alone(digest):
                if not await named([digest]) and digest not in self._found_s:
                    await asyncio.to_thread(self._remove, digest)
                    count += 1
        return count

    def _old(self, before_s: float) -> set[str]:
        blobs = {blob.digest for blob in self._shelf.blobs() if blob.put_us < before_s * 1_000_000}
        return blobs | {path.name for path in self._parts.glob("*") if path.stat().st_mtime < before_s}

    def _remove(self, digest: str) -> None:
        self._shelf.remove(digest)
        (self._parts / digest).unlink(missing_ok=True)


class Receiver:
    """One upload at work: collects chunks, and writes and hashes them in a thread while more come in."""

    def __init__(self, part: _Part, shelf: Shelf, digest: str, size: int) -> None:
        self._part = part
        self._shelf = shelf
        self._digest = digest
        self._size = size
        self._taken = part.size
        self._collected: list[bytes] = []
        self._collected_bytes = 0
        self._writing: asyncio.Task[None] | None = None

    @property
    def taken(self) -> int:
        """Bytes that need not be sent again."""
        return self._taken

    async def take(self, offset: int, data: bytes) -> None:
        """Take a chunk; what is there already is skipped.

        Raises:
            UploadBroken: It leaves a gap.
            InvalidRequest: It goes beyond the end.
            OSError: The storage refuses.
        """
        if offset > self._taken:
            raise UploadBroken(f"a chunk at {offset}, and {self._taken} bytes are there; go on from there")
        if offset + len(data) > self._size:
            raise InvalidRequest("chunk", f"more than the {self._size} bytes that were announced")
        new = data[self._taken - offset :]
        self._collected.append(new)
        self._collected_bytes += len(new)
        self._taken += len(new)
        if self._collected_bytes >= WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        await self._written()
        chunks, self._collected, self._collected_bytes = self._collected, [], 0
        self._writing = asyncio.create_task(asyncio.to_thread(self._part.append, chunks))

    async def _written(self) -> None:
        if self._writing is not None:
            # A call that is cancelled meanwhile must not leave a thread behind that still writes.
            await asyncio.shield(self._writing)
            self._writing = None

    async def finish(self) -> None:
        """Verify the whole, and put it on the shelf, durably.

        Raises:
            UploadBroken: Bytes are missing.
            DigestMismatch: It is not what was announced; the part is dropped.
            OSError: The storage refuses.
        """
        if self._taken < self._size:
            raise UploadBroken(f"the upload ended after {self._taken} of {self._size} bytes; go on from there")
        await self._flush()
        await self._written()
        digest = await asyncio.to_thread(self._part.close)
        if digest != self._digest:
            await asyncio.to_thread(self._part.drop)
            raise DigestMismatch(f"what came has the SHA-256 {digest} instead of {self._digest}; upload it again")
        await asyncio.to_thread(self._shelf.put, self._digest, self._part.path)

    async def close(self) -> None:
        """Keep what has come, for the next upload to go on with."""
        try:
            await self._written()
            if self._collected and not self._part.is_closed:
                await asyncio.to_thread(self._part.append, self._collected)
        finally:
            await asyncio.to_thread(self._part.close)


class _Part:
    """The file of an upload, with the hash of its bytes. Its methods block."""

    def __init__(self, path: Path, most: int) -> None:
        """Open the file, and read what an earlier upload left; more than `most` cannot be the beginning of it."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = 0
        if os.fstat(self._descriptor).st_size > most:
            os.ftruncate(self._descriptor, 0)
        while block := os.pread(self._descriptor, WRITE_BYTES, self.size):
            self._hash.update(block)
            self.size += len(block)

    def append(self, chunks: Sequence[bytes]) -> None:
        """Write all or nothing at the end."""
        block = b"".join(chunks)
        with self._lock:
            assert self._descriptor is not None, "it was closed"
            try:
                view = memoryview(block)
                written = 0
                while written < len(view):
                    written += os.pwrite(self._descriptor, view[written:], self.size + written)
            except OSError:
                os.ftruncate(self._descriptor, self.size)
                raise
            self._hash.update(block)
            self.size += len(block)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is written any more."""
        return self._descriptor is None

    def close(self) -> str:
        """Close the file, and return the SHA-256 of what it holds."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)
            return self._hash.hexdigest()

    def drop(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
