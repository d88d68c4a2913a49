"""Phones that misbehave under real AppWright: what the grid makes of it, and what it tells."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import node_packages
from tests.agent.emulator_stand_in import install_stand_in
from tests.apks import lay_apk
from tests.e2e.grid import Grid, eventually, running_grid
from tests.e2e.test_appwright import EXAMPLE, real_agent, submit_gated

APPS = "my apps"
SOURCE = f"{APPS}/build {{app_version_id}}.apk"

pytestmark = [pytest.mark.appwright, pytest.mark.e2e, pytest.mark.timeout(420)]


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    """A coordinator without agents, whose folders, like all of this file, have a space in their path."""
    with running_grid(tmp_path / "my lab") as grid:
        grid.coordinator()
        yield grid


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The example project with the build of one app version."""
    workspace = node_packages.lay_out(EXAMPLE, tmp_path / "my projects" / "wikipedia")
    lay_apk(workspace / APPS / "build xyz123.apk", "org.example.wikipedia", 1, "1.0")
    return workspace


def phones(grid: Grid, workspace: Path, count: int, faults: str = "") -> None:
    """Start an agent with virtual phones, some with faults from the start."""
    options = ["--workspace", str(workspace), "--build-source", SOURCE]
    options += ["--virtual-phones", str(count)]
    options += ["--virtual-phone-faults", faults] if faults else []
    real_agent(grid, *options)


