"""What a host can open on the phone: shell, exec, sync, forwarded ports, reboot."""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from agent.virtual_phone.bytestream import ByteQueue, ByteReader
from agent.virtual_phone.commands import COMMANDS
from agent.virtual_phone.commands.text import lines_of
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.shell import Output, Shell
from agent.virtual_phone.sync import SyncService
from agent.virtual_phone.transport import MAX_PAYLOAD_BYTES, ProtocolError, Service, Stream

FEATURES = ("shell_v2", "cmd", "stat_v2", "ls_v2", "fixed_push_mkdir", "apex", "fixed_push_symlink_timestamp")
DEFECT_CODE = 134  # what a shell says of a program that was aborted

_FRAME = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 0, 1, 2, 3, 3
_MAX_FRAME_BYTES = MAX_PAYLOAD_BYTES
_PROMPT = "$ "

_Runner = Callable[[ByteReader, Output, Output], Awaitable[int]]


def find_service(phone: Phone, destination: str) -> Service | None:
    """Return the service behind a destination, or None (and a line in the log) if the phone has none."""
    name, _, argument = destination.partition(":")
    kind, *options = name.split(",")
    if kind == "shell":
        return _shell_service(phone, argument, is_v2="v2" in options)
    if kind == "exec":
        return _raw(_runner(phone, argument))
    if kind == "sync":
        return SyncService(phone.files)
    if kind == "tcp":
        return _listener(phone, argument)
    if kind == "reboot":
        return _reboot(phone)
    if kind == "root":
        return _say("adbd cannot run as root in production builds\n")
    phone.log.unknown("service", destination)
    return None


def _shell_service(phone: Phone, line: str, *, is_v2: bool) -> Service:
    runner = _runner(phone, line) if line else _interactive(phone)
    return _framed(runner) if is_v2 else _raw(runner)


def _runner(phone: Phone, line: str) -> _Runner:
    async def run(stdin: ByteReader, stdout: Output, stderr: Output) -> int:
        code = await _run_line(Shell(phone=phone, commands=COMMANDS), line, stdin, stdout, stderr)
        phone.log.note("SHELL", f"{line} -> {code}")
        return code

    return run


async def _run_line(shell: Shell, line: str, stdin: ByteReader, stdout: Output, stderr: Output) -> int:
    try:
        return await shell.run(line, stdin, stdout, stderr)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - a defect of ours must not look like success: adb takes silence for 0
        shell.phone.log.note("DEFECT", f"{line}: {error!r}")
        await stderr(f"virtual phone: a defect in {line.split()[0]}: {error!r}\n".encode())
        shell.last_code = DEFECT_CODE
        return DEFECT_CODE


def _interactive(phone: Phone) -> _Runner:
    async def run(stdin: ByteReader, stdout: Output, stderr: Output) -> int:
        shell = Shell(phone=phone, commands=COMMANDS)
        await stdout(_PROMPT.encode())
        async for line in lines_of(stdin):
            await _run_line(shell, line.rstrip("\r"), stdin, stdout, stderr)
            if line.split()[:1] in (["exit"], ["exec"]):
                break
            await stdout(_PROMPT.encode())
        return shell.last_code

    return run


def _raw(runner: _Runner) -> Service:
    """Serve without frames: output and errors are one, the exit code is lost."""

    async def serve(stream: Stream) -> None:
        await runner(stream, stream.write, stream.write)

    return serve


def _framed(runner: _Runner) -> Service:
    """Serve the shell protocol, version 2: each piece says which stream it belongs to."""

    async def serve(stream: Stream) -> None:
        frames = _Frames(stream)
        pump = asyncio.create_task(frames.pump())
        try:
            code = await runner(frames, frames.writer(_STDOUT), frames.writer(_STDERR))
            await stream.write(_FRAME.pack(_EXIT, 1) + bytes([code & 0xFF]))
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    return serve


class _Frames:
    """Takes the input out of its frames and puts the output into them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._stdin = ByteQueue(MAX_PAYLOAD_BYTES, on_room=self._has_room.set)
        self.read = self._stdin.read
        self.readexactly = self._stdin.readexactly
        self.readuntil = self._stdin.readuntil

    async def pump(self) -> None:
        """Read frames until the host closes the stream."""
        try:
            while True:
                kind, length = _FRAME.unpack(await self._stream.readexactly(_FRAME.size))
                if length > _MAX_FRAME_BYTES:
                    raise ProtocolError(f"a shell frame of {length} bytes")
                content = await self._stream.readexactly(length)
                if kind == _STDIN:
                    await self._has_room.wait()
                    self._stdin.feed(content)
                    if not self._stdin.has_room:
                        self._has_room.clear()
                elif kind == _CLOSE_STDIN:
                    self._stdin.feed_eof()
        except asyncio.IncompleteReadError:
            pass  # the host closed the stream
        finally:
            self._stdin.feed_eof()

    def writer(self, kind: int) -> Output:
        """Return an output that puts what it is given into frames of a kind."""

        async def write(data: bytes) -> None:
            for start in range(0, len(data), _MAX_FRAME_BYTES):
                piece = data[start : start + _MAX_FRAME_BYTES]
                await self._stream.write(_FRAME.pack(kind, len(piece)) + piece)

        return write


def _listener(phone: Phone, argument: str) -> Service | None:
    port = whole_number(argument.partition(":")[0])
    listener = phone.listeners.get(port) if port is not None else None
    if listener is None:
        phone.log.note("REFUSED", f"nothing listens on tcp:{argument}")
    return listener


def _reboot(phone: Phone) -> Service:
    async def serve(stream: Stream) -> None:
        del stream
        # Later, not now: the connection that carries this very stream is about to be dropped.
        asyncio.get_running_loop().call_soon(phone.reboot)

    return serve


def _say(text: str) -> Service:
    async def serve(stream: Stream) -> None:
        await stream.write(text.encode())

    return serve
