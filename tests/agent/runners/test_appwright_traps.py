"""What AppWright, Appium and adb do by themselves, and which tests show that no host with many devices breaks by it.

Each trap was met by running them (AppWright 0.1.1, Playwright 1.59.1, Appium 2.19.0, uiautomator2 3.10.0). `TRAPS` says
of each what stands against it, and which tests fail without that. What no other test shows without a whole grid is
tested here.
"""

from __future__ import annotations

import ast
import functools
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.appium import UIAUTOMATOR2, AppiumServer, Toolbox
from agent.ports import DevicePorts
from agent.runners.appwright_project import playwright

ROOT = Path(__file__).parents[3]
SHAPES = "agent/runners/test_appwright_shapes.py"
PROJECT = "agent/runners/test_appwright.py"
GRID = "e2e/test_appwright.py"
HERE = "agent/runners/test_appwright_traps.py"


@dataclass(frozen=True, slots=True)
class Trap:
    """Something that AppWright and its tools do."""

    does: str
    remedy: str
    tests: tuple[tuple[str, str], ...]
    """File below `tests/`, and the name of a test in it that fails without the remedy."""


TRAPS = (
    Trap(
        "with Playwright 1.60 or later AppWright's `use.device` is refused",
        "appwright_project.check_project asks for the pinned release",
        ((PROJECT, "test_project_that_cannot_work_is_named_with_what_to_do"),),
    ),
    Trap(
        "every session removes the Appium driver and installs the newest, and ignores whether that worked",
        "shape.cjs: installDriver does nothing; appium.install_driver installs a pinned one, once",
        (
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (SHAPES, "test_published_appwright_touches_nothing_of_the_host_either"),
            ("agent/test_appium.py", "test_driver_of_another_release_is_replaced"),
        ),
    ),
    Trap(
        "provider local-device calls osascript for an Android app too",
        "shape.cjs: getAppBundleId answers at once",
        (
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (SHAPES, "test_published_appwright_touches_nothing_of_the_host_either"),
        ),
    ),
    Trap(
        "0.1.45 and 0.1.46 end with pkill whatever has `appium` in its command line, after each test",
        "shape.cjs: stopAppiumServer does nothing",
        ((SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),),
    ),
    Trap(
        "an Appium is started on port 4723 through npx; its end misses the server itself, which keeps the port",
        "shape.cjs: startAppiumServer does nothing; appium.AppiumServer has a free port, a secret path, and its group",
        (
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (SHAPES, "test_published_appwright_touches_nothing_of_the_host_either"),
            (GRID, "test_two_specs_on_two_phones_overlap_and_share_nothing"),
            (GRID, "test_killed_agent_leaves_no_process_and_its_job_ends_elsewhere"),
        ),
    ),
    Trap(
        "0.1.46 empties `playwright-report/data/videos-store` of its working directory at the start",
        "AppwrightRunner._workspace: a directory for each device; wrapper.config.cjs leaves that reporter out",
        (
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (SHAPES, "test_tests_that_share_a_session_run_in_one_and_are_never_cut_apart"),
            (PROJECT, "test_working_directory_is_a_slots_own_and_follows_the_project"),
            (GRID, "test_two_specs_on_two_phones_overlap_and_share_nothing"),
        ),
    ),
    Trap(
        "the program `appwright` joins its arguments and splits them at spaces; `--config=x` is misread",
        "appwright_project.playwright: Playwright itself is run, with a path for each argument",
        (
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (HERE, "test_command_line_names_playwright_itself_and_no_shell"),
        ),
    ),
    Trap(
        "two workers, no timeout, retries on CI, a report that is served for ever; each failure has exit code 1",
        "wrapper.config.cjs forces one worker, a limit, no retry and our reporters; verdict_of reads the report",
        (
            (SHAPES, "test_what_a_project_says_of_its_runs_lifts_no_limit_and_repeats_nothing"),
            ("agent/runners/test_appwright_report.py", "test_verdict_tells_the_test_from_the_lab"),
        ),
    ),
    Trap(
        "SIGTERM leaves five children, SIGINT stops nothing, and whoever is ended writes no report",
        "supervisor ends the whole group; reporter.cjs tells of each test while the run goes on",
        (
            ("agent/test_supervisor.py", "test_orphan_that_left_the_group_is_ended_as_well"),
            (GRID, "test_slow_spec_is_cancelled_and_timed_out_and_the_phone_is_usable_again"),
            (
                "e2e/test_appwright_preemption.py",
                "test_preempted_spec_runs_only_the_rest_unless_its_tests_belong_together",
            ),
        ),
    ),
    Trap(
        "Appium ignores ANDROID_ADB_SERVER_PORT, and takes its port to the device from 8200 to 8299",
        "AppiumServer.capabilities: adbPort, and a systemPort that no other agent has reserved",
        (
            (HERE, "test_sessions_ask_for_their_adb_server_for_a_port_of_their_own_and_for_no_install"),
            (SHAPES, "test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host"),
            (GRID, "test_two_specs_on_two_phones_overlap_and_share_nothing"),
        ),
    ),
    Trap(
        "fullReset installs for every test; without it another build of the same version is tested as it is",
        "AppiumServer.capabilities: no fullReset; DeviceStation knows by SHA-256 what the device holds",
        (
            (HERE, "test_sessions_ask_for_their_adb_server_for_a_port_of_their_own_and_for_no_install"),
            (GRID, "test_batch_on_a_virtual_phone_installs_once_and_two_phones_work_side_by_side"),
            (GRID, "test_two_builds_take_turns_on_one_phone_and_every_test_runs_against_its_own"),
        ),
    ),
    Trap(
        "without aapt2 in build-tools Appium cannot compare versions, and installs for every session",
        "Toolbox.environment: an SDK of links to what is on PATH",
        (
            (HERE, "test_appium_finds_aapt2_in_an_sdk_of_links"),
            (GRID, "test_batch_on_a_virtual_phone_installs_once_and_two_phones_work_side_by_side"),
        ),
    ),
    Trap(
        "a session that cannot be made is asked for 16 times, which takes 85 s",
        "wrapper.config.cjs: connectionRetryCount is 0",
        ((SHAPES, "test_session_that_cannot_be_made_is_asked_for_once"),),
    ),
    Trap(
        "package, source and registry have AppWright in different versions, whose functions differ",
        "appwright_shape.shape_of and shape.cjs refuse what was never looked at, and what is not as it was released",
        (
            (SHAPES, "test_version_that_was_never_looked_at_is_refused_with_those_that_were"),
            (SHAPES, "test_package_without_an_entry_point_is_refused_and_says_which"),
            (SHAPES, "test_appwright_that_cannot_be_patched_fails_before_any_session"),
            (SHAPES, "test_appwright_as_it_is_published_has_the_shape_that_its_version_promises"),
        ),
    ),
)


