"""HTTP of two coordinators on one database."""

from __future__ import annotations

from pathlib import Path

from tests.http.grid import HttpGrid
from tests.rpc.test_standby import until_serving


async def test_standby_refuses_over_http_until_it_leads(tmp_path: Path, postgresql: str) -> None:
    leader, standby = HttpGrid(tmp_path, postgresql), HttpGrid(tmp_path, postgresql)
    await leader.start()
    await leader.post_jobs()
    await standby.start()
    for path in ("/readyz", "/jobs", "/jobs/1/logs", "/metrics", "/nowhere"):
        answer = await standby.web.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (503, "NOT_LEADER")
        assert answer.json()["fields"] == {"leader": leader.address}
    for path in ("/healthz", "/", "/docs", "/openapi.json"):
        assert (await standby.web.get(path)).status_code == 200
    await leader.stop()
    await until_serving(standby)
    assert [job["id"] for job in await standby.get("/jobs")] == [1]
    assert await standby.get("/readyz") == {"status": "ok"}
    await standby.stop()


async def test_answer_that_was_read_before_the_lead_was_lost_is_not_told(tmp_path: Path, postgresql: str) -> None:
    grid = HttpGrid(tmp_path, postgresql)
    await grid.start()
    found = grid.server._services
    assert found is not None
    list_devices = found.devices.ListDevices

    async def read_and_lose(request: object) -> object:
        read = await list_devices(request)  # type: ignore[arg-type]
        await grid.server._leadership.release()
        return read

    found.devices.ListDevices = read_and_lose  # type: ignore[method-assign,assignment]
    answer = await grid.web.get("/devices")
    assert (answer.status_code, answer.json()["reason"]) == (503, "NOT_LEADER")
    await grid.stop()
