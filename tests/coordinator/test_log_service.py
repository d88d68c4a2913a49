from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from coordinator.changes import Changes
from coordinator.core.model import AttemptId, AttemptOutcome, Job, JobId, JobState, LeaseState
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease, Write
from coordinator.interceptors import RefusalInterceptor
from coordinator.logstore import LogStore
from coordinator.services import log as log_service
from coordinator.services.log import LogService
from coordinator.space import Space
from coordinator.storage import Directory
from coordinator.store import Store
from qgjob.v1 import lease_pb2, log_pb2, log_service_pb2, log_service_pb2_grpc
from tests.rpc.grid import error_info
from tests.store.records import a_device, a_job, a_lease, an_attempt

TEXT = b"".join(b"line %d\n" % number for number in range(20_000))
KEY = lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=1, number=1))

RUNNING_JOB = replace(a_job(state=JobState.RUNNING), attempt=AttemptId(1), attempt_count=1)
ENDED_JOB = replace(RUNNING_JOB, state=JobState.COMPLETED)
RUNNING = replace(an_attempt(), start_us=2)
ENDED = replace(RUNNING, end_us=3, outcome=AttemptOutcome.PASSED, log_size=len(TEXT))

Pieces = list[tuple[str, int] | bytes]
Follow = grpc.aio.UnaryStreamCall[log_service_pb2.FollowLogsRequest, log_service_pb2.FollowLogsResponse]


