"""A great many jobs, and jobs with a great many labels: what does not fit into one message breaks no view."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from qgjob.v1 import job_pb2, job_service_pb2, queue_service_pb2
from tests.rpc.grid import Grid, spec

LABELS = {f"label-{number}": "x" * 1_024 for number in range(64)}
COUNT = 75
MANY = 10_000
QGJOB = str(Path(sys.executable).parent / "qgjob")


async def submit_large(grid: Grid) -> list[int]:
    ids: list[int] = []
    for _ in range(COUNT):
        ids += await grid.submit(spec(labels=LABELS))
    return ids


async def test_queue_shows_what_fits_and_counts_all(grid: Grid) -> None:
    ids = await submit_large(grid)
    status = (await grid.queue.GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())).status
    assert sum(lane.queued for lane in status.lanes) == COUNT
    shown = [job.id for job in status.waiting]
    assert 0 < len(shown) < COUNT
    assert shown == ids[: len(shown)]


async def test_cancelling_tells_of_what_fits_and_how_many_there_are(grid: Grid) -> None:
    await submit_large(grid)
    request = job_service_pb2.CancelJobsRequest(filter=job_pb2.JobFilter(org_id="qualgent"))
    answer = await grid.jobs.CancelJobs(request)
    assert answer.selected == COUNT
    assert 0 < len(answer.jobs) < COUNT


@pytest.mark.parametrize("with_history", [False, True], ids=["jobs", "jobs with their history"])
async def test_pages_end_where_a_message_is_full_and_leave_nothing_out(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, with_history: bool
) -> None:
    monkeypatch.setattr("coordinator.services.job.HISTORIES_PER_READ", 7)
    ids = await submit_large(grid)
    found: list[int] = []
    token = ""
    while True:
        request = job_service_pb2.ListJobsRequest(page_size=1_000, page_token=token, with_history=with_history)
        page = await grid.jobs.ListJobs(request)
        found += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert found == ids[::-1]


async def shown(grid: Grid, *arguments: str) -> str:
    """Return what a command of the command line prints."""
    env = {**os.environ, "QGJOB_COORDINATOR": grid.address}
    process = await asyncio.create_subprocess_exec(QGJOB, *arguments, env=env, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_ten_thousand_jobs_are_listed_each_once_and_the_newest_first(grid: Grid) -> None:
    ids = await grid.submit(*(spec(f"tests/case-{number}.spec.ts") for number in range(MANY)))
    newest_first = [*map(str, ids[::-1])]
    listed = json.loads(await shown(grid, "jobs", "list", "--limit", "100000"))
    assert [(str(job["id"]), job["test"]) for job in listed[:1] + listed[-1:]] == [
        (newest_first[0], f"tests/case-{MANY - 1}.spec.ts"),
        (newest_first[-1], "tests/case-0.spec.ts"),
    ]
    assert [str(job["id"]) for job in listed] == newest_first
    table = (await shown(grid, "jobs", "list", "--limit", "100000", "-o", "table")).splitlines()
    assert [line.split()[0] for line in table[1:]] == newest_first
