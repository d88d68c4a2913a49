"""The steps of the workflow and of the action, under bash, on a grid of simulated devices."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.grid import Grid, eventually
from tests.workflows.steps import Steps, read

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WORKFLOW = ROOT / ".github" / "workflows" / "appwright-test.yml"
ACTION = ROOT / ".github" / "actions" / "qgjob" / "action.yml"
RUN = "appwright-77-1"
UV = """
case $1 in
  sync) echo "uv $*" ;;
  run)
    # Its own options; then comes the program.
    shift
    while [ "${1#--}" != "$1" ]; do shift; done
    exec "$@" ;;
esac
"""


def steps(folder: Path, tools: dict[str, str], **context: str) -> Steps:
    """Steps on a runner whose installing tools are replaced: what they would bring is there."""
    shelf = folder / "tools"
    home = folder / "home"
    for made in (shelf, home):
        made.mkdir()
    for name, script in tools.items():
        (shelf / name).write_text(f"#!/bin/sh\n{script}\n")
        (shelf / name).chmod(0o755)
    env = {
        "PATH": f"{shelf}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "GITHUB_ACTIONS": "true",
        "GITHUB_RUN_ID": "77",
        "RUNNER_TEMP": str(folder),
        "GITHUB_ACTION_PATH": str(ACTION.parent),
    }
    return Steps(folder, env, {"github.run_id": "77", "github.run_attempt": "1", **context})


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Steps]:
    """A runner for the workflow, on which nothing goes on at the end."""
    with running_runner(tmp_path, lab="simulated") as runner:
        yield runner


@contextlib.contextmanager
def running_runner(folder: Path, lab: str) -> Iterator[Steps]:
    """A runner with a checkout of this project; what `make` would bring is there."""
    (folder / "runner").mkdir()
    # A make that makes with the Makefile, a uv that brings nothing, and root's rights for whoever asks.
    tools = {"uv": UV, "sudo": 'exec "$@"'}
    runner = steps(folder / "runner", tools, **{"inputs.lab": lab})
    for name in ("Makefile", ".python-version", "proto", "examples", "agent", "coordinator", "qgjob"):
        (runner.workspace / name).symlink_to(ROOT / name)
    (runner.workspace / ".venv").symlink_to(BIN.parent)
    runner.set_env(read(WORKFLOW)["env"])
    try:
        yield runner
    finally:
        end_programs(runner)


def end_programs(runner: Steps) -> None:
    for file in (runner.workspace / "lab").glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


def run_workflow(runner: Steps, *, with_failure: bool) -> None:
    for step in read(WORKFLOW)["jobs"]["test"]["steps"]:
        runner.run(step)
        if with_failure and step.get("name") == "Submit tests of several priorities":
            submit_a_failing_test(runner)


def submit_a_failing_test(runner: Steps) -> None:
    runner.run(
        {
            "name": "A test that fails",
            "run": f"qgjob submit --app-version-id xyz123 --run {RUN} --test tests/broken.spec.ts"
            " --env QGJOB_SIM_OUTCOME=failed",
        }
    )


def codes(runner: Steps) -> dict[str, int]:
    return {ran.name: ran.code for ran in runner.ran}


def said(runner: Steps, name: str) -> str:
    return next(ran.said for ran in runner.ran if ran.name == name)


def is_alive(runner: Steps, program: str) -> bool:
    try:
        os.kill(int((runner.workspace / "lab" / f"{program}.pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_the_workflow_passes_with_its_tests_and_leaves_nothing_running(runner: Steps) -> None:
    run_workflow(runner, with_failure=False)
    assert codes(runner) == {
        "Install qgjob": 0,
        "Start a coordinator": 0,
        "Submit tests of several priorities": 0,
        "Start an agent": 0,
        "Wait for the tests": 0,
        "Stop the lab": 0,
    }
    assert runner.summary == "### qgjob: 3 completed\n\n"
    assert "High Priority Queue:   1 active (1 queued, 0 running)" in said(runner, "Submit tests of several priorities")
    assert '<testsuites name="qgjob" tests="3" failures="0"' in (runner.workspace / "lab" / "junit.xml").read_text()
    eventually(lambda: not is_alive(runner, "agent"), "the agent has ended")
    eventually(lambda: not is_alive(runner, "coordinator"), "the coordinator has ended")


def test_the_workflow_fails_with_a_test_and_shows_its_log(runner: Steps) -> None:
    run_workflow(runner, with_failure=True)
    assert codes(runner)["Wait for the tests"] == 1
    assert "::error title=tests/broken.spec.ts failed::job 4 on emulator-" in said(runner, "Wait for the tests")
    assert runner.summary.startswith("### qgjob: 3 completed, 1 failed\n")
    shown = said(runner, "Show the lab and the logs of what did not pass")
    assert "::group::Job 4\n" in shown
    assert "Queue Status Summary" in shown
    assert "emulator-2@runner" in shown
    assert "attempt 1 failed: simulated" in shown
    assert codes(runner)["Stop the lab"] == 0


@pytest.mark.appwright
@pytest.mark.timeout(600)
def test_the_workflow_runs_appwright_on_virtual_phones(tmp_path: Path) -> None:
    with running_runner(tmp_path, lab="virtual") as runner:
        run_workflow(runner, with_failure=False)
        assert codes(runner)["Install the Android tools and the AppWright project"] == 0, runner.ran[1].said
        assert (runner.workspace / "lab" / "wikipedia" / "apps" / "xyz123.apk").is_file()
        assert codes(runner)["Wait for the tests"] == 0, said(runner, "Wait for the tests")
        assert runner.summary == "### qgjob: 3 completed\n\n"
        assert "on virtual-" in said(runner, "Wait for the tests")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_cancelled_workflow_cancels_its_tests(grid: Grid, runner: Steps, number: signal.Signals) -> None:
    grid.submit("tests/a.spec.ts", options=("--run", RUN))
    runner.set_env({"QGJOB_COORDINATOR": grid.address, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"})
    (runner.workspace / "lab").mkdir()
    runner.cancel(step_named(read(WORKFLOW)["jobs"]["test"]["steps"], "Wait for the tests"), number, waits)
    assert codes(runner) == {"Wait for the tests": 130}
    assert grid.status(1) == "cancelled"
    assert 'tests="1"' in (runner.workspace / "lab" / "junit.xml").read_text()


def step_named(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(step for step in found if step.get("name") == name)


def waits(said: str) -> bool:
    """Whether a wait has begun."""
    return "job 1 a.spec.ts: queued" in said


def run_action(folder: Path, grid: Grid, **inputs: str) -> Steps:
    runner = runner_of_action(folder, grid, **inputs)
    for step in read(ACTION)["runs"]["steps"]:
        runner.run(step)
    return runner


def runner_of_action(folder: Path, grid: Grid, **inputs: str) -> Steps:
    action = read(ACTION)
    given = {"coordinator": grid.address, "org-id": "qualgent", "app-version-id": "xyz123", **inputs}
    install = f'mkdir -p "$3/bin" && ln -s /bin/true "$3/bin/pip" && ln -s {BIN}/qgjob "$3/bin/qgjob"'
    runner = steps(folder, {"python3": install})
    runner.set_inputs({name: str(given.get(name, one.get("default", ""))) for name, one in action["inputs"].items()})
    return runner


def test_the_action_submits_waits_and_passes(grid: Grid, tmp_path: Path) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
    (tmp_path / "runner").mkdir()
    runner = run_action(tmp_path / "runner", grid, tests="tests/a.spec.ts\ntests/b.spec.ts\n", priority="4")
    assert codes(runner) == {"Install qgjob": 0, "Submit and wait": 0}
    assert runner.outputs == {"job-ids": "1 2", "exit-code": "0"}
    assert [(job["test"], job["priority"], job["run"]) for job in grid.json("jobs", "list")] == [
        ("tests/b.spec.ts", 4, "github-77-1"),
        ("tests/a.spec.ts", 4, "github-77-1"),
    ]
    assert grid.json("jobs", "list", "--label", "ci=github", "--label", "run=77", "--limit", "1")[0]["id"] == 2


def test_the_action_fails_with_the_code_of_the_verdict(grid: Grid, tmp_path: Path) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
    (tmp_path / "runner").mkdir()
    (tmp_path / "manifest.toml").write_text(
        '[[specs]]\ntest = "tests/a.spec.ts"\nenv = { QGJOB_SIM_OUTCOME = "failed" }\n'
    )
    runner = run_action(tmp_path / "runner", grid, **{"from": str(tmp_path / "manifest.toml")})
    assert codes(runner)["Submit and wait"] == 1
    assert runner.outputs == {"job-ids": "1", "exit-code": "1"}
    assert runner.summary.startswith("### qgjob: 1 failed\n")


def test_the_action_leaves_to_a_manifest_what_its_caller_does_not_say(grid: Grid, tmp_path: Path) -> None:
    grid.agent("lab", "--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
    (tmp_path / "runner").mkdir()
    (tmp_path / "manifest.toml").write_text(
        'org_id = "acme"\napp_version_id = "v9"\npriority = 5\ntarget = "emulator"\nretries = 2\ntimeout = "3m"\n'
        'run = "nightly"\n[[specs]]\ntest = "tests/a.spec.ts"\n'
    )
    unsaid = {"org-id": "", "app-version-id": ""}
    runner = run_action(tmp_path / "runner", grid, **unsaid, **{"from": str(tmp_path / "manifest.toml")})
    assert codes(runner)["Submit and wait"] == 0
    job = grid.job(1)
    names = ("org_id", "app_version_id", "priority", "target", "retries", "run")
    assert [job[name] for name in names] == ["acme", "v9", 5, "emulator", 2, "nightly"]
    assert job["timeout_seconds"] == 180


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_cancelled_action_cancels_its_tests_and_still_tells_of_them(
    grid: Grid, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "runner").mkdir()
    runner = runner_of_action(tmp_path / "runner", grid, tests="tests/a.spec.ts")
    install, submit = read(ACTION)["runs"]["steps"]
    runner.run(install)
    runner.cancel(submit, number, waits)
    assert codes(runner) == {"Install qgjob": 0, "Submit and wait": 130}
    assert runner.outputs == {"job-ids": "1", "exit-code": "130"}
    assert grid.status(1) == "cancelled"
    assert 'tests="1"' in (runner.workspace / "qgjob-junit.xml").read_text()