@dataclass
class Lab:
    """A log service that listens, and what it stands on."""

    store: Store
    logs: LogStore
    changes: Changes
    free: list[int]
    """Bytes that the disk has free, as the service is told."""
    stub: log_service_pb2_grpc.LogServiceAsyncStub

    def commit(self, *writes: Write) -> None:
        self.store.commit(writes)
        for write in writes:
            if isinstance(write, PutJob):
                self.changes.publish(write.job)

    async def store_log(self, data: bytes, attempt: int = 1, *, is_whole: bool = True) -> None:
        await self.logs.offer(AttemptId(attempt), 0, data)
        if is_whole:
            await self.logs.finish(AttemptId(attempt), len(data), hashlib.sha256(data).hexdigest())
        await self.logs.committed(AttemptId(attempt))

    def follow(self, **fields: int) -> Follow:
        return self.stub.FollowLogs(follow_request(**fields))

    async def followed(self, **fields: int) -> Pieces:
        return await pieces(self.follow(**fields))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    store.start_epoch()
    logs = LogStore(Directory(tmp_path, sync_interval_s=0.001), store)
    changes = Changes()
    free = [1_000]
    space = Space(tmp_path, min_free=100, ballast_bytes=10, read_free=lambda _: free[0], look_interval_s=0)
    server = grpc.aio.server(interceptors=(RefusalInterceptor(),))
    log_service_pb2_grpc.add_LogServiceServicer_to_server(LogService(store, logs, changes, space), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        lab = Lab(store, logs, changes, free, log_service_pb2_grpc.LogServiceStub(channel))
        lab.commit(PutDevice(a_device()), PutLease(a_lease()), PutJob(RUNNING_JOB), PutAttempt(RUNNING))
        yield lab
    await server.stop(None)
    await logs.close()
    store.close()


def follow_request(job_id: int = 1, follow: int = True, **fields: int) -> log_service_pb2.FollowLogsRequest:
    request = log_service_pb2.FollowLogsRequest(job_id=job_id, follow=bool(follow))
    for name, number in fields.items():
        setattr(request, name, number)
    return request


async def pieces(call: Follow) -> Pieces:
    """Return (state, number) for each cut, and the bytes between cuts put together."""
    found: Pieces = []
    while isinstance(message := await asyncio.wait_for(call.read(), 60), log_service_pb2.FollowLogsResponse):
        if message.HasField("cut"):
            found.append((log_state(message), message.cut.attempt_number))
        elif found and isinstance(found[-1], bytes):
            found[-1] += message.chunk.data
        else:
            found.append(message.chunk.data)
    return found


def log_state(message: log_service_pb2.FollowLogsResponse) -> str:
    return {1: "open", 2: "complete", 3: "truncated"}[message.cut.state]


async def next_piece(call: Follow) -> log_service_pb2.FollowLogsResponse:
    message = await asyncio.wait_for(call.read(), 60)
    assert isinstance(message, log_service_pb2.FollowLogsResponse)
    return message


def chunk(
    offset: int, data: bytes, attempt: int = 1, key: lease_pb2.LeaseKey = KEY
) -> log_service_pb2.AppendLogsRequest:
    return log_service_pb2.AppendLogsRequest(
        key=key, chunk=log_pb2.LogChunk(attempt_id=attempt, offset=offset, data=data)
    )


def finished(data: bytes, attempt: int = 1) -> log_service_pb2.AppendLogsRequest:
    end = log_service_pb2.LogFinished(attempt_id=attempt, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return log_service_pb2.AppendLogsRequest(key=KEY, finished=end)


def chunks(data: bytes, size: int = 50_000) -> list[log_service_pb2.AppendLogsRequest]:
    return [chunk(offset, data[offset : offset + size]) for offset in range(0, len(data), size)]


async def append(lab: Lab, *messages: log_service_pb2.AppendLogsRequest) -> list[tuple[int, int, bool]]:
    """Send messages over a stream of their own, and return the last answer for each attempt."""
    call = lab.stub.AppendLogs()
    for message in messages:
        await call.write(message)
    await call.done_writing()
    last = {answer.attempt_id: answer async for answer in call}
    return [(answer.attempt_id, answer.committed_size, answer.closed) for _, answer in sorted(last.items())]


# Agents


async def test_appended_log_becomes_complete(lab: Lab) -> None:
    assert await append(lab, *chunks(TEXT), finished(TEXT)) == [(1, len(TEXT), True)]
    assert await lab.followed(follow=False) == [("open", 1), TEXT, ("complete", 1)]


async def test_each_answer_tells_what_is_durable_and_never_more(lab: Lab) -> None:
    call = lab.stub.AppendLogs()
    await call.write(chunk(0, TEXT[:100]))
    answer = await call.read()
    assert isinstance(answer, log_service_pb2.AppendLogsResponse)
    assert (answer.committed_size, answer.closed) == (100, False)
    assert await lab.logs.read(AttemptId(1), 0) == TEXT[:100]
    call.cancel()


def mark(offset: int, seconds: int, nanos: int = 0) -> log_pb2.LogMark:
    return log_pb2.LogMark(offset=offset, time=Timestamp(seconds=seconds, nanos=nanos))


async def test_times_of_chunks_are_told_to_followers_who_ask_for_them(lab: Lab) -> None:
    first, second = chunk(0, TEXT[:100]), chunk(100, TEXT[100:200])
    first.chunk.marks.extend([mark(0, 1), mark(50, 2)])
    second.chunk.marks.extend([mark(150, 3, 4_000_000)])
    await append(lab, first, second)
    call = lab.follow(follow=False, timestamps=True, from_attempt_number=1, from_offset=60)
    told = [message async for message in call]
    (piece,) = [message.chunk for message in told if message.HasField("chunk")]
    assert (piece.offset, list(piece.marks)) == (60, [mark(50, 2), mark(150, 3, 4_000_000)])
    bare = [message async for message in lab.follow(follow=False)]
    assert not any(message.chunk.marks for message in bare)


async def test_times_that_cannot_be_are_dropped_and_the_log_is_kept(lab: Lab) -> None:
    message = chunk(0, TEXT[:100])
    bad = [mark(-1, 1), mark(0, -5), mark(5, 10**17), mark(6, 1, -1), mark(99, 1), mark(4, 1), mark(2**62, 1)]
    message.chunk.marks.extend(bad)
    assert await append(lab, message) == [(1, 100, False)]
    assert await lab.logs.times(AttemptId(1), 0, 100) == [(99, 1_000)]


async def test_gap_is_answered_with_the_committed_size(lab: Lab) -> None:
    assert await append(lab, chunk(0, TEXT[:100]), chunk(200, TEXT[200:300])) == [(1, 100, False)]


async def test_overlap_after_a_reconnect_is_trimmed(lab: Lab) -> None:
    await append(lab, chunk(0, TEXT[:100]))
    assert await append(lab, *chunks(TEXT), finished(TEXT)) == [(1, len(TEXT), True)]


async def test_logs_of_several_attempts_share_a_stream(lab: Lab) -> None:
    lab.commit(PutJob(a_job(2)), PutAttempt(an_attempt(2, job=2)))
    answers = await append(lab, chunk(0, b"one"), chunk(0, b"two!", attempt=2), finished(b"one"))
    assert answers == [(1, 3, True), (2, 4, False)]


@pytest.mark.parametrize(
    "key",
    [
        lease_pb2.LeaseKey(),
        lease_pb2.LeaseKey(lease_id=2, fence=KEY.fence),
        lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=1, number=2)),
        lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=2, number=1)),
    ],
    ids=["none", "lease", "number", "epoch"],
)
async def test_wrong_key_stores_nothing(lab: Lab, key: lease_pb2.LeaseKey) -> None:
    assert await append(lab, chunk(0, b"forged", key=key)) == [(1, 0, True)]
    assert await lab.logs.size(AttemptId(1)) == 0


