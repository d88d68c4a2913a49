"""HTTP of a real coordinator, with an agent and the command line beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.grid import DEADLINE_S, QUICK, Grid, running_grid

pytestmark = pytest.mark.e2e


def web(grid: Grid) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{grid.http_address}", timeout=DEADLINE_S)


def submit(client: httpx2.Client, **env: str) -> int:
    body = {"org_id": "qualgent", "app_version_id": "xyz123", "test": "tests/login.spec.ts", "env": env}
    answer = client.post("/jobs/submit", json=body)
    assert answer.status_code == 201, answer.text
    jobs: list[dict[str, Any]] = answer.json()
    return int(jobs[0]["id"])


def test_job_submitted_and_followed_over_http_is_that_of_the_command_line(grid: Grid) -> None:
    with web(grid) as client:
        job = submit(client, QGJOB_SIM_LOG_LINES="200")
        waiting = client.get(f"/jobs/{job}").json()
        assert waiting == grid.json("status", "job", "--job-id", str(job))
        assert "why" in waiting, "no device is there"
        grid.agent()
        with client.stream("GET", f"/jobs/{job}/logs?follow=true") as answer:
            lines = list(answer.iter_lines())
        assert lines[-4:] == ["event: end", "id: end", "data: {}", ""]
        text = client.get(f"/jobs/{job}/logs").text
        assert text == grid.run("logs", str(job)).stdout
        followed = [line.removeprefix("data: ") for line in lines if line.startswith("data: ") and line[6:7] != "{"]
        assert followed == text.splitlines()
        assert len(followed) >= 200
        grid.run("jobs", "wait", str(job))
        assert client.get(f"/jobs/{job}").json() == grid.json("status", "job", "--job-id", str(job))
        assert client.get("/jobs", params={"status": "completed"}).json() == grid.json("jobs", "list")
        assert client.get("/queues/status").json() == grid.json("queue", "status")


def test_coordinator_with_a_follower_stops_in_time_and_leaves_its_port(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator()
        with web(grid) as client:
            job = submit(client)
            with client.stream("GET", f"/jobs/{job}/logs?follow=true"):
                assert coordinator.stop() == 0
        assert "Traceback" not in coordinator.diagnostics.read_text()
        again = grid.coordinator(*QUICK, "--http", grid.http_address)
        assert f"http={grid.http_address}" in again.ready_line()


def test_http_is_off_where_that_is_asked_for(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        ready = grid.coordinator(*QUICK, "--http", "off").ready_line()
        assert ready == f"ready grpc={grid.address}"


def test_coordinator_that_cannot_have_its_http_port_says_so_and_ends(tmp_path: Path) -> None:
    with running_grid(tmp_path / "one") as one, running_grid(tmp_path / "other") as other:
        one.coordinator()
        with pytest.raises(AssertionError, match=f"error: cannot listen on {one.http_address}"):
            other.coordinator(*QUICK, "--http", one.http_address)
