"""What Apple's tools tell of simulators and devices, and which devices come of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.core.model import AgentId, DeviceFacts, DeviceKind
from agent.devices.ios import IosDiscovery, chosen_simulators, parse_simulators_option
from agent.ios.devicectl import parse_phones
from agent.ios.simctl import parse_simulators
from agent.ios.xcrun import Xcrun
from tests.agent.ios.conftest import BOOTED, PHONE, SHUT, Mac
from tests.agent.ios.xcrun_stand_in import RECORDED

LISTING = (RECORDED / "simctl_list_devices.json").read_bytes()
IPAD = "A7C4E2B9-0F3D-4B8A-8C55-1E9D7F6B3C02"


def test_simulators_of_ios_are_told_the_newest_first_and_watches_are_not() -> None:
    found = parse_simulators(LISTING)
    assert [(one.udid, one.name, one.os_version, one.state) for one in found] == [
        (SHUT, "iPhone 15", "18.0", "Shutdown"),
        (IPAD, "iPad Air (5th generation)", "17.2", "Shutdown"),
        (BOOTED, "iPhone 15", "17.2", "Booted"),
        ("5E0F7A52-9D0C-4E57-A9B8-0C7E3B1D2F10", "iPhone 14", "16.4", "Shutdown"),
    ]
    assert [one.problem for one in found if one.problem] == ['runtime profile not found using "System" match policy']


@pytest.mark.parametrize("told", [b"", b"[]", b'{"devices": []}', LISTING.replace(b'"udid" : "3F', b'"udid" : "-x')])
def test_listing_that_nobody_understands_is_an_error(told: bytes) -> None:
    with pytest.raises(ValueError, match=r"simctl|Expecting"):
        parse_simulators(told)


def phones(**changes: object) -> list[tuple[str, str]]:
    """What makes the recorded phone unusable, after changes to what is told of it."""
    told = json.loads((RECORDED / "devicectl_list_devices.json").read_text())["result"]
    for part in ("connectionProperties", "deviceProperties"):
        fields = told["devices"][0][part]
        fields.update({name: value for name, value in changes.items() if name in fields})
    return [(one.reason, one.fix) for one in parse_phones(told) if one.udid == PHONE]


def test_devices_are_told_with_what_keeps_them_from_working() -> None:
    told = json.loads((RECORDED / "devicectl_list_devices.json").read_text())["result"]
    found = [(one.name, one.model, one.os_version, one.is_connected, one.reason) for one in parse_phones(told)]
    assert found == [
        ("Lab tablet", "iPad Pro (11-inch)", "17.6.1", True, "DEVICE_NO_DEVELOPER_MODE"),
        ("Somebody's old phone", "iPhone 12", "17.1", False, "DEVICE_LOST"),
        ("Lab phone 1", "iPhone 14 Pro", "18.0", True, ""),
    ]


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"pairingState": "unpaired"}, "DEVICE_UNAUTHORIZED", "unlock it and trust this computer"),
        ({"bootState": "booting"}, "DEVICE_BOOTING", "has not booted"),
        ({"developerModeStatus": "disabled"}, "DEVICE_NO_DEVELOPER_MODE", "Settings > Privacy & Security"),
        ({"ddiServicesAvailable": False}, "DEVICE_NO_DEVELOPER_IMAGE", "open Xcode once"),
        ({"tunnelState": "unavailable"}, "DEVICE_LOST", "plug it in"),
    ],
)
def test_state_of_a_device_has_a_reason_and_what_to_do(change: dict[str, object], reason: str, words: str) -> None:
    [(found, fix)] = phones(**change)
    assert found == reason
    assert words in fix


def test_image_of_a_device_without_a_tunnel_is_not_missed() -> None:
    assert phones(tunnelState="disconnected", ddiServicesAvailable=False) == [("", "")]


@pytest.mark.parametrize("told", [{}, {"devices": None}, {"devices": [{}]}, {"devices": [{"hardwareProperties": []}]}])
def test_devices_that_nobody_understands_are_an_error(told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="in a way that this release does not know"):
        parse_phones(told)


# Which simulators the agent may boot


def test_option_names_simulators_and_how_many() -> None:
    assert parse_simulators_option("iPhone 15=2, iPad*") == (("iPhone 15", 2), ("iPad*", 1))


@pytest.mark.parametrize("text", ["", "=2", "iPhone 15=x", "iPhone 15,iPhone 15=2", "iPhone 15=21"])
def test_option_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--simulators"):
        parse_simulators_option(text)


def test_newest_simulators_are_chosen_and_those_of_before_stay() -> None:
    known = parse_simulators(LISTING)
    assert chosen_simulators((("iPhone*", 1),), known, frozenset()) == {SHUT}
    assert chosen_simulators((("iPhone*", 1),), known, frozenset({BOOTED})) == {BOOTED}
    assert chosen_simulators((("iPhone*", 9), ("iPad*", 1)), known, frozenset()) == {SHUT, BOOTED, IPAD}
    assert chosen_simulators((("iPhone 14", 1),), known, frozenset()) == frozenset(), "its runtime is missing"


# Devices


def by_udid(seen: tuple[DeviceFacts, ...]) -> dict[str, DeviceFacts]:
    return {facts.udid: facts for facts in seen}


async def test_what_runs_or_may_be_booted_is_a_device(mac: Mac) -> None:
    discovery = IosDiscovery(AgentId("mac-1"), Xcrun(), (("iPad*", 1),))
    seen = by_udid(await discovery.look())
    assert discovery.ours == {IPAD}
    assert {udid: (facts.id, facts.kind, facts.usable) for udid, facts in seen.items()} == {
        IPAD: ("iPad-Air-5th-generation-a7c4e2b9@mac-1", DeviceKind.EMULATOR, True),
        BOOTED: ("iPhone-15-3f2a91c0@mac-1", DeviceKind.EMULATOR, True),
        PHONE: (PHONE, DeviceKind.DEVICE, True),
        "00008027-0018084C1122002E": ("00008027-0018084C1122002E", DeviceKind.DEVICE, False),
    }
    assert {facts.platform for facts in seen.values()} == {"ios"}
    assert (seen[PHONE].model, seen[PHONE].os_version) == ("iPhone 14 Pro", "18.0")


async def test_tool_that_fails_makes_its_devices_unusable_and_the_others_stay(mac: Mac) -> None:
    discovery = IosDiscovery(AgentId("mac-1"), Xcrun())
    await discovery.look()
    mac.fail(devicectl_list="Timed out waiting for CoreDeviceService to fully initialize.")
    seen = by_udid(await discovery.look())
    assert seen[BOOTED].usable
    assert not seen[PHONE].usable
    assert seen[PHONE].reason.startswith("devicectl does not answer: Timed out waiting for CoreDeviceService")
    (mac.folder / "faults").unlink()
    assert by_udid(await discovery.look())[PHONE].usable


async def test_only_changes_are_told(mac: Mac) -> None:
    told: asyncio.Queue[tuple[DeviceFacts, ...]] = asyncio.Queue()
    discovery = IosDiscovery(AgentId("mac-1"), Xcrun(), poll_s=0.01)
    running = asyncio.create_task(discovery.run(told.put_nowait))
    try:
        first = await told.get()
        told_devices = json.loads((mac.folder / "phones").read_text())
        del told_devices["result"]["devices"][0]
        replace_whole(mac.folder / "phones", json.dumps(told_devices))
        second = await told.get()
        assert by_udid(first).keys() - by_udid(second).keys() == {PHONE}
        assert told.empty()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def replace_whole(path: Path, text: str) -> None:
    """Write a file that somebody may be reading."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


async def test_missing_simulators_are_said_once(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    discovery = IosDiscovery(AgentId("mac-1"), Xcrun(), (("iPhone 99", 2),))
    await discovery.look()
    await discovery.look()
    assert capsys.readouterr().out.count("simulators_missing") == 1


async def test_host_without_xcode_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await IosDiscovery(AgentId("mac-1"), Xcrun()).look() == ()
