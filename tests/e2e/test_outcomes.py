"""Endings that a simulated device plays: what the CLI, the reports of CI and the diagnostics tell of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.grid import PATIENT, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

LAB = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
SUBMIT = ("submit", "--org-id=qualgent", "--app-version-id=xyz123", "--wait")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """Two devices, the first of which has run a batch, and a coordinator whose database only DATABASE_URL names."""
    with running_grid(tmp_path_factory.mktemp("lab")) as grid:
        grid.env["DATABASE_URL"] = f"sqlite:///{grid.directory / 'elsewhere.db'}"
        grid.coordinator(*PATIENT)
        grid.submit("low.spec.ts", options=("--priority", "1"))
        grid.submit("normal.spec.ts", "other.spec.ts")
        grid.agent("lab", *LAB)
        grid.run("jobs", "wait", "1", "2", "3")
        grid.agent("other", *LAB)
        yield grid


def test_the_database_is_the_one_that_the_environment_names(lab: Grid) -> None:
    assert (lab.directory / "elsewhere.db").exists()
    assert not list((lab.directory / "coordinator").glob("*.db"))


def test_the_diagnostics_tell_the_story_of_a_batch(lab: Grid) -> None:
    (device,) = {str(lab.job(number)["device"]) for number in (1, 2, 3)}
    ran = [f"{event} {number}" for number in (2, 3, 1) for event in ("job_started", "job_ended")]
    told = events(lab.directory / "coordinator.err", "batch_claimed", "time_saved")
    assert [sentence(event) for event in told] == [
        "batch_claimed Claimed batch of 3 jobs: [2, 3, 1]",
        *ran,
        f"batch_done Batch done: 3 total, 3 successful, 0 failed on {device} in *",
        "time_saved Time saved: * (avoided 2 app installations)",
    ]
    assert [told[0][name] for name in ("app_version", "target", "device")] == ["xyz123", "any", device]
    assert [event["state"] for event in told if event["event"] == "job_ended"] == ["completed"] * 3
    told = events(lab.directory / "agent-lab.err", "installing", "batch_done")
    assert [sentence(event) for event in told if event["event"] != "test_ended"] == [
        "installing",
        "installed installed in *",
        *ran,
        f"batch_done Batch done: 3 total, 3 successful, 0 failed on {device} in *",
    ]
    assert [told[0][name] for name in ("app_version", "device")] == ["xyz123", device]


def events(diagnostics: Path, first: str, last: str) -> list[dict[str, str]]:
    """The events from one to the next of another kind."""

    def read() -> list[dict[str, str]]:
        lines = [line for line in diagnostics.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found = [dict(word.split("=", 1) for word in shlex.split(line)) for line in lines]
        names = [event["event"] for event in found]
        return found[names.index(first) : names.index(last) + 1] if last in names else []

    eventually(read, f"{last} is told")
    return read()


def sentence(event: dict[str, str]) -> str:
    """An event with its sentence, or else the job that it is about; spans of time as `*`."""
    told = re.sub(r"\d[0-9.]* ?s\b", "*", event.get("story", event.get("job", "")))
    return f"{event['event']} {told}".strip()


def test_a_flaky_test_passes_and_is_called_flaky_wherever_it_is_told(lab: Grid, tmp_path: Path) -> None:
    summary, report = tmp_path / "summary.md", tmp_path / "junit.xml"
    before = dict(lab.env)
    lab.env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    steer = ("--env", "QGJOB_SIM_OUTCOME=failed", "--env", "QGJOB_SIM_FAILURES=1", "--retries", "1")
    try:
        done = lab.run(*SUBMIT, "--test=flaky.spec.ts", *steer, "--junit", str(report), "-o", "id")
    finally:
        lab.env = before
    number = int(done.stdout)
    job = lab.job(number)
    assert (job["status"], job["flaky"], job["attempt"]) == ("completed", True, 2)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["failed", "passed"]
    assert re.search(r": completed on emulator-1@\w+ after \S+ \(flaky\)$", done.stderr, re.MULTILINE)
    assert "::error" not in done.stderr
    assert summary.read_text().startswith("### qgjob: 1 completed (1 flaky)\n")
    assert f"| {number} | flaky.spec.ts | completed (flaky) | {job['device']} |" in summary.read_text()
    suites = ElementTree.parse(report).getroot()
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("1", "0", "0")
    (failure,) = suites.iter("flakyFailure")
    assert "simulated: expected the test to pass" in str(failure.get("message"))


def test_a_device_that_goes_away_once_is_the_labs_matter_and_makes_no_test_flaky(lab: Grid) -> None:
    steer = ("--env", "QGJOB_SIM_OUTCOME=crash", "--env", "QGJOB_SIM_FAILURES=1")
    number = int(lab.run(*SUBMIT, "--test=unlucky.spec.ts", *steer, "-o", "id").stdout)
    job = lab.job(number)
    assert (job["status"], job["flaky"]) == ("completed", False)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["errored", "passed"]
    assert "DEVICE_LOST" in str(job["attempts"][0])


def test_a_device_that_goes_away_every_time_is_exit_3_and_blamed(lab: Grid) -> None:
    done = lab.run(*SUBMIT, "--test=cursed.spec.ts", "--env", "QGJOB_SIM_OUTCOME=crash", "-o", "id", code=3)
    job = lab.job(int(done.stdout))
    assert (job["status"], job["flaky"]) == ("errored", False)
    assert (job["failure_reason"]["reason"], job["failure_reason"]["blame"]) == ("DEVICE_LOST", "device")
    assert len(job["attempts"]) > 1
    assert f"  DEVICE_LOST: simulated: {job['device']} went away" in done.stderr.splitlines()