def control(grid: Grid, *arguments: str) -> None:
    """Begin or end a fault of a phone of the running agent."""
    command = [sys.executable, "-m", "agent.virtual_phone.control", "--state-dir", str(grid.directory / "agent-lab")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=grid.env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def device(grid: Grid, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in grid.devices() if entry["id"].startswith(name))
    return found


def test_phone_that_goes_offline_in_mid_test_is_blamed_and_the_job_passes_on_another(
    grid: Grid, workspace: Path
) -> None:
    phones(grid, workspace, 2)
    job = submit_gated(grid, workspace)
    eventually(lambda: "at work" in grid.log(job), "the spec is at work", seconds=120)
    first = grid.job(job)["device"]
    control(grid, "begin", first, "offline")
    eventually(
        lambda: len(grid.job(job)["attempts"]) == 2, "the attempt is given up, and there is another", seconds=120
    )
    (grid.directory / "gate").touch()
    grid.run("jobs", "wait", str(job), seconds=200)
    lost, passed = grid.job(job)["attempts"]
    assert (lost["device"], lost["outcome"]) == (first, "errored")
    assert (lost["failure_reason"]["reason"], lost["failure_reason"]["blame"]) == ("DEVICE_LOST", "device")
    assert passed["outcome"] == "passed"
    assert passed["device"] != first
    eventually(lambda: device(grid, first)["state"] == "offline", "the phone is listed as gone")
    eventually(lambda: "went away" in device(grid, first)["reason"], "it is held by suspicion as well")
    control(grid, "end", first, "offline")
    eventually(lambda: device(grid, first)["state"] == "quarantined", "the phone is back, and not trusted yet")
    eventually(lambda: device(grid, first)["state"] == "idle", "its canary has passed")
    assert "canary_passed" in (grid.directory / "agent-lab.err").read_text()
    assert device(grid, first)["reason"] is None
    told = (grid.directory / "coordinator.err").read_text()
    assert [word for word in ("device_suspected", "canary_sent", "device_readmitted") if word not in told] == []


def test_phone_that_cannot_install_leaves_the_job_to_another(grid: Grid, workspace: Path) -> None:
    phones(grid, workspace, 2, "1:install_fails=INSTALL_FAILED_MEDIA_UNAVAILABLE")
    (job,) = grid.submit("tests/signup.spec.ts")
    grid.run("jobs", "wait", str(job), seconds=200)
    attempts = grid.job(job)["attempts"]
    assert attempts[-1]["outcome"] == "passed"
    assert attempts[-1]["device"].startswith("virtual-2")
    failed = [attempt["failure_reason"] for attempt in attempts[:-1]]
    assert [(reason["reason"], reason["blame"]) for reason in failed] == [
        ("INSTALL_FAILED_MEDIA_UNAVAILABLE", "device")
    ] * len(failed)
    assert failed, "the first phone was tried first"


def test_phone_with_full_storage_is_quarantined_with_what_to_do_until_there_is_space(
    grid: Grid, workspace: Path
) -> None:
    phones(grid, workspace, 1, "1:storage_full")
    (job,) = grid.submit("tests/signup.spec.ts")
    eventually(lambda: device(grid, "virtual-1")["state"] == "quarantined", "the phone is out of use")
    listed = device(grid, "virtual-1")
    assert "free some space" in listed["reason"]
    assert (listed["storage_free"], listed["battery"], listed["api_level"]) == (0, 87, 33)
    waiting = grid.job(job)
    assert waiting["status"] == "queued"
    reason = waiting["attempts"][0]["failure_reason"]
    assert (reason["reason"], reason["blame"]) == ("DEVICE_STORAGE_LOW", "device")
    assert "free some space" in reason["message"]
    control(grid, "end", "virtual-1", "storage_full")
    grid.run("jobs", "wait", str(job), seconds=120)
    assert len(grid.job(job)["attempts"]) == 2, "canaries found out, and no other attempt of the job"


def test_app_that_crashes_fails_its_test_with_a_readable_error(grid: Grid, workspace: Path) -> None:
    phones(grid, workspace, 1, "1:crash,after_taps=1")
    (job,) = grid.submit("tests/checkout.spec.ts")
    grid.run("jobs", "wait", str(job), code=1, seconds=200)
    ended = grid.job(job)
    assert ended["status"] == "failed"
    assert (ended["failure_reason"]["reason"], ended["failure_reason"]["blame"]) == ("APP_CRASHED", "build")
    assert "IllegalStateException" in ended["failure_reason"]["message"]
    eventually(lambda: device(grid, "virtual-1")["state"] == "idle", "no phone is held for what the build did")
    assert "counts what is in the feed" in ended["failure_reason"]["message"]
    assert "not visible" in ended["failure_reason"]["message"]
    (after,) = grid.submit("tests/checkout.spec.ts")
    grid.run("jobs", "wait", str(after), seconds=120)


def test_unauthorized_phone_is_listed_with_the_fix_and_works_once_it_is_allowed(grid: Grid, workspace: Path) -> None:
    phones(grid, workspace, 1, "1:unauthorized")
    reason = "unauthorized: unlock the phone and allow USB debugging from this computer"
    eventually(lambda: [one["reason"] for one in grid.devices()] == [reason], "the phone is listed")
    listed = device(grid, "virtual-1")
    assert (listed["kind"], listed["state"]) == ("emulator", "offline")
    (job,) = grid.submit("tests/signup.spec.ts")
    assert grid.status(job) == "queued"
    control(grid, "end", "virtual-1", "unauthorized")
    grid.run("jobs", "wait", str(job), seconds=120)
    assert grid.job(job)["device"].startswith("virtual-1")


def test_emulator_is_booted_when_work_comes_and_ended_with_its_agent(
    grid: Grid, workspace: Path, tmp_path: Path
) -> None:
    program = install_stand_in(tmp_path / "my programs")
    grid.env["PATH"] = f"{program.parent}:{grid.env['PATH']}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    adb = grid.start("adb-server", ["adb", "-P", port, "nodaemon", "server"])
    options = ("--workspace", str(workspace), "--build-source", SOURCE, "--adb-port", port)
    agent = real_agent(grid, "--emulators", "Pixel_8", *options)
    eventually(lambda: [one["state"] for one in grid.devices()] == ["idle"], "the emulator is listed")
    assert (device(grid, "Pixel_8-1")["state"], program.with_name("calls").exists()) == ("idle", False)
    (job,) = grid.submit("tests/signup.spec.ts")
    grid.run("jobs", "wait", str(job), seconds=200)
    assert grid.job(job)["device"] == "Pixel_8-1@lab"
    assert len(grid.devices()) == 1, "adb's own list does not name it a second time"
    agent.stop()
    assert adb.process is not None
    assert adb.process.poll() is None, "the host's adb server outlives batches and agents"
    assert [line for line in grid.processes() if "virtual_phone" in line] == []
