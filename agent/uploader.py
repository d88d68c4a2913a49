"""Brings the spooled logs out: chunks up, durable sizes down, space freed only past them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import grpc
import structlog

from agent import wire
from agent.core.logsender import LogSender
from agent.core.model import AttemptId
from agent.spool import Spool, SpooledLog
from agent.times import Mark, marks_between
from qgjob.errors import ClientError
from qgjob.v1 import log_pb2, log_service_pb2, log_service_pb2_grpc

RETRY_S = 0.5
MAX_RETRY_S = 5.0
STALL_S = 20.0
"""So long without an answer to anything that was sent, and it is sent again: what is there already costs nothing."""

Call = grpc.aio.StreamStreamCall[log_service_pb2.AppendLogsRequest, log_service_pb2.AppendLogsResponse]


class Uploader:
    """One stream for all logs of the agent."""

    def __init__(self, spool: Spool, channel: Callable[[], grpc.aio.Channel], stall_s: float = STALL_S) -> None:
        self._spool = spool
        self._channel = channel
        self._stall_s = stall_s
        self._delay_s = RETRY_S
        self._senders: dict[AttemptId, LogSender] = {log.attempt: LogSender() for log in spool.logs()}
        self._has_news = asyncio.Event()
        self._is_idle = asyncio.Event()

    def note(self, attempt: AttemptId) -> None:
        """Tell that a log has grown or ended."""
        self._senders.setdefault(attempt, LogSender())
        self._is_idle.clear()
        self._has_news.set()

    def forget_all(self) -> None:
        """Drop every log: they belong to another database."""
        self._senders.clear()
        self._has_news.set()

    async def flushed(self) -> None:
        """Wait until the coordinator has every log whole."""
        if self._senders:
            self._has_news.set()
            await self._is_idle.wait()

    async def run(self) -> None:
        """Upload for ever, over as many streams as it takes."""
        while True:
            try:
                await self._upload()
            except grpc.aio.AioRpcError as error:
                structlog.get_logger("agent").debug("log_stream_lost", reason=error.details())
            except ClientError as error:  # the token, which is read for each call
                structlog.get_logger("agent").warning("log_stream_not_opened", reason=str(error))
            # Spread, so that a lab's agents do not come back at once.
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1))  # noqa: S311 - guards nothing
            self._delay_s = min(MAX_RETRY_S, self._delay_s * 2)

    async def _upload(self) -> None:
        call: Call = log_service_pb2_grpc.LogServiceStub(self._channel()).AppendLogs()
        try:
            await call.wait_for_connection()
            await self._converse(call)
        finally:
            call.cancel()

    async def _converse(self, call: Call) -> None:
        self._send_again()
        self._has_news.set()
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):  # the stream has ended; a new one is opened
            while True:
                self._has_news.clear()
                for attempt in list(self._senders):
                    await self._send_log(call, attempt)
                if not self._senders:
                    self._is_idle.set()
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        """Wait for more to send, or for answers that have not come."""
        is_waiting = any(sender.is_unanswered for sender in self._senders.values())
        try:
            # Not wait_for: before Python 3.12 it loses a cancel that comes with the news, and the stream's end with it.
            async with asyncio.timeout(self._stall_s if is_waiting else None):
                await self._has_news.wait()
        except TimeoutError:
            self._send_again()

    def _send_again(self) -> None:
        self._senders = {attempt: sender.reconnected() for attempt, sender in self._senders.items()}

    async def _send_log(self, call: Call, attempt: AttemptId) -> None:
        """Send what the window allows of one log, and its end."""
        log = self._spool.find_log(attempt)
        written = _written(log) if log is not None else None
        if log is None or written is None:
            # The coordinator wanted no more of it while the test still wrote.
            self._senders.pop(attempt, None)
            return
        while (sender := self._senders.get(attempt)) is not None and (chunk := sender.next_chunk(written)):
            offset, length = chunk
            data, marks = await asyncio.to_thread(_read, log, offset, length)
            if not data:
                self._senders.pop(attempt, None)  # forgotten while it was read
                return
            sender = self._senders.get(attempt)
            if sender is None or sender.sent != offset:
                continue  # an answer came while it was read, and says to go on elsewhere
            # Before the write: an answer may arrive while it waits for room on the wire.
            self._senders[attempt] = sender.sent_chunk(length)
            message = log_pb2.LogChunk(attempt_id=attempt, offset=offset, data=data, marks=map(_mark, marks))
            await call.write(log_service_pb2.AppendLogsRequest(key=wire.key_out(log.key), chunk=message))
        sender = self._senders.get(attempt)
        if sender is not None and log.summary is not None and sender.may_finish(log.summary.size):
            self._senders[attempt] = sender.finish_sent()
            finished = log_service_pb2.LogFinished(attempt_id=attempt, size=log.summary.size, sha256=log.summary.sha256)
            await call.write(log_service_pb2.AppendLogsRequest(key=wire.key_out(log.key), finished=finished))

    async def _read(self, call: Call) -> None:
        while True:
            answer = await call.read()
            if not isinstance(answer, log_service_pb2.AppendLogsResponse):
                return
            self._delay_s = RETRY_S
            attempt = AttemptId(answer.attempt_id)
            sender = self._senders.get(attempt)
            if sender is None:
                continue
            sender = sender.answered(answer.committed_size, is_closed=answer.closed)
            if sender.is_closed:
                del self._senders[attempt]
                self._spool.forget_log(attempt)
            else:
                self._senders[attempt] = sender
            self._has_news.set()


def _written(log: SpooledLog) -> int | None:
    """Return how much of a log is on the disk, None when it was forgotten just now."""
    if log.summary is not None:
        return log.summary.size
    try:
        return log.path.stat().st_size
    except FileNotFoundError:
        return None


def _read(log: SpooledLog, offset: int, length: int) -> tuple[bytes, list[Mark]]:
    try:
        with log.path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        return b"", []  # forgotten just now
    return data, marks_between(log.times, offset, offset + len(data))


def _mark(mark: Mark) -> log_pb2.LogMark:
    offset, time_ms = mark
    message = log_pb2.LogMark(offset=offset)
    message.time.FromMilliseconds(time_ms)
    return message
