"""LogService: agents append by offset, followers pull by offset."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, cast

import grpc
import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.changes import Changes
from coordinator.complaints import Complaints
from coordinator.core.errors import InvalidRequest, NotFound, StorageFull, TooManyFollowers
from coordinator.core.logfile import LogState
from coordinator.core.model import Attempt, AttemptId, AttemptOutcome, Fence, JobId, Lease
from coordinator.logstore import MAX_CHUNK_BYTES, LogStore
from coordinator.logtimes import Mark
from coordinator.space import Space
from coordinator.store import Store
from qgjob.v1 import job_pb2, lease_pb2, log_pb2, log_service_pb2, log_service_pb2_grpc

AppendContext = grpc.aio.ServicerContext[log_service_pb2.AppendLogsRequest, log_service_pb2.AppendLogsResponse]
FollowContext = grpc.aio.ServicerContext[log_service_pb2.FollowLogsRequest, log_service_pb2.FollowLogsResponse]

Write = Callable[[log_service_pb2.FollowLogsResponse], Awaitable[None]]
Begin = Callable[[], Awaitable[None]]

FOLLOW_CHUNK_BYTES = 16 * 1_024
"""A follower that does not read holds a few copies of a chunk: 129 KiB in all, and 373 KiB with chunks of 64 KiB
(measured by benchmarks/followers.py)."""
MAX_FOLLOWERS = 2_000
"""Of one job's log; each holds up to 256 KB while it does not read."""
PUT_OFF_S = 10.0
"""After which the sender of a log that may not begin yet hears where to go on, and tries again."""
MAX_MARKS = 1_024
"""Of a chunk that is taken in."""
LAST_S = 253_402_300_800
"""The year 10000."""
REMEMBERED_KEYS = 1_024
"""Attempts of one stream whose lease need not be looked up again."""

_STATES = {
    LogState.OPEN: job_pb2.LOG_STATE_OPEN,
    LogState.COMPLETE: job_pb2.LOG_STATE_COMPLETE,
    LogState.TRUNCATED: job_pb2.LOG_STATE_TRUNCATED,
}


class LogService(log_service_pb2_grpc.LogServiceServicer):
    """Thin over the log store."""

    def __init__(
        self,
        store: Store,
        logs: LogStore,
        changes: Changes,
        space: Space,
        known_lease: Callable[[AttemptId], Lease | None] = lambda _attempt: None,
    ) -> None:
        """Take what it is thin over, and what tells from memory the lease of an attempt if it can."""
        self._known_lease = known_lease
        self._store = store
        self._logs = logs
        self._changes = changes
        self._space = space
        self._followers: Counter[int] = Counter()
        self._complaints = Complaints()

    async def AppendLogs(self, request_iterator: object, context: AppendContext) -> None:  # type: ignore[override]  # it reads and writes through the context
        """Take chunks in, and tell how much of each log is durable."""
        await _Upload(self._lease_of, self._logs, self._space, self._complaints, context).run()

    async def _lease_of(self, attempt: AttemptId) -> Lease | None:
        """Return the lease under which an attempt runs or ran."""
        return self._known_lease(attempt) or await asyncio.to_thread(self._store.lease_of, attempt)

    async def FollowLogs(self, request: log_service_pb2.FollowLogsRequest, context: FollowContext) -> None:  # type: ignore[override]  # it writes through the context
        """Send a job's log through its attempts in order.

        Raises:
            TooManyFollowers: As many do so already as may.
        """
        await self.follow(request, context.write)

    async def follow(
        self, request: log_service_pb2.FollowLogsRequest, write: Write, begin: Begin | None = None
    ) -> None:
        """Write a job's log through its attempts in order.

        Args:
            request: What is wanted.
            write: Takes a message; the next one waits until it has.
            begin: Awaited before the first write, once it is known that there is something to follow.

        Raises:
            TooManyFollowers: As many do so already as may.
            NotFound: There is no such job, or no such attempt of it.
            InvalidRequest: A number is negative.
            StorageUnavailable: The storage does not answer.
        """
        with self._counted(request.job_id):
            follower = _Follower(self._store, self._logs, self._changes, request, write)
            if begin is not None:
                await follower.check()
                await begin()
            await follower.run()

    @property
    def followers(self) -> int:
        """How many logs are being followed now."""
        return self._followers.total()

    @contextmanager
    def _counted(self, job: int) -> Iterator[None]:
        if self._followers[job] >= MAX_FOLLOWERS:
            raise TooManyFollowers(
                f"the log of job {job} has {MAX_FOLLOWERS} followers, and that is the limit", limit=MAX_FOLLOWERS
            )
        self._followers[job] += 1
        try:
            yield
        finally:
            self._followers[job] -= 1
            if not self._followers[job]:
                del self._followers[job]


