"""AppWright's newer shape: a stub with the entry points that are patched, the real Playwright, and our runner."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.android import ADB_TIMEOUT_S, Adb, Apk
from agent.appium import Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.bundles import Bundles, NodePackages
from agent.core.model import NO_FENCE, AttemptId, JobId, LeasedJob, LeaseId, LeaseKey, Outcome, TestResult
from agent.devices.lock import DeviceLock
from agent.downloads import Downloads
from agent.journal import Claim, Journal
from agent.runners.appwright import AppwrightRunner
from agent.runners.appwright_care import Care, CareOptions
from agent.runners.appwright_device import DeviceStation
from agent.runners.appwright_project import ProjectUnusable, build_path, check_project
from agent.runners.appwright_shape import SHAPES, ShapeUnknown, shape_of
from agent.runners.protocol import Observer, Stop, Verdict
from examples import node_packages
from tests.agent.runners.sessions import Sessions, serving_sessions

STUB = Path(__file__).with_name("appwright_newer")
CONFIG = """
import { defineConfig, Platform } from "appwright";
export default defineConfig({ projects: [{ name: "android", use: {
  platform: Platform.ANDROID, device: { provider: "PROVIDER" }, buildPath: "bs://0123456789abcdef" } }] });
"""
EACH_ITS_OWN = """
import { test } from "appwright";
test("one", async ({ device }) => {});
test("two", async ({ device }) => {});
"""
ONE = """
import { test } from "appwright";
test("one", async ({ device }) => {});
"""
SHARED = """
import { test as base } from "appwright";
const test = base.extend({ screen: async ({ persistentDevice: device }, use) => { await use(device.sessionId); } });
test("one", async ({ screen }) => {});
test("two", async ({ screen }) => {});
"""
HANGING = """
import { test } from "appwright";
test("hangs", async ({ device }) => { await new Promise(() => {}); });
test("passes", async ({ device }) => {});
"""
FORBIDDEN = ("npx", "pkill", "osascript", "emulator", "aapt", "adb")
"""What AppWright calls by itself, and must not on a host with several devices."""


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    with serving_sessions() as served:
        yield served


class OnlineAdb(Adb):
    """A device that is always there, and whose log is empty."""

    async def run(self, *arguments: str, timeout_s: float = ADB_TIMEOUT_S) -> tuple[int, str]:
        return 0, "device" if arguments == ("get-state",) else ""


class Runner(AppwrightRunner):
    """A runner whose build is installed, and whose Appium is one that counts sessions."""

    def __init__(self, project: Path, state: Path, port: int, provider: str) -> None:
        tools = Toolbox(project=project, state_dir=state)
        adb = OnlineAdb("127.0.0.1:5601", 5_999)
        blobs = BlobCache(state / "builds", ".apk", 1_000)
        self.lock = DeviceLock("stub", state / "locks")
        self.lock.acquire()
        claim = Claim("stub", self.lock.descriptor, Journal(state / "processes"))
        self.station = DeviceStation(
            adb=adb,
            tools=tools,
            source=BuildSource("v.apk", project, None, Downloads(state)),
            blobs=blobs,
            slot=0,
            provider=provider,
            claim=claim,
            care=Care(adb, None, CareOptions()),
        )
        self.station._apk = Apk(path=project / "v.apk", digest="d", package="org.example.left", activity=".Main")
        self.station.ready = self._is_ready  # type: ignore[method-assign]
        self.station._appium.capabilities = self._capabilities  # type: ignore[method-assign]
        self.station._appium.port = port
        bundles = Bundles(blobs, NodePackages(state / "packages", {}))
        super().__init__(station=self.station, tools=tools, bundles=bundles, claim=claim)
        self.said = b""
        self.is_divisible: set[bool] = set()

    async def _is_ready(self, _job: LeasedJob) -> None:
        """The device holds the build, and Appium is there already."""

    def _capabilities(self, adb_port: int) -> dict[str, object]:
        return {"appium:adbPort": adb_port, "appium:noReset": False, "appium:fullReset": False}

    @property
    def base_path(self) -> str:
        return self.station._appium.base_path

    @property
    def store(self) -> Path:
        return self._working_directory / "playwright-report" / "data" / "videos-store"

    async def play(self, spec: str) -> Verdict:
        def say(data: bytes) -> None:
            self.said += data

        def see(_test: TestResult, is_divisible: bool) -> None:
            self.is_divisible.add(is_divisible)

        job = LeasedJob(attempt_id=AttemptId(1), job_id=JobId(1), attempt_number=1, test=spec, timeout_us=60_000_000)
        key = LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE)
        try:
            return await self.run(key, job, Observer(output=say, test=see), Stop())
        finally:
            self.lock.release()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the stub, on a host that writes down whatever of the forbidden is called."""
    project = tmp_path / "my project"  # AppWright's own program would split it at the space
    (project / "tests").mkdir(parents=True)
    (project / "tests" / "own.spec.ts").write_text(EACH_ITS_OWN)
    (project / "tests" / "shared.spec.ts").write_text(SHARED)
    (project / "appwright.config.ts").write_text(CONFIG.replace("PROVIDER", "emulator"))
    (project / "v.apk").touch()
    packages = node_packages.install(node_packages.ROOT / "examples" / "wikipedia")
    (project / "node_modules").mkdir()
    for name in ("@playwright", "playwright", "playwright-core", "appium"):
        (project / "node_modules" / name).symlink_to(packages / name)
    shutil.copytree(STUB, project / "node_modules" / "appwright")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in FORBIDDEN:
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/called\necho called\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return project


