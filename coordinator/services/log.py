"""LogService: agents append by offset, followers pull by offset."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc
import structlog

from coordinator.changes import Changes
from coordinator.core.errors import InvalidRequest, NotFound
from coordinator.core.logfile import LogState
from coordinator.core.model import Attempt, AttemptId, AttemptOutcome, JobId
from coordinator.logstore import MAX_CHUNK_BYTES, LogStore
from coordinator.store import Store
from qgjob.v1 import job_pb2, lease_pb2, log_pb2, log_service_pb2, log_service_pb2_grpc

AppendContext = grpc.aio.ServicerContext[log_service_pb2.AppendLogsRequest, log_service_pb2.AppendLogsResponse]
FollowContext = grpc.aio.ServicerContext[log_service_pb2.FollowLogsRequest, log_service_pb2.FollowLogsResponse]

LATE_LOG_WAIT_S = 600.0
"""How long after the end of an attempt the rest of its log is waited for."""

_STATES = {
    LogState.OPEN: job_pb2.LOG_STATE_OPEN,
    LogState.COMPLETE: job_pb2.LOG_STATE_COMPLETE,
    LogState.TRUNCATED: job_pb2.LOG_STATE_TRUNCATED,
}


class LogService(log_service_pb2_grpc.LogServiceServicer):
    """Thin over the log store."""

    def __init__(self, store: Store, logs: LogStore, changes: Changes) -> None:
        self._store = store
        self._logs = logs
        self._changes = changes

    # Agents

    async def AppendLogs(self, request_iterator: object, context: AppendContext) -> None:  # type: ignore[override]  # it reads and writes through the context
        """Take chunks in and answer each with the durable size."""
        allowed: dict[AttemptId, bool] = {}
        while (message := await _next(context)) is not None:
            attempt = _attempt_of(message)
            if attempt not in allowed:
                allowed[attempt] = await self._may_write(attempt, message.key)
            if not allowed[attempt]:
                await context.write(log_service_pb2.AppendLogsResponse(attempt_id=attempt, closed=True))
                continue
            await context.write(await self._take(attempt, message))

    async def _may_write(self, attempt_id: AttemptId, key: lease_pb2.LeaseKey) -> bool:
        """Whether the attempt ran under this lease and fence. A spent fence may still write: late logs are kept."""
        lease = await asyncio.to_thread(self._store.lease_of, attempt_id)
        is_allowed = (
            lease is not None
            and lease.id == key.lease_id
            and (lease.fence.epoch, lease.fence.number) == (key.fence.epoch, key.fence.number)
        )
        if not is_allowed:
            structlog.get_logger("coordinator").warning(
                "log_refused", attempt=attempt_id, lease=key.lease_id, story="the attempt did not run under this lease"
            )
        return is_allowed

    async def _take(
        self, attempt: AttemptId, message: log_service_pb2.AppendLogsRequest
    ) -> log_service_pb2.AppendLogsResponse:
        if message.WhichOneof("event") == "finished":
            state = await self._logs.finish(attempt, message.finished.size, message.finished.sha256[:64])
        else:
            if len(message.chunk.data) > MAX_CHUNK_BYTES:
                raise InvalidRequest(
                    "chunk", f"a chunk of {len(message.chunk.data)} bytes; {MAX_CHUNK_BYTES} is the limit"
                )
            await self._logs.append(attempt, message.chunk.offset, message.chunk.data)
            state = await self._logs.state(attempt)
        size = await self._logs.size(attempt)
        is_closed = state is not LogState.OPEN
        return log_service_pb2.AppendLogsResponse(attempt_id=attempt, committed_size=size, closed=is_closed)

    # Followers

    async def FollowLogs(self, request: log_service_pb2.FollowLogsRequest, context: FollowContext) -> None:  # type: ignore[override]  # it writes through the context
        """Send a job's log through its attempts in order."""
        job_id = JobId(request.job_id)
        if await asyncio.to_thread(self._store.get_job, job_id) is None:
            raise NotFound("job", job_id)
        done = max(0, request.from_attempt_number - 1)
        with self._changes.subscribe(lambda job: job.id == job_id) as subscription:
            while True:
                attempts = await self._attempts(job_id, request)
                if request.attempt_number and not attempts and not request.follow:
                    raise NotFound("attempt", f"{request.attempt_number} of job {job_id}")
                for attempt in attempts:
                    if attempt.number > done:
                        is_last = attempt is attempts[-1]
                        await self._send(
                            attempt, await self._start_of(attempt, is_last, request), request.follow, context
                        )
                        done = attempt.number
                if await self._is_over(job_id, done, request):
                    return
                await subscription.take()

    async def _attempts(self, job_id: JobId, request: log_service_pb2.FollowLogsRequest) -> list[Attempt]:
        attempts = await asyncio.to_thread(self._store.attempts_of, job_id)
        wanted = request.attempt_number
        return [attempt for attempt in attempts if wanted in (0, attempt.number) and attempt.start_us is not None]

    async def _is_over(self, job_id: JobId, done: int, request: log_service_pb2.FollowLogsRequest) -> bool:
        if not request.follow or (request.attempt_number and done >= request.attempt_number):
            return True
        job = await asyncio.to_thread(self._store.get_job, job_id)
        if job is None or not job.is_terminal:
            return job is None
        attempts = await self._attempts(job_id, request)
        return all(attempt.number <= done for attempt in attempts)

    async def _start_of(self, attempt: Attempt, is_last: bool, request: log_service_pb2.FollowLogsRequest) -> int:
        if attempt.number == max(1, request.from_attempt_number) and request.from_offset:
            return max(0, request.from_offset)
        if request.tail_lines > 0:
            size = await self._logs.size(attempt.id)
            return await self._logs.tail_offset(attempt.id, request.tail_lines) if is_last else size
        return 0

    async def _send(self, attempt: Attempt, offset: int, follow: bool, context: FollowContext) -> None:
        """Send one attempt's log from an offset to its end, or to what is stored now."""
        await context.write(_cut(attempt, job_pb2.LOG_STATE_OPEN))
        while True:
            data = await self._logs.read(attempt.id, offset)
            if data:
                chunk = log_pb2.LogChunk(attempt_id=attempt.id, offset=offset, data=data)
                await context.write(log_service_pb2.FollowLogsResponse(chunk=chunk))
                offset += len(data)
                continue
            state = await self._logs.state(attempt.id)
            if state is not LogState.OPEN or not follow:
                await context.write(_cut(attempt, _STATES[state]))
                return
            if not await self._wait_for_more(attempt, offset):
                await context.write(_cut(attempt, job_pb2.LOG_STATE_TRUNCATED))
                return

    async def _wait_for_more(self, attempt: Attempt, offset: int) -> bool:
        """Wait for bytes, or for a change of the job. Returns False when nothing more is worth waiting for."""
        with self._changes.subscribe(lambda job: job.id == attempt.job) as subscription:
            now = await asyncio.to_thread(self._store.get_attempt, attempt.id)
            if now is not None and now.outcome is AttemptOutcome.LOST:
                # Its agent is gone. What it may still bring when it comes back is stored for later readers.
                return False
            growing = asyncio.create_task(self._logs.grown(attempt.id, offset))
            changing = asyncio.create_task(subscription.take())
            bound_s = LATE_LOG_WAIT_S if now is not None and now.outcome is not None else None
            try:
                done, _ = await asyncio.wait((growing, changing), timeout=bound_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                growing.cancel()
                changing.cancel()
        if not done:
            await self._logs.abandon(attempt.id)
        return True


def _cut(attempt: Attempt, state: job_pb2.LogState.ValueType) -> log_service_pb2.FollowLogsResponse:
    cut = log_pb2.LogCut(attempt_id=attempt.id, attempt_number=attempt.number, state=state)
    return log_service_pb2.FollowLogsResponse(cut=cut)


def _attempt_of(message: log_service_pb2.AppendLogsRequest) -> AttemptId:
    match message.WhichOneof("event"):
        case "chunk":
            return AttemptId(message.chunk.attempt_id)
        case "finished":
            return AttemptId(message.finished.attempt_id)
        case _:
            raise InvalidRequest("event", "the message is empty")


async def _next(context: AppendContext) -> log_service_pb2.AppendLogsRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, log_service_pb2.AppendLogsRequest) else None
