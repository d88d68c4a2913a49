"""Real AppWright against the stand-in of BrowserStack, through the whole grid."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import node_packages
from tests.apks import lay_apk
from tests.browserstack.leaks import files_with, spellings, watched_processes
from tests.browserstack.stand_in import ACCESS_KEY, USERNAME, StandIn, running_stand_in
from tests.e2e.grid import Grid, Program, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "wikipedia"
KEY = spellings(ACCESS_KEY) | spellings(f"{USERNAME}:{ACCESS_KEY}")

READING = """
import { test } from "appwright";

test("reads for a minute and a half", async ({ device }) => {
  for (let second = 0; second < 90; second += 1) {
    await device.getByText("Skip").getText({ timeout: 3_000 });
    console.log(`second ${second}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
});
"""

pytestmark = [pytest.mark.appwright, pytest.mark.e2e, pytest.mark.timeout(420)]


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with running_stand_in(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def processes(grid: Grid) -> Iterator[None]:
    """None of the processes may have the key among its words, or in its environment."""
    with watched_processes(grid.directory, KEY) as watch:
        yield
    assert not watch.leaks
    assert any(b"wrapper.config.cjs" in line for line in watch.seen), "the runs of AppWright were seen"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example project, with the build of one app version."""
    workspace = node_packages.lay_out(EXAMPLE, tmp_path_factory.mktemp("project") / "wikipedia")
    (workspace / "tests" / "reading.spec.ts").write_text(READING)
    (workspace / "apps").mkdir()
    lay_apk(workspace / "apps" / "xyz123.apk", "org.example.wikipedia", 1, "1.0")
    shutil.copyfile(workspace / "apps" / "xyz123.apk", workspace / "apps" / "again.apk")
    return workspace


def cloud_agent(grid: Grid, stand_in: StandIn, workspace: Path, name: str = "cloud", *options: str) -> Program:
    """Start an agent of the stand-in's account."""
    credentials = grid.directory / "credentials"
    credentials.write_text(f"{USERNAME}:{ACCESS_KEY}\n")
    credentials.chmod(0o600)
    command = ["--provider", "browserstack", "--browserstack-credentials", str(credentials)]
    command += ["--browserstack-api", stand_in.url, "--browserstack-hub", f"{stand_in.url}/wd/hub"]
    command += ["--browserstack-poll", "1", "--workspace", str(workspace)]
    return grid.agent(name, *command, "--build-source", "apps/{app_version_id}.apk", *options)


def on_cloud(grid: Grid, *tests: str, app: str = "xyz123", options: tuple[str, ...] = ()) -> list[int]:
    return grid.submit(*tests, app=app, options=("--target", "browserstack", *options))


def sessions_of(grid: Grid, job: int) -> list[dict[str, str]]:
    """What is kept of a job's sessions."""
    folder = grid.directory / f"artifacts-{job}"
    grid.run("artifacts", "download", str(job), "--to", str(folder))
    (path,) = folder.rglob("sessions.json")
    kept: list[dict[str, str]] = json.loads(path.read_text())
    return kept


def assert_key_is_nowhere(grid: Grid) -> None:
    """Look through what the programs wrote and printed, but for the file that the operator wrote."""
    assert (grid.directory / "client.out").stat().st_size > 0
    assert files_with(grid.directory, KEY, but="credentials") == []


def test_tests_pass_and_fail_on_devices_of_the_cloud_and_the_key_is_nowhere(
    grid: Grid, stand_in: StandIn, workspace: Path
) -> None:
    stand_in.tier_refusals = 1
    cloud_agent(grid, stand_in, workspace)
    passing, other = on_cloud(grid, "tests/login.spec.ts", "tests/signup.spec.ts")
    (failing,) = on_cloud(grid, "tests/broken.spec.ts", options=("--selector", "model=*galaxy*"))
    (impossible,) = on_cloud(grid, "tests/login.spec.ts", options=("--selector", "model=Nokia*"))
    grid.run("jobs", "wait", str(passing), str(other), seconds=200)
    grid.run("jobs", "wait", str(failing), str(impossible), code=1, seconds=120)
    (session,) = sessions_of(grid, passing)
    assert (session["device"], session["os_version"], session["status"]) == ("Google Pixel 8", "14.0", "passed")
    assert session["name"] == f"job {passing}: tests/login.spec.ts > skips the onboarding and sees the feed"
    assert session["video_url"].endswith(f"{session['id']}/video")
    (session,) = sessions_of(grid, failing)
    assert (session["device"], session["status"]) == ("Samsung Galaxy S23", "failed")
    links = {one["name"]: one["url"] for one in grid.json("artifacts", "list", str(failing)) if one["kind"] == "link"}
    assert links[f"sessions/{session['id']}/video.url"] == session["video_url"]
    reason = grid.job(failing)["failure_reason"]
    assert (reason["reason"], reason["blame"]) == ("TEST_FAILED", "test")
    assert f"(session {session['id']})" in reason["message"]
    assert grid.job(impossible)["failure_reason"]["reason"] == "DEVICE_NOT_OFFERED"
    assert len(stand_in.uploads) == 1
    assert stand_in.tier_refusals == 0
    logs = grid.run("logs", str(passing)).stdout + grid.run("logs", str(other)).stdout
    assert "BROWSERSTACK_TIER_LIMIT_EXCEEDED" in logs
    assert not any(one.is_open for one in stand_in.sessions.values())
    outage_is_told_by_why_and_loses_nothing(grid, stand_in)
    assert_key_is_nowhere(grid)


def outage_is_told_by_why_and_loses_nothing(grid: Grid, stand_in: StandIn) -> None:
    stand_in.is_out = True
    eventually(lambda: {one["state"] for one in grid.devices()} == {"offline"}, "the outage is seen")
    (job,) = on_cloud(grid, "tests/login.spec.ts")
    why = grid.json("jobs", "why", str(job))["message"]
    assert "2 are offline" in why
    assert "BrowserStack answers 503" in why
    stand_in.is_out = False
    grid.run("jobs", "wait", str(job), seconds=120)


def test_session_that_browserstack_drops_costs_no_retry_and_a_cancelled_job_leaves_none(
    grid: Grid, stand_in: StandIn, workspace: Path
) -> None:
    cloud_agent(grid, stand_in, workspace)
    (slow,) = on_cloud(grid, "tests/reading.spec.ts")
    eventually(lambda: "second 1" in log_of(grid, slow, 1), "the spec is at work", seconds=120)
    (dropped,) = [one.id for one in stand_in.sessions.values() if one.is_open]
    stand_in.drop(dropped)
    eventually(lambda: "second 1" in log_of(grid, slow, 2), "the spec runs again", seconds=180)
    attempts = grid.job(slow)["attempts"]
    assert attempts[0]["device"] != attempts[1]["device"]
    reason = attempts[0]["failure_reason"]
    assert (attempts[0]["outcome"], reason["reason"], reason["blame"]) == ("errored", "CLOUD_FAILED", "host")
    assert f"BrowserStack ended session {dropped} in the middle of the test" in reason["message"]
    assert any(one.is_open for one in stand_in.sessions.values())
    grid.run("jobs", "cancel", str(slow))
    grid.run("jobs", "wait", str(slow), code=7)
    assert not any(one.is_open for one in stand_in.sessions.values())


def why(grid: Grid, job: int) -> str:
    return str(grid.json("jobs", "why", str(job))["message"])


def log_of(grid: Grid, job: int, attempt: int) -> str:
    """What an attempt has printed; nothing where it was not begun."""
    if len(grid.job(job)["attempts"]) < attempt:
        return ""
    return grid.log(job, attempt)


def run_through_an_outage(grid: Grid, stand_in: StandIn, workspace: Path, *, jobs: int, outage_s: float) -> None:
    """Two agents share an account of two sessions and begin one build at once; BrowserStack is away meanwhile."""
    stand_in.takes_uploads.clear()
    tests = ("tests/login.spec.ts", "tests/signup.spec.ts")
    # One build under two names: each agent gets a batch, and both need the same upload.
    submitted = [
        *on_cloud(grid, *(tests[number % 2] for number in range(jobs // 2))),
        *on_cloud(grid, *(tests[number % 2] for number in range(jobs // 2)), app="again"),
    ]
    for name in ("one", "two"):
        cloud_agent(grid, stand_in, workspace, name, "--browserstack-slots", "1")
    firsts = (submitted[0], submitted[jobs // 2])
    eventually(lambda: all("is being uploaded" in why(grid, job) for job in firsts), "both wait", seconds=120)
    assert {grid.job(job)["agent"] for job in firsts} == {"one", "two"}
    shown = grid.json("status", "job", "--job-id", str(firsts[0]))
    assert "Its build is being uploaded to BrowserStack by agent" in shown["why"]
    stand_in.takes_uploads.set()
    eventually(lambda: any(one.is_open for one in stand_in.sessions.values()), "a session runs", seconds=120)
    stand_in.is_out = True
    back = threading.Timer(outage_s, lambda: setattr(stand_in, "is_out", False))
    back.start()
    grid.run("jobs", "wait", *map(str, submitted), seconds=outage_s + 30 * jobs)
    back.join()
    assert {grid.status(job) for job in submitted} == {"completed"}
    assert (len(stand_in.uploads), stand_in.ever_queued) == (1, 0)
    assert stand_in.most_running <= stand_in.parallels
    assert stand_in.running == 0, "what nobody could end in the outage has ended for want of commands"
    assert_key_is_nowhere(grid)


def test_two_agents_share_an_account_and_a_short_outage_loses_nothing(
    grid: Grid, stand_in: StandIn, workspace: Path
) -> None:
    run_through_an_outage(grid, stand_in, workspace, jobs=4, outage_s=3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_twenty_jobs_get_through_an_outage_of_two_minutes(grid: Grid, stand_in: StandIn, workspace: Path) -> None:
    run_through_an_outage(grid, stand_in, workspace, jobs=20, outage_s=120)
