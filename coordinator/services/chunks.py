"""Blobs on the wire: chunks that come in are taken while they come, and what is asked for goes out block by block."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from coordinator.blobs import BlobStore, Receiver
from coordinator.core.errors import InvalidRequest, StorageFull, StorageUnavailable, UploadBroken
from coordinator.space import Space
from qgjob.v1.blob_service_pb2 import BlobChunk

MAX_CHUNK_BYTES = 64 * 1_024
LOOK_BYTES = 8 * 1_024 * 1_024
"""After which it is looked whether there still is room."""
IDLE_S = 20.0
"""So long an upload may bring nothing: who waits for the same blob is not held up by one whose link is dead."""

ReadChunk = Callable[[], Awaitable[BlobChunk | None]]
"""Returns the next chunk, None at the end of the stream."""


async def take(receiver: Receiver, read: ReadChunk, space: Space) -> None:
    """Take chunks until the stream ends.

    Raises:
        UploadBroken: Nothing comes for long, or a chunk leaves a gap.
        InvalidRequest: A chunk is too large, or goes beyond the end.
        StorageFull: There is no room any more.
    """
    loop = asyncio.get_running_loop()
    looked_at = receiver.taken
    try:
        async with asyncio.timeout(IDLE_S) as patience:
            while (chunk := await read()) is not None:
                patience.reschedule(loop.time() + IDLE_S)
                # Each look at the field copies it.
                offset, data = chunk.offset, chunk.data
                _check(offset, data)
                if receiver.taken - looked_at >= LOOK_BYTES:
                    looked_at = receiver.taken
                    await space.check_room(0)
                await receiver.take(offset, data)
    except TimeoutError as error:
        raise UploadBroken(f"nothing came for {IDLE_S:g} s; go on with the upload") from error


def _check(offset: int, data: bytes) -> None:
    if len(data) > MAX_CHUNK_BYTES:
        raise InvalidRequest("chunk", f"a chunk of {len(data)} bytes; {MAX_CHUNK_BYTES} is the limit")
    if offset < 0:
        raise InvalidRequest("chunk.offset", f"a chunk cannot begin at {offset}")


async def blocks(blobs: BlobStore, digest: str, offset: int) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield (offset, bytes) of a blob from an offset on: the next block is read while one is sent."""
    block = await blobs.read(digest, offset, blobs.block_bytes)
    while block:
        after = offset + len(block)
        reading = asyncio.create_task(blobs.read(digest, after, blobs.block_bytes))
        try:
            yield offset, block
        finally:
            following = await reading
        offset, block = after, following


def chunks_of(offset: int, block: bytes) -> Iterator[BlobChunk]:
    """Yield a block of a blob in pieces that may be sent."""
    for begin in range(0, len(block), MAX_CHUNK_BYTES):
        yield BlobChunk(offset=offset + begin, data=block[begin : begin + MAX_CHUNK_BYTES])


@contextmanager
def telling_storage() -> Iterator[None]:
    """Turn what a storage raises into a refusal.

    Raises:
        StorageFull: There is no space left.
        StorageUnavailable: It does not answer.
    """
    try:
        yield
    except OSError as error:
        structlog.get_logger("coordinator").error("blob_storage_refused", reason=str(error))
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"the upload could not be stored: {error.strerror or error}") from error
        raise StorageUnavailable from error
