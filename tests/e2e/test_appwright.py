"""Real AppWright, real Appium with its real driver, real adb, on virtual phones."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.bundles import packages_key, packages_of
from agent.runners.appwright_project import TOOLBOX
from agent.seals import seal
from agent.virtual_phone.lab import VirtualLab
from examples import node_packages
from tests.apks import lay_apk
from tests.e2e.grid import AGENT, Grid, Program, eventually

LEFT, RIGHT = "org.example.left", "org.example.right"
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
    lay_apk(workspace / "apps" / "xyz123.apk", "org.example.wikipedia", 1, "1.0")
    lay_apk(workspace / "apps" / "other.apk", "org.example.wikipedia", 2, "2.0")
    (workspace / "apps" / "broken.apk").write_bytes(b"no APK at all")
    return workspace


def phones(grid: Grid, workspace: Path, count: int, name: str = "lab") -> Program:
    """Start an agent with virtual phones."""
    options = ("--workspace", str(workspace), "--build-source", "apps/{app_version_id}.apk")
    return real_agent(grid, "--virtual-phones", str(count), *options, name=name)


def real_agent(grid: Grid, *options: str, name: str = "lab") -> Program:
    """Start an agent that runs AppWright. The Appium driver is installed once for all tests."""
    state = grid.directory / f"agent-{name}"
    state.mkdir(exist_ok=True)
    (STATE / "appium-home").mkdir(parents=True, exist_ok=True)
    if not (state / "appium-home").exists():
        (state / "appium-home").symlink_to(STATE / "appium-home")
    return grid.agent(name, *options)


def package_log(grid: Grid) -> list[dict[str, object]]:
    """What the phones themselves wrote down of their packages."""
    lines: list[dict[str, object]] = []
    for path in sorted(grid.directory.glob("agent-*/virtual-phones/**/*packages*")):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    return lines


def fingerprint(folder: Path) -> dict[str, bytes]:
    """The name and the content of every file of a project, but for its Node packages."""
    files = (path for path in folder.rglob("*") if "node_modules" not in path.parts and path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest() for path in files}


def write_spec(workspace: Path, name: str, text: str) -> str:
    (workspace / "tests" / name).write_text(text)
    return f"tests/{name}"


SWAP = """
import { test } from "appwright";
test("leaves another build on its device", async ({ device }) => {
  const client = (device as any).webdriverClient;
  await client.removeApp("org.example.wikipedia");
  await client.installApp(process.env.OTHER!);
});
"""
DIRTY = """
import { test, expect } from "appwright";
import fs from "node:fs";
test("finds nothing of an earlier run", async ({ device }) => {
  expect(fs.existsSync("left-behind")).toBe(false);
  expect(fs.existsSync(".env")).toBe(false);
  fs.writeFileSync("left-behind", "");
});
"""
PROBE = """
import { test } from "appwright";
test("tells where it runs", async ({ device }) => {
  const client = (device as any).webdriverClient;
  const begin = Date.now();
  while (Date.now() - begin < 4000) await device.getByText("Wikipedia", { exact: true }).isVisible();
  const { hostname, port, path } = client.options;
  const { deviceUDID, udid, systemPort } = client.capabilities;
  const seen = { begin, end: Date.now(), cwd: process.cwd(), port, path, udid: deviceUDID ?? udid, systemPort };
  console.log("PROBE " + JSON.stringify(seen));
});
"""


def probe(grid: Grid, job: int) -> dict[str, Any]:
    """What the probe in a job's log says; there is exactly one."""
    (line,) = [line for line in grid.run("logs", str(job)).stdout.splitlines() if line.startswith("PROBE ")]
    found: dict[str, Any] = json.loads(line.removeprefix("PROBE "))
    return found


