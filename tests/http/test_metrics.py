"""What Prometheus is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from coordinator.core.model import Settings
from qgjob.v1 import job_pb2
from tests.http.grid import PATIENCE_S, HttpGrid
from tests.rpc.grid import phone

Samples = dict[tuple[str, tuple[str, ...]], float]


async def scraped(grid: HttpGrid) -> Samples:
    """Return all samples by name and values of labels."""
    answer = await grid.web.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_queue_devices_and_streams_are_told_as_they_stand(grid: HttpGrid) -> None:
    await grid.post_jobs("a.spec.ts", "b.spec.ts", priority=5)
    await grid.post_jobs("c.spec.ts", priority=1)
    before = await scraped(grid)
    assert (before["qgjob_jobs_queued", ("high",)], before["qgjob_jobs_queued", ("low",)]) == (2, 1)
    assert before["qgjob_jobs_queued", ("normal",)] == 0
    agent = grid.agent()
    await agent.hello(phone("phone-1"), phone("phone-2", usable=False))
    await agent.lease()
    async with grid.web.stream("GET", "/jobs/3/logs?follow=true"):
        after = await scraped(grid)
    assert after["qgjob_streams", ("Connect",)] == 1
    assert after["qgjob_streams", ("HTTP logs",)] == 1
    assert after["qgjob_devices", ("offline",)] == 1
    assert after["qgjob_devices", ("leased",)] + after["qgjob_devices", ("reserved",)] == 1
    assert after["qgjob_agents", ("connected",)] == 1
    assert after["qgjob_jobs_running", ("high",)] + after["qgjob_jobs_running", ("low",)] >= 1
    assert after["qgjob_batches_active", ()] == 1


async def test_batches_waits_and_savings_are_counted(grid: HttpGrid) -> None:
    await grid.post_jobs("a.spec.ts", "b.spec.ts", priority=5)
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    await agent.say(
        build_installed={"key": lease.key, "digest": "d" * 64, "duration": {"seconds": 5}, "installed": True}
    )
    for job in lease.jobs:
        await agent.finish(lease, job.attempt_id)
    await agent.say(lease_released={"key": lease.key})
    async with asyncio.timeout(PATIENCE_S):
        while not (samples := await scraped(grid))["qgjob_batches_ended_total", ("released",)]:
            pass
    assert samples["qgjob_batches_granted_total", ()] == 1
    assert samples["qgjob_queue_wait_seconds_count", ("high",)] == 2
    assert samples["qgjob_jobs_ended_total", ("completed",)] == 2
    assert samples["qgjob_installs_avoided_total", ()] == 1
    assert samples["qgjob_saved_seconds_total", ()] == 5
    assert samples["qgjob_lease_expiries_total", ()] == 0
    assert samples["qgjob_commit_seconds_count", ()] >= 4


async def test_lease_that_nobody_renews_is_counted_as_expired(tmp_path: Path) -> None:
    grid = HttpGrid(tmp_path, settings=Settings(heartbeat_us=100_000, lease_ttl_us=300_000))
    await grid.start()
    try:
        await grid.post_jobs("a.spec.ts")
        agent = grid.agent()
        await agent.hello(phone())
        await agent.lease()
        await agent.call.done_writing()
        async with asyncio.timeout(PATIENCE_S):
            while not (samples := await scraped(grid))["qgjob_lease_expiries_total", ()]:
                pass
        assert samples["qgjob_lease_expiries_total", ()] == samples["qgjob_batches_ended_total", ("expired",)] >= 1
    finally:
        await grid.stop()


async def test_lease_of_an_earlier_life_is_not_counted_as_granted(grid: HttpGrid) -> None:
    running = await grid.running_job()
    await running.agent.call.done_writing()
    await grid.restart()
    samples = await scraped(grid)
    assert (samples["qgjob_batches_active", ()], samples["qgjob_batches_granted_total", ()]) == (1, 0)
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_RUNNING
