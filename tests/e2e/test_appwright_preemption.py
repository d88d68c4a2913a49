"""Real AppWright that makes room for urgent work and goes on where it was stopped, on a virtual phone."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import node_packages
from tests.apks import lay_apk
from tests.e2e.grid import QUICK, Grid, eventually, running_grid
from tests.e2e.test_appwright import EXAMPLE, phones, write_spec

pytestmark = [pytest.mark.appwright, pytest.mark.e2e, pytest.mark.timeout(300)]

GATED_TESTS = """
import { test, expect } from "appwright";
import fs from "node:fs";
%(mode)s
for (const title of %(titles)s) {
  test(title, async ({ device }) => {
    await expect(device.getByText("Wikipedia", { exact: true })).toBeVisible();
    console.log("at work: " + title);
    while (title === "%(gated)s" && !fs.existsSync(process.env.GATE!)) await new Promise((go) => setTimeout(go, 50));
  });
}
"""
SERIAL = 'test.describe.configure({ mode: "serial" });'


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    """A coordinator that gives a running test a minute to end."""
    with running_grid(tmp_path / "grid") as grid:
        grid.coordinator(*QUICK, "--preempt-grace", "60")
        yield grid


def preempt_after(grid: Grid, gated: str, spec: str, report: Path, *options: str) -> int:
    """Run a spec, throw it out at the end of its gated test, and wait until it has run again."""
    gate = grid.directory / f"gate-of-{Path(spec).name}"
    (job,) = grid.submit(spec, options=("--priority", "1", "--env", f"GATE={gate}", *options))
    eventually(lambda: at_work(grid, job)[-1:] == [gated], "the gated test runs", seconds=120)
    (urgent,) = grid.submit("tests/urgent.spec.ts", options=("--priority", "5"))
    gate.touch()
    grid.run("jobs", "wait", str(urgent), seconds=200)
    grid.run("jobs", "wait", str(job), "--junit", str(report), seconds=200)
    return job


def left_by(grid: Grid, job: int, attempt: str) -> list[str]:
    """The names of what an attempt has left."""
    return [one["name"] for one in grid.json("artifacts", "list", str(job), "--attempt", attempt)]


def at_work(grid: Grid, job: int, attempt: int | None = None) -> list[str]:
    """The tests that a job's log says to have been at work."""
    lines = grid.log(job, attempt).splitlines()
    return [line.removeprefix("at work: ") for line in lines if line.startswith("at work: ")]


def assert_at_work(grid: Grid, job: int, tests: list[str]) -> None:
    """Look at the log of a job that has ended, when all of it is there: its last lines may come after the verdict."""
    eventually(lambda: {one["log"] for one in grid.job(job)["attempts"]} == {"complete"}, "the log is whole")
    assert at_work(grid, job) == tests


def test_preempted_spec_runs_only_the_rest_unless_its_tests_belong_together(grid: Grid, tmp_path: Path) -> None:
    workspace = node_packages.lay_out(EXAMPLE, tmp_path / "wikipedia")
    (workspace / "apps").mkdir()
    lay_apk(workspace / "apps" / "xyz123.apk", "org.example.wikipedia", 1, "1.0")
    four = {"mode": "", "titles": '["one", "two", "three", "four"]', "gated": "two"}
    tied = {"mode": SERIAL, "titles": '["first", "second"]', "gated": "first"}
    write_spec(workspace, "urgent.spec.ts", 'import { test } from "appwright"; test("is over at once", () => {});')
    report = tmp_path / "report.xml"
    phones(grid, workspace, 1)

    job = preempt_after(grid, "two", write_spec(workspace, "four.spec.ts", GATED_TESTS % four), report)
    assert_at_work(grid, job, ["one", "two", "three", "four"])
    assert at_work(grid, job, 1) == ["one", "two"]
    assert at_work(grid, job, 2) == ["three", "four"]
    told = grid.json("status", "job", "--job-id", str(job), "--verbose")
    assert [attempt["outcome"] for attempt in told["attempts"]] == ["preempted", "passed"]
    assert [(test["title"], test["status"], test["attempt"]) for test in told["tests"]] == [
        ("one", "passed", 1),
        ("two", "passed", 1),
        ("three", "passed", 2),
        ("four", "passed", 2),
    ]
    assert (told["status"], told["preemptions"], told["flaky"]) == ("completed", 1, False)
    assert [case.get("name") for case in ET.parse(report).iter("testcase")] == ["one", "two", "three", "four"]

    # The urgent job of the workspace comes between: the bundle's working directory is made twice.
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("node_modules"))
    two = {"mode": "", "titles": '["a", "b"]', "gated": "a"}
    bundled = preempt_after(
        grid, "a", write_spec(project, "bundled.spec.ts", GATED_TESTS % two), report, "--bundle", str(project)
    )
    assert_at_work(grid, bundled, ["a", "b"])
    assert [(test["title"], test["status"], test["attempt"]) for test in grid.job(bundled)["tests"]] == [
        ("a", "passed", 1),
        ("b", "passed", 2),
    ]
    assert [case.get("name") for case in ET.parse(report).iter("testcase")] == ["a", "b"]

    eventually(lambda: "merged/junit.xml" in left_by(grid, job, "2"), "the reports of both attempts are merged")
    grid.run("artifacts", "download", str(job), "--to", str(grid.directory / "left"))
    merged = grid.directory / "left" / "attempt-2" / "merged"
    cases = list(ET.parse(merged / "junit.xml").iter("testcase"))
    assert [case.get("name") for case in cases] == ["one", "two", "three", "four"]
    assert not [case for case in cases if len(case.findall("failure")) + len(case.findall("skipped"))]
    assert json.loads((merged / "report.json").read_text())["stats"]["expected"] == 4
    assert (merged / "html-report" / "index.html").is_file()

    whole = preempt_after(grid, "first", write_spec(workspace, "serial.spec.ts", GATED_TESTS % tied), report)
    assert_at_work(grid, whole, ["first", "first", "second"])
    assert [(test["title"], test["attempt"]) for test in grid.job(whole)["tests"]] == [("first", 2), ("second", 2)]
