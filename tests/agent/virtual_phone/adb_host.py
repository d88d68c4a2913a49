"""The host's side of adb's wire protocol, as far as tests need it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from agent.virtual_phone.daemon import LOOPBACK, AdbDaemon
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.transport import VERSION, Command, Message, encode, read_message

MAX_PAYLOAD = 1024 * 1024


class Host:
    """A connection to a phone; each of its waits ends in time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, command: Command, arg0: int, arg1: int, payload: bytes = b"") -> None:
        message = Message(command=command, arg0=arg0, arg1=arg1, payload=payload)
        self.send_raw(encode(message, with_checksum=True))

    async def receive(self) -> Message:
        async with asyncio.timeout(60):
            return await read_message(self._reader, max_payload_bytes=MAX_PAYLOAD, with_checksum=False)

    async def connect(self) -> str:
        """Greet the phone and return its banner."""
        self.send(Command.CNXN, VERSION, MAX_PAYLOAD, b"host::features=shell_v2")
        answer = await self.receive()
        assert answer.command is Command.CNXN, answer
        return answer.payload.decode()

    async def open(self, destination: str, local_id: int = 1) -> int | None:
        """Open a stream and return the phone's id of it, or None if the phone refuses."""
        self.send(Command.OPEN, local_id, 0, destination.encode() + b"\0")
        answer = await self.receive()
        assert answer.arg1 == local_id
        return answer.arg0 if answer.command is Command.OKAY else None

    async def read_stream(self, local_id: int = 1) -> bytes:
        """Return what the phone writes to a stream until it closes it."""
        collected = b""
        while (message := await self.receive()).command is Command.WRTE:
            assert message.arg1 == local_id
            collected += message.payload
            self.send(Command.OKAY, local_id, message.arg0)
        assert message.command is Command.CLSE, message
        return collected

    async def shell(self, line: str) -> tuple[int, bytes, bytes]:
        """Run a line through the shell protocol, version 2."""
        assert await self.open(f"shell,v2,raw:{line}") is not None
        data, streams = await self.read_stream(), {1: b"", 2: b"", 3: b""}
        while data:
            kind, length = struct.unpack_from("<BI", data)
            streams[kind] += data[5 : 5 + length]
            data = data[5 + length :]
        return streams[3][0], streams[1], streams[2]

    async def has_ended(self) -> bool:
        """Wait until the phone has ended the connection."""
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass
        return True

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(phone: Phone) -> AsyncIterator[AdbDaemon]:
    daemon = AdbDaemon(phone)
    await daemon.start(0)
    try:
        yield daemon
    finally:
        await daemon.close()
        phone.shut_down()


@contextlib.asynccontextmanager
async def host_of(daemon: AdbDaemon) -> AsyncIterator[Host]:
    host = Host(*await asyncio.open_connection(LOOPBACK, daemon.port))
    try:
        yield host
    finally:
        await host.close()
