"""Appium, left alone, restarts the adb server when a phone does not come back; the one of the host's phones stays.

The real Appium with its real driver, and an adb that cannot reconnect: then it would kill the server, if it were let.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agent.appium import AppiumServer, Toolbox
from agent.devices.lock import DeviceLock
from agent.journal import Claim, Journal
from agent.virtual_phone.adb_server import AdbServer
from examples import node_packages

pytestmark = [pytest.mark.appwright, pytest.mark.timeout(240)]

PATIENCE_S = 120.0
NOT_RESTARTED = b"Not restarting abd since 'suppressKillServer' is on"
KILLED = b"Killing adb server"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolbox:
    """The real tools, but for an adb that does not reconnect."""
    adb = shutil.which("adb")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "adb").write_text(f'#!/bin/sh\ncase " $* " in *" reconnect "*) exit 1;; esac\nexec "{adb}" "$@"\n')
    (programs / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    packages = node_packages.install(node_packages.ROOT / "examples" / "wikipedia")
    state = tmp_path / "state"
    state.mkdir()
    node_packages.install_driver(packages.parent, state)
    return Toolbox(project=packages.parent, state_dir=state)


def ask_for_session(server: AppiumServer, adb_port: int) -> str:
    """Return what the server answers, which is no session."""
    wanted = {
        "platformName": "android",
        "appium:automationName": "uiautomator2",
        "appium:udid": "phone-that-is-gone",
        **server.capabilities(adb_port),
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{server.base_path}/session",
        data=json.dumps({"capabilities": {"alwaysMatch": wanted}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return str(answer.read())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError as error:  # the server was ended under it
        return str(error)


async def test_phone_that_does_not_come_back_costs_no_adb_server(tools: Toolbox, tmp_path: Path) -> None:
    adb = await AdbServer.start(tmp_path / "adb")
    lock = DeviceLock("phone-that-is-gone", tmp_path / "locks")
    lock.acquire()
    claim = Claim("phone-that-is-gone", lock.descriptor, Journal(tmp_path / "processes"))
    appium = AppiumServer(tools, 0, tmp_path / "slot", claim)
    try:
        await appium.ensure()
        mark = appium.mark()
        asking = asyncio.create_task(asyncio.to_thread(ask_for_session, appium, adb.port))
        async with asyncio.timeout(PATIENCE_S):
            while not asking.done():
                logged = appium.logged_since(mark)
                if NOT_RESTARTED in logged or KILLED in logged:
                    break
                await asyncio.sleep(0.1)
        await appium.stop()  # it would look for the phone for longer
        answer = await asking
        assert NOT_RESTARTED in appium.logged_since(mark), answer
        assert KILLED not in appium.logged_since(mark)
        assert await adb.states() == {}
        assert not adb.has_ended
    finally:
        await appium.stop()
        await adb.close()
        lock.release()
