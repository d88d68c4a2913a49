"""Real AppWright, real Appium with its real driver, real adb, on virtual phones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.virtual_phone.apk import build_apk
from examples import node_packages
from tests.e2e.grid import Grid, Program, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "wikipedia"
STATE = node_packages.ROOT / ".cache" / "agent-state"

pytestmark = [
    pytest.mark.appwright,
    pytest.mark.e2e,
    pytest.mark.timeout(420),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The example project with the builds of two app versions, and one that is broken."""
    workspace = node_packages.lay_out(EXAMPLE, tmp_path / "wikipedia")
    (workspace / "apps").mkdir()
    build_apk(workspace / "apps" / "xyz123.apk", "org.example.wikipedia", 1, "1.0")
    build_apk(workspace / "apps" / "other.apk", "org.example.wikipedia", 2, "2.0")
    (workspace / "apps" / "broken.apk").write_bytes(b"no APK at all")
    return workspace


def phones(grid: Grid, workspace: Path, count: int, name: str = "lab") -> Program:
    """Start an agent with virtual phones. The Appium driver is installed once for all tests."""
    state = grid.directory / f"agent-{name}"
    state.mkdir()
    (STATE / "appium-home").mkdir(parents=True, exist_ok=True)
    (state / "appium-home").symlink_to(STATE / "appium-home")
    options = ("--workspace", str(workspace), "--build-source", "apps/{app_version_id}.apk")
    return grid.agent(name, "--virtual-phones", str(count), *options)


def package_log(grid: Grid) -> list[dict[str, object]]:
    """What the phones themselves wrote down of their packages."""
    lines: list[dict[str, object]] = []
    for path in sorted(grid.directory.glob("agent-*/virtual-phones/**/*packages*")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def test_batch_on_a_virtual_phone_installs_once_and_two_phones_work_side_by_side(grid: Grid, workspace: Path) -> None:
    login, signup = grid.submit("tests/login.spec.ts", "tests/signup.spec.ts")
    (checkout,) = grid.submit("tests/checkout.spec.ts", options=("--priority", "4"))
    (broken,) = grid.submit("tests/broken.spec.ts", app="other")
    phones(grid, workspace, 2)
    grid.run("jobs", "wait", *map(str, (login, signup, checkout)), seconds=300)
    grid.run("jobs", "wait", str(broken), code=1, seconds=120)
    jobs = {job: grid.job(job) for job in (login, signup, checkout, broken)}
    assert len({jobs[job]["device"] for job in (login, signup, checkout)}) == 1
    assert jobs[broken]["device"] != jobs[login]["device"]
    assert min((login, signup, checkout), key=lambda job: jobs[job]["start_time"]) == checkout
    assert "Element was not found on the screen" in jobs[broken]["failure_reason"]["message"]
    assert jobs[broken]["failure_reason"]["blame"] == "test"
    assert [test["status"] for test in jobs[login]["tests"]] == ["passed"]
    assert "1 passed" in grid.run("logs", str(login)).stdout
    installs = [
        line for line in package_log(grid) if line["event"] == "INSTALL" and line["package"] == "org.example.wikipedia"
    ]
    assert len(installs) == 2, installs


def test_faults_of_project_and_build_end_jobs_at_once_with_what_to_do(grid: Grid, workspace: Path) -> None:
    (missing_spec,) = grid.submit("tests/nowhere.spec.ts")
    (missing_build,) = grid.submit("tests/login.spec.ts", app="never-built")
    (broken_build,) = grid.submit("tests/login.spec.ts", app="broken")
    phones(grid, workspace, 1)
    grid.run("jobs", "wait", *map(str, (missing_spec, missing_build, broken_build)), code=1, seconds=200)
    reasons = [grid.job(job)["failure_reason"]["reason"] for job in (missing_spec, missing_build, broken_build)]
    assert reasons == ["SPEC_NOT_FOUND", "BUILD_NOT_FOUND", "BUILD_INVALID"]


def test_slow_spec_is_cancelled_and_timed_out_and_the_phone_is_usable_again(grid: Grid, workspace: Path) -> None:
    phones(grid, workspace, 1)
    (cancelled,) = grid.submit("tests/slow.spec.ts")
    eventually(lambda: "second 1" in grid.run("logs", str(cancelled)).stdout, "the spec is at work", seconds=120)
    grid.run("jobs", "cancel", str(cancelled))
    grid.run("jobs", "wait", str(cancelled), code=7)
    (hanging,) = grid.submit("tests/slow.spec.ts", options=("--timeout", "8s"))
    grid.run("jobs", "wait", str(hanging), code=1)
    assert grid.status(hanging) == "timed_out"
    (after,) = grid.submit("tests/login.spec.ts")
    grid.run("jobs", "wait", str(after), seconds=120)


@pytest.mark.parametrize("how", ["process", "group"])
def test_killed_agent_leaves_no_process_and_its_job_runs_again(grid: Grid, workspace: Path, how: str) -> None:
    first = phones(grid, workspace, 1, "one")
    (slow,) = grid.submit("tests/slow.spec.ts")
    eventually(lambda: "second 1" in grid.run("logs", str(slow)).stdout, "the spec is at work", seconds=120)
    assert processes_of(grid)
    (first.kill if how == "process" else first.kill_group)()
    eventually(lambda: not processes_of(grid), f"nothing of the agent is left: {processes_of(grid)}")
    eventually(lambda: grid.status(slow) == "queued", "the job is queued again")
    grid.run("jobs", "cancel", str(slow))


def processes_of(grid: Grid) -> list[str]:
    """Return the command lines that speak of this test's folder, but for the coordinator's."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if str(grid.directory) in line and "qgjob-coordinator" not in line and state != "Z":
            found.append(line[:200])
    return found
