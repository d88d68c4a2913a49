"""Real AppWright and real Playwright on a simulator and a device that are played: what their sessions ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.appium import Toolbox
from agent.blobs import BlobCache
from agent.bundles import Bundles, NodePackages
from agent.core.model import AttemptId, JobId, LeasedJob, Outcome
from agent.devices.lock import DeviceLock
from agent.ios.devicectl import Phone
from agent.ios.simctl import Simulator
from agent.ios.target import Target
from agent.ios.xcrun import Xcrun
from agent.journal import Claim, Journal
from agent.runners.appwright import AppwrightRunner
from agent.runners.protocol import Observer, Stop
from examples import node_packages
from tests.agent.ios.conftest import BOOTED, BUNDLE, PHONE, Mac, app_folder, ipa
from tests.agent.ios.stations import LEASE, station
from tests.agent.runners.sessions import serving_sessions

CONFIG = """
import { defineConfig, Platform } from "appwright";
const on = (platform, provider) =>
  ({ name: platform + provider, use: { platform, device: { provider, osVersion: "9" } } });
export default defineConfig({ projects: [
  on(Platform.ANDROID, "emulator"), on(Platform.IOS, "emulator"), on(Platform.IOS, "local-device") ] });
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "tests").mkdir(parents=True)
    (project / "appwright.config.ts").write_text(CONFIG)
    (project / "tests" / "opens.spec.ts").write_text(
        'import { test } from "appwright";\ntest("opens", async ({ device }) => {});\n'
    )
    example = node_packages.ROOT / "examples" / "wikipedia"
    (project / "node_modules").symlink_to(node_packages.install(example))
    return project


@pytest.mark.appwright
@pytest.mark.parametrize(("udid", "platform"), [(BOOTED, "iPhoneSimulator"), (PHONE, "iPhoneOS")])
async def test_session_is_asked_for_the_app_that_is_installed(
    mac: Mac, project: Path, tmp_path: Path, udid: str, platform: str
) -> None:
    said = bytearray()
    ipa(tmp_path / "v1", app_folder(tmp_path / "Shop.app", platform=platform))
    lock = DeviceLock(udid, tmp_path / "locks")
    lock.acquire()
    claim = Claim(udid, lock.descriptor, Journal(tmp_path / "processes"))
    xcrun = Xcrun(claim)
    target: Target = Simulator(udid, xcrun) if platform == "iPhoneSimulator" else Phone(udid, xcrun)
    with serving_sessions() as sessions:
        runner = AppwrightRunner(
            station=station(tmp_path, target, sessions.port),
            tools=Toolbox(project=project, state_dir=tmp_path / "state"),
            bundles=Bundles(BlobCache(tmp_path / "bundles", ".tar", 1_000), NodePackages(tmp_path / "packages", {})),
            claim=claim,
        )
        await runner.prepare(LEASE, Stop())
        job = LeasedJob(
            attempt_id=AttemptId(1),
            job_id=JobId(1),
            attempt_number=1,
            test="tests/opens.spec.ts",
            timeout_us=60_000_000,
        )
        observer = Observer(output=said.extend, test=lambda _test, _is_divisible: None)
        verdict = await runner.run(LEASE.key, job, observer, Stop())
    lock.release()
    assert verdict.outcome is Outcome.PASSED, said.decode()
    [asked] = sessions.asked
    assert (asked["platformName"], asked["appium:automationName"]) == ("ios", "xcuitest")
    assert (asked["appium:udid"], asked["appium:bundleId"]) == (udid, BUNDLE)
    assert (asked["appium:wdaLocalPort"], asked["appium:mjpegServerPort"]) == (8_100, 8_101)
    assert ("appium:xcodeOrgId" in asked) == (udid == PHONE)
    assert not {"appium:app", "appium:platformVersion"} & asked.keys()
