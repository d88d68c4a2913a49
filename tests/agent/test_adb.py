"""Discovery against a scripted adb server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from agent.android import Adb
from agent.core.model import AgentId, DeviceFacts
from agent.devices import reconnections
from agent.devices.adb import COARSE_BYTES, AdbDiscovery, AdbUnavailable, parse_devices, track


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("R58M\tdevice\n", {"R58M": "device"}),
        (
            "R58M                   device usb:1-1 product:x model:SM_S911B device:y transport_id:1\n"
            "emulator-5554          offline transport_id:2\n",
            {"R58M": "device", "emulator-5554": "offline"},
        ),
        (
            "R58M   no permissions (missing udev rules? user is in the plugdev group); see [http://x] usb:1-1\n",
            {"R58M": "no permissions"},
        ),
        ("R58M           unauthorized usb:1-1 transport_id:3\n", {"R58M": "unauthorized"}),
        ("", {}),
    ],
)
def test_device_list_is_read_as_adb_writes_it(text: str, states: dict[str, str]) -> None:
    assert parse_devices(text) == states


async def serve(*answers: bytes) -> tuple[asyncio.Server, int]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int(await reader.readexactly(4), 16)
        assert await reader.readexactly(length) == b"host:track-devices-l"
        for answer in answers:
            writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_every_change_is_told_until_the_server_goes_away() -> None:
    first, second = b"R58M device\n", b"R58M offline\n"
    server, port = await serve(b"OKAY", b"%04x%s" % (len(first), first), b"%04x%s" % (len(second), second))
    async with server:
        assert [states async for states in track(port)] == [{"R58M": "device"}, {"R58M": "offline"}]


async def test_server_that_keeps_a_change_to_itself_is_asked() -> None:
    tracked, listed = b"R58M offline\n", b"R58M unauthorized\n"
    talks: list[asyncio.Task[None] | None] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())
        request = await reader.readexactly(int(await reader.readexactly(4), 16))
        answer = tracked if request == b"host:track-devices-l" else listed
        writer.write(b"OKAY%04x%s" % (len(answer), answer))
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        async with contextlib.aclosing(track(server.sockets[0].getsockname()[1])) as changes:
            assert await anext(changes) == {"R58M": "offline"}
            assert await asyncio.wait_for(anext(changes), 60) == {"R58M": "unauthorized"}
        await asyncio.gather(*(talk for talk in talks if talk))


async def test_server_that_refuses_is_named() -> None:
    server, port = await serve(b"FAIL")
    async with server:
        with pytest.raises(AdbUnavailable, match=str(port)):
            [states async for states in track(port)]


SCRIPTS = {
    "booting": "Pixel 8\n14\nS1\n\n",
    "booted": "Pixel 8\n14\nS1\n1\n",
}


async def phones_seen(
    states: bytes,
    answers: list[str],
    monkeypatch: pytest.MonkeyPatch,
    wanted: int,
    *,
    vitals_s: float = 60.0,
    run: Callable[..., Awaitable[tuple[int, str]]] | None = None,
) -> list[tuple[DeviceFacts, ...]]:
    """Return what discovery tells until it has told `wanted` times, while phones answer `getprop` in this order."""

    async def answer(_adb: Adb, *_arguments: str, **_options: float) -> tuple[int, str]:
        return 0, answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(Adb, "run", run or answer)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"0014host:track-devices-l"))
        writer.write(b"OKAY" + b"%04x%s" % (len(states), states))
        await reader.read()  # silence, until the other side goes
        writer.close()

    told: list[tuple[DeviceFacts, ...]] = []
    enough = asyncio.Event()

    def observed(devices: tuple[DeviceFacts, ...]) -> None:
        told.append(devices)
        if len(told) >= wanted:
            enough.set()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        discovery = AdbDiscovery(AgentId("lab"), port, boot_poll_s=0.01, vitals_s=vitals_s)
        task = asyncio.create_task(discovery.run(observed))
        await asyncio.wait_for(enough.wait(), 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return told


async def test_emulator_becomes_usable_when_it_has_booted_although_adb_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [SCRIPTS["booting"], SCRIPTS["booting"], SCRIPTS["booted"]]
    told = await phones_seen(b"emulator-5554 device\n", answers, monkeypatch, 3)
    assert [devices[0].usable for devices in told[:3]] == [False, False, True]


HEALTHY = (
    "qgjob-section sdk\n34\nqgjob-section battery\n  level: {level}\n  temperature: 304\nqgjob-section storage\n"
    "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/block/dm-5 112000000 60000000 52000000  54% /data\n"
)


async def test_battery_and_storage_are_told_and_read_again_although_adb_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [SCRIPTS["booted"], HEALTHY.format(level=87), HEALTHY.format(level=86)]
    told = await phones_seen(b"R58M device\n", answers, monkeypatch, 2, vitals_s=0.01)
    vitals = [devices[0].vitals for devices in told[:2]]
    assert [one.battery_percent for one in vitals] == [87, 86]
    assert (vitals[0].api_level, vitals[0].temperature_decidegrees) == (34, 300)
    assert vitals[0].free_bytes is not None
    assert 0 <= 52_000_000 * 1_024 - vitals[0].free_bytes < COARSE_BYTES


async def test_phone_that_adb_calls_offline_is_reconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnections, "FIRST_WAIT_S", 0.01)
    said: list[tuple[str, ...]] = []

    async def run(_adb: Adb, *arguments: str, **_options: float) -> tuple[int, str]:
        said.append(arguments)
        return 0, "reconnecting R58M"

    told = await phones_seen(b"R58M offline\n", [""], monkeypatch, 2, run=run)
    assert told[0][0].reason.startswith("offline: ")
    assert said[0] == ("reconnect",)


async def test_phone_on_cable_and_network_at_once_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    states = b"S1 device\n192.168.1.5:5555 device\n"
    (devices,) = (await phones_seen(states, [SCRIPTS["booted"]], monkeypatch, 1))[:1]
    assert [(facts.id, facts.udid) for facts in devices] == [("S1", "S1")]
