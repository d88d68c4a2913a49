"""The phone's adb daemon: listens for hosts, and loses them when a fault says so."""

import asyncio
import socket

from agent.virtual_phone.faults import OFFLINE_DROP, OFFLINE_HANG, FaultKind
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.services import FEATURES, find_service
from agent.virtual_phone.transport import Connection, Service

LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 16
# adb looks for emulators on these ports by itself and would list the phone twice; 5037 is its server's.
RESERVED_PORTS = frozenset({5037, *range(5554, 5588)})
PORTS_TO_SEARCH = 400


class NoFreePort(Exception):
    """No port could be listened on."""


class AdbDaemon:
    """Serves a phone on a port of the loopback interface."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._server: asyncio.Server | None = None
        self._kept_port: socket.socket | None = None
        """Holds the port while nothing listens on it: the host's adb would take whatever came there for this phone."""
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._was_hung = False
        self._was_authorized = True
        self._relistening: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, port: int, *, searches: bool = False) -> None:
        """Listen on a port, or on any if it is 0.

        Args:
            port: the port of 127.0.0.1.
            searches: whether to take the first free port from `port` on; reserved ones are left out.

        Raises:
            NoFreePort: the port is taken, or all that were tried.
        """
        last_error: OSError | None = None
        for candidate in range(port, port + PORTS_TO_SEARCH if searches else port + 1):
            if candidate in RESERVED_PORTS and searches:
                continue
            try:
                self._server = await asyncio.start_server(self._accept, LOOPBACK, candidate)
            except OSError as error:
                last_error = error
                continue
            self.port = self._server.sockets[0].getsockname()[1]
            self._phone.connectivity_changed = self._follow_faults
            self._follow_faults()
            return
        raise NoFreePort(f"port {port}: {last_error}")

    async def settled(self) -> None:
        """Wait until the listener is as the phone's faults have it."""
        if self._relistening is not None:
            await asyncio.wait((self._relistening,))

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        self._phone.connectivity_changed = lambda: None
        if self._relistening is not None:
            self._relistening.cancel()
        self._stop_listening()
        self._give_port_back()
        tasks = list(self._connections.values())
        self._drop_all()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What a connection asks of its phone

    @property
    def is_authorized(self) -> bool:
        """Whether the phone's owner lets hosts in."""
        return self._phone.faults.active(FaultKind.UNAUTHORIZED) is None

    @property
    def is_hung(self) -> bool:
        """Whether the phone has stopped answering, with its connections open."""
        return self._offline_mode == OFFLINE_HANG

    def banner(self) -> str:
        """Return the identity that opens a connection."""
        properties = self._phone.properties
        names = ("ro.product.name", "ro.product.model", "ro.product.device")
        return "device::" + "".join(f"{name}={properties[name]};" for name in names) + "features=" + ",".join(FEATURES)

    def find_service(self, destination: str) -> Service | None:
        """Return the service that a host asks for, or None."""
        return find_service(self._phone, destination)

    def note(self, event: str, detail: str) -> None:
        """Write a line to the phone's log."""
        self._phone.log.note(event, detail)

    @property
    def _offline_mode(self) -> str:
        fault = self._phone.faults.active(FaultKind.OFFLINE)
        return fault.value if fault else ""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._phone.log.note("REFUSED", f"more than {MAX_CONNECTIONS} connections")
            writer.close()
            return
        connection = Connection(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    def _follow_faults(self) -> None:
        """Bring listener and connections in line with the faults that the phone has now."""
        mode, is_authorized = self._offline_mode, self.is_authorized
        if mode == OFFLINE_DROP:
            if self._stop_listening():
                self._keep_port()
            self._drop_all()
        elif self._server is None and self._relistening is None:
            self._relistening = asyncio.create_task(self._listen_again())
        if self._was_hung and not self.is_hung:
            self._drop_all()  # what was said meanwhile is lost, so hosts must begin anew
        if self._was_authorized and not is_authorized:
            self._drop_all()
        if not self._was_authorized and is_authorized:
            for connection in self._connections:
                connection.authorize()
        self._was_hung, self._was_authorized = self.is_hung, is_authorized

    async def _listen_again(self) -> None:
        self._give_port_back()
        try:
            server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        except OSError as error:
            self._phone.log.note("DEFECT", f"cannot listen on port {self.port} again: {error}")
            return
        finally:
            self._relistening = None
        if self._offline_mode == OFFLINE_DROP:  # the cable was pulled again while the port was being opened
            server.close()
            self._keep_port()
        else:
            self._server = server

    def _stop_listening(self) -> bool:
        """Close the listener. Returns whether there was one."""
        if self._server is None:
            return False
        self._server.close()
        self._server = None
        return True

    def _keep_port(self) -> None:
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind((LOOPBACK, self.port))
        except OSError as error:
            kept.close()
            self._phone.log.note("DEFECT", f"cannot keep port {self.port}: {error}")
            return
        # Needed to bind beside what is left of old connections; from here on nobody else may do the same.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._kept_port = kept

    def _give_port_back(self) -> None:
        if self._kept_port is not None:
            self._kept_port.close()
            self._kept_port = None

    def _drop_all(self) -> None:
        for connection in self._connections:
            connection.close()
