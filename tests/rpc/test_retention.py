from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from coordinator import house
from coordinator.core.model import Settings
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
