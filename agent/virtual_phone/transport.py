"""The adb wire protocol, as the daemon on a phone speaks it.

A message is a header of six little-endian words (command, two arguments, payload length, payload checksum, command
with all bits flipped) and a payload. CNXN opens the connection; OPEN, OKAY, WRTE and CLSE multiplex streams over it.
Each side may have one WRTE per stream under way until the other answers OKAY: the OKAY is held back while the
reader of a stream is behind, so that no stream can fill the phone's memory. From protocol version 0x01000001 on,
checksums are not looked at. Source: ``protocol.txt`` of the adb project.

Whatever a host sends that breaks these rules ends that connection, and only that one.
"""

import asyncio
import contextlib
import enum
import secrets
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from agent.virtual_phone.bytestream import ByteQueue, StreamOverflow

VERSION = 0x01000001
VERSION_WITH_CHECKSUMS = 0x01000000
MAX_PAYLOAD_BYTES = 256 * 1024
MAX_PAYLOAD_BYTES_BEFORE_CONNECT = 4096
MAX_STREAMS = 128
AUTH_TOKEN = 1
AUTH_RSA_PUBLIC_KEY = 3
AUTH_TOKEN_BYTES = 20

_HEADER = struct.Struct("<6I")


def _command(name: bytes) -> int:
    return int.from_bytes(name, "little")


class Command(enum.IntEnum):
    """The commands of the protocol."""

    CNXN = _command(b"CNXN")
    AUTH = _command(b"AUTH")
    OPEN = _command(b"OPEN")
    OKAY = _command(b"OKAY")
    WRTE = _command(b"WRTE")
    CLSE = _command(b"CLSE")


class ProtocolError(Exception):
    """The host broke the protocol; its connection ends."""


class StreamClosed(ConnectionError):
    """The host closed the stream that is being written to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of the protocol."""

    command: Command
    arg0: int
    arg1: int
    payload: bytes = b""


def encode(message: Message, *, with_checksum: bool) -> bytes:
    """Return the message as it goes over the wire."""
    checksum = sum(message.payload) & 0xFFFFFFFF if with_checksum else 0
    magic = message.command ^ 0xFFFFFFFF
    header = _HEADER.pack(message.command, message.arg0, message.arg1, len(message.payload), checksum, magic)
    return header + message.payload


async def read_message(reader: asyncio.StreamReader, *, max_payload_bytes: int, with_checksum: bool) -> Message:
    """Read one message.

    Raises:
        ProtocolError: unknown command, wrong magic, payload too long, or wrong checksum.
        asyncio.IncompleteReadError: the connection ended.
    """
    command, arg0, arg1, length, checksum, magic = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if magic != command ^ 0xFFFFFFFF:
        raise ProtocolError(f"wrong magic {magic:#010x} for command {command:#010x}")
    try:
        known_command = Command(command)
    except ValueError as error:
        raise ProtocolError(f"unknown command {command:#010x}") from error
    if length > max_payload_bytes:
        raise ProtocolError(f"payload of {length} bytes, the limit is {max_payload_bytes}")
    payload = await reader.readexactly(length)
    # A host that connects anew may go on without checksums at once: it remembers that this phone needs none.
    is_greeting_without = known_command is Command.CNXN and arg0 > VERSION_WITH_CHECKSUMS
    if with_checksum and not is_greeting_without and sum(payload) & 0xFFFFFFFF != checksum:
        raise ProtocolError("wrong checksum")
    return Message(command=known_command, arg0=arg0, arg1=arg1, payload=payload)


