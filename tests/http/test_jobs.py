"""The paths of jobs and of the lab: the JSON is that of the command line."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from coordinator.http import models
from qgjob import resources
from qgjob.v1 import agent_service_pb2, device_service_pb2, job_pb2, job_service_pb2, queue_service_pb2
from tests.http.grid import PATIENCE_S, HttpGrid, services
from tests.rpc.grid import phone


async def test_submitted_job_is_told_over_both_ports_alike(grid: HttpGrid) -> None:
    jobs = await grid.post_jobs(
        "tests/login.spec.ts",
        "tests/checkout.spec.ts",
        priority=5,
        target="device",
        selector={"model": "Pixel*"},
        env={"USER": "ada"},
        secrets={"PASSWORD": "hunter2"},
        labels={"branch": "main"},
        retries=2,
        timeout_seconds=90.5,
        run="nightly",
    )
    assert [job["test"] for job in jobs] == ["tests/login.spec.ts", "tests/checkout.spec.ts"]
    assert {name: jobs[0][name] for name in ("priority", "target", "selector", "labels", "retries", "run")} == {
        "priority": 5,
        "target": "device",
        "selector": {"model": "Pixel*"},
        "labels": {"branch": "main"},
        "retries": 2,
        "run": "nightly",
    }
    assert jobs[0]["timeout_seconds"] == 90.5
    assert "hunter2" not in str(jobs)
    told = await grid.jobs.ListJobs(job_service_pb2.ListJobsRequest())
    assert sorted(jobs, key=lambda job: -job["id"]) == resources.jobs(told.jobs)
    assert await grid.get("/jobs") == resources.jobs(told.jobs)


async def test_single_job_has_its_attempts_and_tests(grid: HttpGrid) -> None:
    running = await grid.running_job()
    await running.write(b"one line\n")
    await running.finish()
    job = await grid.get("/jobs/1")
    assert job == resources.job(await grid.job(1))
    assert [(one["outcome"], one["log"], one["device"]) for one in job["attempts"]] == [
        ("passed", "complete", "phone-1")
    ]


async def test_submit_of_one_spec_and_of_the_defaults(grid: HttpGrid) -> None:
    answer = await grid.web.post("/jobs/submit", json={"org_id": "q", "app_version_id": "x", "test": "a.spec.ts"})
    job = answer.json()[0]
    assert (answer.status_code, job["priority"], job["target"], job["timeout_seconds"]) == (201, 3, "any", 600)
    assert "no known device matches" in answer.headers["qgjob-warning"]


async def test_warning_of_a_long_selector_still_fits_a_header(grid: HttpGrid) -> None:
    selector = {f"label{number}": "ü*" * 300 for number in range(16)}
    body = {"org_id": "q", "app_version_id": "x", "test": "a.spec.ts", "selector": selector}
    answer = await grid.web.post("/jobs/submit", json=body)
    assert (answer.status_code, len(answer.headers["qgjob-warning"])) == (201, 1_000)


async def test_same_idempotency_key_submits_once(grid: HttpGrid) -> None:
    body = {"org_id": "q", "app_version_id": "x", "test": "a.spec.ts"}
    first = await grid.web.post("/jobs/submit", json=body, headers={"Idempotency-Key": "push-7"})
    second = await grid.web.post("/jobs/submit", json=body, headers={"Idempotency-Key": "push-7"})
    assert (first.json()[0]["id"], second.json()[0]["id"]) == (1, 1)
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    other = await grid.web.post("/jobs/submit", json={**body, "priority": 5}, headers={"Idempotency-Key": "push-7"})
    assert (other.status_code, other.json()["reason"]) == (409, "REQUEST_ID_REUSED")


async def test_filters_are_those_of_the_command_line(grid: HttpGrid) -> None:
    await grid.post_jobs("a.spec.ts", priority=4, target="emulator", labels={"branch": "main"})
    await grid.post_jobs("b.spec.ts", priority=2, run="nightly", org_id="other", app_version_id="abc")
    await grid.web.delete("/jobs/1")

    async def found(query: str) -> list[int]:
        return [job["id"] for job in await grid.get(f"/jobs?{query}")]

    assert await found("status=cancelled") == [1]
    assert await found("status_filter=queued") == [2]
    assert await found("status=queued&status=cancelled") == [2, 1]
    assert await found("priority=4") == [1]
    assert await found("target=emulator") == [1]
    assert await found("label=branch=main") == [1]
    assert await found("label=branch=dev") == []
    assert await found("run=nightly") == [2]
    assert await found("org_id=other") == [2]
    assert await found("app_version_id=abc") == [2]
    assert await found("limit=1") == [2]


async def test_link_leads_through_all_pages(grid: HttpGrid) -> None:
    await grid.post_jobs(*(f"{number}.spec.ts" for number in range(5)))
    path, seen = "/jobs?org_id=qualgent&limit=2", list[int]()
    while path:
        answer = await grid.web.get(path)
        seen += [job["id"] for job in answer.json()]
        path = answer.links.get("next", {}).get("url", "")
    assert seen == [5, 4, 3, 2, 1]


class Poller:
    """Asks for the list of jobs again and again, as the dashboard does."""

    def __init__(self, grid: HttpGrid) -> None:
        self._grid = grid
        self._tag = '"of-another-list"'

    async def answer(self, status: int) -> httpx2.Response:
        """The next answer with this status: what is committed may be read a moment before it is told to be new."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                headers = {"If-None-Match": f'"older", {self._tag}'}
                answer = await self._grid.web.get("/jobs?limit=50", headers=headers)
                self._tag = answer.headers["etag"]
                if answer.status_code == status:
                    return answer

    async def states(self) -> list[str]:
        return [job["status"] for job in (await self.answer(200)).json()]


