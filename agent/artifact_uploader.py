"""Brings what attempts left behind to the coordinator, after the verdict and one file at a time.

A file whose bytes the coordinator has is not sent; one that broke off goes on where it was, also in a later life of
either side. What is refused for want of space stays here; what is refused for good is dropped, and told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

import grpc
import structlog

from agent import wire
from agent.artifacts import ArtifactSpool, KeptFile, Parcel
from agent.core.model import AgentId
from qgjob.errors import ClientError, error_info
from qgjob.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from qgjob.v1.blob_service_pb2 import BlobChunk

if TYPE_CHECKING:
    Offer = artifact_service_pb2.OfferArtifactRequest

CHUNK_BYTES = 64 * 1_024
FIRST_DELAY_S, MAX_DELAY_S = 0.5, 30.0
OFFER_TIMEOUT_S = 60.0
SLOWEST_BYTES_PER_S = 16 * 1_024
"""An upload that is slower over its whole length is begun again where it was."""
MOST_MISMATCHES = 3
"""How often other bytes may arrive than were sent before a file is given up."""
FINAL = frozenset(
    {
        "ARTIFACT_RECORDED",
        "BLOB_TOO_LARGE",
        "INVALID_REQUEST",
        "LEASE_FENCED",
        "NOT_FOUND",
        "TOO_MANY_ARTIFACTS",
    }
)
"""What no other try can mend."""


class ArtifactUploader:
    """Empties a spool."""

    def __init__(self, spool: ArtifactSpool, channel: Callable[[], grpc.aio.Channel], agent: AgentId) -> None:
        """Take the way to the coordinator of the moment, and who speaks."""
        self._spool = spool
        self._channel = channel
        self._agent = agent
        self._has_news = asyncio.Event()
        self._has_news.set()
        self._is_idle = asyncio.Event()
        self._mismatches = 0
        self._delay_s = FIRST_DELAY_S
        self._generation = 0
        self._out = structlog.get_logger("agent")

    def note(self) -> None:
        """Tell that a parcel was kept."""
        self._is_idle.clear()
        self._has_news.set()

    def forget_all(self) -> None:
        """Drop everything: it belongs to another database."""
        self._generation += 1
        self._spool.forget_all()

    async def flushed(self) -> None:
        """Wait until nothing waits any more."""
        await self._is_idle.wait()

    async def run(self) -> None:
        """Upload for ever."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if await self._empty():
                self._delay_s = FIRST_DELAY_S
                if not self._has_news.is_set():
                    self._is_idle.set()
                continue
            # Spread, so that a lab's agents do not come back at once.
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1))  # noqa: S311 - guards nothing
            self._delay_s = min(MAX_DELAY_S, 2 * self._delay_s)
            self._has_news.set()

    async def _empty(self) -> bool:
        """Send all that waits; return whether that went well."""
        for parcel in await asyncio.to_thread(lambda: list(self._spool.parcels())):
            left = parcel
            generation = self._generation
            for file in parcel.files:
                if not await self._send(parcel, file):
                    return False
                if generation != self._generation:
                    return True
                left = await asyncio.to_thread(self._spool.forget_file, left, file)
                self._mismatches = 0
                self._delay_s = FIRST_DELAY_S
        return True

    async def _send(self, parcel: Parcel, file: KeptFile) -> bool:
        """Send one file; return whether it is done with, be it because it is not wanted."""
        try:
            await self._try_to_send(parcel, file)
        except grpc.aio.AioRpcError as error:
            info = error_info(cast("grpc.Call", error))
            reason = info.reason if info is not None else error.code().name
            if reason == "DIGEST_MISMATCH":
                self._mismatches += 1
            if reason in FINAL or self._mismatches >= MOST_MISMATCHES:
                self._tell_lost(parcel, file, error.details() or reason)
                return True
            self._out.debug("artifact_put_off", attempt=parcel.attempt, artifact=file.name, reason=error.details())
            return False
        except ClientError as error:  # the token, which is read for each call
            self._out.warning("artifact_put_off", attempt=parcel.attempt, reason=str(error))
            return False
        except OSError as error:
            self._tell_lost(parcel, file, f"it cannot be read here any more: {error.strerror or error}")
        return True

    def _tell_lost(self, parcel: Parcel, file: KeptFile, reason: str) -> None:
        self._out.warning("artifact_lost", attempt=parcel.attempt, artifact=file.name, reason=reason)

    async def _try_to_send(self, parcel: Parcel, file: KeptFile) -> None:
        offer = artifact_service_pb2.OfferArtifactRequest(
            key=wire.key_out(parcel.key),
            agent_id=self._agent,
            attempt_id=parcel.attempt,
            name=file.name,
            kind=wire.artifact_kind_out(file.kind),
            content_type=file.content_type,
            size=file.size,
            digest=file.digest,
            url=file.url,
        )
        stub = artifact_service_pb2_grpc.ArtifactServiceStub(self._channel())
        answer = await stub.OfferArtifact(offer, timeout=OFFER_TIMEOUT_S)
        if not answer.stored:
            limit_s = OFFER_TIMEOUT_S + file.size / SLOWEST_BYTES_PER_S
            reader = _Reader(parcel, file)
            try:
                await stub.UploadArtifact(reader.messages(offer, answer.offset), timeout=limit_s)
            except grpc.aio.AioRpcError:
                if reader.error is not None:
                    raise reader.error from None
                raise


class _Reader:
    """Reads a file for an upload. What goes wrong is kept: raised in the stream it would only end it."""

    def __init__(self, parcel: Parcel, file: KeptFile) -> None:
        self._path = parcel.path(file)
        self._size = file.size
        self.error: OSError | None = None

    async def messages(self, offer: Offer, offset: int) -> AsyncIterator[artifact_service_pb2.UploadArtifactRequest]:
        yield artifact_service_pb2.UploadArtifactRequest(begun=offer)
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(offset)
                while data := await asyncio.to_thread(file.read, min(CHUNK_BYTES, self._size - offset)):
                    yield artifact_service_pb2.UploadArtifactRequest(chunk=BlobChunk(offset=offset, data=data))
                    offset += len(data)
        except OSError as error:
            self.error = error
