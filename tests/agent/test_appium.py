from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.appium import UIAUTOMATOR2, XCUITEST, AppiumFailed, AppiumServer, Toolbox, install_driver

# Appium's command line as far as the agent uses it: it refuses to install what is there already, as the real one does.
FAKE_APPIUM = """
const fs = require("node:fs"), path = require("node:path");
const folder = path.join(process.env.APPIUM_HOME, "node_modules", "%s");
if (fs.existsSync(folder)) { console.log("it is already installed"); process.exit(1); }
fs.mkdirSync(folder, { recursive: true });
fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify({ version: "%s" }));
fs.appendFileSync(path.join(process.env.APPIUM_HOME, "..", "installs"), "x");
if (fs.existsSync(path.join(process.env.APPIUM_HOME, "..", "interrupt"))) process.exit(143);
"""

pytestmark = pytest.mark.appwright


@pytest.fixture
def tools(tmp_path: Path) -> Toolbox:
    program = tmp_path / "project" / "node_modules" / "appium" / "index.js"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE_APPIUM % (UIAUTOMATOR2.package, UIAUTOMATOR2.version))
    return Toolbox(project=tmp_path / "project", state_dir=tmp_path / "state")


def installs(tools: Toolbox) -> int:
    return len((tools.state_dir / "installs").read_text())


async def test_driver_is_installed_once(tools: Toolbox) -> None:
    await install_driver(tools)
    await install_driver(tools)
    assert installs(tools) == 1


async def test_agents_whose_homes_are_links_to_one_install_its_driver_once(tools: Toolbox, tmp_path: Path) -> None:
    tools.appium_home().mkdir(parents=True)
    others = [Toolbox(project=tools.project, state_dir=tmp_path / f"agent-{number}") for number in range(4)]
    for other in others:
        other.state_dir.mkdir()
        other.appium_home().symlink_to(tools.appium_home())
    await asyncio.gather(*map(install_driver, others))
    assert sum(installs(other) for other in others if (other.state_dir / "installs").exists()) == 1


async def test_driver_of_an_interrupted_install_is_not_trusted(tools: Toolbox) -> None:
    tools.state_dir.mkdir()
    (tools.state_dir / "interrupt").touch()
    with pytest.raises(AppiumFailed):
        await install_driver(tools)
    (tools.state_dir / "interrupt").unlink()
    await install_driver(tools)
    assert installs(tools) == 2


async def test_driver_of_another_release_is_replaced(tools: Toolbox) -> None:
    await install_driver(tools)
    program = tools.project / "node_modules" / "appium" / "index.js"
    program.write_text(FAKE_APPIUM % (UIAUTOMATOR2.package, "9.9.9"))
    await install_driver(tools, replace(UIAUTOMATOR2, version="9.9.9"))
    manifest = tools.appium_home() / "node_modules" / UIAUTOMATOR2.package / "package.json"
    assert json.loads(manifest.read_text()) == {"version": "9.9.9"}


async def test_driver_whose_files_were_broken_is_installed_anew(tools: Toolbox) -> None:
    await install_driver(tools)
    manifest = tools.appium_home() / "node_modules" / UIAUTOMATOR2.package / "package.json"
    manifest.write_text("{")
    await install_driver(tools)
    assert installs(tools) == 2


async def test_drivers_of_two_platforms_have_homes_of_their_own(tools: Toolbox) -> None:
    await install_driver(tools)
    program = tools.project / "node_modules" / "appium" / "index.js"
    program.write_text(FAKE_APPIUM % (XCUITEST.package, XCUITEST.version))
    await install_driver(tools, XCUITEST)
    await install_driver(tools)
    assert installs(tools) == 2


async def test_server_whose_end_failed_makes_room_for_a_new_one(
    tools: Toolbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unstoppable:
        async def stop(self, _grace_s: float) -> None:
            raise OSError(5, "Input/output error")

    server = AppiumServer(tools, 0, tmp_path)
    monkeypatch.setattr(server, "_server", Unstoppable())
    with pytest.raises(OSError, match="Input/output"):
        await server.stop()
    await server.stop()
