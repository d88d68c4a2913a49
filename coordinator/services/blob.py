"""BlobService: clients bring builds and bundles, agents fetch what their leases name."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import cast

import grpc

from coordinator import wire
from coordinator.blobs import BlobStore
from coordinator.core.errors import (
    BlobTooLarge,
    InvalidRequest,
    LeaseFenced,
    NotFound,
    PermissionDenied,
    UploadBroken,
)
from coordinator.core.ledger import Ledger
from coordinator.core.model import Fence, Lease, LeaseId
from coordinator.engine import Engine
from coordinator.services.chunks import IDLE_S, blocks, chunks_of, take, telling_storage
from coordinator.space import Space
from qgjob.v1 import blob_service_pb2, blob_service_pb2_grpc

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
                    await take(receiver, lambda: _next_chunk(context), self._space)
                    await receiver.finish()
        return blob_service_pb2.UploadBlobResponse(size=size)

    async def _first(self, context: UploadContext) -> blob_service_pb2.UploadBlobRequest:
        try:
            async with asyncio.timeout(IDLE_S):
                first = await _next(context)
        except TimeoutError as error:
            raise UploadBroken("nothing came; begin the upload again") from error
        if first is None or first.WhichOneof("event") != "begun":
            raise InvalidRequest("begun", "the first message of an upload must say what is uploaded")
        return first

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
            async with aclosing(blocks(self._blobs, digest, request.offset)) as found:
                async for offset, block in found:
                    for chunk in chunks_of(offset, block):
                        await context.write(blob_service_pb2.FetchBlobResponse(chunk=chunk, size=size))

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


def _named_by(ledger: Ledger, lease: Lease) -> set[str]:
    """Return the blobs that a lease needs: its build, and the bundles of its jobs."""
    bundles = {ledger.jobs[ledger.attempts[attempt].job].spec.bundle_digest for attempt in lease.attempts}
    return {lease.app.digest, *bundles}


async def _next(context: UploadContext) -> blob_service_pb2.UploadBlobRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, blob_service_pb2.UploadBlobRequest) else None


async def _next_chunk(context: UploadContext) -> blob_service_pb2.BlobChunk | None:
    message = await _next(context)
    return None if message is None else message.chunk