def test_two_specs_on_two_phones_overlap_and_share_nothing(grid: Grid, workspace: Path) -> None:
    spec = write_spec(workspace, "probe.spec.ts", PROBE)
    lay_apk(workspace / "apps" / "left.apk", "org.example.left", 1, "1.0")
    lay_apk(workspace / "apps" / "right.apk", "org.example.right", 1, "1.0")
    before = fingerprint(workspace)
    jobs = [*grid.submit(spec, app="left"), *grid.submit(spec, app="right")]
    phones(grid, workspace, 2)
    grid.run("jobs", "wait", *map(str, jobs), seconds=300)
    one, two = (probe(grid, job) for job in jobs)
    assert max(one["begin"], two["begin"]) < min(one["end"], two["end"]), "they did not run at the same time"
    for what in ("cwd", "port", "path", "udid", "systemPort"):
        assert one[what], what
        assert one[what] != two[what], what
    packages = [
        {line["package"] for line in map(json.loads, path.read_text().splitlines())} & {LEFT, RIGHT}
        for path in sorted(grid.directory.glob("agent-*/virtual-phones/**/*.packages.jsonl"))
    ]
    assert sorted(packages, key=sorted) == [{LEFT}, {RIGHT}]
    assert fingerprint(workspace) == before, "the project was changed"


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


def upload(grid: Grid, file: Path, app: str, *options: str) -> str:
    """Register a build and return its digest."""
    build = grid.json("builds", "upload", str(file), "--org-id", "qualgent", "--app-version-id", app, *options)
    return str(build["digest"])


def test_two_builds_take_turns_on_one_phone_and_every_test_runs_against_its_own(
    grid: Grid, workspace: Path, tmp_path: Path
) -> None:
    digests = {}
    for app, padding in (("one", 1), ("two", 2)):
        # The same to whoever compares versions: only the bytes tell them apart.
        apk = lay_apk(tmp_path / f"{app}.apk", "org.example.wikipedia", 7, "7.0", padding)
        digests[app] = upload(grid, apk, app)
    swap = write_spec(workspace, "swap.spec.ts", SWAP)
    phones(grid, workspace, 1)
    asked = []
    for app in ("one", "two"):
        (job,) = grid.submit("tests/login.spec.ts", app=app)
        grid.run("jobs", "wait", str(job), seconds=200)
        asked.append(job)
    # In one batch, the first test of which leaves another build behind.
    jobs = grid.submit(swap, "tests/login.spec.ts", app="one", options=("--env", f"OTHER={tmp_path / 'two.apk'}"))
    grid.run("jobs", "wait", *map(str, jobs), seconds=200)
    asked += jobs
    attempts = [grid.json("status", "job", "--job-id", str(job), "--verbose")["attempts"][0] for job in asked]
    assert [attempt["build_digest"] for attempt in attempts] == [digests[app] for app in ("one", "two", "one", "one")]
    assert attempts[2]["install_time"] == attempts[3]["install_time"], "they are of one batch"
    log = [line for line in package_log(grid) if line["package"] == "org.example.wikipedia"]
    launched = [line["sha256"] for line in log if line["event"] == "LAUNCH"]
    order = [digest for digest, before in zip(launched, [None, *launched], strict=False) if digest != before]
    assert order == [digests[app] for app in ("one", "two", "one")]
    installed = [line["sha256"] for line in log if line["event"] == "INSTALL"]
    assert installed == [digests[app] for app in ("one", "two", "one", "two", "one")]
    fetches = (grid.directory / "agent-lab.err").read_text().count("build_fetched")
    assert fetches == 2, "each build is fetched once, however often it is installed"


BUNDLES_ONLY = ("--virtual-phones", "1", "--bundles-only")


