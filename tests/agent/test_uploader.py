"""The uploader against a coordinator that loses streams, forgets bytes, keeps silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import grpc
import pytest

from agent import uploader
from agent.core.logsender import MAX_CHUNK_BYTES, LogSender
from agent.core.model import AttemptId, Fence, LeaseId, LeaseKey
from agent.spool import LogWriter, Spool, SpooledLog
from agent.times import Mark
from agent.uploader import Uploader
from qgjob.errors import UsageError
from qgjob.v1 import log_service_pb2, log_service_pb2_grpc

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=2, number=3))
ONE = AttemptId(1)
BIG = b"0123456789abcdef" * 20_000

Request = log_service_pb2.AppendLogsRequest
Answer = log_service_pb2.AppendLogsResponse


class Receiver(log_service_pb2_grpc.LogServiceServicer):
    """Takes logs in by offset, and has a fault on demand."""

    def __init__(self) -> None:
        self.stored: dict[int, bytes] = {}
        self.closed: set[int] = set()
        self.streams = 0
        self.on_message: Callable[[Request], str] = lambda _request: ""
        """Returns what to do with a message: `abort` the stream, `drop` it in silence, `close` the log, or nothing."""

    async def AppendLogs(self, request_iterator: object, context: grpc.aio.ServicerContext[Request, Answer]) -> None:  # type: ignore[override]  # it reads and writes through the context
        self.streams += 1
        while isinstance(request := cast("object", await context.read()), Request):
            what = self.on_message(request)
            if what == "abort":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            elif what != "drop":
                await context.write(self._take(request, is_refused=what == "close"))

    async def FollowLogs(self, request: object, context: object) -> None:  # type: ignore[override]  # agents never ask
        raise NotImplementedError

    def _take(self, request: Request, *, is_refused: bool) -> Answer:
        attempt = request.chunk.attempt_id or request.finished.attempt_id
        stored = self.stored.setdefault(attempt, b"")
        if request.HasField("chunk") and request.chunk.offset <= len(stored):
            self.stored[attempt] = stored[: request.chunk.offset] + request.chunk.data
        elif request.HasField("finished") and request.finished.size == len(stored):
            self.closed.add(attempt)
        is_closed = attempt in self.closed or is_refused
        return Answer(attempt_id=attempt, committed_size=len(self.stored[attempt]), closed=is_closed)


class Bench:
    """A spool, an uploader at work, and who receives."""

    def __init__(self, spool: Spool, uploader: Uploader, receiver: Receiver) -> None:
        self.spool = spool
        self.uploader = uploader
        self.receiver = receiver

    def begin(self, data: bytes, attempt: AttemptId = ONE) -> LogWriter:
        writer = self.spool.open_log(attempt, KEY)
        writer.append(data)
        self.uploader.note(attempt)
        return writer

    def end(self, writer: LogWriter, attempt: AttemptId = ONE) -> None:
        self.spool.end_log(attempt, writer)
        self.uploader.note(attempt)

    async def flushed(self) -> None:
        await asyncio.wait_for(self.uploader.flushed(), 60)


@asynccontextmanager
async def working(folder: Path, *, stall_s: float = 60.0) -> AsyncIterator[Bench]:
    receiver = Receiver()
    server = grpc.aio.server()
    log_service_pb2_grpc.add_LogServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with contextlib.closing(Spool(folder)) as spool:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            sender = Uploader(spool, lambda: channel, stall_s)
            task = asyncio.create_task(sender.run())
            yield Bench(spool, sender, receiver)
            assert not task.done(), "the uploader has died"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await server.stop(None)


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_log_arrives_whole_and_its_space_is_freed(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        bench.end(bench.begin(BIG))
        await bench.flushed()
        assert bench.receiver.stored == {ONE: BIG}
        assert list(bench.spool.logs()) == []


async def test_growing_log_is_sent_while_its_test_runs(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        writer = bench.begin(b"first ")
        await until(lambda: bench.receiver.stored.get(ONE) == b"first ")
        writer.append(b"second")
        bench.uploader.note(ONE)
        await until(lambda: bench.receiver.stored.get(ONE) == b"first second")
        bench.end(writer)
        await bench.flushed()


async def test_lost_stream_is_resumed_without_a_gap(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        messages = 0

        def lose_the_third(_request: Request) -> str:
            nonlocal messages
            messages += 1
            return "abort" if messages == 3 else ""

        bench.receiver.on_message = lose_the_third
        bench.end(bench.begin(BIG))
        await bench.flushed()
        assert bench.receiver.stored == {ONE: BIG}
        assert bench.receiver.streams == 2


async def test_receiver_that_lost_bytes_gets_them_again(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        writer = bench.begin(BIG)
        await until(lambda: bench.receiver.stored.get(ONE) == BIG)
        bench.receiver.stored[ONE] = BIG[:MAX_CHUNK_BYTES]
        bench.end(writer)
        await bench.flushed()
        assert bench.receiver.stored == {ONE: BIG}


async def test_unanswered_end_is_said_again(tmp_path: Path) -> None:
    async with working(tmp_path, stall_s=0.05) as bench:
        is_dropped = False

        def drop_the_first_end(request: Request) -> str:
            nonlocal is_dropped
            if request.HasField("finished") and not is_dropped:
                is_dropped = True
                return "drop"
            return ""

        bench.receiver.on_message = drop_the_first_end
        bench.end(bench.begin(b"all"))
        await bench.flushed()
        assert is_dropped
        assert bench.receiver.closed == {ONE}


async def test_log_that_is_closed_while_it_is_read_does_not_end_the_uploader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as bench:

        def forget_and_read(log: SpooledLog, offset: int, length: int) -> tuple[bytes, list[Mark]]:
            if log.attempt == ONE:
                bench.spool.forget_log(ONE)
            return read(log, offset, length)

        read = uploader._read
        monkeypatch.setattr(uploader, "_read", forget_and_read)
        bench.begin(BIG).close()
        bench.end(bench.begin(b"next", AttemptId(2)), AttemptId(2))
        await until(lambda: bench.receiver.closed == {2})


async def test_log_that_is_forgotten_while_it_is_measured_does_not_end_the_uploader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(tmp_path) as bench:
        find = bench.spool.find_log

        def find_and_forget(attempt: AttemptId) -> SpooledLog | None:
            log = find(attempt)
            if attempt == ONE:
                bench.spool.forget_log(ONE)
            return log

        monkeypatch.setattr(bench.spool, "find_log", find_and_forget)
        bench.begin(b"still written").close()
        bench.end(bench.begin(b"next", AttemptId(2)), AttemptId(2))
        await until(lambda: bench.receiver.closed == {2})


@pytest.mark.parametrize("turns", range(4))
async def test_cancel_that_comes_with_news_is_not_lost(tmp_path: Path, turns: int) -> None:
    def no_channel() -> grpc.aio.Channel:
        raise AssertionError("nothing is sent")

    with contextlib.closing(Spool(tmp_path)) as spool:
        sender = Uploader(spool, no_channel, 60.0)
        sender._senders[ONE] = LogSender().sent_chunk(1)  # so it waits for an answer, with an end to that
        waiting = asyncio.create_task(sender._wait_for_news())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sender._has_news.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        was_over = waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert was_over or waiting.cancelled()


async def test_log_that_nobody_wants_is_dropped(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        bench.receiver.on_message = lambda _request: "close"
        bench.end(bench.begin(BIG))
        await bench.flushed()
        assert list(bench.spool.logs()) == []


async def test_logs_of_another_database_are_forgotten(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        bench.receiver.on_message = lambda _request: "drop"
        bench.end(bench.begin(b"old"))
        bench.uploader.forget_all()
        await bench.flushed()


async def test_logs_of_an_earlier_life_are_sent(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path)) as spool:
        writer = spool.open_log(ONE, KEY)
        writer.append(BIG)
        writer.close()
    with contextlib.closing(Spool(tmp_path)) as spool:
        spool.recall()
    async with working(tmp_path) as bench:
        await bench.flushed()
        assert bench.receiver.stored == {ONE: BIG}


async def test_token_that_cannot_be_read_for_a_moment_delays_the_logs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = log_service_pb2_grpc.LogServiceStub, asyncio.Event()

    def unreadable(channel: grpc.aio.Channel) -> object:
        if not refused.is_set():
            refused.set()
            raise UsageError("the file holds no token")
        return real(channel)

    monkeypatch.setattr(log_service_pb2_grpc, "LogServiceStub", unreadable)
    async with working(tmp_path) as bench:
        bench.end(bench.begin(b"a log"))
        await bench.flushed()
        assert bench.receiver.stored == {ONE: b"a log"}
