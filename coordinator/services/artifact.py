"""ArtifactService: agents bring what attempts left behind, people look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import grpc
import structlog

from coordinator import wire
from coordinator.blobs import BlobStore
from coordinator.complaints import Complaints
from coordinator.core.artifacts import (
    MAX_FILE_BYTES,
    Artifact,
    check_link,
    checked_content_type,
    checked_name,
    checked_url,
)
from coordinator.core.errors import (
    ArtifactRecorded,
    BlobTooLarge,
    InvalidRequest,
    LeaseFenced,
    NotFound,
    TooManyArtifacts,
    UploadBroken,
)
from coordinator.core.model import Attempt, AttemptId, AttemptOutcome, Fence, JobId
from coordinator.services.chunks import IDLE_S, blocks, chunks_of, take, telling_storage
from coordinator.space import Space
from coordinator.store import Recording, Store
from qgjob.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from qgjob.v1.blob_service_pb2 import BlobChunk

OfferContext = grpc.aio.ServicerContext[
    artifact_service_pb2.OfferArtifactRequest, artifact_service_pb2.OfferArtifactResponse
]
UploadContext = grpc.aio.ServicerContext[
    artifact_service_pb2.UploadArtifactRequest, artifact_service_pb2.UploadArtifactResponse
]
ListContext = grpc.aio.ServicerContext[
    artifact_service_pb2.ListArtifactsRequest, artifact_service_pb2.ListArtifactsResponse
]
FetchContext = grpc.aio.ServicerContext[
    artifact_service_pb2.FetchArtifactRequest, artifact_service_pb2.FetchArtifactResponse
]


EarlierContext = grpc.aio.ServicerContext[
    artifact_service_pb2.FetchEarlierReportsRequest, artifact_service_pb2.FetchEarlierReportsResponse
]
_OfAttempt = artifact_service_pb2.OfferArtifactRequest | artifact_service_pb2.FetchEarlierReportsRequest

MAY_LEAVE_REPORT = frozenset(
    {AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.ERRORED, AttemptOutcome.PREEMPTED}
)
"""Attempts that may be followed by another one, and whose agent brings what they left."""


class ArtifactService(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Thin over the store, which knows the artifacts, and the blob store, which has their bytes."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        space: Space,
        read_wall_us: Callable[[], int],
        *,
        retain_us: int | None,
    ) -> None:
        """`retain_us` is how long artifacts are kept, None for as long as their jobs."""
        self._store = store
        self._blobs = blobs
        self._space = space
        self._read_wall_us = read_wall_us
        self._retain_us = retain_us
        self._complaints = Complaints()

    # Agents

    async def OfferArtifact(
        self, request: artifact_service_pb2.OfferArtifactRequest, context: OfferContext
    ) -> artifact_service_pb2.OfferArtifactResponse:
        """Record an artifact whose bytes are here already, or tell where its upload goes on."""
        artifact = await self._checked(request)
        with telling_storage():
            async with self._blobs.found(artifact.digest) as size:
                if size is not None:
                    await self._record(artifact)
                    return artifact_service_pb2.OfferArtifactResponse(stored=True, offset=artifact.size)
            begun = min(artifact.size, await self._blobs.begun(artifact.digest))
        await self._space.check_room(artifact.size - begun)
        return artifact_service_pb2.OfferArtifactResponse(offset=begun)

    async def UploadArtifact(
        self, request_iterator: object, context: UploadContext
    ) -> artifact_service_pb2.UploadArtifactResponse:
        """Take an artifact in. It is recorded before anybody could drop its bytes."""
        artifact = await self._checked(await self._first(context))
        with telling_storage():
            async with self._blobs.receive(artifact.digest, artifact.size, is_named_at_once=True) as receiver:
                if receiver is not None:
                    await self._space.check_room(artifact.size - receiver.taken)
                    await take(receiver, lambda: _next_chunk(context), self._space)
                    await receiver.finish()
                await self._record(artifact)
        return artifact_service_pb2.UploadArtifactResponse()

    async def _first(self, context: UploadContext) -> artifact_service_pb2.OfferArtifactRequest:
        try:
            async with asyncio.timeout(IDLE_S):
                first = await _next(context)
        except TimeoutError as error:
            raise UploadBroken("nothing came; begin the upload again") from error
        if first is None or first.WhichOneof("event") != "begun":
            raise InvalidRequest("begun", "the first message of an upload must say what is uploaded")
        return first.begun

    async def _checked(self, request: artifact_service_pb2.OfferArtifactRequest) -> Artifact:
        """Return what is offered, if the agent that ran the attempt does so under the fence of its lease.

        The lease may be over: what an attempt left behind is of use whatever became of it.

        Raises:
            InvalidRequest: A field is malformed.
            BlobTooLarge: The file has more bytes than an artifact may have.
            NotFound: There is no such attempt, or no more.
            LeaseFenced: It did not run under this lease, or not at this agent.
        """
        name, content_type = checked_name(request.name), checked_content_type(request.content_type)
        kind, digest = wire.artifact_kind(request.kind), wire.digest("digest", request.digest)
        if request.size <= 0:
            raise InvalidRequest("size", "the file is empty")
        if request.size > MAX_FILE_BYTES:
            raise BlobTooLarge(f"{name} has {request.size} bytes, and {MAX_FILE_BYTES} is the limit", name=name)
        attempt = await self._attempt(request)
        artifact = Artifact(
            job=attempt.job,
            attempt=attempt.id,
            attempt_number=attempt.number,
            name=name,
            kind=kind,
            content_type=content_type,
            size=request.size,
            digest=digest,
            create_us=self._read_wall_us(),
            url=checked_url(kind, request.url),
        )
        check_link(artifact)
        return artifact

    async def _attempt(self, request: _OfAttempt) -> Attempt:
        """Return the attempt of a request, if it is of the agent that ran it, under the fence of its lease.

        Raises:
            NotFound: There is no such attempt, or no more.
            LeaseFenced: It did not run under this lease, or not at this agent.
        """
        attempt_id = AttemptId(request.attempt_id)
        attempt = await asyncio.to_thread(self._store.get_attempt, attempt_id)
        lease = await asyncio.to_thread(self._store.lease_of, attempt_id)
        if attempt is None or lease is None:
            raise NotFound("attempt", attempt_id)
        fence = Fence(request.key.fence.epoch, request.key.fence.number)
        if (lease.id, lease.fence, lease.agent) != (request.key.lease_id, fence, request.agent_id):
            story = "the attempt did not run under this lease"
            self._complaints.add("artifact_refused", attempt=attempt_id, lease=request.key.lease_id, story=story)
            raise LeaseFenced(f"attempt {attempt_id} did not run under lease {request.key.lease_id} of this agent")
        return attempt

    async def FetchEarlierReports(  # type: ignore[override]  # it writes through the context
        self, request: artifact_service_pb2.FetchEarlierReportsRequest, context: EarlierContext
    ) -> None:
        """Send what Playwright merges of the attempts before one, the oldest first."""
        attempt = await self._attempt(request)
        earlier = await asyncio.to_thread(self._store.attempts_of, attempt.job)
        reports = await asyncio.to_thread(self._store.earlier_reports, attempt.job, attempt.number)
        here = {report.attempt_number for report in reports}
        awaited = [
            one.number
            for one in earlier
            if one.number < attempt.number and one.outcome in MAY_LEAVE_REPORT and one.number not in here
        ]
        await context.write(artifact_service_pb2.FetchEarlierReportsResponse(awaited=awaited))
        for report in reports:
            async with aclosing(self.read(report)) as found:
                async for offset, block in found:
                    for chunk in chunks_of(offset, block):
                        await context.write(
                            artifact_service_pb2.FetchEarlierReportsResponse(
                                attempt_number=report.attempt_number, chunk=chunk
                            )
                        )

    async def _record(self, artifact: Artifact) -> None:
        """Record an artifact whose bytes are here, and will stay while this is awaited.

        Raises:
            ArtifactRecorded: One of this name has other bytes.
            TooManyArtifacts: The attempt has as much as may be kept.
            NotFound: The attempt was forgotten meanwhile.
        """
        match await asyncio.to_thread(self._store.record_artifact, artifact):
            case Recording.RECORDED:
                structlog.get_logger("coordinator").debug("artifact", job=artifact.job, name=artifact.name)
            case Recording.OTHER_BYTES:
                raise ArtifactRecorded(f"{artifact.name} of this attempt is recorded with other bytes")
            case Recording.TOO_MUCH:
                raise TooManyArtifacts(f"there is no room for {artifact.name}: the attempt has as much as may be kept")
            case Recording.ATTEMPT_GONE:
                raise NotFound("attempt", artifact.attempt)

    # People

    async def ListArtifacts(
        self, request: artifact_service_pb2.ListArtifactsRequest, context: ListContext | None = None
    ) -> artifact_service_pb2.ListArtifactsResponse:
        """Return a page of what a job's attempts left behind."""
        job, size = JobId(request.job_id), wire.page_size(request.page_size, default=wire.MAX_PAGE)
        if await asyncio.to_thread(self._store.get_job, job) is None:
            raise NotFound("job", job)
        after = _place(request.page_token)
        found = await asyncio.to_thread(self._store.artifacts_of, job, after, size + 1)
        page = found[:size]
        token = f"{page[-1].attempt_number}:{page[-1].name}" if len(found) > size else ""
        answer = artifact_service_pb2.ListArtifactsResponse(
            artifacts=[wire.artifact_out(artifact) for artifact in page], next_page_token=token
        )
        if self._retain_us is not None:
            answer.retention.CopyFrom(wire.duration(self._retain_us))
        return answer

    async def FetchArtifact(self, request: artifact_service_pb2.FetchArtifactRequest, context: FetchContext) -> None:  # type: ignore[override]  # it writes through the context
        """Send an artifact, block by block."""
        artifact = await self.find(request.job_id, request.attempt_number, request.name)
        if not 0 <= request.offset <= artifact.size:
            raise InvalidRequest("offset", f"offset {request.offset} of {artifact.size} bytes")
        async with aclosing(self.read(artifact, request.offset)) as found:
            async for offset, block in found:
                for chunk in chunks_of(offset, block):
                    await context.write(artifact_service_pb2.FetchArtifactResponse(chunk=chunk, size=artifact.size))

    async def find(self, job_id: int, attempt_number: int, name: str) -> Artifact:
        """Return one artifact.

        Raises:
            NotFound: There is none, or it was forgotten.
        """
        artifact = await asyncio.to_thread(self._store.get_artifact, JobId(job_id), attempt_number, name)
        if artifact is None:
            raise NotFound("artifact", f"{name!r} of attempt {attempt_number} of job {job_id}")
        return artifact

    async def report(self, job_id: int) -> Artifact:
        """Return the first page of a job's HTML report: that of the last attempt which has one.

        Raises:
            NotFound: There is no such job, or it has no report.
        """
        job = JobId(job_id)
        if await asyncio.to_thread(self._store.get_job, job) is None:
            raise NotFound("job", job)
        report = await asyncio.to_thread(self._store.report_of, job)
        if report is None:
            raise NotFound("artifact", f"of kind html_report of job {job_id}")
        return report

    async def read(self, artifact: Artifact, offset: int = 0) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield (offset, bytes) of an artifact.

        Raises:
            NotFound: It was forgotten just now.
            StorageUnavailable: The storage does not answer.
        """
        with telling_storage():
            try:
                async with aclosing(blocks(self._blobs, artifact.digest, offset)) as found:
                    async for place, block in found:
                        yield place, block
            except FileNotFoundError as error:
                raise NotFound("artifact", repr(artifact.name)) from error


def _place(token: str) -> tuple[int, str]:
    """Return after which attempt's number and name a page begins."""
    if not token:
        return 0, ""
    number, separator, name = token.partition(":")
    if not separator or not number.isdecimal() or len(number) > 9:
        raise InvalidRequest("page_token", "page_token is not one that a page gave")
    return int(number), name


async def _next(context: UploadContext) -> artifact_service_pb2.UploadArtifactRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, artifact_service_pb2.UploadArtifactRequest) else None


async def _next_chunk(context: UploadContext) -> BlobChunk | None:
    message = await _next(context)
    return None if message is None else message.chunk