class Stream:
    """One stream of a connection: read what the host writes, write what it reads."""

    def __init__(self, connection: "Connection", local_id: int, remote_id: int) -> None:
        self._connection = connection
        self.local_id = local_id
        self.remote_id = remote_id
        self.is_closed = False
        self._owes_okay = False
        self._may_write = asyncio.Event()
        self._inbox = ByteQueue(MAX_PAYLOAD_BYTES, on_room=self._pay_okay)

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, or nothing after the host closed the stream."""
        return await self._inbox.read(limit)

    async def readexactly(self, count: int) -> bytes:
        """Return `count` bytes; raises `asyncio.IncompleteReadError` if the stream ends before."""
        return await self._inbox.readexactly(count)

    async def readuntil(self, separator: bytes, limit: int) -> bytes:
        """Return bytes up to and with `separator`; see `ByteQueue.readuntil`."""
        return await self._inbox.readuntil(separator, limit)

    async def write(self, data: bytes) -> None:
        """Send bytes to the host, waiting for its OKAY between messages; raises `StreamClosed` when it is gone."""
        size = self._connection.max_payload_bytes
        for start in range(0, len(data), size):
            await self._may_write.wait()
            if self.is_closed:
                raise StreamClosed
            self._may_write.clear()
            await self._connection.send(Command.WRTE, self.local_id, self.remote_id, data[start : start + size])

    def accept(self) -> None:
        """Tell the host that its OPEN succeeded."""
        self._may_write.set()
        self._connection.post(Command.OKAY, self.local_id, self.remote_id)

    def host_wrote(self, data: bytes) -> None:
        """Take a WRTE; raises `ProtocolError` if the host did not wait for the OKAY of the one before."""
        if self._owes_okay:
            raise ProtocolError("WRTE before the OKAY of the last one")
        try:
            self._inbox.feed(data)
        except StreamOverflow as error:
            raise ProtocolError("stream buffer overflow") from error
        if self._inbox.has_room:
            self._connection.post(Command.OKAY, self.local_id, self.remote_id)
        else:
            self._owes_okay = True

    def host_is_ready(self) -> None:
        """Take an OKAY: the host has room for another WRTE."""
        self._may_write.set()

    def mark_closed(self) -> None:
        """End the stream on this side without telling the host."""
        self.is_closed = True
        self._inbox.feed_eof()
        self._may_write.set()

    def _pay_okay(self) -> None:
        if self._owes_okay and not self.is_closed:
            self._owes_okay = False
            self._connection.post(Command.OKAY, self.local_id, self.remote_id)


class Daemon(Protocol):
    """What a connection needs to know of its phone."""

    @property
    def is_authorized(self) -> bool:
        """Whether the phone's owner lets hosts in."""
        ...

    @property
    def is_hung(self) -> bool:
        """Whether the phone has stopped answering, with its connections open."""
        ...

    def banner(self) -> str:
        """Return the identity that opens a connection: state, model and features."""
        ...

    def find_service(self, destination: str) -> "Service | None":
        """Return the service that a host asks for, or None if the phone has no such thing."""
        ...

    def note(self, event: str, detail: str) -> None:
        """Write a line to the phone's log."""
        ...


Service = Callable[[Stream], Awaitable[None]]