def bundles_only(grid: Grid) -> Program:
    """Start an agent without a workspace. Its own packages are those of the examples, installed once for all tests."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    packages = packages_of(TOOLBOX)
    assert packages is not None
    folder = grid.directory / "agent-lab" / "packages" / packages_key("", packages, node)
    folder.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(TOOLBOX / name, folder)
    (folder / "node_modules").symlink_to(node_packages.install(EXAMPLE))
    (folder / "done").write_text(seal(folder / "node_modules").digest)
    return real_agent(grid, *BUNDLES_ONLY)


def test_bundle_runs_in_a_clean_copy_on_an_agent_that_has_its_own_packages_alone(grid: Grid, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("node_modules"))
    write_spec(project, "dirty.spec.ts", DIRTY)
    (project / ".env").write_text("SECRET=1")
    app = lay_apk(tmp_path / "my app.apk", "org.example.wikipedia", 1, "1.0")
    submit = ("submit", "--org-id", "qualgent", "--app-version-id", "xyz123", "--bundle", str(project))
    refused = grid.run(*submit, "--test", "tests/dirty.spec.ts", code=2)
    assert "looks like secrets: .env" in refused.stderr
    (project / ".qgjobignore").write_text(".env\n")
    agent = bundles_only(grid)
    tests = ("--app", str(app), "--test", "tests/dir*.ts", "--test", "tests/login.spec.ts")
    jobs = [job["id"] for _ in range(2) for job in grid.json(*submit, *tests)]
    assert len(jobs) == 4
    grid.run("jobs", "wait", *map(str, jobs), seconds=200)
    assert len({grid.job(job)["bundle_digest"] for job in jobs}) == 1, "the same project is the same bundle"
    told = agent.diagnostics.read_text()
    counts = [told.count(event) for event in ("bundle_fetched", "packages_installed")]
    assert counts == [1, 0], "what it was given serves the bundle, for its lock file is the same"
    (without,) = grid.submit("tests/login.spec.ts")
    grid.run("jobs", "wait", str(without), code=1, seconds=60)
    assert (
        grid.job(without)["failure_reason"]["message"]
        == "this agent has no workspace; submit the project with --bundle"
    )


@pytest.mark.timeout(900)
def test_bundle_runs_on_an_agent_with_an_empty_state(grid: Grid, tmp_path: Path) -> None:
    app = lay_apk(tmp_path / "app.apk", "org.example.wikipedia", 1, "1.0")
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("node_modules"))
    # npm's cache is the host's; of the rest there is nothing.
    node_packages.install(EXAMPLE)
    cache = subprocess.run(["npm", "config", "get", "cache"], capture_output=True, text=True, check=True).stdout.strip()
    (Path(grid.env["HOME"]) / ".npmrc").write_text(f"cache={cache}\nprefer-offline=true\n")
    state = grid.directory / "agent-lab"
    command = [*AGENT, "run", "--coordinator", grid.address, "--name", "lab", "--state-dir", str(state), *BUNDLES_ONLY]
    assert not state.exists()
    agent = grid.start("agent-lab", command)
    eventually(lambda: "ready" in agent.output.read_text(), "the agent has installed its tools", seconds=600)
    (job,) = grid.submit("tests/login.spec.ts", options=("--bundle", str(project), "--app", str(app)))
    grid.run("jobs", "wait", str(job), seconds=240)
    told = agent.diagnostics.read_text()
    assert [told.count(event) for event in ("packages_installed", "driver_installing")] == [1, 1]


def test_build_that_two_phones_refuse_ends_all_its_jobs_and_no_phone_is_blamed(
    grid: Grid, workspace: Path, tmp_path: Path
) -> None:
    signed = lay_apk(tmp_path / "signed.apk", "org.example.wikipedia", 7, "7.0")
    unsigned = tmp_path / "unsigned.apk"
    with zipfile.ZipFile(signed) as source, zipfile.ZipFile(unsigned, "w") as target:
        for entry in source.infolist():
            if not entry.filename.startswith("META-INF/"):
                target.writestr(entry, source.read(entry))
    upload(grid, unsigned, "unsigned")
    jobs = grid.submit("tests/login.spec.ts", "tests/signup.spec.ts", "tests/checkout.spec.ts", app="unsigned")
    phones(grid, workspace, 2)
    grid.run("jobs", "wait", *map(str, jobs), code=1, seconds=120)
    failures = [grid.job(job)["failure_reason"] for job in jobs]
    assert {(failure["reason"], failure["blame"]) for failure in failures} == {("BUILD_REJECTED", "build")}
    assert "INSTALL_PARSE_FAILED_NO_CERTIFICATES" in failures[0]["message"]
    eventually(lambda: {device["state"] for device in grid.devices()} == {"idle"}, "both phones are free")


def test_slow_spec_is_cancelled_and_timed_out_and_the_phone_is_usable_again(grid: Grid, workspace: Path) -> None:
    phones(grid, workspace, 1)
    (cancelled,) = grid.submit("tests/slow.spec.ts")
    eventually(lambda: "second 1" in grid.log(cancelled), "the spec is at work", seconds=120)
    assert playwrights_of(grid)
    begun = time.monotonic()
    grid.run("jobs", "cancel", str(cancelled))
    grid.run("jobs", "wait", str(cancelled), code=7)
    assert time.monotonic() - begun < 15, "the grace is one second"
    assert not playwrights_of(grid)
    (hanging,) = grid.submit("tests/slow.spec.ts", options=("--timeout", "8s"))
    grid.run("jobs", "wait", str(hanging), code=1)
    assert grid.status(hanging) == "timed_out"
    assert not playwrights_of(grid)
    (after,) = grid.submit("tests/login.spec.ts")
    grid.run("jobs", "wait", str(after), seconds=120)
    report = ("artifacts", "download", str(hanging), "--kind", "junit", "--to", str(grid.directory / "left"))
    eventually(lambda: grid.json(*report), "a run that was killed has a report")
    told = (grid.directory / "left" / "attempt-1" / "merged" / "junit.xml").read_text()
    assert "ran longer than its timeout of 8 s" in told


STEPS = """
import { test, expect } from "appwright";
import fs from "node:fs";
test("is over soon", async ({ device }) => {
  await expect(device.getByText("Wikipedia", { exact: true })).toBeVisible();
});
test("waits for its gate", async ({ device }) => {
  while (!fs.existsSync(process.env.GATE!)) await device.getByText("Wikipedia", { exact: true }).isVisible();
});
"""
FLAKY = """
import { test } from "appwright";
import fs from "node:fs";
test("fails the first time", async ({ device }) => {
  const isFirst = !fs.existsSync(process.env.MARK!);
  fs.writeFileSync(process.env.MARK!, "");
  console.log("try " + (isFirst ? 1 : 2));
  console.log("word " + process.env.WORD);
  if (isFirst) throw new Error("not yet " + process.env.WORD);
});
"""


def test_tests_are_seen_one_by_one_and_a_flaky_spec_passes_on_its_retry(grid: Grid, workspace: Path) -> None:
    gate, mark = grid.directory / "gate", grid.directory / "mark"
    steps = write_spec(workspace, "steps.spec.ts", STEPS)
    flaky = write_spec(workspace, "flaky.spec.ts", FLAKY)
    phones(grid, workspace, 1)
    (streamed,) = grid.submit(steps, options=("--env", f"GATE={gate}"))
    half = {"is over soon": "passed", "waits for its gate": "running"}
    eventually(
        lambda: {test["title"]: test["status"] for test in grid.job(streamed)["tests"]} == half,
        "the first test is seen as passed while the second one runs",
        seconds=120,
    )
    assert grid.status(streamed) == "running"
    gate.touch()
    grid.run("jobs", "wait", str(streamed))
    assert [test["status"] for test in grid.job(streamed)["tests"]] == ["passed", "passed"]
    options = ("--env", f"MARK={mark}", "--retries", "1", "--secret", "WORD=hunter2")
    (retried,) = grid.submit(flaky, options=options)
    junit = grid.directory / "junit.xml"
    grid.run("jobs", "wait", str(retried), "--junit", str(junit), seconds=120)
    assert "not yet ***" in junit.read_text().partition("<flakyFailure")[2]
    job = grid.json("status", "job", "--job-id", str(retried), "--verbose")
    assert (job["status"], job["flaky"]) == ("completed", True)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["failed", "passed"]
    logs = [grid.run("logs", str(retried), "--attempt", number).stdout for number in ("1", "2")]
    assert [[line for line in log.splitlines() if line.startswith("try ")] for log in logs] == [["try 1"], ["try 2"]]
    assert all("word ***" in log.splitlines() for log in logs)
    assert "not yet ***" in job["attempts"][0]["failure_reason"]["message"]
    assert not any("hunter2" in text for text in (*logs, str(job)))
    check_what_flaky_left(grid, retried)


def check_what_flaky_left(grid: Grid, job: int) -> None:
    """A failed attempt leaves a picture and Appium's log beside what each leaves, and none of it tells the secret."""

    def kinds(attempt: int) -> set[str]:
        found = grid.json("artifacts", "list", str(job), "--attempt", str(attempt))
        return {artifact["kind"] for artifact in found}

    def names(attempt: int) -> set[str]:
        found = grid.json("artifacts", "list", str(job), "--attempt", str(attempt))
        return {artifact["name"] for artifact in found}

    each = {"results", "junit", "json_report", "html_report", "device_log"}
    eventually(
        lambda: kinds(1) == {*each, "appium_log", "screenshot", "other", "blob_report"},
        f"{kinds(1)} is all that a failure leaves",
    )
    eventually(lambda: kinds(2) == each, f"{kinds(2)} is all that a pass leaves")
    eventually(lambda: "merged/junit.xml" in names(2), "the reports of both attempts are merged")
    folder = grid.directory / "artifacts"
    files = grid.json("artifacts", "download", str(job), "--to", str(folder))
    assert {file["path"] for file in files} == {str(path) for path in folder.rglob("*") if path.is_file()}
    first = folder / "attempt-1"
    (picture,) = first.glob("test-results/*/screenshot.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "not yet ***" in (first / "junit.xml").read_text()
    assert "POST /" in (first / "appium.log").read_text()
    assert "ActivityManager" in (first / "device.log").read_text()
    told = json.loads((first / "results.json").read_text())
    assert [(test["title"], test["status"]) for test in told["tests"]] == [("fails the first time", "failed")]
    page = (first / "html-report" / "index.html").read_bytes()
    carried = page.partition(b"data:application/zip;base64,")[2].partition(b"<")[0]
    texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(carried))) as report:
        texts += [report.read(name) for name in report.namelist()]
    assert any(b"not yet ***" in text for text in texts[-5:]), "the report shows the failure"
    assert not any(b"hunter2" in text for text in texts)
    opened = grid.json("artifacts", "open", str(job), "--attempt", "1")
    assert Path(opened["path"]).read_bytes() == page
    assert not opened["opened"], "its output goes to a program"
    merged = folder / "attempt-2" / "merged"
    assert (
        Path(grid.json("artifacts", "open", str(job))["path"]).read_bytes()
        == (merged / "html-report" / "index.html").read_bytes()
    )
    report = json.loads((merged / "report.json").read_text())
    assert (report["stats"]["flaky"], report["stats"]["unexpected"]) == (1, 0)
    assert "not yet ***" in (merged / "junit.xml").read_text().partition("<flaky")[2]
    (picture,) = merged.glob("html-report/data/*.png")
    assert picture.read_bytes().startswith(b"\x89PNG"), "the picture of the first attempt"


