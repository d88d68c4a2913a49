"""A cache of blobs on this host: each fetched once, verified, and kept while there is room for it.

However many devices want a blob at once, one fetch serves them all; it goes on where it broke off, also in a later life
of the agent. The cache is bounded by its bytes; what was used the longest ago goes first, and what a device uses never.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from agent.core.model import Blame, Failure, LeaseKey
from agent.transfer import Transfer, TransferBroken, TransferForbidden, TransferImpossible

MIB = 1_024 * 1_024
WRITE_BYTES = MIB
PATIENCE_S = 60.0
"""How long a fetch that comes no further is tried again; the job can run elsewhere."""
FIRST_DELAY_S, MAX_DELAY_S = 0.2, 3.0
PART = ".part"
TRIES_OF_BYTES = 2
"""How often bytes with another digest are taken in before the blob is given up."""


class BlobUnusable(Exception):
    """A blob cannot be had; carries why."""

    def __init__(self, reason: str, message: str, blame: Blame = Blame.HOST) -> None:
        """Take the reason and the sentence."""
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, blame=blame)


class _Digested(Protocol):
    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that were read."""


Content = TypeVar("Content", bound=_Digested)


class BlobCache:
    """A directory of blobs. Everything is called on one event loop."""

    def __init__(self, directory: Path, suffix: str, most_bytes: int, what: str = "build") -> None:
        """Use a directory.

        Args:
            directory: Is made when it is needed; what an earlier life left is used.
            suffix: Ends the name of every file: tools go by it.
            most_bytes: Size of all blobs together, but for those in use.
            what: What the blobs are, for people and for reasons.
        """
        self._directory = directory
        self._suffix = suffix
        self._most_bytes = most_bytes
        self._what = what
        self._transfer: Transfer | None = None
        self._fetches: dict[str, _Fetch] = {}
        self._used: dict[str, str] = {}
        """Who uses which blob."""

    def connect(self, transfer: Transfer) -> None:
        """Take the way to the coordinator."""
        self._transfer = transfer

    async def get(self, digest: str, key: LeaseKey, user: str) -> Path:
        """Return the file of a blob; it stays while nobody but `user` asks for another as the same user.

        Args:
            digest: SHA-256 of the blob.
            key: A lease that names it.
            user: Who uses it: a device.

        Raises:
            BlobUnusable: It cannot be had.
        """
        self._used[user] = digest
        path = self._directory / f"{digest}{self._suffix}"
        if digest not in self._fetches and await asyncio.to_thread(_touch, path):
            return path
        await self._join(digest, path, key)
        return path

    async def read(self, digest: str, key: LeaseKey, user: str, read: Callable[[Path], Awaitable[Content]]) -> Content:
        """Return what the file of a blob is read as, as `get` would give it.

        Where the disk keeps something else than was written it is fetched anew, once: the coordinator has the right
        bytes still.

        Raises:
            BlobUnusable: It cannot be had.
        """
        content = await read(await self.get(digest, key, user))
        if content.digest != digest:
            await self.drop(digest)
            content = await read(await self.get(digest, key, user))
        return content

    async def drop(self, digest: str) -> None:
        """Forget a blob whose file is not what it was."""
        await asyncio.to_thread((self._directory / f"{digest}{self._suffix}").unlink, missing_ok=True)

    async def _join(self, digest: str, path: Path, key: LeaseKey) -> None:
        assert self._transfer is not None, "nothing is leased before there is a way to the coordinator"
        while (fetch := self._fetches.get(digest)) is not None and not fetch.keys:
            await asyncio.wait((fetch.task,))  # nobody wanted it any more: it is ending, and has the part open
        if fetch is None:
            fetch = self._fetches[digest] = _Fetch(self._transfer, digest, path, self._what)
            fetch.task.add_done_callback(lambda _task: self._fetches.pop(digest, None))
        fetch.keys[key] = None
        try:
            await asyncio.shield(fetch.task)
        except OSError as error:
            message = f"the {self._what} cannot be stored on this host: {error.strerror or error}"
            raise BlobUnusable("HOST_STORAGE_FAILED", message) from error
        finally:
            fetch.keys.pop(key, None)
            if not fetch.keys:
                fetch.task.cancel()
        await asyncio.to_thread(self._evict)

    def _evict(self) -> None:
        """Make room: what was used the longest ago goes first."""
        kept = {*self._used.values(), *self._fetches}
        files = [(path.stat(), path) for path in self._directory.iterdir()]
        excess = sum(stat.st_size for stat, _ in files) - self._most_bytes
        for stat, path in sorted(files, key=lambda one: one[0].st_mtime_ns):
            if excess <= 0:
                return
            if path.name.partition(".")[0] not in kept:
                path.unlink(missing_ok=True)
                excess -= stat.st_size


