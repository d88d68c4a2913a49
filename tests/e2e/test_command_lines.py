"""Every command line that users are promised, as it is written there: on a pipe and in terminals of two widths."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.pseudo_terminal import in_terminal
from tests.e2e.grid import BIN, PATIENT, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOB_FIELDS = {
    *("id", "org_id", "app_version_id", "test", "priority", "target", "status", "lane", "labels", "tests"),
    *("create_time", "start_time", "end_time", "device", "agent", "attempt", "attempts", "failure_reason"),
    *("queue_position", "expected_start_time"),
}
DEVICE_FIELDS = {
    *("id", "kind", "platform", "model", "os_version", "state", "agent", "job", "builds", "utilisation", "labels"),
    "reason",
}
QUEUE_FIELDS = {
    *("lanes", "running", "waiting", "installs_avoided", "seconds_saved", "expected_drain_time", "batches", "devices")
}
AGENT = ("--simulate", "emulator=1,device=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")


def jobs(found: Any) -> bool:  # noqa: ANN401 - whatever a command prints
    return isinstance(found, list) and all(set(job) >= JOB_FIELDS for job in found)


def some_jobs(found: Any) -> bool:  # noqa: ANN401
    return bool(found) and jobs(found)


def a_job(found: Any) -> bool:  # noqa: ANN401
    return isinstance(found, dict) and set(found) >= JOB_FIELDS


def a_device(found: Any) -> bool:  # noqa: ANN401
    return isinstance(found, dict) and set(found) >= DEVICE_FIELDS


def devices(found: Any) -> bool:  # noqa: ANN401
    return isinstance(found, list) and len(found) == 2 and all(map(a_device, found))


def the_queue(found: Any) -> bool:  # noqa: ANN401
    return [lane["lane"] for lane in found["lanes"]] == ["high", "normal", "low"] and set(found) >= QUEUE_FIELDS


def records(*fields: str) -> Callable[[Any], bool]:
    return lambda found: bool(found) and isinstance(found, list) and all(set(fields) <= set(one) for one in found)


def record(*fields: str) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, dict) and set(fields) <= set(found)


@dataclass(frozen=True)
class Line:
    """A command line, with what is promised of it."""

    text: str
    shape: Callable[[Any], bool] | None
    """What its JSON is like; None where it prints no JSON."""
    shown: str
    """What stands somewhere on a terminal."""
    code: int = 0


BEFORE_THE_END = (
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests/onboarding.spec.js",
        some_jobs,
        "onboarding",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=abc456 --test=tests/critical.spec.js --priority=5"
        " --target=device",
        some_jobs,
        "critical.spec.js",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=a.spec.js --selector model=* --env K=V"
        " --secret S=long --label suite=smoke --retries 1 --timeout 10m --wait --wait-timeout 30m"
        " --junit r.xml --run nightly",
        some_jobs,
        "completed",
    ),
    Line("qgjob submit --from manifest.toml -o id", None, "4\n"),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=f.spec.js --test=g.spec.js --secret TOKEN"
        " --wait",
        lambda found: [job["test"] for job in found] == ["f.spec.js", "g.spec.js"] and jobs(found),
        "g.spec.js",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=h.spec.js --selector model=Pixel* --wait",
        lambda found: [job["status"] for job in found] == ["completed"] and jobs(found),
        "completed",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=b.spec.js --follow --strict"
        " --cancel-on-interrupt --idempotency-key once",
        None,
        "b.spec.js: passed",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=built --app ./app.apk --bundle project --test 'tests/**/*.ts'"
        " -o id",
        None,
        "bundle of 3 files",
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=c.spec.js --env QGJOB_SIM_OUTCOME=failed --wait",
        some_jobs,
        "TEST_FAILED",
        1,
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=d.spec.js --env QGJOB_SIM_OUTCOME=error --wait",
        some_jobs,
        "errored",
        3,
    ),
    Line(
        "qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=e.spec.js --selector model=Nokia --strict",
        None,
        "error: no known device matches",
        9,
    ),
)
AFTER_IT = (
    Line("qgjob jobs wait 1 2 --junit report.xml --wait-timeout 30m", some_jobs, "completed"),
    Line("qgjob jobs wait 1 2 --follow", None, "[2] critical.spec.js: passed"),
    Line("qgjob jobs wait --run nightly", some_jobs, "completed"),
    Line("qgjob status job --job-id=1", a_job, "Status:         completed"),
    Line("qgjob status job --job-id=1 --verbose", a_job, "attempt 1 passed"),
    Line("qgjob jobs why 1", record("id", "status", "reason", "message"), "It completed on"),
    Line("qgjob status job --job-id=4711", None, "error: ", 5),
    Line("qgjob jobs recent --limit=10", lambda found: len(found) == 10 and jobs(found), "d.spec.js"),
    Line(
        "qgjob jobs list --status-filter=completed --priority=5 --target=device --app-version-id=abc456"
        " --org-id=qualgent --limit=20",
        some_jobs,
        "P5",
    ),
    Line(
        "qgjob jobs list --status-filter=running --priority=4 --target=emulator --app-version-id=xyz123 --limit=20",
        lambda found: found == [],
        "No job is like that.",
    ),
    Line("qgjob jobs list --run nightly", some_jobs, "completed"),
    Line("qgjob jobs active", lambda found: found == [], "No job waits or runs."),
    Line("qgjob jobs cancel 1 2", some_jobs, "completed"),
    Line("qgjob jobs cancel --label suite=smoke", lambda found: found == [], "No unfinished job is like that."),
    Line("qgjob logs 1", None, "onboarding"),
    Line("qgjob logs 1 --follow", None, "onboarding"),
    Line("qgjob logs 1 --attempt 1 --tail 1 --timestamps", None, "Z onboarding.spec.js: passed"),
    Line("qgjob queue status", the_queue, "High Priority Queue:   0 active (0 queued, 0 running)"),
    Line("qgjob queue monitor", the_queue, "Queue Status Summary"),
    Line("qgjob devices list", devices, "idle"),
    Line("qgjob devices quarantine emulator-1@lab", a_device, "quarantined"),
    Line("qgjob devices readmit emulator-1@lab", a_device, "idle"),
    Line("qgjob devices drain emulator-1@lab", a_device, "draining"),
    Line("qgjob agents list", records("name", "state", "devices"), "connected"),
    Line("qgjob agents drain lab --deadline 30m", record("name", "draining"), "drained"),
    Line("qgjob agents resume lab", record("name", "draining"), "lab gets work again"),
    Line(
        "qgjob builds upload --org-id=qualgent --app-version-id=built ./app.apk --replace",
        record("org_id", "app_version_id", "digest"),
        "Build built of qualgent",
    ),
    Line("qgjob builds list", records("org_id", "app_version_id", "digest"), "xyz123"),
    Line("qgjob artifacts list 1", lambda found: found == [], "No artifacts."),
    Line("qgjob artifacts download 1 --to left", lambda found: found == [], "has left nothing behind"),
    Line("qgjob artifacts open 1", None, "error: job 1 has no HTML report", 5),
    Line("qgjob doctor", records("name", "finding", "message", "hint"), "ok       coordinator"),
    Line("qgjob config view", records("name", "value", "source"), "QGJOB_COORDINATOR"),
    Line("qgjob --version", None, "coordinator "),
    Line("qgjob-agent doctor --simulate emulator=1", None, "ok       coordinator"),
    Line("qgjob jobs cancel --run nightly", lambda found: found == [], "No unfinished job is like that."),
    Line("qgjob-coordinator replay --policy fifo --data-dir coordinator", None, "Longest wait for the first start:"),
    Line("qgjob jobs lst", None, "hint: did you mean 'list'?", 2),
    Line("qgjob jobs list --limt 3", None, "hint: did you mean --limit?", 2),
    Line("qgjob jobs retry 1", a_job, "onboarding"),
)


LIVE = (
    Line("qgjob jobs active --watch", a_job, "waiting.spec.js"),
    Line("qgjob queue monitor --watch", the_queue, "Normal Priority Queue: 1 active (1 queued, 0 running)"),
)


@pytest.mark.parametrize("columns", [None, 80, 200], ids=["pipe", "80 columns", "200 columns"])
def test_each_line_does_what_is_promised(grid: Grid, columns: int | None) -> None:
    (grid.directory / "app.apk").write_bytes(b"a build")
    project = grid.directory / "project"
    (project / "tests" / "deep").mkdir(parents=True)
    for name in ("a.ts", "deep/b.ts"):
        (project / "tests" / name).write_text("")
    (project / "package.json").write_text("{}")
    (grid.directory / "manifest.toml").write_text(
        'org_id = "qualgent"\napp_version_id = "xyz123"\n[[specs]]\ntest = "m.spec.js"\npriority = 2\n'
    )
    grid.env["TOKEN"] = "bare-secret"
    grid.agent("lab", *AGENT)
    eventually(lambda: len(grid.json("devices", "list")) == 2, "the agent's devices are known")
    for line in BEFORE_THE_END:
        check(grid, line, columns)
    grid.run("jobs", "wait", "1", "2", "3", "4")
    for line in AFTER_IT:
        check(grid, line, columns)
    grid.submit("waiting.spec.js", options=("--target", "browserstack"))
    for line in LIVE:
        watch(grid, line, columns)


def check(grid: Grid, line: Line, columns: int | None) -> None:
    program, *arguments = shlex.split(line.text)
    command = [str(BIN / program), *arguments]
    if columns is None:
        on_a_pipe(grid, line, command)
        return
    with in_terminal(command, grid.env, columns=columns, folder=grid.directory) as terminal:
        code = terminal.end()
        said = "\n".join(terminal.lines)
    assert code == line.code, f"{line.text}: {code}\n{said}"
    assert line.shown in said, f"{line.text}\n{said}"
    assert "Traceback" not in said
    # Sentences are wrapped by the terminal; what is laid out as a table fits.
    table = [text for text in said.split("\n") if re.match(r"(ID|Name|Org|Setting)\s", text)]
    assert all(len(text) <= columns for text in table), f"{line.text}\n{said}"


def watch(grid: Grid, line: Line, columns: int | None) -> None:
    """Look at what goes on until somebody leaves it."""
    program, *arguments = shlex.split(line.text)
    command = [str(BIN / program), *arguments]
    if columns is None:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=grid.env) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.kill()
        assert line.shape is not None
        assert line.shape(json.loads(first)), f"{line.text}\n{first}"
        return
    with in_terminal(command, grid.env, columns=columns) as terminal:
        lines = terminal.wait_until(lambda lines: line.shown in "\n".join(lines) and lines[-1].endswith("q: quit"))
        assert all(len(text) <= columns for text in lines), f"{line.text}\n{lines}"
        terminal.type(b"q")
        assert terminal.end() == line.code
        assert "Traceback" not in terminal.written


def on_a_pipe(grid: Grid, line: Line, command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, env=grid.env, cwd=grid.directory, timeout=60, check=False
    )
    assert done.returncode == line.code, f"{line.text}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "\x1b" not in done.stdout + done.stderr
    if line.shape is not None:
        assert line.shape(json.loads(done.stdout)), f"{line.text}\n{done.stdout}"
    else:
        assert line.shown in done.stdout + done.stderr, f"{line.text}\n{done.stdout}{done.stderr}"


@pytest.mark.jq
def test_the_line_with_jq_counts_priorities(grid: Grid) -> None:
    grid.agent("lab", *AGENT)
    grid.submit("a.spec.js", "b.spec.js")
    grid.submit("c.spec.js", options=("--priority", "5", "--wait"))
    grid.run("jobs", "wait", "1", "2", "3")
    line = r"""qgjob jobs list --limit=100 | jq '.[] | select(.status=="completed") | .priority' | sort | uniq -c"""
    env = {**grid.env, "PATH": f"{BIN}{os.pathsep}{grid.env['PATH']}"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=env, timeout=60, check=True
    )
    assert [text.split() for text in done.stdout.splitlines()] == [["2", "3"], ["1", "5"]]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A lab with so many jobs, and so long a log, that no pipe holds them: a command meets the end of its reader."""
    with running_grid(tmp_path_factory.mktemp("crowd")) as grid:
        grid.coordinator()
        # No device of this lab serves them, so that they stay as they are.
        for run in ("waiting", "cancelled"):
            tests = [f"tests/case-{number}.spec.ts" for number in range(400)]
            grid.submit(*tests, options=("--run", run, "--target", "browserstack"))
        grid.run("jobs", "cancel", "--run", "cancelled")
        grid.agent("lab", *AGENT)
        grid.submit("loud.spec.ts", options=("--env", "QGJOB_SIM_LOG_LINES=20000", "--wait"))
        yield grid


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("qgjob jobs list --limit=300", "0"),
        ("qgjob jobs list --limit=300 -o jsonl", "0"),
        ("qgjob jobs wait --run cancelled -o jsonl", "7"),
        ("qgjob jobs active --watch -o jsonl", "0"),
        ("qgjob logs 801 --follow", "0"),
    ],
)
def test_a_pipe_that_is_closed_early_is_no_error_and_hides_no_verdict(crowd: Grid, command: str, code: str) -> None:
    line = f"{command} 2>&1 | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    env = {**crowd.env, "PATH": f"{BIN}{os.pathsep}{crowd.env['PATH']}"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (f"{code}\n", "")


def test_a_watch_outlives_its_coordinator_and_tells_each_state_once(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator(*PATIENT)
        grid.agent("lab", *AGENT)
        with grid.follow("jobs", "active", "--watch") as watch:
            assert watch.stdout is not None
            assert watch.stderr is not None
            try:
                grid.submit("slow.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=3"))
                told: list[str] = []
                while not told or json.loads(told[-1])["status"] != "running":
                    told.append(watch.stdout.readline())  # who begins to watch after the kill has lost no connection
                coordinator.kill()
                grid.coordinator(*PATIENT)
                while json.loads(told[-1])["status"] != "completed":
                    told.append(watch.stdout.readline())
            finally:
                watch.kill()
            said = watch.stderr.read()
        # A running job comes again when one of its tests has begun or ended, but nothing comes as it came before.
        assert len(set(told)) == len(told)
        assert [json.loads(line)["status"] for line in told[-2:]] == ["running", "completed"]
        assert said.startswith("the connection was lost (")
