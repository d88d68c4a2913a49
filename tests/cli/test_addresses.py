"""The client with several coordinators, of which one serves at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import grpc
import pytest

from qgjob.channel import Coordinators
from qgjob.client import Client, connection
from qgjob.errors import ClientError, Unreachable, UsageError
from qgjob.v1.job_pb2 import (
    JOB_STATE_COMPLETED,
    JOB_STATE_RUNNING,
    LOG_STATE_COMPLETE,
    LOG_STATE_OPEN,
    Job,
    JobFilter,
    JobSpec,
)
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse, WatchJobsRequest
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import Dropped, Refused, StandIn, running_stand_in
from tests.cli.records import job_message

NOBODY = "127.0.0.1:1"
LOGIN = JobSpec(org_id="qualgent", app_version_id="xyz123", test="tests/login.spec.ts")


@pytest.fixture
def other() -> Iterator[StandIn]:
    """A second coordinator."""
    with running_stand_in() as other:
        yield other


def both(first: StandIn, second: StandIn) -> Client:
    return Client(f"{first.address},{second.address}")


def accept(request: SubmitJobsRequest) -> SubmitJobsResponse:
    return SubmitJobsResponse(jobs=[Job(id=7, spec=request.jobs[0])])


def test_call_goes_on_to_the_next_address_where_nobody_answers(stand_in: StandIn) -> None:
    stand_in.submits = [accept]
    with Client(f"{NOBODY}, {stand_in.address}") as client:
        assert [job.id for job in client.submit_jobs([LOGIN]).jobs] == [7]


def test_call_that_a_coordinator_cannot_serve_reaches_the_other_under_the_same_key(
    stand_in: StandIn, other: StandIn
) -> None:
    def refuse(_request: SubmitJobsRequest) -> SubmitJobsResponse:
        raise Refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "the coordinator is stopping")

    stand_in.submits, other.submits = [refuse], [accept]
    with both(stand_in, other) as client:
        client.submit_jobs([LOGIN])
    assert stand_in.asked == other.asked
    assert len(other.asked) == 1


def stand_by(_request: object) -> NoReturn:
    raise Refused(grpc.StatusCode.UNAVAILABLE, "NOT_LEADER", "this coordinator does not lead: lab:2 does")


def test_call_to_a_standby_reaches_the_leader_without_a_pause(
    stand_in: StandIn, other: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    stand_in.submits, other.submits = [stand_by], [accept]
    with both(stand_in, other) as client:
        client.submit_jobs([LOGIN])
    assert (len(other.asked), slept) == (1, [0])


def test_stream_that_a_standby_refuses_was_not_lost(stand_in: StandIn, other: StandIn) -> None:
    def finish(_request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(1, state=JOB_STATE_COMPLETED)

    lost: list[ClientError] = []
    stand_in.watches, other.watches = [stand_by], [finish]
    with Client(f"{stand_in.address},{other.address}", on_lost=lost.append) as client:
        states = [job.state for job in client.watch_jobs(JobFilter(ids=[1]))]
    assert (states, lost) == ([JOB_STATE_COMPLETED], [])


def test_standby_alone_is_asked_until_it_leads(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CALL_PATIENCE_S", 0.0)

    def finish(_request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(1, state=JOB_STATE_COMPLETED)

    stand_in.submits, stand_in.watches = [stand_by, accept], [stand_by, finish]
    with Client(stand_in.address) as client:
        client.submit_jobs([LOGIN])
    with Client(stand_in.address) as client:
        assert [job.state for job in client.watch_jobs(JobFilter(ids=[1]))] == [JOB_STATE_COMPLETED]


def test_standby_that_never_leads_is_told_of_as_such(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CALL_PATIENCE_S", 0.0)
    monkeypatch.setattr(connection, "RESTART_PATIENCE_S", 0.0)
    stand_in.submits = [stand_by]
    with Client(stand_in.address) as client, pytest.raises(Unreachable, match=r"lab:2 does$") as failure:
        client.submit_jobs([LOGIN])
    assert failure.value.reason == "NOT_LEADER"
    assert "name all coordinators with --coordinator" in failure.value.hint


def test_client_stays_with_the_address_that_served(stand_in: StandIn, other: StandIn) -> None:
    def drop(_request: SubmitJobsRequest) -> SubmitJobsResponse:
        raise Dropped

    stand_in.submits, other.submits = [drop], [accept, accept]
    with both(stand_in, other) as client:
        client.submit_jobs([LOGIN])
        client.submit_jobs([LOGIN])
    assert (len(stand_in.asked), len(other.asked)) == (1, 2)


def test_watch_goes_on_at_the_other_coordinator_and_repeats_nothing(stand_in: StandIn, other: StandIn) -> None:
    def run(_request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(1, state=JOB_STATE_RUNNING)
        raise Dropped

    def finish(_request: WatchJobsRequest) -> Iterator[Job]:
        yield job_message(1, state=JOB_STATE_RUNNING)
        yield job_message(1, state=JOB_STATE_COMPLETED)

    stand_in.watches, other.watches = [run], [finish]
    with both(stand_in, other) as client:
        states = [job.state for job in client.watch_jobs(JobFilter(ids=[1]))]
    assert states == [JOB_STATE_RUNNING, JOB_STATE_COMPLETED]


def test_log_goes_on_at_the_other_coordinator_at_the_byte_where_it_broke(stand_in: StandIn, other: StandIn) -> None:
    def begin(_request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=3, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=3, offset=0, data=b"one\ntw")
        raise Dropped

    def go_on(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        whole = b"one\ntwo\n"
        yield LogCut(attempt_id=3, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=3, offset=request.from_offset, data=whole[request.from_offset :])
        yield LogCut(attempt_id=3, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows, other.follows = [begin], [go_on]
    with both(stand_in, other) as client:
        pieces = list(client.follow_logs(1))
    assert [piece.data for piece in pieces if piece.data] == [b"one\ntw", b"o\n"]


def test_error_names_every_address_when_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FAILOVER_PATIENCE_S", 0.0)
    with (
        Client(f"{NOBODY},127.0.0.1:2") as client,
        pytest.raises(Unreachable, match=r"no coordinator answers at 127\.0\.0\.1:1, 127\.0\.0\.1:2"),
    ):
        client.submit_jobs([LOGIN])


def test_every_address_is_tried_even_when_the_first_try_took_all_patience(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FAILOVER_PATIENCE_S", 0.0)
    stand_in.submits = [accept]
    with Client(f"{NOBODY},127.0.0.1:2,{stand_in.address}") as client:
        client.submit_jobs([LOGIN])
    assert len(stand_in.asked) == 1


def test_address_that_two_threads_find_dead_is_left_once() -> None:
    coordinators = Coordinators("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3")
    dead = coordinators.channel
    coordinators.leave(dead)
    second = coordinators.channel
    coordinators.leave(dead)
    assert coordinators.channel is second is not dead
    coordinators.close()


def test_address_that_is_named_twice_is_one() -> None:
    coordinators = Coordinators("lab:1, lab:2,lab:1")
    assert (len(coordinators), coordinators.shown) == (2, "lab:1, lab:2")
    coordinators.close()


@pytest.mark.parametrize(
    ("target", "wrong"), [("lab:1,", "''"), (",lab:1", "''"), ("lab:1,lab", "'lab'"), ("lab:1;lab:2", "'lab:1;lab:2'")]
)
def test_list_with_a_wrong_address_names_the_wrong_one(target: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=f"^{wrong} is no address of a coordinator"):
        Coordinators(target)
