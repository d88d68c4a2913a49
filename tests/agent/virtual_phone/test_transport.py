"""The adb wire protocol: framing, limits, and garbage that must end one connection only."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.virtual_phone.bytestream import ByteQueue, StreamOverflow
from agent.virtual_phone.daemon import AdbDaemon, NoFreePort
from agent.virtual_phone.faults import FaultKind, parse_fault
from agent.virtual_phone.services import DEFECT_CODE
from agent.virtual_phone.transport import (
    MAX_PAYLOAD_BYTES,
    MAX_STREAMS,
    VERSION,
    VERSION_WITH_CHECKSUMS,
    Command,
    Message,
    ProtocolError,
    encode,
    read_message,
)
from tests.agent.virtual_phone.adb_host import Host, host_of, serving
from tests.agent.virtual_phone.factories import make_phone

MESSAGES = st.builds(
    Message,
    command=st.sampled_from(Command),
    arg0=st.integers(0, 2**32 - 1),
    arg1=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=200),
)


async def decode(data: bytes, *, with_checksum: bool = True) -> Message:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_message(reader, max_payload_bytes=MAX_PAYLOAD_BYTES, with_checksum=with_checksum)


@given(MESSAGES, st.booleans())
async def test_message_is_read_as_it_was_written(message: Message, with_checksum: bool) -> None:
    assert await decode(encode(message, with_checksum=with_checksum), with_checksum=with_checksum) == message


async def test_greeting_of_a_host_that_connects_anew_needs_no_checksum() -> None:
    message = Message(command=Command.CNXN, arg0=VERSION, arg1=4096, payload=b"host::")
    assert await decode(encode(message, with_checksum=False)) == message


@given(MESSAGES.filter(lambda message: bool(message.payload) and message.command is not Command.CNXN), st.data())
async def test_message_with_a_changed_byte_is_refused_or_read_whole(message: Message, data: st.DataObject) -> None:
    wire = bytearray(encode(message, with_checksum=True))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    try:
        found = await decode(bytes(wire))
    except (ProtocolError, asyncio.IncompleteReadError):
        return
    assert 4 <= at < 12, "only the two arguments are not protected"
    assert found.payload == message.payload


def test_bytes_wait_for_their_reader_only_up_to_a_limit() -> None:
    queue = ByteQueue(4)
    queue.feed(b"abcd")
    assert not queue.has_room
    with pytest.raises(StreamOverflow):
        queue.feed(b"e")


async def test_room_is_told_once_when_the_reader_has_caught_up() -> None:
    told: list[int] = []
    queue = ByteQueue(4, on_room=lambda: told.append(1))
    queue.feed(b"abcdef")
    assert await queue.read(2) == b"ab"
    assert told == []
    assert await queue.read(10) == b"cdef"
    assert told == [1]


Break = Callable[[Host], None]


def _say(*messages: tuple[Command, int, int, bytes]) -> Break:
    def tell(host: Host) -> None:
        for message in messages:
            host.send(*message)

    return tell


HELLO = (Command.CNXN, VERSION_WITH_CHECKSUMS, 4096, b"host::")
GARBAGE: dict[str, Break] = {
    "noise": lambda host: host.send_raw(b"GET / HTTP/1.1\r\nHost: phone\r\n\r\n"),
    "wrong magic": lambda host: host.send_raw(struct.pack("<6I", Command.CNXN, 0, 0, 0, 0, 0)),
    "unknown command": lambda host: host.send_raw(struct.pack("<6I", 7, 0, 0, 0, 0, 7 ^ 0xFFFFFFFF)),
    "huge payload before the greeting": lambda host: host.send_raw(
        struct.pack("<6I", Command.CNXN, VERSION, 4096, 2**31, 0, Command.CNXN ^ 0xFFFFFFFF)
    ),
    "wrong checksum": lambda host: host.send_raw(encode(Message(command=Command.CNXN, arg0=VERSION_WITH_CHECKSUMS,
                                                                arg1=4096, payload=b"x"), with_checksum=False)),
    "stream before the greeting": _say((Command.OPEN, 1, 0, b"shell:id\0")),
    "answer before the greeting": _say((Command.AUTH, 3, 0, b"key")),
    "host that takes no payload": _say((Command.CNXN, VERSION, 0, b"host::")),
    "stream without an id": _say(HELLO, (Command.OPEN, 0, 0, b"shell:id\0")),
    "too many streams": _say(HELLO, *((Command.OPEN, number, 0, b"shell:sleep 60\0") for number in range(1, 200))),
    "write without waiting": _say(
        HELLO,
        (Command.OPEN, 1, 0, b"shell:sleep 60\0"),
        *((Command.WRTE, 1, 1, bytes(MAX_PAYLOAD_BYTES)) for _ in range(3)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_ends_its_connection_and_no_other(what: str, tmp_path: Path) -> None:
    async with serving(make_phone(tmp_path)) as daemon, host_of(daemon) as good, host_of(daemon) as bad:
        await good.connect()
        GARBAGE[what](bad)
        assert await bad.has_ended()
        assert await good.shell("echo still here") == (0, b"still here\n", b"")
    assert "PROTOCOL" in (tmp_path / "phone.log").read_text()
    assert "DEFECT" not in (tmp_path / "phone.log").read_text()


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=40, deadline=None)
async def test_any_bytes_leave_the_phone_usable(data: bytes) -> None:
    async with serving(make_phone()) as daemon:
        async with host_of(daemon) as bad:
            await bad.connect()
            bad.send_raw(data)
        async with host_of(daemon) as good:
            await good.connect()
            assert (await good.shell("true"))[0] == 0


@pytest.mark.parametrize("destination", ["frobnicate:", "tcp:²", "tcp:9", "tcp:" + "9" * 4000, "", ":", "\udcff"])
async def test_service_that_is_not_there_is_refused_and_the_connection_lives(destination: str) -> None:
    async with serving(make_phone()) as daemon, host_of(daemon) as host:
        await host.connect()
        host.send(Command.OPEN, 1, 0, destination.encode("utf-8", "surrogateescape") + b"\0")
        assert (await host.receive()).command is Command.CLSE
        assert (await host.shell("true"))[0] == 0


async def test_as_many_streams_as_are_allowed_run_side_by_side() -> None:
    async with serving(make_phone()) as daemon, host_of(daemon) as host:
        await host.connect()
        for number in range(1, MAX_STREAMS + 1):
            assert await host.open("shell:sleep 60", number) is not None


@pytest.mark.parametrize(
    "line", ["cat /none", "frobnicate", "exit 42", "echo out; echo err >&2; false", "am start -n no/.where"]
)
async def test_shell_protocol_carries_exit_code_and_both_outputs(line: str) -> None:
    async with serving(make_phone()) as daemon, host_of(daemon) as host:
        await host.connect()
        code, out, err = await host.shell(line)
    assert code != 0
    assert (b"out" in out) == ("out" in line)
    assert bool(err) == (line != "exit 42")


async def test_defect_of_a_command_does_not_look_like_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(phone := make_phone(tmp_path)) as daemon, host_of(daemon) as host:
        await host.connect()
        monkeypatch.setattr(type(phone), "properties", property(lambda _: 1 / 0))
        code, _, err = await host.shell("getprop")
        assert code == DEFECT_CODE
        assert b"ZeroDivisionError" in err
        code, _, err = await host.shell("getprop | cat")
        assert code == DEFECT_CODE, "a defect on the left of a pipe is one, too"
    assert "DEFECT getprop" in (tmp_path / "phone.log").read_text()


async def test_phone_that_is_unauthorized_challenges_until_its_owner_agrees() -> None:
    phone = make_phone()
    phone.begin(parse_fault("unauthorized"))
    async with serving(phone) as daemon, host_of(daemon) as host:
        host.send(*HELLO)
        assert (await host.receive()).command is Command.AUTH
        host.send(Command.AUTH, 2, 0, b"signature")
        assert (await host.receive()).command is Command.AUTH
        host.send(Command.AUTH, 3, 0, b"public key")
        phone.heal(FaultKind.UNAUTHORIZED)
        assert (await host.receive()).command is Command.CNXN


async def test_pulled_cable_drops_hosts_and_takes_none_until_it_is_back() -> None:
    phone = make_phone()
    async with serving(phone) as daemon:
        async with host_of(daemon) as host:
            await host.connect()
            phone.begin(parse_fault("offline"))
            assert await host.has_ended()
        with pytest.raises(ConnectionRefusedError):
            async with host_of(daemon):
                pass
        phone.heal(FaultKind.OFFLINE)
        await daemon.settled()
        async with host_of(daemon) as host:
            assert (await host.connect()).startswith("device::")


async def test_phone_whose_cable_is_pulled_keeps_its_port_from_others() -> None:
    phone = make_phone()
    async with serving(phone) as daemon, host_of(daemon) as host:
        await host.connect()
        phone.begin(parse_fault("offline"))
        with pytest.raises(NoFreePort):
            await AdbDaemon(make_phone()).start(daemon.port)


async def test_cable_that_is_pulled_again_at_once_stays_pulled(tmp_path: Path) -> None:
    phone = make_phone(tmp_path)
    async with serving(phone) as daemon:
        phone.begin(parse_fault("offline"))
        phone.heal(FaultKind.OFFLINE)
        phone.begin(parse_fault("battery=3"))  # whatever else changes meanwhile
        phone.begin(parse_fault("offline"))
        await daemon.settled()
        with pytest.raises(ConnectionRefusedError):
            async with host_of(daemon):
                pass
    assert "DEFECT" not in (tmp_path / "phone.log").read_text()


async def test_hung_phone_keeps_its_connection_and_says_nothing() -> None:
    phone = make_phone()
    async with serving(phone) as daemon, host_of(daemon) as host:
        await host.connect()
        phone.begin(parse_fault("offline=hang"))
        host.send(Command.OPEN, 1, 0, b"shell:id\0")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await host.receive()
        phone.heal(FaultKind.OFFLINE)
        assert await host.has_ended(), "what was said meanwhile is lost, so the host must begin anew"


async def test_offline_phone_heals_by_itself_after_its_seconds() -> None:
    phone = make_phone()
    async with serving(phone) as daemon:
        phone.begin(parse_fault("offline,seconds=0.01"))
        healed, follow = asyncio.Event(), phone.connectivity_changed

        def heed() -> None:
            follow()
            healed.set()

        phone.connectivity_changed = heed
        await asyncio.wait_for(healed.wait(), 60)
        await daemon.settled()
        async with host_of(daemon) as host:
            assert await host.connect()
