"""Discovery against a scripted adb server."""

from __future__ import annotations

import asyncio

import pytest

from agent.devices.adb import AdbUnavailable, parse_devices, track


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


async def test_server_that_refuses_is_named() -> None:
    server, port = await serve(b"FAIL")
    async with server:
        with pytest.raises(AdbUnavailable, match=str(port)):
            [states async for states in track(port)]
