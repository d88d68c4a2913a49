"""Get, list, cancel, retry, watch and the queue, over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from qgjob.v1 import job_pb2, job_service_pb2, queue_service_pb2
from tests.rpc.grid import PATIENCE_S, Grid, phone, refusal, spec

QUEUED, CANCELLED = job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_CANCELLED
FOUR = (
    spec("a", priority=5, run="nightly", labels={"suite": "smoke", "pr": "7"}),
    spec("b", priority=3, app_version_id="other", target=job_pb2.TARGET_EMULATOR),
    spec("c", priority=3, labels={"suite": "smoke"}),
    spec("d", priority=1, run="nightly", target=job_pb2.TARGET_DEVICE),
)


async def listed(grid: Grid, size: int = 0, token: str = "", **wanted: Any) -> job_service_pb2.ListJobsResponse:  # noqa: ANN401
    request = job_service_pb2.ListJobsRequest(filter=job_pb2.JobFilter(**wanted), page_size=size, page_token=token)
    return await grid.jobs.ListJobs(request)


async def cancel(grid: Grid, *ids: int, **wanted: Any) -> job_service_pb2.CancelJobsResponse:  # noqa: ANN401
    return await grid.jobs.CancelJobs(
        job_service_pb2.CancelJobsRequest(job_ids=ids, filter=job_pb2.JobFilter(**wanted))
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"states": [QUEUED]}, [5, 4, 2, 1]),
        ({"states": [CANCELLED]}, [3]),
        ({"states": [QUEUED, CANCELLED]}, [5, 4, 3, 2, 1]),
        ({"priority": 3}, [3, 2]),
        ({"target": job_pb2.TARGET_EMULATOR}, [2]),
        ({"target": job_pb2.TARGET_ANY}, [5, 3, 1]),
        ({"app_version_id": "other"}, [2]),
        ({"org_id": "else"}, [5]),
        ({"org_id": "nobody"}, []),
        ({"run": "nightly"}, [4, 1]),
        ({"labels": {"suite": "smoke"}}, [3, 1]),
        ({"labels": {"suite": "smoke", "pr": "7"}}, [1]),
        ({"labels": {"suite": "smoke", "pr": "8"}}, []),
        ({"ids": [4, 2, 99, -1, 2**63 - 1]}, [4, 2]),
        ({"run": "nightly", "priority": 1}, [4]),
    ],
)
async def test_every_filter_selects_what_it_says(grid: Grid, wanted: dict[str, Any], expected: list[int]) -> None:
    await grid.submit(*FOUR)
    await grid.submit(spec("e", org_id="else", priority=4))
    await cancel(grid, 3)
    assert [job.id for job in (await listed(grid, **wanted)).jobs] == expected
    paged: list[int] = []
    token = ""
    while True:
        page = await listed(grid, 2, token, **wanted)
        paged += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
        assert len(page.jobs) == 2
    assert paged == expected


@pytest.mark.parametrize(
    ("size", "token", "wanted", "field"),
    [
        (-1, "", {}, "page_size"),
        (1_001, "", {}, "page_size"),
        (0, "first", {}, "page_token"),
        (0, "9" * 40, {}, "page_token"),
        (0, "", {"priority": 6}, "filter.priority"),
        (0, "", {"states": [99]}, "filter.states"),
        (0, "", {"ids": [1], "states": [QUEUED] * 300_000}, "filter.states"),
        (0, "", {"target": 99}, "filter.target"),
        (0, "", {"org_id": "\x00"}, "filter.org_id"),
        (0, "", {"run": "x" * 200}, "filter.run"),
        (0, "", {"app_version_id": "\x00"}, "filter.app_version_id"),
        (0, "", {"labels": {"a": "\x00"}}, "filter.labels"),
        (0, "", {"ids": [1] * 10_001}, "filter.ids"),
    ],
)
async def test_malformed_list_is_refused(grid: Grid, size: int, token: str, wanted: dict[str, Any], field: str) -> None:
    code, _, info = await refusal(listed(grid, size, token, **wanted))
    assert (code, info.reason, info.metadata["field"]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        field,
    )


@pytest.mark.parametrize("job_id", [0, 1, -1, 2**63 - 1])
async def test_unknown_job_is_not_found(grid: Grid, job_id: int) -> None:
    for call in (
        grid.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job_id)),
        grid.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=job_id)),
        grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[job_id])),
    ):
        code, sentence, info = await refusal(call)
        assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        assert dict(info.metadata) == {"kind": "job", "id": str(job_id)}
        assert sentence == f"there is no job {job_id}"


# Cancel


async def test_cancel_is_idempotent_and_leaves_what_has_ended_alone(grid: Grid) -> None:
    await grid.submit(*FOUR)
    first = await cancel(grid, 1, 2)
    assert [(job.id, job.state) for job in first.jobs] == [(1, CANCELLED), (2, CANCELLED)]
    again = await cancel(grid, 2, 3, 2)
    assert [(job.id, job.state) for job in again.jobs] == [(2, CANCELLED), (3, CANCELLED), (2, CANCELLED)]
    assert again.jobs[0].end_time == first.jobs[1].end_time


async def test_cancel_by_filter_takes_the_unfinished_alone(grid: Grid) -> None:
    await grid.submit(*FOUR)
    await cancel(grid, 1)
    assert [job.id for job in (await cancel(grid, run="nightly")).jobs] == [4]
    assert [job.id for job in (await cancel(grid, states=[CANCELLED])).jobs] == []
    assert [job.id for job in (await cancel(grid, labels={"suite": "smoke"})).jobs] == [3]
    assert (await grid.job(2)).state == QUEUED


async def test_cancel_by_filter_takes_all_however_many(grid: Grid) -> None:
    await grid.submit(*(spec("t", run="all") for _ in range(10_000)))
    await grid.submit(spec("t", run="all"))
    answer = await cancel(grid, run="all")
    assert (answer.selected, len(answer.jobs)) == (10_001, 10_000)
    assert not (await listed(grid, states=[QUEUED])).jobs


async def test_cancel_with_one_unknown_job_cancels_none(grid: Grid) -> None:
    await grid.submit(*FOUR)
    code, _, info = await refusal(cancel(grid, 1, 77))
    assert (code, info.metadata["id"]) == (grpc.StatusCode.NOT_FOUND, "77")
    assert (await grid.job(1)).state == QUEUED


async def test_cancel_of_everything_by_accident_is_refused(grid: Grid) -> None:
    await grid.submit(*FOUR)
    code, _, info = await refusal(cancel(grid))
    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "job_ids")


# Retry


async def test_retry_is_a_new_job_with_the_same_spec(grid: Grid) -> None:
    await grid.submit(spec("a", env={"TOKEN": "secret"}, labels={"a": "b"}))
    await cancel(grid, 1)
    request = job_service_pb2.RetryJobRequest(job_id=1, request_id="again")
    new = (await grid.jobs.RetryJob(request)).job
    assert (new.id, new.state, new.retry_of) == (2, QUEUED, 1)
    assert new.spec == (await grid.job(1)).spec
    assert (await grid.jobs.RetryJob(request)).job.id == 2


async def test_retry_of_an_unfinished_job_is_refused(grid: Grid) -> None:
    await grid.submit(spec())
    code, sentence, info = await refusal(grid.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=1)))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_TRANSITION")
    assert dict(info.metadata) == {"id": "1", "state": "queued"}
    assert sentence == "job 1 is queued; only a job that has ended can be retried"


async def test_key_of_a_retry_is_not_that_of_another(grid: Grid) -> None:
    await grid.submit(spec(), spec())
    await cancel(grid, 1, 2)
    await grid.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=1, request_id="k"))
    for call in (
        grid.jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=2, request_id="k")),
        grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=[spec()], request_id="k")),
    ):
        code, _, info = await refusal(call)
        assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.parametrize("key", ["\x00", "k" * 129, "k" * 3_000_000], ids=["odd", "long", "3 MB"])
async def test_malformed_key_of_a_retry_is_refused(grid: Grid, key: str) -> None:
    await grid.submit(spec())
    await cancel(grid, 1)
    request = job_service_pb2.RetryJobRequest(job_id=1, request_id=key)
    code, _, info = await refusal(grid.jobs.RetryJob(request))
    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "request_id")


# Watch


async def test_watch_shows_each_change_and_ends_with_the_last_job(grid: Grid) -> None:
    await grid.submit(*FOUR)
    request = job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(ids=[1, 2]))
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in grid.jobs.WatchJobs(request):
            seen.append((message.job.id, message.job.state))
            if len(seen) == 2:
                await cancel(grid, 2)
            if seen[-1] == (2, CANCELLED):
                await cancel(grid, 1, 3)
    assert seen == [(1, QUEUED), (2, QUEUED), (2, CANCELLED), (1, CANCELLED)]


async def test_watch_of_a_state_shows_how_its_jobs_leave_it(grid: Grid) -> None:
    await grid.submit(*FOUR)
    request = job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(states=[QUEUED], run="nightly"))
    seen: list[tuple[int, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in grid.jobs.WatchJobs(request):
            seen.append((message.job.id, message.job.state))
            if len(seen) == 2:
                await cancel(grid, 1, 4)
    assert seen[:2] == [(4, QUEUED), (1, QUEUED)]
    assert sorted(seen[2:]) == [(1, CANCELLED), (4, CANCELLED)]


async def test_watch_takes_in_jobs_that_come_later(grid: Grid) -> None:
    await grid.submit(spec("a", run="r"))
    call = grid.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(run="r")))
    seen: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in call:
            seen.append(message.job.id)
            if len(seen) == 1:
                await grid.submit(spec("b", run="r"), spec("c", run="else"))
            if len(seen) == 2:
                await cancel(grid, 1, 2, 3)
    assert seen[:2] == [1, 2]
    assert set(seen) == {1, 2}


async def test_watch_survives_many_changes_and_tells_the_last(grid: Grid) -> None:
    ids = await grid.submit(*(spec(f"t{number}", run="r") for number in range(2_000)))
    call = grid.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(run="r")))
    last: dict[int, int] = {}
    changing: asyncio.Task[object] | None = None
    async with asyncio.timeout(PATIENCE_S):
        async for message in call:
            last[message.job.id] = message.job.state
            if changing is None:
                changing = asyncio.create_task(_cancel_one_by_one(grid, ids))
    assert last == dict.fromkeys(ids, CANCELLED)
    assert changing is not None
    await changing


async def _cancel_one_by_one(grid: Grid, ids: list[int]) -> None:
    for start in range(0, len(ids), 100):
        await asyncio.gather(*(cancel(grid, job_id) for job_id in ids[start : start + 100]))


async def test_watch_of_ended_jobs_ends_at_once(grid: Grid) -> None:
    await grid.submit(spec())
    await cancel(grid, 1)
    call = grid.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(ids=[1])))
    async with asyncio.timeout(PATIENCE_S):
        assert [message.job.state async for message in call] == [CANCELLED]


async def test_a_watch_that_stays_open_says_when_all_was_shown_and_goes_on(grid: Grid) -> None:
    await grid.submit(spec("a"))
    wanted = job_pb2.JobFilter(states=[QUEUED])
    call = grid.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=wanted, keep_open=True))
    seen: list[tuple[int, int] | str] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in call:
            seen.append("caught up" if message.caught_up else (message.job.id, message.job.state))
            if message.caught_up:
                await cancel(grid, 1)
            if seen[-1] == (1, CANCELLED):
                await grid.submit(spec("b"))
            if seen[-1] == (2, QUEUED):
                break
    assert seen == [(1, QUEUED), "caught up", (1, CANCELLED), (2, QUEUED)]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (job_pb2.JobFilter(), grpc.StatusCode.INVALID_ARGUMENT),
        (job_pb2.JobFilter(ids=[7]), grpc.StatusCode.NOT_FOUND),
        (job_pb2.JobFilter(org_id="\x00"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["everything", "unknown", "malformed"],
)
async def test_watch_of_nothing_is_refused(grid: Grid, wanted: job_pb2.JobFilter, code: grpc.StatusCode) -> None:
    call = grid.jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=wanted))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [message async for message in call]
    assert caught.value.code() is code


# The queue


async def test_queue_counts_lanes_and_shows_the_order(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    await grid.submit(spec("first", priority=1, target=job_pb2.TARGET_DEVICE))
    lease = await agent.lease()
    await agent.finish(lease, lease.jobs[0].attempt_id, job_pb2.ATTEMPT_OUTCOME_FAILED)
    await grid.submit(*FOUR)
    await grid.job_when(2, job_pb2.JOB_STATE_ASSIGNED)
    status = (await grid.queue.GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())).status
    assert [(lane.lane, lane.queued, lane.running) for lane in status.lanes] == [
        (job_pb2.LANE_HIGH, 0, 1),
        (job_pb2.LANE_NORMAL, 1, 1),
        (job_pb2.LANE_LOW, 1, 0),
    ]
    assert [job.id for job in status.running] == [2, 4]
    assert [(job.id, job.queue_position) for job in status.waiting] == [(3, 1), (5, 1)]