@functools.cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.does)
def test_trap_has_tests_that_show_its_remedy(trap: Trap) -> None:
    assert trap.tests
    assert [name for file, name in trap.tests if name not in named_in(file)] == []


def test_command_line_names_playwright_itself_and_no_shell() -> None:
    assert playwright(Path("/my project")) == ("node", "/my project/node_modules/@playwright/test/cli.js")


def test_sessions_ask_for_their_adb_server_for_a_port_of_their_own_and_for_no_install(tmp_path: Path) -> None:
    asked = []
    for slot in (0, 1):
        server = AppiumServer(Toolbox(project=tmp_path, state_dir=tmp_path), slot, tmp_path)
        server._ports = DevicePorts(UIAUTOMATOR2.ports, UIAUTOMATOR2.ports_per_device, slot, tmp_path)
        asked.append(server.capabilities(5_999))
    assert all(one["appium:adbPort"] == 5_999 for one in asked)
    assert all(one["appium:fullReset"] is False and one["appium:noReset"] is False for one in asked)
    ports = [one["appium:systemPort"] for one in asked]
    assert ports[0] != ports[1]
    assert set(ports) <= set(UIAUTOMATOR2.ports)


def test_appium_finds_aapt2_in_an_sdk_of_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("adb", "aapt", "aapt2", "zipalign", "java"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    env = Toolbox(project=tmp_path, state_dir=tmp_path / "state").environment()
    (found,) = Path(env["ANDROID_HOME"]).glob("build-tools/*/aapt2")
    assert os.path.samefile(found, programs / "aapt2")
    assert os.path.samefile(Path(env["ANDROID_HOME"]) / "platform-tools" / "adb", programs / "adb")