class Connection:
    """One host's connection to the phone."""

    def __init__(self, daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._daemon = daemon
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Stream] = {}
        self._services: dict[int, asyncio.Task[None]] = {}
        self._next_local_id = 1
        self._has_checksums = True
        self._host_version: int | None = None
        self._is_online = False
        self.max_payload_bytes = MAX_PAYLOAD_BYTES_BEFORE_CONNECT

    async def run(self) -> None:
        """Serve the host until it goes, breaks the protocol, or `close` is called."""
        try:
            while True:
                limit = MAX_PAYLOAD_BYTES if self._is_online else MAX_PAYLOAD_BYTES_BEFORE_CONNECT
                message = await read_message(self._reader, max_payload_bytes=limit, with_checksum=self._has_checksums)
                if not self._daemon.is_hung:
                    self._take(message)
                    await self._writer.drain()
        except ProtocolError as error:
            self._daemon.note("PROTOCOL", str(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the host went away, which hosts may do at any time
        finally:
            await self._end()

    def close(self) -> None:
        """Drop the connection as a pulled cable would."""
        self._writer.transport.abort()

    def authorize(self) -> None:
        """Let a host in that was waiting for the phone's owner to allow it."""
        if self._host_version is not None and not self._is_online:
            self._go_online()

    def post(self, command: Command, arg0: int, arg1: int, payload: bytes = b"") -> None:
        """Send a message without waiting for the socket to take it; for small ones only."""
        if self._writer.is_closing() or self._daemon.is_hung:
            return
        message = Message(command=command, arg0=arg0, arg1=arg1, payload=payload)
        self._writer.write(encode(message, with_checksum=self._has_checksums))

    async def send(self, command: Command, arg0: int, arg1: int, payload: bytes) -> None:
        """Send a message and wait until the socket has room for more."""
        self.post(command, arg0, arg1, payload)
        await self._writer.drain()

    def _take(self, message: Message) -> None:
        if message.command is Command.CNXN:
            self._connect(message)
        elif message.command is Command.AUTH:
            self._authenticate(message.arg0)
        elif not self._is_online:
            raise ProtocolError(f"{message.command.name} before CNXN")
        elif message.command is Command.OPEN:
            self._open(message)
        else:
            self._pass_to_stream(message)

    def _connect(self, message: Message) -> None:
        if message.arg1 == 0:
            raise ProtocolError("a host that can take no payload")
        self._host_version = min(message.arg0, VERSION)
        self._has_checksums = self._host_version <= VERSION_WITH_CHECKSUMS
        self.max_payload_bytes = min(message.arg1, MAX_PAYLOAD_BYTES)
        if self._daemon.is_authorized:
            self._go_online()
        else:
            self._challenge()

    def _challenge(self) -> None:
        self.post(Command.AUTH, AUTH_TOKEN, 0, secrets.token_bytes(AUTH_TOKEN_BYTES))

    def _authenticate(self, kind: int) -> None:
        if self._host_version is None:
            raise ProtocolError("AUTH before CNXN")
        if self._is_online:
            return
        if self._daemon.is_authorized:
            self._go_online()
        elif kind != AUTH_RSA_PUBLIC_KEY:
            # Signed with a key that nobody has allowed yet: ask for another. The host tries its keys one by one and
            # then offers its public key, after which it waits for the owner's answer: `authorize`, or silence.
            self._challenge()

    def _go_online(self) -> None:
        assert self._host_version is not None
        self._is_online = True
        self.post(Command.CNXN, self._host_version, MAX_PAYLOAD_BYTES, self._daemon.banner().encode())

    def _open(self, message: Message) -> None:
        destination = message.payload.rstrip(b"\0").decode("utf-8", "replace")
        if message.arg0 == 0 or len(self._streams) >= MAX_STREAMS:
            raise ProtocolError(f"no more than {MAX_STREAMS} streams, each with an id")
        service = self._daemon.find_service(destination)
        if service is None:
            self.post(Command.CLSE, 0, message.arg0)
            return
        stream = Stream(self, self._next_local_id, message.arg0)
        self._next_local_id += 1
        self._streams[stream.local_id] = stream
        stream.accept()
        task = asyncio.create_task(self._serve(stream, service, destination))
        self._services[stream.local_id] = task
        task.add_done_callback(lambda _: self._services.pop(stream.local_id, None))

    def _pass_to_stream(self, message: Message) -> None:
        stream = self._streams.get(message.arg1)
        if stream is None:
            return  # a stream that this side has closed already; the host's message crossed ours
        if message.command is Command.WRTE:
            stream.host_wrote(message.payload)
        elif message.command is Command.OKAY:
            stream.host_is_ready()
        else:
            stream.mark_closed()
            self._streams.pop(stream.local_id)
            self._services[stream.local_id].cancel()

    async def _serve(self, stream: Stream, service: Service, destination: str) -> None:
        try:
            await service(stream)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the host closed the stream or the connection in the middle
        except Exception as error:  # noqa: BLE001 - top of a task: the phone must outlive a defect in one service
            self._daemon.note("DEFECT", f"{destination}: {error!r}")
        finally:
            if self._streams.pop(stream.local_id, None) is not None:
                stream.mark_closed()
                self.post(Command.CLSE, stream.local_id, stream.remote_id)

    async def _end(self) -> None:
        self._writer.close()
        for stream in self._streams.values():
            stream.mark_closed()
        self._streams.clear()
        services = list(self._services.values())
        for service in services:
            service.cancel()
        await asyncio.gather(*services, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
