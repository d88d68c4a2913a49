"""uvicorn as it serves here: signals stay with the program, and whoever is slow with a header is cut off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_TIMEOUT_S = 15.0
"""In which a request has to bring its header."""
SPARE_FACTOR = 1.2
"""Connections above the limit that are answered."""


class Server(uvicorn.Server):
    """Serves within a program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield


class Connection(H11Protocol):
    """One connection. uvicorn bounds how long it may be idle, but not how long a header may take."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Expect a header from now on, unless there are too many connections even to say so."""
        super().connection_made(transport)
        self._expect_header()
        if self.limit_concurrency is not None and len(self.connections) > SPARE_FACTOR * self.limit_concurrency:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request in."""
        super().data_received(data)
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_header(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]  # None before the first
            self._stop_expecting()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)

    def _stop_expecting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