class _Upload:
    """One agent's stream. A reader takes in while a writer answers, so that many chunks share a sync of the disk."""

    def __init__(
        self,
        lease_of: Callable[[AttemptId], Awaitable[Lease | None]],
        logs: LogStore,
        space: Space,
        complaints: Complaints,
        context: AppendContext,
    ) -> None:
        self._lease_of = lease_of
        self._logs = logs
        self._space = space
        self._complaints = complaints
        self._context = context
        self._keys: dict[AttemptId, tuple[int, Fence] | None] = {}
        self._unanswered: dict[AttemptId, bool] = {}
        """Attempts that wait for an answer, the longest first, and whether they may write."""
        self._has_unanswered = asyncio.Event()
        self._put_off: dict[AttemptId, asyncio.TimerHandle] = {}
        """Attempts whose log may not begin yet. Their messages are dropped until they are answered."""
        self._is_read = False

    async def run(self) -> None:
        """Converse until the agent ends the stream and all is answered."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._answer())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_EXCEPTION)
            for done in (reader, writer):
                if done.done():
                    done.result()
        except OSError as error:
            structlog.get_logger("coordinator").error(
                "log_not_stored", reason=str(error), story="the agent keeps the log and sends it again"
            )
            sentence = f"the log could not be stored: {error.strerror or error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(sentence) from error
            await self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)
        finally:
            reader.cancel()
            writer.cancel()
            for timer in self._put_off.values():
                timer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self) -> None:
        while (message := await _next(self._context)) is not None:
            attempt = _attempt_of(message)
            if attempt in self._put_off:
                continue
            may_write = await self._may_write(attempt, message.key)
            if may_write and not await self._take(attempt, message):
                self._put_off[attempt] = asyncio.get_running_loop().call_later(PUT_OFF_S, self._answer_late, attempt)
            else:
                self._answer_soon(attempt, may_write=may_write)
        for attempt in list(self._put_off):
            self._answer_late(attempt)
        self._is_read = True
        self._has_unanswered.set()

    def _answer_soon(self, attempt: AttemptId, *, may_write: bool) -> None:
        self._unanswered[attempt] = may_write
        self._has_unanswered.set()

    def _answer_late(self, attempt: AttemptId) -> None:
        self._put_off.pop(attempt).cancel()
        self._answer_soon(attempt, may_write=True)

    async def _take(self, attempt: AttemptId, message: log_service_pb2.AppendLogsRequest) -> bool:
        """Take a message in; return whether that was possible, which it is not for a log that may not begin yet."""
        self._space.check_writable()
        if message.WhichOneof("event") == "finished":
            await self._logs.finish(attempt, message.finished.size, message.finished.sha256[:64])
            return True
        chunk = message.chunk
        if len(chunk.data) > MAX_CHUNK_BYTES:
            raise InvalidRequest("chunk", f"a chunk of {len(chunk.data)} bytes; {MAX_CHUNK_BYTES} is the limit")
        if chunk.offset < 0:
            raise InvalidRequest("chunk.offset", f"a chunk cannot begin at {chunk.offset}")
        if chunk.offset == 0 and await self._logs.size(attempt) == 0:
            if not await self._may_begin(attempt):
                return False
        else:
            await self._space.check_growth()
        await self._logs.offer(attempt, chunk.offset, chunk.data, _marks(chunk))
        return True

    async def _may_begin(self, attempt: AttemptId) -> bool:
        """Whether there is space for new logs. The others of this stream go on where there is none."""
        try:
            await self._space.check_new()
        except StorageFull as refusal:
            story = "its agent keeps it and sends it again"
            self._complaints.add("log_put_off", attempt=attempt, reason=str(refusal), story=story)
            return False
        return True

    async def _answer(self) -> None:
        while not (self._is_read and not self._unanswered):
            await self._has_unanswered.wait()
            self._has_unanswered.clear()
            while self._unanswered:
                attempt = next(iter(self._unanswered))
                may_write = self._unanswered.pop(attempt)
                await self._context.write(await self._answer_to(attempt, may_write))

    async def _answer_to(self, attempt: AttemptId, may_write: bool) -> log_service_pb2.AppendLogsResponse:
        if not may_write:
            return log_service_pb2.AppendLogsResponse(attempt_id=attempt, closed=True)
        committed = await self._logs.committed(attempt)
        return log_service_pb2.AppendLogsResponse(
            attempt_id=attempt, committed_size=committed.size, closed=committed.is_closed
        )

    async def _may_write(self, attempt: AttemptId, key: lease_pb2.LeaseKey) -> bool:
        """Whether the attempt ran under this lease and fence.

        A spent fence may still write: late logs are kept. An attempt is committed before its agent hears of it, so one
        that is not known never will be, and its sender is told that nothing more is wanted.
        """
        if attempt not in self._keys:
            lease = await self._lease_of(attempt)
            if len(self._keys) >= REMEMBERED_KEYS:
                del self._keys[next(iter(self._keys))]
            self._keys[attempt] = None if lease is None else (lease.id, lease.fence)
        is_allowed = self._keys[attempt] == (key.lease_id, Fence(key.fence.epoch, key.fence.number))
        if not is_allowed:
            story = "the attempt did not run under this lease"
            self._complaints.add("log_refused", attempt=attempt, lease=key.lease_id, story=story)
        return is_allowed


class _Subscription(Protocol):
    async def take(self) -> object: ...


class _Follower:
    """One reader of a job's log."""

    def __init__(
        self,
        store: Store,
        logs: LogStore,
        changes: Changes,
        request: log_service_pb2.FollowLogsRequest,
        write: Write,
    ) -> None:
        self._store = store
        self._logs = logs
        self._changes = changes
        self._request = request
        self._write = write
        self._job = JobId(request.job_id)
        self._first = request.from_attempt_number or request.attempt_number or 1

    async def check(self) -> None:
        """Check that there is something to follow.

        Raises:
            NotFound: There is no such job, or no such attempt of it.
            InvalidRequest: A number is negative.
            StorageUnavailable: The storage does not answer.
        """
        self._check()
        await self._is_ended()
        for attempt in (await self._attempts())[:1]:
            await self._logs.read(attempt.id, 0, 1)

    async def run(self) -> None:
        """Send what is wanted.

        Raises:
            NotFound: There is no such job, or no such attempt of it.
            InvalidRequest: A number is negative.
        """
        self._check()
        done = self._first - 1
        is_tail_wanted = self._request.tail_lines > 0
        with self._subscribe() as subscription:
            while True:
                # The job is read before its attempts: if it has ended, none is missing.
                is_last_look = await self._is_ended() or not self._request.follow
                attempts = [attempt for attempt in await self._attempts() if attempt.number > done]
                for attempt in attempts:
                    is_last = attempt is attempts[-1]
                    await self._send(attempt, await self._start_of(attempt, is_last, is_tail_wanted))
                    done = attempt.number
                is_tail_wanted = is_tail_wanted and not attempts
                if is_last_look or 0 < self._request.attempt_number <= done:
                    return
                if not attempts:
                    await subscription.take()

    def _check(self) -> None:
        for name in ("attempt_number", "from_attempt_number", "from_offset", "tail_lines"):
            number = getattr(self._request, name)
            if number < 0:
                raise InvalidRequest(name, f"{name} {number} is below 0")

    def _subscribe(self) -> AbstractContextManager[_Subscription]:
        return self._changes.subscribe(lambda job: job.id == self._job)

    async def _is_ended(self) -> bool:
        job = await asyncio.to_thread(self._store.get_job, self._job)
        if job is None:
            raise NotFound("job", self._job)
        wanted = self._request.attempt_number
        if wanted > job.attempt_count and (job.is_terminal or not self._request.follow):
            raise NotFound("attempt", f"{wanted} of job {self._job}")
        return job.is_terminal

    async def _attempts(self) -> list[Attempt]:
        """Return the wanted attempts that can have a log."""
        attempts = await asyncio.to_thread(self._store.attempts_of, self._job)
        return [
            attempt
            for attempt in attempts
            if self._request.attempt_number in (0, attempt.number)
            and (attempt.start_us is not None or attempt.log_size > 0)
        ]

    async def _start_of(self, attempt: Attempt, is_last: bool, is_tail_wanted: bool) -> int:
        if attempt.number == self._first and self._request.from_offset:
            return self._request.from_offset
        if not is_tail_wanted:
            return 0
        if is_last:
            return await self._logs.tail_offset(attempt.id, self._request.tail_lines)
        return await self._logs.size(attempt.id)

    async def _send(self, attempt: Attempt, offset: int) -> None:
        """Send one attempt's log from an offset to its end, or to what is stored now."""
        await self._write_cut(attempt, LogState.OPEN)
        with self._subscribe() as subscription:
            has_changed = True
            while True:
                if has_changed:
                    attempt = await self._read_anew(attempt)
                    has_changed = False
                # The state is read before the bytes: once it is closed, none is missing.
                state = await self._logs.state(attempt)
                if data := await self._logs.read(attempt.id, offset, FOLLOW_CHUNK_BYTES):
                    offset = await self._write_chunk(attempt, offset, data)
                elif state is not LogState.OPEN or not self._request.follow:
                    return await self._write_cut(attempt, state)
                elif attempt.outcome is AttemptOutcome.LOST:
                    # Its agent is gone. What it may still bring when it comes back is kept for later readers.
                    return await self._write_cut(attempt, LogState.TRUNCATED)
                else:
                    has_changed = await self._wait_for_more(attempt, offset, subscription)

    async def _read_anew(self, attempt: Attempt) -> Attempt:
        found = await asyncio.to_thread(self._store.get_attempt, attempt.id)
        return attempt if found is None else found

    async def _wait_for_more(self, attempt: Attempt, offset: int, subscription: _Subscription) -> bool:
        """Wait until there are more bytes, or the rest is not waited for any longer, or the job has changed.

        Returns:
            Whether the job has changed.
        """
        growing = asyncio.create_task(self._logs.grown(attempt.id, offset))
        changing = asyncio.create_task(subscription.take())
        waiting = (growing, changing)
        try:
            bound_s = await self._logs.patience_s(attempt)
            await asyncio.wait(waiting, timeout=bound_s, return_when=asyncio.FIRST_COMPLETED)
            return changing.done()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _write_chunk(self, attempt: Attempt, offset: int, data: bytes) -> int:
        chunk = log_pb2.LogChunk(attempt_id=attempt.id, offset=offset, data=data)
        if self._request.timestamps:
            chunk.marks.extend(map(_mark_out, await self._logs.times(attempt.id, offset, offset + len(data))))
        await self._write(log_service_pb2.FollowLogsResponse(chunk=chunk))
        return offset + len(data)

    async def _write_cut(self, attempt: Attempt, state: LogState) -> None:
        cut = log_pb2.LogCut(attempt_id=attempt.id, attempt_number=attempt.number, state=_STATES[state])
        await self._write(log_service_pb2.FollowLogsResponse(cut=cut))


def _attempt_of(message: log_service_pb2.AppendLogsRequest) -> AttemptId:
    match message.WhichOneof("event"):
        case "chunk":
            return AttemptId(message.chunk.attempt_id)
        case "finished":
            return AttemptId(message.finished.attempt_id)
        case _:
            raise InvalidRequest("event", "the message is empty")


def _marks(chunk: log_pb2.LogChunk) -> list[Mark]:
    """Return when the bytes of a chunk were written."""
    return [(mark.offset, mark.time.ToMilliseconds()) for mark in chunk.marks[:MAX_MARKS] if _is_instant(mark.time)]


def _is_instant(time: Timestamp) -> bool:
    """Whether it lies after 1970 and in the years that a Timestamp can tell: only such can be given to readers."""
    return 0 <= time.seconds < LAST_S and 0 <= time.nanos < 1_000_000_000


def _mark_out(mark: Mark) -> log_pb2.LogMark:
    offset, time_ms = mark
    message = log_pb2.LogMark(offset=offset)
    message.time.FromMilliseconds(time_ms)
    return message


async def _next(context: AppendContext) -> log_service_pb2.AppendLogsRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, log_service_pb2.AppendLogsRequest) else None
