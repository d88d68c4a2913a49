"""BlobService: clients bring builds and bundles, agents fetch what their leases name."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc
import structlog

from coordinator import wire
from coordinator.blobs import BlobStore, Receiver
from coordinator.core.errors import (
    BlobTooLarge,
    InvalidRequest,
    LeaseFenced,
    NotFound,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    UploadBroken,
)
from coordinator.core.ledger import Ledger
from coordinator.core.model import Fence, Lease, LeaseId
from coordinator.engine import Engine
from coordinator.space import Space
from qgjob.v1 import blob_service_pb2, blob_service_pb2_grpc

MAX_CHUNK_BYTES = 64 * 1_024
LOOK_BYTES = 8 * 1_024 * 1_024
"""After which it is looked whether there still is room."""
IDLE_S = 20.0
"""So long an upload may bring nothing: who waits for the same blob is not held up by one whose link is dead."""

FindContext = grpc.aio.ServicerContext[blob_service_pb2.FindBlobRequest, blob_service_pb2.FindBlobResponse]
UploadContext = grpc.aio.ServicerContext[blob_service_pb2.UploadBlobRequest, blob_service_pb2.UploadBlobResponse]
FetchContext = grpc.aio.ServicerContext[blob_service_pb2.FetchBlobRequest, blob_service_pb2.FetchBlobResponse]


class BlobService(blob_service_pb2_grpc.BlobServiceServicer):
    """Thin over the blob store."""

    def __init__(self, engine: Engine, blobs: BlobStore, space: Space, *, most_bytes: int) -> None:
        """`most_bytes` is the size of the largest blob that is taken in."""
        self._engine = engine
        self._blobs = blobs
        self._space = space
        self._most_bytes = most_bytes

    async def FindBlob(
        self, request: blob_service_pb2.FindBlobRequest, context: FindContext
    ) -> blob_service_pb2.FindBlobResponse:
        """Tell what is stored of a blob."""
        digest, size = wire.digest("digest", request.digest), self._checked_size(request.size)
        with telling_storage():
            if await self._blobs.size(digest) is not None:
                return blob_service_pb2.FindBlobResponse(complete=True, offset=size)
            offset = await self._blobs.begun(digest)
        await self._space.check_room(max(0, size - offset))
        return blob_service_pb2.FindBlobResponse(offset=min(offset, size))

    async def UploadBlob(self, request_iterator: object, context: UploadContext) -> blob_service_pb2.UploadBlobResponse:
        """Take a blob in."""
        first = await self._first(context)
        digest, size = wire.digest("digest", first.begun.digest), self._checked_size(first.begun.size)
        with telling_storage():
            async with self._blobs.receive(digest, size) as receiver:
                if receiver is not None:
                    await self._space.check_room(size - receiver.taken)
                    await self._take(receiver, context)
                    await receiver.finish()
        return blob_service_pb2.UploadBlobResponse(size=size)

    async def _first(self, context: UploadContext) -> blob_service_pb2.UploadBlobRequest:
        try:
            first = await asyncio.wait_for(_next(context), IDLE_S)
        except TimeoutError as error:
            raise UploadBroken("nothing came; begin the upload again") from error
        if first is None or first.WhichOneof("event") != "begun":
            raise InvalidRequest("begun", "the first message of an upload must say what is uploaded")
        return first

    async def _take(self, receiver: Receiver, context: UploadContext) -> None:
        """Take chunks until the stream ends.

        Raises:
            UploadBroken: Nothing comes for long.
        """
        loop = asyncio.get_running_loop()
        looked_at = receiver.taken
        try:
            async with asyncio.timeout(IDLE_S) as patience:
                while (message := await _next(context)) is not None:
                    patience.reschedule(loop.time() + IDLE_S)
                    # Each look at the field copies it.
                    offset, data = message.chunk.offset, message.chunk.data
                    _check_chunk(offset, data)
                    if receiver.taken - looked_at >= LOOK_BYTES:
                        looked_at = receiver.taken
                        await self._space.check_room(0)
                    await receiver.take(offset, data)
        except TimeoutError as error:
            raise UploadBroken(f"nothing came for {IDLE_S:g} s; go on with the upload") from error

    def _checked_size(self, size: int) -> int:
        if size <= 0:
            raise InvalidRequest("size", "the file is empty")
        if size > self._most_bytes:
            mebibytes = self._most_bytes // (1_024 * 1_024)
            raise BlobTooLarge(f"{size} bytes, and {mebibytes} MiB is the limit", limit=self._most_bytes)
        return size

    async def FetchBlob(self, request: blob_service_pb2.FetchBlobRequest, context: FetchContext) -> None:  # type: ignore[override]  # it writes through the context
        """Send a blob to an agent whose lease names it, block by block: the next is read while one is sent."""
        digest = wire.digest("digest", request.digest)
        self._check_right(request)
        with telling_storage():
            size = await self._blobs.size(digest)
            if size is None:
                raise NotFound("blob", digest)
            if not 0 <= request.offset <= size:
                raise InvalidRequest("offset", f"offset {request.offset} of {size} bytes")
            offset = request.offset
            block = await self._blobs.read(digest, offset, self._blobs.block_bytes)
            while block:
                after = offset + len(block)
                reading = asyncio.create_task(self._blobs.read(digest, after, self._blobs.block_bytes))
                try:
                    await _send(context, offset, block, size)
                finally:
                    following = await reading
                offset, block = after, following

    def _check_right(self, request: blob_service_pb2.FetchBlobRequest) -> None:
        """Check that the caller holds a lease that names the blob.

        Raises:
            LeaseFenced: The lease is over.
            PermissionDenied: It is another agent's, or names another blob.
        """
        fence = Fence(request.key.fence.epoch, request.key.fence.number)
        ledger = self._engine.scheduler.ledger
        lease = ledger.live_lease(LeaseId(request.key.lease_id), fence)
        if lease is None:
            raise LeaseFenced(f"lease {request.key.lease_id} is over")
        if lease.boot_id != request.boot_id or request.digest not in _named_by(ledger, lease):
            raise PermissionDenied(f"lease {lease.id} does not name this blob for this agent")


def _check_chunk(offset: int, data: bytes) -> None:
    if len(data) > MAX_CHUNK_BYTES:
        raise InvalidRequest("chunk", f"a chunk of {len(data)} bytes; {MAX_CHUNK_BYTES} is the limit")
    if offset < 0:
        raise InvalidRequest("chunk.offset", f"a chunk cannot begin at {offset}")


def _named_by(ledger: Ledger, lease: Lease) -> set[str]:
    """Return the blobs that a lease needs: its build, and the bundles of its jobs."""
    bundles = {ledger.jobs[ledger.attempts[attempt].job].spec.bundle_digest for attempt in lease.attempts}
    return {lease.app.digest, *bundles}


async def _send(context: FetchContext, offset: int, block: bytes, size: int) -> None:
    for begin in range(0, len(block), MAX_CHUNK_BYTES):
        data = block[begin : begin + MAX_CHUNK_BYTES]
        chunk = blob_service_pb2.BlobChunk(offset=offset + begin, data=data)
        await context.write(blob_service_pb2.FetchBlobResponse(chunk=chunk, size=size))


async def _next(context: UploadContext) -> blob_service_pb2.UploadBlobRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, blob_service_pb2.UploadBlobRequest) else None


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
