"""What the options of an agent of iOS may be, and what its doctor says of a Mac."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.apple import check_xcode, parse_ios
from agent.config import ConfigError, IosConfig
from agent.doctor_ios import examine_ios
from qgjob.checkup import Finding
from tests.agent.ios.conftest import Mac


def test_agent_without_ios_has_no_such_settings() -> None:
    assert parse_ios({"workspace": "w"}) is None


def test_settings_of_ios_are_read() -> None:
    settings = {"ios": True, "simulators": "iPhone 15=2", "simulator_reset": "erase", "ios_team_id": "TEAM"}
    assert parse_ios(settings) == IosConfig(
        simulators=(("iPhone 15", 2),), simulator_reset="erase", team_id="TEAM", wda_bundle_id=""
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"simulators": "iPhone 15"}, "--simulators is for an agent of iOS"),
        ({"ios": False, "ios_team_id": "T"}, "--ios-team-id is for an agent of iOS"),
        ({"ios": True, "emulators": "Pixel_8"}, "--emulators and --ios exclude each other"),
        ({"ios": True, "virtual_phones": 2}, "--virtual-phones and --ios exclude each other"),
        ({"ios": True, "provider": "browserstack"}, "--provider and --ios exclude each other"),
        ({"ios": True, "simulator_reset": "wipe"}, "--simulator-reset wipe is unknown"),
        ({"ios": True, "simulators": "iPhone=x"}, "is not NAME=COUNT"),
    ],
)
def test_setting_that_makes_no_sense_says_so_with_a_hint(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse_ios(settings)
    assert refused.value.hint


def test_host_without_xcode_is_no_host_for_ios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="xcrun is not on PATH"):
        check_xcode()


async def findings(config: IosConfig) -> dict[str, tuple[Finding, str]]:
    return {check.name: (check.finding, check.message) for check in await examine_ios(config)}


async def test_mac_in_order_is_told_so(mac: Mac) -> None:
    found = await findings(IosConfig(simulators=(("iPhone*", 1),), team_id="TEAM"))
    assert {name: finding for name, (finding, _) in found.items()} == dict.fromkeys(
        ("xcrun", "simulators", "devices"), Finding.OK
    )
    assert found["simulators"][1] == "4 of iOS, 1 booted; boots iPhone 15 (iOS 18.0) when work comes"
    assert found["devices"][1].endswith("Lab phone 1 (ready)")


async def test_doctor_says_what_a_mac_lacks(mac: Mac) -> None:
    found = await findings(IosConfig(simulators=(("iPhone 99", 1),)))
    assert found["simulators"] == (
        Finding.FAILED,
        "4 of iOS, 1 booted; of 1 that --simulators names there are 0",
    )
    assert found["devices"][0] is Finding.WARNING, "nobody signs WebDriverAgent"


async def test_mac_with_an_older_xcode_serves_simulators_alone(mac: Mac) -> None:
    mac.fail(devicectl='unable to find utility "devicectl", not a developer tool or in PATH')
    found = await findings(IosConfig())
    assert found["simulators"][0] is Finding.OK
    assert found["devices"] == (
        Finding.WARNING,
        'devicectl: unable to find utility "devicectl", not a developer tool or in PATH',
    )


async def test_mac_with_no_device_at_all_fails(mac: Mac) -> None:
    (mac.folder / "simulators").write_text('{"devices": {}}')
    (mac.folder / "phones").write_text(json.dumps({"result": {"devices": []}}))
    found = await findings(IosConfig())
    assert found["devices"] == (Finding.FAILED, "none, and no simulator runs")


async def test_doctor_needs_xcode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await findings(IosConfig()) == {
        "xcrun": (Finding.FAILED, "is not on PATH; --ios works on a Mac alone"),
    }