def called(project: Path) -> str:
    path = project.parent / "called"
    return path.read_text() if path.exists() else ""


needs_node = pytest.mark.appwright


@needs_node
@pytest.mark.parametrize("provider", ["emulator", "local-device"])
async def test_newer_appwright_gets_our_session_and_touches_nothing_of_the_host(
    project: Path, tmp_path: Path, sessions: Sessions, provider: str
) -> None:
    (project / "appwright.config.ts").write_text(CONFIG.replace("PROVIDER", provider))
    check_project(project)
    runner = Runner(project, tmp_path / "state", sessions.port, provider)
    verdict = await runner.play("tests/own.spec.ts")
    assert verdict.outcome is Outcome.PASSED, runner.said.decode()
    expected = {
        "path": f"{runner.base_path}/session",
        "platformName": "android",
        "appium:udid": "127.0.0.1:5601",
        "appium:adbPort": 5_999,
        "appium:app": str(project / "v.apk"),
        "appium:appPackage": "org.example.left",
        "appium:appActivity": ".Main",
        "appium:automationName": "uiautomator2",
        "appium:noReset": False,
        "appium:fullReset": False,
        "appium:settings[snapshotMaxDepth]": 62,
    }
    assert sessions.asked == [expected, expected]
    assert called(project) == ""
    assert b"videos-store emptied" not in runner.said
    assert runner.is_divisible == {True}


@needs_node
async def test_tests_that_share_a_session_run_in_one_and_are_never_cut_apart(
    project: Path, tmp_path: Path, sessions: Sessions
) -> None:
    runner = Runner(project, tmp_path / "state", sessions.port, "emulator")
    verdict = await runner.play("tests/shared.spec.ts")
    assert verdict.outcome is Outcome.PASSED, runner.said.decode()
    assert len(sessions.asked) == 1
    assert runner.is_divisible == {False}
    workers = [json.loads(path.read_text()) for path in runner.store.iterdir()]
    assert [worker["sessionId"] for worker in workers] == ["session-1"]


@needs_node
async def test_what_a_project_says_of_its_runs_lifts_no_limit_and_repeats_nothing(
    project: Path, tmp_path: Path, sessions: Sessions
) -> None:
    own = "timeout: 0, retries: 2, workers: 2, fullyParallel: true, name: "
    config = CONFIG.replace("PROVIDER", "emulator").replace("name: ", own)
    (project / "appwright.config.ts").write_text(config.replace("projects:", "timeout: 3_000, retries: 2, projects:"))
    (project / "tests" / "hanging.spec.ts").write_text(HANGING)
    runner = Runner(project, tmp_path / "state", sessions.port, "emulator")
    verdict = await runner.play("tests/hanging.spec.ts")
    assert verdict.outcome is Outcome.FAILED, runner.said.decode()
    assert b"Test timeout of 3000ms exceeded" in runner.said
    assert len(sessions.asked) == 2