async def test_flood_of_chunks_under_a_wrong_key_is_one_line(lab: Lab) -> None:
    with capture_logs() as told:
        for _ in range(3):
            await append(lab, *(chunk(0, b"forged", key=lease_pb2.LeaseKey()) for _ in range(10)))
    assert [line["event"] for line in told] == ["log_refused"]


@pytest.mark.parametrize("attempt", [0, -1, 77, 2**62])
async def test_unknown_attempt_is_told_that_nothing_is_wanted(lab: Lab, attempt: int, tmp_path: Path) -> None:
    assert await append(lab, chunk(0, b"x", attempt=attempt)) == [(attempt, 0, True)]
    assert not list(tmp_path.rglob("*.log"))


async def test_late_bytes_of_a_spent_lease_are_kept(lab: Lab) -> None:
    lost = replace(RUNNING, end_us=3, outcome=AttemptOutcome.LOST)
    lab.commit(PutLease(a_lease(state=LeaseState.EXPIRED)), PutAttempt(lost))
    assert await append(lab, chunk(0, TEXT[:10])) == [(1, 10, False)]
    assert (await lab.followed(follow=False))[1] == TEXT[:10]


@pytest.mark.parametrize(
    "message",
    [
        log_service_pb2.AppendLogsRequest(key=KEY),
        chunk(0, b"x" * 65_537),
        chunk(-1, b"x"),
        log_service_pb2.AppendLogsRequest(key=KEY, finished=log_service_pb2.LogFinished(attempt_id=1, size=-1)),
    ],
    ids=["empty", "oversize", "negative offset", "negative size"],
)
async def test_malformed_message_ends_that_stream_alone(lab: Lab, message: log_service_pb2.AppendLogsRequest) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await append(lab, message)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await append(lab, chunk(0, b"fine")) == [(1, 4, False)]


async def test_little_space_refuses_new_logs_and_lets_others_grow(lab: Lab) -> None:
    await append(lab, chunk(0, b"before"))
    lab.commit(PutJob(a_job(2)), PutAttempt(replace(an_attempt(2, job=2, of_job=1), start_us=1)))
    lab.free[0] = 99
    with capture_logs() as told:
        answers = await append(lab, chunk(0, b"new", attempt=2), chunk(6, b" after"), finished(b"new", attempt=2))
    assert answers == [(1, 12, False), (2, 0, False)]
    assert [(line["event"], line["attempt"]) for line in told] == [("log_put_off", 2)]
    lab.free[0] = 9
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await append(lab, chunk(12, b" more"))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_info(refusal.value.trailing_metadata()).reason == "STORAGE_FULL"
    lab.free[0] = 1_000
    assert await append(lab, chunk(12, b" more"), chunk(0, b"new", attempt=2)) == [(1, 17, False), (2, 3, False)]


async def test_log_that_may_not_begin_yet_is_answered_once_and_after_a_pause(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_service, "PUT_OFF_S", 0.3)
    lab.commit(PutJob(a_job(2)), PutAttempt(replace(an_attempt(2, job=2, of_job=1), start_us=1)))
    await append(lab, chunk(0, b"before"))
    lab.free[0] = 99
    call = lab.stub.AppendLogs()
    heard: list[tuple[int, int, bool]] = []

    async def hear() -> None:
        answer = await asyncio.wait_for(call.read(), 60)
        assert isinstance(answer, log_service_pb2.AppendLogsResponse)
        heard.append((answer.attempt_id, answer.committed_size, answer.closed))

    began_s = asyncio.get_running_loop().time()
    for message in (chunk(0, b"new", 2), chunk(3, b"er", 2), finished(b"newer", 2), chunk(6, b" after")):
        await call.write(message)
    await hear()
    await hear()
    assert heard == [(1, 12, False), (2, 0, False)]
    assert asyncio.get_running_loop().time() - began_s >= 0.3
    lab.free[0] = 1_000
    await call.write(chunk(0, b"newer", 2))
    await hear()
    assert heard[2:] == [(2, 5, False)]
    call.cancel()


