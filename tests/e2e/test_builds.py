"""Registered builds on simulated devices: uploaded once, fetched once, and kept by the jobs that were accepted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.e2e.grid import Grid, eventually
from tests.e2e.test_simulated_grid import truth

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

FAST = ("--simulate", "emulator=2", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")


def make_build(path: Path, size: int = 3_000_000) -> str:
    """Write a build and return its SHA-256."""
    path.write_bytes(os.urandom(size))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.soak)])
def test_build_reaches_each_agent_once_and_all_its_devices_install_it(grid: Grid, tmp_path: Path, count: int) -> None:
    digest = make_build(tmp_path / "app.apk")
    agents = [grid.agent(f"host-{number}", *FAST) for number in range(count)]
    eventually(lambda: len(grid.devices()) == 2 * count, "all devices are known")
    devices = [device["id"] for device in grid.devices()]
    jobs = []
    for device in devices:
        options = ("--selector", f"id={device}", "--app", str(tmp_path / "app.apk"))
        jobs += grid.submit("tests/login.spec.ts", options=options)
    grid.run("jobs", "wait", *map(str, jobs))
    assert {grid.job(job)["build_digest"] for job in jobs} == {digest}
    installs = [line["digest"] for line in truth(grid) if line["event"] == "install"]
    assert installs == [digest] * 2 * count
    assert [agent.diagnostics.read_text().count("build_fetched") for agent in agents] == [1] * count
    (build,) = grid.json("builds", "list")
    assert (build["digest"], build["registered"], build["installs"]) == (digest, True, 2 * count)


def test_another_binary_needs_replace_and_accepted_jobs_keep_theirs(grid: Grid, tmp_path: Path) -> None:
    first, second = make_build(tmp_path / "first.apk"), make_build(tmp_path / "second.apk")
    (old,) = grid.submit("tests/login.spec.ts", options=("--app", str(tmp_path / "first.apk")))
    upload = ("builds", "upload", "--org-id", "qualgent", "--app-version-id", "xyz123")
    refused = grid.run(*upload, str(tmp_path / "second.apk"), code=2)
    assert f"is another binary already (SHA-256 {first[:16]})" in refused.stderr
    assert "hint: choose another app version, or use `qgjob builds upload --replace`" in refused.stderr
    again = grid.run(*upload, str(tmp_path / "first.apk"))
    assert "first.apk: was there already" in again.stderr
    grid.run(*upload, str(tmp_path / "second.apk"), "--replace")
    (new,) = grid.submit("tests/login.spec.ts")
    grid.agent("lab", *FAST)
    grid.run("jobs", "wait", str(old), str(new))
    tested = [grid.job(job)["attempts"][0]["build_digest"] for job in (old, new)]
    assert tested == [first, second]