@needs_node
async def test_appwright_that_cannot_be_patched_fails_before_any_session(
    project: Path, tmp_path: Path, sessions: Sessions
) -> None:
    module = project / "node_modules" / "appwright" / "dist" / "providers" / "appium.js"
    module.write_text(module.read_text() + "\nexports.stopAppiumServer = undefined;\n")
    runner = Runner(project, tmp_path / "state", sessions.port, "emulator")
    verdict = await runner.play("tests/own.spec.ts")
    assert verdict.failure is not None
    assert (verdict.outcome, verdict.failure.reason) == (Outcome.FAILED, "PROJECT_INVALID")
    assert b"AppWright 0.1.46 has no stopAppiumServer in dist/providers/appium.js" in runner.said
    assert (sessions.asked, called(project)) == ([], "")


def put_published(project: Path) -> None:
    """Give a project AppWright as it is published, in place of the stub."""
    packages = node_packages.install(node_packages.ROOT / "examples" / "wikipedia")
    shutil.rmtree(project / "node_modules" / "appwright")
    (project / "node_modules" / "appwright").symlink_to(packages / "appwright")


@needs_node
async def test_published_appwright_touches_nothing_of_the_host_either(
    project: Path, tmp_path: Path, sessions: Sessions
) -> None:
    put_published(project)
    (project / "appwright.config.ts").write_text(CONFIG.replace("PROVIDER", "local-device"))
    (project / "tests" / "one.spec.ts").write_text(ONE)
    runner = Runner(project, tmp_path / "state", sessions.port, "local-device")
    verdict = await runner.play("tests/one.spec.ts")
    assert verdict.outcome is Outcome.PASSED, runner.said.decode()
    assert (len(sessions.asked), called(project)) == (1, "")


@needs_node
async def test_session_that_cannot_be_made_is_asked_for_once(project: Path, tmp_path: Path, sessions: Sessions) -> None:
    """AppWright's own webdriver asks 16 times, and waits in between."""
    put_published(project)
    (project / "tests" / "one.spec.ts").write_text(ONE)
    sessions.refusal = "Device 127.0.0.1:5601 was not in the list of connected devices"
    runner = Runner(project, tmp_path / "state", sessions.port, "emulator")
    verdict = await runner.play("tests/one.spec.ts")
    assert len(sessions.asked) == 1, runner.said.decode()
    assert verdict.failure is not None
    assert (verdict.outcome, verdict.failure.reason) == (Outcome.ERRORED, "SESSION_FAILED")
    assert "was not in the list of connected devices" in verdict.failure.message


@needs_node
async def test_build_that_lies_in_a_cloud_is_no_build_of_this_host(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectUnusable, match="is bs://0123456789abcdef, which is no file; give --build-source"):
        await build_path(Toolbox(project=project, state_dir=tmp_path / "state"), "emulator")


@needs_node
def test_appwright_as_it_is_published_has_the_shape_that_its_version_promises() -> None:
    packages = node_packages.install(node_packages.ROOT / "examples" / "wikipedia")
    assert shape_of(packages / "appwright", "0.1.1").name == "session-per-test"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return shutil.copytree(STUB, tmp_path / "appwright")


def test_shape_is_known_by_its_version(package: Path) -> None:
    assert {shape_of(package, version).name for version in ("0.1.45", "0.1.46")} == {"persistent-device"}


@pytest.mark.parametrize("version", ["0.0.33", "0.1.2", "0.1.44", "0.1.47", "0.2.0", "next"])
def test_version_that_was_never_looked_at_is_refused_with_those_that_were(package: Path, version: str) -> None:
    with pytest.raises(ShapeUnknown, match=rf"AppWright {version} .* this release runs 0.1.1, 0.1.45, 0.1.46"):
        shape_of(package, version)


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, names in SHAPES[-1].entry_points.items() for name in names]
)
def test_package_without_an_entry_point_is_refused_and_says_which(package: Path, file: str, name: str) -> None:
    module = package / "dist" / file
    module.write_text(module.read_text().replace(f"exports.{name} =", f"exports.{name}Renamed ="))
    with pytest.raises(ShapeUnknown, match=rf"{module.name} has no {name}; install it anew"):
        shape_of(package, "0.1.46")
    module.unlink()
    with pytest.raises(ShapeUnknown, match=rf"there is no dist/.*{module.name}"):
        shape_of(package, "0.1.46")
