"""Bytes between a producer and one reader, held in bounded memory."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class StreamOverflow(Exception):
    """The producer wrote more than its reader has room for."""


class ByteReader(Protocol):
    """Where a service reads its input from."""

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, or nothing at the end of the input."""
        ...

    async def readexactly(self, count: int) -> bytes:
        """Return `count` bytes; raises `asyncio.IncompleteReadError` if the input ends before."""
        ...

    async def readuntil(self, separator: bytes, limit: int) -> bytes:
        """Return bytes up to and with `separator`; see `ByteQueue.readuntil`."""
        ...


class ByteQueue:
    """A byte buffer with one reader and a high-water mark.

    The producer may add while the buffer is below `limit_bytes` and is told through `on_room` when, after having been
    above, it is below again. Adding above the mark is the producer's mistake and raises `StreamOverflow`.
    """

    def __init__(self, limit_bytes: int, on_room: Callable[[], None] | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._on_room = on_room
        self._buffer = bytearray()
        self._is_ended = False
        self._changed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether the producer may add more."""
        return len(self._buffer) < self._limit_bytes

    def feed(self, data: bytes) -> None:
        """Add bytes for the reader; bytes that come after the end are dropped."""
        if not self.has_room:
            raise StreamOverflow
        if not self._is_ended:
            self._buffer += data
            self._changed.set()

    def feed_eof(self) -> None:
        """Tell the reader that nothing more comes."""
        self._is_ended = True
        self._changed.set()

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, or nothing at the end of the input."""
        await self._wait_for(1)
        return self._take(min(limit, len(self._buffer)))

    async def readexactly(self, count: int) -> bytes:
        """Return `count` bytes, however many; raises `asyncio.IncompleteReadError` if the input ends before."""
        collected = bytearray()
        while len(collected) < count:
            piece = await self.read(count - len(collected))
            if not piece:
                raise asyncio.IncompleteReadError(bytes(collected), count)
            collected += piece
        return bytes(collected)

    async def readuntil(self, separator: bytes, limit: int) -> bytes:
        """Return bytes up to and with `separator`.

        Raises:
            asyncio.IncompleteReadError: the input ended before the separator came.
            asyncio.LimitOverrunError: no separator within `limit` bytes.
        """
        while (found := self._buffer.find(separator)) < 0:
            if len(self._buffer) >= min(limit, self._limit_bytes):
                raise asyncio.LimitOverrunError("no separator within the limit", len(self._buffer))
            if self._is_ended:
                raise asyncio.IncompleteReadError(bytes(self._buffer), None)
            await self._wait_for(len(self._buffer) + 1)
        return self._take(found + len(separator))

    async def _wait_for(self, count: int) -> None:
        while len(self._buffer) < count and not self._is_ended:
            self._changed.clear()
            await self._changed.wait()

    def _take(self, count: int) -> bytes:
        was_full = not self.has_room
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        if was_full and self.has_room and self._on_room is not None:
            self._on_room()
        return taken
