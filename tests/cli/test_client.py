"""The client against a coordinator that drops streams: nothing is lost, nothing comes twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NoReturn

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qgjob.client import MAX_JOBS_PER_CALL, Client, LogPiece
from qgjob.errors import ClientError, LabError, NotFound, Unreachable, UsageError
from qgjob.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    LOG_STATE_COMPLETE,
    LOG_STATE_OPEN,
    Job,
    JobFilter,
    JobSpec,
)
from qgjob.v1.job_service_pb2 import (
    CancelJobsRequest,
    CancelJobsResponse,
    SubmitJobsRequest,
    SubmitJobsResponse,
    WatchJobsRequest,
)
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import Dropped, Follow, Refused, StandIn
from tests.cli.records import job_message

LOGIN = JobSpec(org_id="qualgent", app_version_id="xyz123", test="tests/login.spec.ts")


def accept(request: SubmitJobsRequest) -> SubmitJobsResponse:
    return SubmitJobsResponse(jobs=[Job(id=number, spec=spec) for number, spec in enumerate(request.jobs, 1)])


def drop(request: object) -> NoReturn:
    raise Dropped


def test_a_submit_whose_answer_was_lost_is_repeated_under_the_same_key(stand_in: StandIn) -> None:
    stand_in.submits = [drop, accept]
    with Client(stand_in.address) as client:
        answer = client.submit_jobs([LOGIN])
    assert [job.id for job in answer.jobs] == [1]
    first, second = stand_in.asked
    assert isinstance(first, SubmitJobsRequest)
    assert first.request_id
    assert first == second


def test_a_call_whose_link_broke_is_repeated_although_noticing_that_took_all_patience(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qgjob.client.connection.CALL_PATIENCE_S", 0.0)
    stand_in.submits = [drop, accept]
    with Client(stand_in.address) as client:
        assert [job.id for job in client.submit_jobs([LOGIN]).jobs] == [1]


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNKNOWN, "Stream removed (Failed parsing HTTP/2 (Frame size 16101733 is too large))"),
    ],
)
def test_a_call_is_repeated_whose_link_carried_half_a_message_or_noise(
    stand_in: StandIn, code: grpc.StatusCode, details: str
) -> None:
    def break_inside(request: SubmitJobsRequest) -> NoReturn:
        raise Refused(code, "", details)

    stand_in.submits = [break_inside, accept]
    with Client(stand_in.address) as client:
        assert [job.id for job in client.submit_jobs([LOGIN]).jobs] == [1]


def test_a_stream_whose_link_broke_before_its_first_message_is_opened_again(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(1, state=JOB_STATE_COMPLETED)

    monkeypatch.setattr("qgjob.client.connection.CALL_PATIENCE_S", 0.0)
    stand_in.watches = [drop, end]
    with Client(stand_in.address) as client:
        assert [job.state for job in client.watch_jobs(JobFilter(ids=[1]))] == [JOB_STATE_COMPLETED]


def test_a_refused_submit_is_not_repeated(stand_in: StandIn) -> None:
    def refuse(request: SubmitJobsRequest) -> SubmitJobsResponse:
        raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue of qualgent is full")

    stand_in.submits = [refuse]
    with Client(stand_in.address) as client, pytest.raises(LabError, match="the queue of qualgent is full"):
        client.submit_jobs([LOGIN])
    assert len(stand_in.asked) == 1


def test_more_jobs_than_a_call_takes_go_under_keys_that_a_repetition_finds_again(stand_in: StandIn) -> None:
    specs = [LOGIN] * (MAX_JOBS_PER_CALL + 1)
    stand_in.submits = [accept] * 4
    with Client(stand_in.address) as client:
        assert len(client.submit_jobs(specs, request_id="nightly").jobs) == len(specs)
        client.submit_jobs(specs, request_id="nightly")
    keys = [request.request_id for request in stand_in.asked if isinstance(request, SubmitJobsRequest)]
    assert keys[0] == "nightly"
    assert keys[1] not in ("nightly", "")
    assert keys[:2] == keys[2:]


def test_a_submit_that_stops_half_way_says_how_to_go_on(stand_in: StandIn) -> None:
    def refuse(request: SubmitJobsRequest) -> SubmitJobsResponse:
        raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full")

    stand_in.submits = [accept, refuse]
    with Client(stand_in.address) as client, pytest.raises(LabError) as caught:
        client.submit_jobs([LOGIN] * (MAX_JOBS_PER_CALL + 1), request_id="nightly")
    assert caught.value.hint == (
        "10000 of 10001 jobs were accepted; repeat the same submit with --idempotency-key nightly:"
        " nothing is submitted twice"
    )


def test_a_watch_goes_on_where_it_broke_and_repeats_no_state(stand_in: StandIn) -> None:
    def first(request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(7, state=JOB_STATE_QUEUED)
        yield job_message(7, state=JOB_STATE_RUNNING)
        raise Dropped

    def second(request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(7, state=JOB_STATE_RUNNING)
        yield job_message(7, state=JOB_STATE_COMPLETED)

    lost: list[ClientError] = []
    stand_in.watches = [first, second]
    with Client(stand_in.address, on_lost=lost.append) as client:
        states = [job.state for job in client.watch_jobs(JobFilter(ids=[7]))]
    assert states == [JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_COMPLETED]
    assert len(lost) == 1


def test_active_jobs_that_ended_while_the_connection_was_lost_are_told_once(stand_in: StandIn) -> None:
    def first(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(7, state=JOB_STATE_RUNNING)
        yield job_message(8)
        yield None
        raise Dropped

    def second(request: WatchJobsRequest) -> Iterator[Job | None]:
        yield job_message(8)
        yield job_message(9)
        yield None
        yield job_message(8, state=JOB_STATE_COMPLETED)

    stand_in.watches = [first, second]
    stand_in.stored = [job_message(7, state=JOB_STATE_COMPLETED)]
    with Client(stand_in.address) as client:
        following = client.follow_active_jobs()
        told = [[(job.id, job.state) for job in next(following)] for _ in range(3)]
    assert told == [
        [(7, JOB_STATE_RUNNING), (8, JOB_STATE_QUEUED)],
        [(9, JOB_STATE_QUEUED), (7, JOB_STATE_COMPLETED)],
        [(8, JOB_STATE_COMPLETED)],
    ]


def test_waiting_gives_jobs_in_the_order_that_was_asked(stand_in: StandIn) -> None:
    stand_in.watches = [lambda request: iter([job_message(number, state=JOB_STATE_COMPLETED) for number in (7, 8)])]
    with Client(stand_in.address) as client:
        assert [job.id for job in client.wait_for_jobs([8, 7])] == [8, 7]
        assert client.wait_for_jobs([]) == []


def test_a_watch_that_ends_too_early_is_opened_again(stand_in: StandIn) -> None:
    """A stream that ends without an error reads like a finished one; the jobs say otherwise."""
    stand_in.watches = [
        lambda request: iter([job_message(7, state=JOB_STATE_RUNNING)]),
        lambda request: iter([job_message(7, state=JOB_STATE_COMPLETED)]),
    ]
    with Client(stand_in.address) as client:
        states = [job.state for job in client.watch_jobs(JobFilter(ids=[7]))]
    assert states == [JOB_STATE_RUNNING, JOB_STATE_COMPLETED]


def test_a_watch_of_a_job_that_does_not_exist_is_refused_at_once(stand_in: StandIn) -> None:
    def refuse(request: WatchJobsRequest) -> Iterator[Job]:
        raise Refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "there is no job 7")

    stand_in.watches = [refuse]
    with Client(stand_in.address) as client, pytest.raises(NotFound, match="there is no job 7"):
        list(client.watch_jobs(JobFilter(ids=[7])))


def test_a_watch_gives_up_after_its_time(stand_in: StandIn) -> None:
    def hang(request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(7, state=JOB_STATE_RUNNING)
        stand_in.released.wait(30)

    stand_in.watches = [hang]
    with Client(stand_in.address) as client, pytest.raises(TimeoutError):
        list(client.watch_jobs(JobFilter(ids=[7]), timeout_s=0.3))


def test_more_jobs_than_one_watch_takes_are_watched_to_their_end(stand_in: StandIn) -> None:
    def end(request: WatchJobsRequest) -> Iterator[Job]:
        return (Job(id=job_id, state=JOB_STATE_COMPLETED) for job_id in request.filter.ids)

    wanted = list(range(1, MAX_JOBS_PER_CALL + 2))
    stand_in.watches = [end, end]
    with Client(stand_in.address) as client:
        assert [job.id for job in client.watch_jobs(JobFilter(ids=wanted))] == wanted
    asked = [request.filter.ids for request in stand_in.asked if isinstance(request, WatchJobsRequest)]
    assert [len(ids) for ids in asked] == [MAX_JOBS_PER_CALL, 1]


def test_nobody_at_the_address_is_told_soon() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(Unreachable, match="no coordinator answers"):
        list(client.watch_jobs(JobFilter(ids=[7])))


def test_two_streams_that_break_together_are_told_as_one_loss(stand_in: StandIn) -> None:
    lost: list[ClientError] = []

    def watch(request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(7, state=JOB_STATE_RUNNING)
        raise Dropped

    def follow(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=1, attempt_number=1, state=LOG_STATE_OPEN)
        raise Dropped

    def drop_again(request: object) -> Iterator[LogChunk | LogCut]:
        raise Dropped

    stand_in.watches = [watch, lambda request: iter([job_message(7, state=JOB_STATE_COMPLETED)])]
    stand_in.follows = [follow, drop_again, lambda request: iter([])]
    with Client(stand_in.address, on_lost=lost.append) as client:
        watching = client.watch_jobs(JobFilter(ids=[7]))
        following = client.follow_logs(7)
        next(watching)
        next(following)
        list(following)
        list(watching)
    assert len(lost) == 1


LOG = b"".join(b"line %d\n" % number for number in range(40))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.integers(0, len(LOG)), max_size=2).map(sorted), overlap=st.integers(0, 20))
def test_a_followed_log_comes_whole_wherever_the_stream_breaks(
    stand_in: StandIn, breaks: list[int], overlap: int
) -> None:
    def serve(end: int | None) -> Follow:
        def follow(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
            yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
            start = max(0, request.from_offset - overlap)
            stop = len(LOG) if end is None else max(end, start)
            for offset in range(start, stop, 16):
                yield LogChunk(attempt_id=5, offset=offset, data=LOG[offset : min(offset + 16, stop)])
            if end is not None:
                raise Dropped
            yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

        return follow

    stand_in.follows = [*(serve(end) for end in breaks), serve(None)]
    with Client(stand_in.address) as client:
        pieces = list(client.follow_logs(7))
    assert b"".join(piece.data for piece in pieces) == LOG
    cuts = [piece for piece in pieces if piece.state is not None]
    assert cuts == [LogPiece(attempt=1, state=LOG_STATE_OPEN), LogPiece(attempt=1, state=LOG_STATE_COMPLETE)]


def test_a_gap_in_a_log_is_asked_for_again_and_never_shown(stand_in: StandIn) -> None:
    def with_gap(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one ")
        yield LogChunk(attempt_id=5, offset=9, data=b"three")

    def whole(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=request.from_offset, data=b"one two three"[request.from_offset :])
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows = [with_gap, whole]
    with Client(stand_in.address) as client:
        pieces = list(client.follow_logs(7))
    assert b"".join(piece.data for piece in pieces) == b"one two three"


def test_a_log_broken_between_two_attempts_goes_on_with_the_second(stand_in: StandIn) -> None:
    def first(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"first")
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)
        raise Dropped

    def second(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        assert request.from_attempt_number == 2
        yield LogCut(attempt_id=6, attempt_number=2, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=6, offset=0, data=b"second")
        yield LogCut(attempt_id=6, attempt_number=2, state=LOG_STATE_COMPLETE)

    stand_in.follows = [first, second]
    with Client(stand_in.address) as client:
        pieces = list(client.follow_logs(7))
    assert [(piece.attempt, piece.data) for piece in pieces if piece.data] == [(1, b"first"), (2, b"second")]


def test_an_address_that_swallows_calls_hides_no_other_coordinator(stand_in: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]},{stand_in.address}"
        # The stand-in is asked, and knows no agents.
        with Client(target) as client, pytest.raises(UsageError, match="is no coordinator of this release"):
            client.release(timeout_s=1)
        with Client(target.partition(",")[0]) as client, pytest.raises(Unreachable, match="did not answer in time"):
            client.release(timeout_s=1)


@pytest.mark.parametrize(
    ("kind", "command"), [("device", "devices list"), ("agent", "agents list"), ("job", "jobs list")]
)
def test_who_names_what_does_not_exist_is_told_where_to_look(stand_in: StandIn, kind: str, command: str) -> None:
    def refuse(request: CancelJobsRequest) -> CancelJobsResponse:
        raise Refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", f"there is no {kind} 7", kind=kind)

    stand_in.cancels = [refuse]
    with Client(stand_in.address) as client, pytest.raises(NotFound) as refusal:
        client.cancel_jobs([1])
    assert refusal.value.hint == f"`qgjob {command}` shows what there is"