async def test_full_disk_ends_the_stream_and_the_next_one_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await append(lab, chunk(0, b"before"))

    def refuse(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await append(lab, chunk(6, b" after"))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await append(lab, chunk(6, b" after")) == [(1, 12, False)]


# Followers


async def test_follower_sees_growth_the_end_of_the_attempt_and_of_the_job(lab: Lab) -> None:
    call = lab.follow()
    assert log_state(await next_piece(call)) == "open"
    await append(lab, chunk(0, b"hello "))
    assert (await next_piece(call)).chunk.data == b"hello "
    await append(lab, chunk(6, b"world"), finished(b"hello world"))
    assert (await next_piece(call)).chunk == log_pb2.LogChunk(attempt_id=1, offset=6, data=b"world")
    assert log_state(await next_piece(call)) == "complete"
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))
    assert await pieces(call) == []


async def test_follower_hears_of_the_next_attempt(lab: Lab) -> None:
    await lab.store_log(b"first\n")
    call = lab.follow()
    assert [await next_piece(call) for _ in range(3)][-1].cut.attempt_number == 1
    lab.commit(
        PutAttempt(replace(ENDED, outcome=AttemptOutcome.PREEMPTED)),
        PutAttempt(replace(an_attempt(2), start_us=4)),
        PutJob(replace(RUNNING_JOB, attempt=AttemptId(2), attempt_count=2)),
    )
    await lab.store_log(b"second\n", attempt=2)
    assert (await next_piece(call)).cut.attempt_number == 2
    lab.commit(
        PutAttempt(replace(an_attempt(2), start_us=4, end_us=5, outcome=AttemptOutcome.PASSED)),
        PutJob(replace(ENDED_JOB, attempt=AttemptId(2), attempt_count=2)),
    )
    assert await pieces(call) == [b"second\n", ("complete", 2)]


async def test_follower_of_a_waiting_job_waits_for_its_first_attempt(lab: Lab) -> None:
    lab.commit(PutJob(a_job(2)))
    call = lab.follow(job_id=2)
    lab.commit(
        PutJob(replace(a_job(2, state=JobState.RUNNING), attempt_count=1)),
        PutAttempt(replace(an_attempt(2, job=2, of_job=1), start_us=1)),
    )
    assert log_state(await next_piece(call)) == "open"
    call.cancel()


async def test_follower_of_a_job_that_ended_unstarted_ends(lab: Lab) -> None:
    lab.commit(PutJob(a_job(2)))
    call = lab.follow(job_id=2)
    lab.commit(PutJob(a_job(2, state=JobState.CANCELLED)))
    assert await asyncio.wait_for(pieces(call), 60) == []


async def test_without_follow_the_stream_ends_at_what_is_stored(lab: Lab) -> None:
    await lab.store_log(b"so far", is_whole=False)
    assert await lab.followed(follow=False) == [("open", 1), b"so far", ("open", 1)]


async def test_log_of_a_lost_attempt_is_not_waited_for(lab: Lab) -> None:
    await lab.store_log(b"so far", is_whole=False)
    call = lab.follow()
    assert log_state(await next_piece(call)) == "open"
    lost = replace(RUNNING, end_us=3, outcome=AttemptOutcome.LOST)
    lab.commit(PutAttempt(lost), PutJob(replace(RUNNING_JOB, state=JobState.ERRORED)))
    assert await pieces(call) == [b"so far", ("truncated", 1)]


async def test_storage_that_does_not_answer_lets_followers_come_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab.store_log(TEXT)
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))

    def fail(*_: object) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch, capture_logs() as told:
        patch.setattr(Directory, "read", fail)
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await lab.followed()
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
            assert error_info(refusal.value.trailing_metadata()).reason == "STORAGE_UNAVAILABLE"
    assert [(line["event"], line["log_level"]) for line in told] == [("storage_unavailable", "warning")]
    assert await lab.followed() == [("open", 1), TEXT, ("complete", 1)]


async def test_rest_that_never_comes_ends_the_follower_as_truncated(lab: Lab) -> None:
    await lab.store_log(b"so far", is_whole=False)
    lab.logs._patience_us = 200_000
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))
    assert await asyncio.wait_for(lab.followed(), 60) == [("open", 1), b"so far", ("truncated", 1)]