GATED = """
import { test } from "appwright";
import fs from "node:fs";
test("is at work until its gate opens", async ({ device }) => {
  const note = () => fs.appendFileSync(process.env.JOURNAL!, `${process.pid} ${Date.now()}\n`);
  note();
  console.log("at work");
  while (!fs.existsSync(process.env.GATE!)) {
    await device.getByText("Wikipedia", { exact: true }).isVisible();
    note();
  }
});
"""


def journal(path: Path) -> dict[str, list[int]]:
    """Process -> the times at which its test was at work."""
    seen: dict[str, list[int]] = {}
    for line in path.read_text().splitlines():
        pid, _, when = line.partition(" ")
        seen.setdefault(pid, []).append(int(when))
    return seen


def submit_gated(grid: Grid, workspace: Path) -> int:
    spec = write_spec(workspace, "gated.spec.ts", GATED)
    env = ("--env", f"GATE={grid.directory / 'gate'}", "--env", f"JOURNAL={grid.directory / 'journal'}")
    (job,) = grid.submit(spec, options=env)
    return job


@pytest.mark.parametrize("how", ["process", "group"])
def test_killed_agent_leaves_no_process_and_its_job_ends_elsewhere(grid: Grid, workspace: Path, how: str) -> None:
    first = phones(grid, workspace, 1, "one")
    job = submit_gated(grid, workspace)
    eventually(lambda: "at work" in grid.log(job), "the spec is at work", seconds=120)
    assert processes_of(grid)
    (first.kill if how == "process" else first.kill_group)()
    eventually(lambda: not processes_of(grid), "nothing of the agent is left")
    eventually(lambda: grid.status(job) == "queued", "the job is queued again")
    (grid.directory / "gate").touch()
    phones(grid, workspace, 1, "two")
    grid.run("jobs", "wait", str(job), seconds=200)
    assert (grid.job(job)["status"], grid.job(job)["agent"]) == ("completed", "two")
    first_tries, second_tries = journal(grid.directory / "journal").values()
    assert max(first_tries) < min(second_tries)


