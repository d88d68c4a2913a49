from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from coordinator import house
from coordinator.core.model import JobId, Settings
from coordinator.retention import Pruned, Retention
from qgjob.v1 import job_pb2, job_service_pb2
from tests.rpc.grid import PATIENCE_S, Grid, refusal, spec


def pruning(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let coordinators prune without a pause; return what is set once a job was forgotten."""
    has_pruned = asyncio.Event()
    run_once = Retention.run_once

    async def observed(self: Retention) -> Pruned:
        pruned = await run_once(self)
        if pruned.jobs:
            has_pruned.set()
        return pruned

    monkeypatch.setattr(Retention, "run_once", observed)
    monkeypatch.setattr(house, "TEND_INTERVAL_S", 0.01)
    monkeypatch.setattr(house, "PRUNE_INTERVAL_S", 0.01)
    return has_pruned


async def test_coordinator_forgets_ended_jobs_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_pruned = pruning(monkeypatch)
    grid = Grid(tmp_path, Settings(), retain_us=0)
    await grid.start()
    ended, waiting = await grid.submit(spec("a"), spec("b"), request_id="k")
    await grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[ended]))
    await asyncio.wait_for(has_pruned.wait(), PATIENCE_S)
    code, _, info = await refusal(grid.job(ended))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert (await grid.job(waiting)).state == job_pb2.JOB_STATE_QUEUED
    assert await grid.submit(spec("a"), spec("b"), request_id="k") == [waiting]
    await grid.stop()


async def test_request_whose_jobs_were_forgotten_is_new_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_pruned = pruning(monkeypatch)
    grid = Grid(tmp_path, Settings(), retain_us=0)
    await grid.start()
    (ended,) = await grid.submit(spec(), request_id="k")
    (waiting,) = await grid.submit(spec(), request_id="other")
    await grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[ended]))
    await asyncio.wait_for(has_pruned.wait(), PATIENCE_S)
    has_learnt = grid.learning(monkeypatch)
    await grid.restart()
    await asyncio.wait_for(has_learnt.wait(), PATIENCE_S)
    assert await grid.submit(spec(), request_id="k") == [waiting + 1]
    assert await grid.submit(spec(), request_id="other") == [waiting]
    await grid.stop()


async def forget(grid: Grid, *job_ids: int) -> None:
    """End jobs, and delete their rows as pruning does; those of their requests stay for now."""
    await grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=job_ids))
    await asyncio.to_thread(grid.server._store.forget_jobs, [JobId(job_id) for job_id in job_ids])


async def submit(grid: Grid) -> tuple[int, bool]:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec()], request_id="k")
    answer = await grid.jobs.SubmitJobs(request)
    return answer.jobs[0].id, answer.replayed


@pytest.mark.parametrize("has_row", [False, True])
async def test_request_whose_jobs_were_forgotten_is_new_while_it_is_remembered(grid: Grid, has_row: bool) -> None:
    assert await submit(grid) == (1, False)
    await forget(grid, 1)
    if not has_row:
        await asyncio.to_thread(grid.server._store.forget_requests, [("qualgent", "k")])
    answers = await asyncio.gather(*(submit(grid) for _ in range(20)))
    assert sorted(answers) == [(2, False), *[(2, True)] * 19]
    await grid.restart()
    assert await submit(grid) == (2, True)


async def test_key_whose_jobs_were_forgotten_is_free_for_other_jobs_while_it_is_remembered(grid: Grid) -> None:
    forgotten, left = await grid.submit(spec("a"), spec("b"), request_id="k")
    await forget(grid, forgotten)
    code, _, info = await refusal(grid.submit(spec("c"), request_id="k"))
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await forget(grid, left)
    assert await grid.submit(spec("c"), request_id="k") == [left + 1]
    code, _, info = await refusal(grid.submit(spec("a"), spec("b"), request_id="k"))
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_request_stays_while_one_of_its_jobs_is_left(grid: Grid) -> None:
    forgotten, left = await grid.submit(spec("a"), spec("b"), request_id="k")
    await forget(grid, forgotten)
    await asyncio.to_thread(grid.server._store.forget_requests, [("qualgent", "k")])
    assert await grid.submit(spec("a"), spec("b"), request_id="k") == [left]
    await grid.restart()
    assert await grid.submit(spec("a"), spec("b"), request_id="k") == [left]


async def test_retry_whose_job_was_forgotten_is_new_while_it_is_remembered(grid: Grid) -> None:
    (old,) = await grid.submit(spec())
    await grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[old]))
    request = job_service_pb2.RetryJobRequest(job_id=old, request_id="again")
    first = (await grid.jobs.RetryJob(request)).job.id
    await forget(grid, first)
    assert [(await grid.jobs.RetryJob(request)).job.id for _ in range(2)] == [first + 1] * 2


async def test_pruning_goes_on_after_an_error_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_once = Retention.run_once
    failures = iter((AssertionError("a bug"),))

    async def fail_first(self: Retention) -> Pruned:
        for failure in failures:
            raise failure
        return await run_once(self)

    monkeypatch.setattr(Retention, "run_once", fail_first)
    has_pruned = pruning(monkeypatch)
    grid = Grid(tmp_path, Settings(), retain_us=0)
    await grid.start()
    (ended,) = await grid.submit(spec())
    await grid.jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[ended]))
    await asyncio.wait_for(has_pruned.wait(), PATIENCE_S)
    await grid.stop()