async def commit_three_attempts(lab: Lab) -> None:
    ends: Sequence[Write] = [
        PutAttempt(replace(an_attempt(number), start_us=1, end_us=2, outcome=AttemptOutcome.PREEMPTED, log_size=1))
        for number in (1, 2, 3)
    ]
    lab.commit(*ends, PutJob(replace(ENDED_JOB, attempt=AttemptId(3), attempt_count=3)))
    for number in (1, 2, 3):
        await lab.store_log(b"a%d\nb%d\nc%d\n" % (number, number, number), attempt=number)


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {},
            [
                *[("open", 1), b"a1\nb1\nc1\n", ("complete", 1)],
                *[("open", 2), b"a2\nb2\nc2\n", ("complete", 2)],
                *[("open", 3), b"a3\nb3\nc3\n", ("complete", 3)],
            ],
        ),
        ({"attempt_number": 2}, [("open", 2), b"a2\nb2\nc2\n", ("complete", 2)]),
        ({"attempt_number": 2, "from_offset": 6}, [("open", 2), b"c2\n", ("complete", 2)]),
        (
            {"from_attempt_number": 2, "from_offset": 3},
            [("open", 2), b"b2\nc2\n", ("complete", 2), ("open", 3), b"a3\nb3\nc3\n", ("complete", 3)],
        ),
        ({"attempt_number": 1, "tail_lines": 2}, [("open", 1), b"b1\nc1\n", ("complete", 1)]),
        (
            {"tail_lines": 1},
            [
                *[("open", 1), ("complete", 1), ("open", 2), ("complete", 2)],
                *[("open", 3), b"c3\n", ("complete", 3)],
            ],
        ),
        ({"from_attempt_number": 3, "from_offset": 9}, [("open", 3), ("complete", 3)]),
        ({"from_attempt_number": 3, "from_offset": 99}, [("open", 3), ("complete", 3)]),
        ({"from_attempt_number": 4}, []),
    ],
)
async def test_wanted_part_is_sent(lab: Lab, follow: bool, fields: dict[str, int], expected: Pieces) -> None:
    await commit_three_attempts(lab)
    assert await asyncio.wait_for(lab.followed(follow=follow, **fields), 60) == expected


async def test_chunks_are_of_bounded_size(lab: Lab) -> None:
    await lab.store_log(TEXT)
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))
    sizes = [len(message.chunk.data) async for message in lab.follow()]
    assert max(sizes) == log_service.FOLLOW_CHUNK_BYTES


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"job_id": 77}, grpc.StatusCode.NOT_FOUND),
        ({"job_id": 0}, grpc.StatusCode.NOT_FOUND),
        ({"job_id": -1}, grpc.StatusCode.NOT_FOUND),
        ({"attempt_number": 2, "follow": False}, grpc.StatusCode.NOT_FOUND),
        ({"attempt_number": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"from_offset": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"from_attempt_number": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"tail_lines": -1}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_followed_is_refused(lab: Lab, fields: dict[str, int], code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await lab.followed(**fields)
    assert refusal.value.code() is code


async def test_many_followers_each_get_every_byte_while_it_is_written(lab: Lab) -> None:
    following = [asyncio.create_task(lab.followed()) for _ in range(20)]
    await append(lab, *chunks(TEXT, 7_001), finished(TEXT))
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))
    for found in await asyncio.wait_for(asyncio.gather(*following), 60):
        assert found == [("open", 1), TEXT, ("complete", 1)]


async def test_one_follower_more_than_may_follow_is_refused_until_another_goes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_service, "MAX_FOLLOWERS", 2)
    first, second = lab.follow(), lab.follow()
    for call in (first, second):
        await next_piece(call)
    with pytest.raises(grpc.aio.AioRpcError, match="2 followers") as refusal:
        await lab.followed()
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_info(refusal.value.trailing_metadata())
    assert (info.reason, info.metadata["limit"]) == ("TOO_MANY_FOLLOWERS", "2")
    lab.commit(PutAttempt(ENDED), PutJob(ENDED_JOB))
    lab.logs._patience_us = 0
    first.cancel()
    async with asyncio.timeout(60):
        while len(lab.changes._subscriptions) > 1:
            lab.changes.publish(unrelated_job())
            await asyncio.sleep(0.01)
    assert await lab.followed() != []


async def test_follower_that_goes_away_leaves_nothing_behind(lab: Lab) -> None:
    call = lab.follow()
    await next_piece(call)
    call.cancel()
    async with asyncio.timeout(60):
        while lab.changes._subscriptions:
            lab.changes.publish(unrelated_job())
            await asyncio.sleep(0.01)


def unrelated_job() -> Job:
    return replace(a_job(9), id=JobId(9))