async def test_list_is_answered_anew_only_after_a_change(grid: HttpGrid) -> None:
    poller = Poller(grid)
    assert await poller.states() == []
    assert (await poller.answer(304)).content == b""
    running = await grid.running_job()
    while await poller.states() != ["running"]:
        pass
    await poller.answer(304)
    await running.finish()
    while await poller.states() != ["completed"]:
        pass
    await poller.answer(304)
    store = services(grid).jobs._store
    await asyncio.to_thread(store.forget_jobs, await asyncio.to_thread(store.old_jobs, 2**62, 10))
    assert await poller.states() == []


async def test_tag_of_a_coordinator_says_nothing_to_the_next_one(grid: HttpGrid) -> None:
    tag = (await grid.web.get("/jobs")).headers["etag"]
    await grid.stop()
    await grid.start()
    assert (await grid.web.get("/jobs", headers={"If-None-Match": tag})).status_code == 200


async def test_list_goes_without_the_history_of_its_jobs_where_nobody_wants_it(grid: HttpGrid) -> None:
    await (await grid.running_job()).finish()
    await grid.job_when(1, job_pb2.JOB_STATE_COMPLETED)
    (whole,), (short,) = await grid.get("/jobs"), await grid.get("/jobs?history=false")
    assert len(whole["attempts"]) == 1
    assert short == {**whole, "attempts": [], "tests": [], "earlier_failures": []}


async def test_cancelled_job_is_told_and_stays_as_it_is(grid: HttpGrid) -> None:
    await grid.post_jobs()
    first = await grid.web.delete("/jobs/1")
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert (await grid.web.delete("/jobs/1")).json() == first.json()


async def test_ended_job_is_submitted_again_once_under_a_key(grid: HttpGrid) -> None:
    await grid.post_jobs(run="nightly")
    early = await grid.web.post("/jobs/1/retry", json={})
    assert (early.status_code, early.json()["reason"]) == (409, "INVALID_TRANSITION")
    await grid.web.delete("/jobs/1")
    again = [await grid.web.post("/jobs/1/retry", json={}, headers={"Idempotency-Key": "press"}) for _ in range(2)]
    assert [(one.status_code, one.json()["id"], one.json()["retry_of"]) for one in again] == [(201, 2, 1)] * 2
    assert again[0].json()["run"] == "nightly"
    assert (await grid.web.post("/jobs/9/retry", json={})).status_code == 404


@pytest.mark.parametrize("content", [b"", b"{}"])
async def test_foreign_page_cannot_submit_a_job_again(grid: HttpGrid, content: bytes) -> None:
    await grid.post_jobs()
    await grid.web.delete("/jobs/1")
    answer = await grid.web.post("/jobs/1/retry", content=content, headers={"Content-Type": "text/plain"})
    assert (answer.status_code, len(await grid.get("/jobs"))) == (400, 1)


async def test_lab_is_told_over_both_ports_alike(grid: HttpGrid) -> None:
    agent = grid.agent()
    await agent.hello(phone("phone-1"), phone("phone-2"))
    await grid.post_jobs()
    await agent.lease()
    status = await grid.queue.GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())
    assert await grid.get("/queues/status") == resources.queue_status(status.status)
    devices = await grid.devices.ListDevices(device_service_pb2.ListDevicesRequest())
    expected = [resources.device(device) for device in devices.devices]
    found = await grid.get("/devices")
    assert [without(one, "utilisation") for one in found] == [without(one, "utilisation") for one in expected]
    agents = await grid.agents.ListAgents(agent_service_pb2.ListAgentsRequest())
    assert [one["name"] for one in await grid.get("/agents")] == [one.id for one in agents.agents] == ["lab"]
    first = await grid.web.get("/devices?limit=1")
    assert [one["id"] for one in await grid.get(first.links["next"]["url"])] == ["phone-2"]


async def test_what_is_told_is_what_the_openapi_says(grid: HttpGrid) -> None:
    running = await grid.running_job()
    await running.finish()
    await grid.post_jobs("waits.spec.ts")
    assert models.JobAlone.model_validate(await grid.get("/jobs/1")).why is None, "it has ended"
    assert models.JobAlone.model_validate(await grid.get("/jobs/2")).why == (await grid.get("/jobs/2/why"))["message"]
    models.QueueStatus.model_validate(await grid.get("/queues/status"))
    assert [models.Device.model_validate(one).id for one in await grid.get("/devices")] == ["phone-1"]
    assert [models.Agent.model_validate(one).name for one in await grid.get("/agents")] == ["lab"]
    assert set(models.Job.model_fields) == set(resources.job(job_pb2.Job()))


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """Drop a field that goes with the clock."""
    return {key: value for key, value in record.items() if key != name}
