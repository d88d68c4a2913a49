"""Two coordinators on one database: what the one that does not lead tells, and how it comes to lead."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import create_engine, text

from coordinator.config import ConfigError
from coordinator.core.errors import NotLeader
from coordinator.core.model import Settings
from coordinator.leadership import RowLeadership
from coordinator.server import LEADER, SERVICES, shown
from coordinator.store import LeaderRow, SchemaTooNew
from coordinator.store.dialect import checked_url
from qgjob.v1 import agent_service_pb2, job_pb2, job_service_pb2, log_pb2, log_service_pb2
from tests.rpc.grid import PATIENCE_S, Grid, error_info, phone, refusal, spec

TTL_S = 5.0
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

MakeGrid = Callable[..., Grid]


@pytest.fixture
async def make_grid(tmp_path: Path, postgresql: str) -> AsyncIterator[MakeGrid]:
    """Makes coordinators on one database, if not told otherwise on one data directory; they are started by tests."""
    made: list[Grid] = []

    def make(directory: str = "data") -> Grid:
        (tmp_path / directory).mkdir(exist_ok=True)
        made.append(Grid(tmp_path / directory, Settings(), database_url=postgresql, leader_ttl_s=TTL_S))
        return made[-1]

    yield make
    for grid in reversed(made):
        if hasattr(grid, "channel"):
            await grid.channel.close()
        await grid.server.stop()


@pytest.fixture
async def pair(make_grid: MakeGrid) -> tuple[Grid, Grid]:
    """One that leads and one that stands by."""
    leader, standby = make_grid(), make_grid()
    await leader.start()
    await standby.start()
    assert (leader.server.leads, standby.server.leads) == (True, False)
    return leader, standby


async def status_of_health(grid: Grid, service: str) -> int:
    health: Any = health_pb2_grpc.HealthStub(grid.channel)
    return int((await health.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def until_serving(grid: Grid) -> None:
    health: Any = health_pb2_grpc.HealthStub(grid.channel)
    async with asyncio.timeout(PATIENCE_S):
        async for answer in health.Watch(health_pb2.HealthCheckRequest(service=LEADER)):
            if answer.status == SERVING:
                return


async def end_of(call: Any) -> tuple[grpc.StatusCode, ErrorInfo]:  # noqa: ANN401 - a call of any kind
    return await call.code(), error_info(await call.trailing_metadata())


async def test_standby_refuses_calls_of_every_kind_and_tells_who_leads(pair: tuple[Grid, Grid]) -> None:
    leader, standby = pair
    code, sentence, info = await refusal(standby.jobs.ListJobs(job_service_pb2.ListJobsRequest()))
    assert (code, info.reason, dict(info.metadata)) == (UNAVAILABLE, "NOT_LEADER", {"leader": leader.address})
    assert sentence == f"this coordinator does not lead: {leader.address} does"
    followed = standby.logs.FollowLogs(log_service_pb2.FollowLogsRequest(job_id=1))
    for call in (followed, standby.agents.Connect(), standby.logs.AppendLogs()):
        code, info = await end_of(call)
        assert (code, info.reason) == (UNAVAILABLE, "NOT_LEADER")


async def test_method_that_does_not_exist_is_none_of_a_standby_either(pair: tuple[Grid, Grid]) -> None:
    for grid in pair:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = grid.channel.unary_unary("/qgjob.v1.JobService/Nothing")
        code, _, _ = await refusal(call(b""))
        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_streams_that_were_refused_leave_no_trace(pair: tuple[Grid, Grid]) -> None:
    _, standby = pair
    for call in (
        standby.agents.Connect(),
        standby.logs.AppendLogs(),
        standby.jobs.WatchJobs(job_service_pb2.WatchJobsRequest()),
    ):
        await end_of(call)
    assert dict(standby.server._streams) == {}


async def test_health_tells_leader_and_standby_apart(pair: tuple[Grid, Grid]) -> None:
    for grid, expected in zip(pair, (SERVING, NOT_SERVING), strict=True):
        assert await status_of_health(grid, "") == SERVING
        for service in (LEADER, *SERVICES):
            assert await status_of_health(grid, service) == expected


async def test_standby_takes_up_what_the_leader_left(pair: tuple[Grid, Grid]) -> None:
    leader, standby = pair
    (job,) = await leader.submit(spec())
    epoch = leader.server.engine.epoch
    await leader.server.stop()
    await until_serving(standby)
    assert (await standby.job(job)).state == job_pb2.JOB_STATE_QUEUED
    assert standby.server.engine.epoch == epoch + 1


async def test_requests_that_the_leader_accepted_are_known_to_the_standby_that_takes_over(
    pair: tuple[Grid, Grid], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, standby = pair
    has_learnt = standby.learning(monkeypatch)
    assert await leader.submit(spec(), request_id="k") == [1]
    await leader.server.stop()
    await until_serving(standby)
    assert await standby.submit(spec(), request_id="k") == [1]
    await asyncio.wait_for(has_learnt.wait(), PATIENCE_S)
    assert await standby.submit(spec(), request_id="k") == [1]
    assert await standby.submit(spec(), request_id="other") == [2]


async def test_leader_whose_row_was_taken_refuses_calls_and_ends_its_streams(
    pair: tuple[Grid, Grid], postgresql: str
) -> None:
    leader, _ = pair
    agent = leader.agent()
    await agent.hello(phone())
    thief = LeaderRow(checked_url(postgresql), TTL_S)
    assert thief.take(thief.read(), "thief:1")
    thief.close()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(NotLeader, match="another coordinator has taken over") as lost:
            await leader.server.wait(asyncio.Event())
    code, _, info = await refusal(leader.jobs.ListJobs(job_service_pb2.ListJobsRequest()))
    assert (code, info.reason) == (UNAVAILABLE, "NOT_LEADER")
    silent = asyncio.create_task(leader.server.fall_silent(lost.value))
    code, _, _ = await agent.status()
    await silent
    # At once: the reason may not get out before the stream is cancelled.
    assert code in (UNAVAILABLE, grpc.StatusCode.CANCELLED)


def let_time_run_out(grid: Grid) -> None:
    leadership = grid.server._leadership
    assert isinstance(leadership, RowLeadership)
    leadership._deadline_s = 0.0


async def test_answer_that_was_read_in_time_and_is_late_is_not_told(
    pair: tuple[Grid, Grid], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, _ = pair
    (job,) = await leader.submit(spec())
    get_job = leader.server._store.get_job

    def get_slowly(job_id: Any) -> Any:  # noqa: ANN401 - passed on as it comes
        found = get_job(job_id)
        let_time_run_out(leader)
        return found

    monkeypatch.setattr(leader.server._store, "get_job", get_slowly)
    code, _, info = await refusal(leader.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job)))
    assert (code, info.reason) == (UNAVAILABLE, "NOT_LEADER")


async def test_heartbeat_that_comes_too_late_is_not_acknowledged(pair: tuple[Grid, Grid]) -> None:
    leader, _ = pair
    agent = leader.agent()
    await agent.hello(phone())
    let_time_run_out(leader)
    await agent.say(heartbeat=agent_service_pb2.Heartbeat(sequence=1))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(NotLeader) as lost:
            await leader.server.wait(asyncio.Event())
        await leader.server.fall_silent(lost.value)
        with pytest.raises((grpc.aio.AioRpcError, AssertionError), match=r"the stream ended|does not lead|Cancelling"):
            await agent.hear("acknowledge_heartbeat")


async def test_bytes_of_a_log_that_come_too_late_are_not_acknowledged(pair: tuple[Grid, Grid]) -> None:
    leader, _ = pair
    agent = leader.agent()
    await agent.hello(phone())
    await leader.submit(spec())
    lease = await agent.lease()
    attempt = lease.jobs[0].attempt_id
    upload = leader.logs.AppendLogs()

    async def append(offset: int) -> int:
        chunk = log_pb2.LogChunk(attempt_id=attempt, offset=offset, data=b"hello\n")
        await upload.write(log_service_pb2.AppendLogsRequest(key=lease.key, chunk=chunk))
        answer: object = await upload.read()
        assert isinstance(answer, log_service_pb2.AppendLogsResponse)
        return answer.committed_size

    async with asyncio.timeout(PATIENCE_S):
        assert await append(0) == 6
        let_time_run_out(leader)
        with pytest.raises(grpc.aio.AioRpcError, match="does not lead any more"):
            await append(6)


async def test_of_two_that_start_on_a_new_database_the_one_with_another_storage_ends(make_grid: MakeGrid) -> None:
    starts: list[Awaitable[None]] = [make_grid("one").start(), make_grid("other").start()]
    ends = await asyncio.gather(*starts, return_exceptions=True)
    (failure,) = (end for end in ends if end is not None)
    assert isinstance(failure, ConfigError)
    assert "does not hold the logs of this database" in str(failure)


async def test_standby_whose_storage_has_gone_leaves_the_row_to_others(
    pair: tuple[Grid, Grid], tmp_path: Path, postgresql: str
) -> None:
    leader, standby = pair
    (tmp_path / "data" / "storage_id").unlink()
    await leader.server.stop()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConfigError, match="does not hold the logs"):
            await standby.server.wait(asyncio.Event())
    row = LeaderRow(checked_url(postgresql), TTL_S)
    assert row.read().is_free
    row.close()


def test_address_that_stands_for_all_is_told_by_the_name_of_the_host() -> None:
    name = socket.gethostname()
    addresses = ("0.0.0.0:50051", "[::]:50051", "127.0.0.1:50051")
    assert [shown(address) for address in addresses] == [f"{name}:50051", f"{name}:50051", "127.0.0.1:50051"]


async def test_standby_of_an_older_release_does_not_take_over_a_newer_database(
    pair: tuple[Grid, Grid], postgresql: str
) -> None:
    leader, standby = pair
    engine = create_engine(checked_url(postgresql))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await leader.server.stop()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(SchemaTooNew, match="9999"):
            await standby.server.wait(asyncio.Event())
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT holder FROM leadership")) == ""
    engine.dispose()
