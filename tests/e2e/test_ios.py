"""An agent of a Mac that is played: its devices, builds that find theirs, and simulators that are booted for work.

Coordinator, agent, AppWright and Playwright are the real ones; `xcrun` and Appium are played.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import node_packages
from tests.agent.ios.conftest import BUNDLE, PHONE, SHUT, app_folder, ipa
from tests.agent.ios.xcrun_stand_in import install_stand_in
from tests.e2e.grid import Grid

CONFIG = """
import { defineConfig, Platform } from "appwright";
const on = (provider) => ({ name: provider, use: { platform: Platform.IOS, device: { provider, osVersion: "9" } } });
export default defineConfig({ projects: [on("emulator"), on("local-device")] });
"""
SPEC = 'import { test } from "appwright";\ntest("opens", async ({ device }) => {});\n'

pytestmark = [pytest.mark.appwright, pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A project for iOS, whose Appium is played."""
    workspace = tmp_path / "project"
    (workspace / "tests").mkdir(parents=True)
    (workspace / "appwright.config.ts").write_text(CONFIG)
    (workspace / "tests" / "opens.spec.ts").write_text(SPEC)
    modules = workspace / "node_modules"
    modules.mkdir()
    for package in node_packages.install(node_packages.ROOT / "examples" / "wikipedia").iterdir():
        if package.name != "appium":
            (modules / package.name).symlink_to(package)
    (modules / "appium").mkdir()
    (modules / "appium" / "package.json").write_text('{"version": "2.19.0"}')
    played = Path(__file__).parents[1] / "agent" / "ios" / "appium_stand_in.cjs"
    (modules / "appium" / "index.js").write_text(f"require({json.dumps(str(played))});\n")
    return workspace


def test_builds_of_ios_find_their_devices_on_a_mac(grid: Grid, workspace: Path, tmp_path: Path) -> None:
    mac = install_stand_in(tmp_path / "mac")
    grid.env["PATH"] = f"{mac}:{grid.env['PATH']}"
    for_simulators = app_folder(tmp_path / "Shop.app")
    for_devices = ipa(tmp_path / "Shop.ipa", app_folder(tmp_path / "device" / "Shop.app", platform="iPhoneOS"))
    for version, build in (("sim", for_simulators), ("dev", for_devices)):
        grid.run("builds", "upload", "--org-id", "qualgent", "--app-version-id", version, str(build))
    # The simulator that runs is somebody's; the agent may boot the newest besides.
    options = ("--ios", "--simulators", "iPhone*=1", "--ios-team-id", "TEAM", "--workspace", str(workspace))
    agent = grid.agent("mac", *options)
    (device,) = grid.submit("tests/opens.spec.ts", app="dev")
    (simulated,) = grid.submit("tests/opens.spec.ts", app="sim", options=("--selector", "os_version=18*"))
    grid.run("jobs", "wait", str(device), str(simulated), seconds=200)

    assert grid.job(device)["device"] == PHONE
    assert grid.job(simulated)["device"] == f"iPhone-15-{SHUT[:8].lower()}@mac"
    assert agent.stop() == 0
    calls = (mac / "calls").read_text().splitlines()
    worked = [call for call in calls if call.split()[1] in ("bootstatus", "install", "shutdown")]
    folder = next(Path(call.split()[-1]).parent.parent for call in worked if "install" in call)
    assert [call.partition(str(folder))[0].split() for call in worked] == [
        ["simctl", "bootstatus", SHUT, "-b"],
        ["simctl", "install", SHUT],
        ["simctl", "shutdown", SHUT],
    ]
    assert sum("device install app" in call for call in calls) == 1
    asked = (tmp_path / "agent-mac" / "appium-home-ios" / "asked").read_text().splitlines()
    sessions = [json.loads(line)["capabilities"]["alwaysMatch"] for line in asked]
    by_udid = {one["appium:udid"]: one for one in sessions}
    assert sorted(one["appium:udid"] for one in sessions) == sorted((PHONE, SHUT))
    assert {(one["platformName"], one["appium:automationName"]) for one in sessions} == {("ios", "xcuitest")}
    assert {one["appium:bundleId"] for one in sessions} == {BUNDLE}
    # Installed it is already, and what the project says of the system is not this device's.
    assert not any({"appium:app", "appium:platformVersion"} & one.keys() for one in sessions)
    assert {udid: one.get("appium:xcodeOrgId") for udid, one in by_udid.items()} == {PHONE: "TEAM", SHUT: None}
    assert len({one["appium:wdaLocalPort"] for one in sessions}) == 2, "two devices shared a port"
