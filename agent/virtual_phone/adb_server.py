"""A private adb server: on a port of its own, with keys of its own, blind to everything but what it is told to connect.

The user's own server on port 5037 is never touched. Requests to a server are a length in four hexadecimal digits and a
text; the answer is OKAY or FAIL, and a text in the same form. Source: ``SERVICES.TXT`` of the adb project.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path

from agent.virtual_phone.children import Child
from agent.virtual_phone.daemon import LOOPBACK, RESERVED_PORTS
from agent.virtual_phone.errors import LabFailed, ToolMissing

START_SECONDS = 20.0
REQUEST_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024
ATTEMPTS = 3
_POLL_SECONDS = 0.05
_LENGTH_DIGITS = 4


class AdbServer:
    """A running private adb server; use `start`."""

    def __init__(self, child: Child, port: int) -> None:
        self._child = child
        self.port = port

    @classmethod
    async def start(cls, directory: Path, *, port: int = 0) -> "AdbServer":
        """Start a server.

        Args:
            directory: where it keeps its keys and its log; made if missing.
            port: the port to listen on; 0 takes a free one.

        Raises:
            ToolMissing: ``adb`` is not installed.
            LabFailed: it did not come up.
        """
        adb = shutil.which("adb")
        if adb is None:
            raise ToolMissing("adb")
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        failure: LabFailed | None = None
        for _ in range(ATTEMPTS):  # between choosing a port and listening on it, another process may take it
            chosen = port or _free_port()
            command = [adb, "-P", str(chosen), "nodaemon", "server"]
            child = await Child.start_guarded(
                f"adb server on port {chosen}",
                command,
                diagnostics=directory / "adb-server.log",
                environment=_environment(directory),
            )
            server = cls(child, chosen)
            try:
                await server._wait_until_ready()
            except BaseException as error:
                await child.close()
                if not isinstance(error, LabFailed):
                    raise
                failure = error
            else:
                return server
        assert failure is not None
        raise failure

    @property
    def has_ended(self) -> bool:
        """Whether the server is gone."""
        return self._child.has_ended

    async def connect(self, address: str) -> str:
        """Connect the server to a phone; return its answer, which begins with "connected" if it worked."""
        return await self._ask(f"host:connect:{address}")

    async def disconnect(self, address: str) -> str:
        """Make the server forget a phone; return its answer."""
        return await self._ask(f"host:disconnect:{address}")

    async def states(self) -> dict[str, str]:
        """Return the state of each phone that the server knows: device, offline, unauthorized or another of adb's."""
        lines = (await self._ask("host:devices")).splitlines()
        return dict(line.split("\t", 1) for line in lines if "\t" in line)

    async def close(self) -> None:
        """End the server. May be called again."""
        await self._child.close()

    async def _wait_until_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not self._child.has_ended:
            # An old listener on the port would answer, too: only the child's own life tells that it is ours.
            with contextlib.suppress(OSError, LabFailed, asyncio.IncompleteReadError):
                await self._ask("host:version")
                if not self._child.has_ended:
                    return
            if asyncio.get_running_loop().time() > deadline:
                raise LabFailed(f"{self._child.name} did not come up within {START_SECONDS} s")
            await asyncio.sleep(_POLL_SECONDS)
        raise LabFailed(f"{self._child.name} ended early: {self._child.last_words()}")

    async def _ask(self, request: str) -> str:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._exchange(request.encode())
        except TimeoutError:
            raise LabFailed(f"{self._child.name} did not answer {request} within {REQUEST_SECONDS} s") from None

    async def _exchange(self, request: bytes) -> str:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(f"{len(request):04x}".encode() + request)
            status = await reader.readexactly(4)
            length = int(await reader.readexactly(_LENGTH_DIGITS), 16)
            answer = (await reader.readexactly(min(length, MAX_ANSWER_BYTES))).decode(errors="replace")
        except ValueError as error:
            raise LabFailed(f"{self._child.name} gave an answer that is not adb's: {error}") from error
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        if status != b"OKAY":
            raise LabFailed(f"{self._child.name} refused {request.decode()}: {answer}")
        return answer


def _environment(directory: Path) -> dict[str, str]:
    """Return an environment in which adb looks for no phones by itself and leaves the user's home alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_ADB_"))}
    private = {"HOME": str(directory), "ADB_USB": "0", "ADB_EMU": "0", "ADB_MDNS": "0"}
    # Older servers know no ADB_EMU but take the end of the range in which they look for emulators.
    return inherited | private | {"ADB_LOCAL_TRANSPORT_MAX_PORT": "5553"}


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in RESERVED_PORTS:
            return port