def test_phone_that_outlives_its_agent_never_runs_two_tests(grid: Grid, workspace: Path) -> None:
    with standing_phone(grid.directory / "phone") as adb_port:
        project = ("--workspace", str(workspace), "--build-source", "apps/{app_version_id}.apk")
        options = (*project, "--adb-port", str(adb_port))
        first = real_agent(grid, *options)
        job = submit_gated(grid, workspace)
        eventually(lambda: "at work" in grid.log(job), "the spec is at work", seconds=120)
        first.kill_group()
        real_agent(grid, *options)
        eventually(lambda: len(journal(grid.directory / "journal")) == 2, "the job runs again", seconds=120)
        (grid.directory / "gate").touch()
        grid.run("jobs", "wait", str(job), seconds=120)
    first_tries, second_tries = journal(grid.directory / "journal").values()
    assert max(first_tries) < min(second_tries), "two tests were at work on one phone"


def test_phone_whose_agent_and_supervisors_were_killed_never_runs_two_tests(grid: Grid, workspace: Path) -> None:
    with standing_phone(grid.directory / "phone") as adb_port:
        project = ("--workspace", str(workspace), "--build-source", "apps/{app_version_id}.apk")
        options = (*project, "--adb-port", str(adb_port))
        first = real_agent(grid, *options)
        job = submit_gated(grid, workspace)
        eventually(lambda: "at work" in grid.log(job), "the spec is at work", seconds=120)
        entries = [json.loads(path.read_text()) for path in grid.directory.glob("agent-*/processes/*.json")]
        assert {entry["what"].split()[0] for entry in entries} == {"Appium", "attempt"}
        for entry in entries:
            os.kill(entry["supervisor"], signal.SIGSTOP)  # none shall see its agent die
        first.kill_group()
        for entry in entries:
            os.kill(entry["supervisor"], signal.SIGKILL)
        real_agent(grid, *options)
        eventually(lambda: len(journal(grid.directory / "journal")) == 2, "the job runs again", seconds=120)
        (grid.directory / "gate").touch()
        grid.run("jobs", "wait", str(job), seconds=120)
    first_tries, second_tries = journal(grid.directory / "journal").values()
    assert max(first_tries) < min(second_tries), "two tests were at work on one phone"


@contextmanager
def standing_phone(directory: Path) -> Iterator[int]:
    """A virtual phone on a cable of its own: it stays when agents go. Yields the port of its adb server."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    lab = VirtualLab(1, directory)
    try:
        asyncio.run_coroutine_threadsafe(lab.start(), loop).result(60)
        yield lab.adb_port
    finally:
        asyncio.run_coroutine_threadsafe(lab.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def playwrights_of(grid: Grid) -> list[str]:
    return [line for line in processes_of(grid) if "wrapper.config.cjs" in line]


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
            found.append(line)
    return found


def test_without_a_build_source_the_projects_own_build_is_run_and_known_by_its_digest(
    grid: Grid, workspace: Path
) -> None:
    own = lay_apk(workspace / "apps" / "wikipedia.apk", "org.example.wikipedia", 7, "7.0")
    real_agent(grid, "--virtual-phones", "1", "--workspace", str(workspace))
    (job,) = grid.submit("tests/login.spec.ts", app="whatever-ci-calls-it")
    grid.run("jobs", "wait", str(job), seconds=200)
    (build,) = grid.json("builds", "list")
    assert build["app_version_id"] == "whatever-ci-calls-it"
    assert build["digest"] == hashlib.sha256(own.read_bytes()).hexdigest()