class _Fetch:
    """One blob on its way, for all that wait for it."""

    def __init__(self, transfer: Transfer, digest: str, path: Path, what: str) -> None:
        self._transfer = transfer
        self._what = what
        self._digest = digest
        self._path = path
        self.keys: dict[LeaseKey, None] = {}
        """Leases of those that wait: any of them allows the fetch."""
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        begun_s = time.monotonic()
        for _ in range(TRIES_OF_BYTES):
            part = await asyncio.to_thread(_Part, self._path.with_suffix(PART))
            try:
                await self._fill(part)
            finally:
                digest = await asyncio.to_thread(part.close)
            if digest == self._digest:
                await asyncio.to_thread(part.keep_as, self._path)
                spent_s = time.monotonic() - begun_s
                story = f"fetched {part.size / MIB:.1f} MiB in {spent_s:.1f} s"
                structlog.get_logger("agent").info(f"{self._what}_fetched", story=story, digest=digest[:12])
                return
            await asyncio.to_thread(part.path.unlink)
        raise self._failed("what the coordinator sends has another SHA-256 than it should")

    def _failed(self, why: str) -> BlobUnusable:
        return BlobUnusable(f"{self._what.upper()}_FETCH_FAILED", f"the {self._what} cannot be fetched: {why}")

    async def _fill(self, part: _Part) -> None:
        """Bring the rest of a part."""
        delay_s, since_s = FIRST_DELAY_S, time.monotonic()
        while True:
            before = part.size
            key = next(iter(self.keys), None)
            if key is None:
                raise self._failed("the lease was over before it had come")
            try:
                async with aclosing(self._transfer.read(self._digest, key, part.size)) as pieces:
                    return await _append_all(part, pieces)
            except TransferForbidden:
                self.keys.pop(key, None)
            except TransferImpossible as error:
                # A bundle that is gone is a mistake of who submits, as a build is that was never there.
                reason = "BUILD_NOT_FOUND" if self._what == "build" else "BUNDLE_INVALID"
                message = f"the {self._what} cannot be had: {error}; upload it again"
                raise BlobUnusable(reason, message, Blame.BUILD if self._what == "build" else Blame.TEST) from error
            except TransferBroken as error:
                if part.size > before:
                    delay_s, since_s = FIRST_DELAY_S, time.monotonic()
                elif time.monotonic() - since_s > PATIENCE_S:
                    raise self._failed(f"it does not come: {error}") from error
                await asyncio.sleep(delay_s)
                delay_s = min(MAX_DELAY_S, 2 * delay_s)


async def _append_all(part: _Part, pieces: AsyncIterator[bytes]) -> None:
    """Write pieces in blocks, in a thread; what came before a break is kept."""
    collected = bytearray()
    try:
        async for piece in pieces:
            collected += piece
            if len(collected) >= WRITE_BYTES:
                block, collected = bytes(collected), bytearray()
                await asyncio.to_thread(part.append, block)
    finally:
        await asyncio.to_thread(part.append, bytes(collected))


class _Part:
    """The file of a fetch, with the hash of its bytes. Its methods block."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = path.open("a+b")
        self._file.seek(0)
        while block := self._file.read(WRITE_BYTES):
            self._hash.update(block)
            self.size += len(block)

    def append(self, block: bytes) -> None:
        self._file.write(block)
        self._file.flush()
        self._hash.update(block)
        self.size += len(block)

    def close(self) -> str:
        """Make the file durable, and return the SHA-256 of what it holds."""
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def keep_as(self, path: Path) -> None:
        """Give a verified file its name."""
        self.path.replace(path)


def _touch(path: Path) -> bool:
    """Note that a file is used, and return whether it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
