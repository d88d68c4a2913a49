"""The HTTP port: bound at once, served as soon as what answers is loaded, which takes longer than all the rest."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from coordinator.config import ConfigError, TlsFiles
from coordinator.tls import server_context

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 500
"""Further ones are answered with 503. Each takes a file descriptor, and database and logs need some too."""
IDLE_TIMEOUT_S = 30
MAX_HEADER_BYTES = 16 * 1_024
STOP_GRACE_S = 2
KEEPALIVE = (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A reader whose host has vanished is noticed within a minute; inherited by each connection."""


class HttpPort:
    """Listens from the beginning; whoever connects before the app is loaded waits for a moment."""

    def __init__(self, listen: str, tls: TlsFiles | None, make_app: Callable[[], ASGIApp]) -> None:
        """Bind the port.

        Args:
            listen: HOST:PORT; port 0 picks a free one.
            tls: Certificate and key; None for HTTP in the clear.
            make_app: Called in a thread, once.

        Raises:
            ConfigError: The address is taken or not ours, or a TLS file is wrong.
        """
        self._context = server_context(tls) if tls is not None else None
        self._make_app = make_app
        self._socket = _bound(listen)
        self._server: uvicorn.Server | None = None
        self._is_stopping = False
        self.address = f"{listen.rpartition(':')[0]}:{self._socket.getsockname()[1]}"

    async def serve(self) -> None:
        """Serve until `stop`."""
        self._server = await asyncio.to_thread(self._make_server)
        self._server.should_exit = self._is_stopping
        await self._server.serve([self._socket])

    def stop(self) -> None:
        """Take no more connections, give those that there are a moment, and end `serve`."""
        self._is_stopping = True
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()

    def _make_server(self) -> uvicorn.Server:
        import uvicorn

        from coordinator.http.serving import Connection, Server

        # Its only words are of what clients do wrong, and of errors that the gate has told with more.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        context = self._context
        config = uvicorn.Config(
            self._make_app(),
            loop="none",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=IDLE_TIMEOUT_S,
            timeout_graceful_shutdown=STOP_GRACE_S,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ssl_context_factory=(lambda _config, _make: context) if context is not None else None,
        )
        config.load()
        return Server(config)


def _bound(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        bound = socket.create_server(address[:2], family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {listen}: {error.strerror}",
            "another coordinator may run there; choose another --http, port 0 picks a free one",
        ) from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):  # not all systems have all of them
            bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return bound
