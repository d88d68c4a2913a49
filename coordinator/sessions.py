"""One bounded outbox for each connected agent. The engine fills it, the agent's stream empties it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable

from coordinator.core.errors import Conflict, QgjobError, ShuttingDown
from coordinator.core.model import SessionId
from coordinator.core.step import CloseSession, Send

OUTBOX_LIMIT = 4_096
"""Commands that may wait for one agent. An agent that reads more slowly is cut off; it comes back and is reconciled."""


class Session:
    """The way down to one agent."""

    def __init__(self, session_id: SessionId, check_leadership: Callable[[], None]) -> None:
        self.id = session_id
        self._check_leadership = check_leadership
        self._outbox: deque[Send] = deque()
        self._has_news = asyncio.Event()
        self._ended_by: QgjobError | None = None

    def put(self, send: Send) -> None:
        """Queue a command; an overflowing outbox closes the session."""
        if len(self._outbox) >= OUTBOX_LIMIT:
            self.close(ShuttingDown("the session was ended because its commands were not read; connect again"))
            return
        self._outbox.append(send)
        self._has_news.set()

    def close(self, error: QgjobError) -> None:
        """Let the reader of the outbox end with `error`."""
        if self._ended_by is None:
            self._ended_by = error
        self._has_news.set()

    async def next(self) -> Send:
        """Return the next command.

        Raises:
            QgjobError: This side ended the session, and why.
        """
        while True:
            if self._ended_by is not None:
                raise self._ended_by
            self._check_leadership()
            if self._outbox:
                return self._outbox.popleft()
            self._has_news.clear()
            await self._has_news.wait()


class Sessions:
    """All open sessions."""

    def __init__(self, check_leadership: Callable[[], None] = lambda: None) -> None:
        """Take what raises NotLeader once this coordinator must not tell anything any more."""
        self._check_leadership = check_leadership
        self._ids = itertools.count(1)
        self._open: dict[SessionId, Session] = {}

    def open(self) -> Session:
        """Make a session for a new stream."""
        session = Session(SessionId(next(self._ids)), self._check_leadership)
        self._open[session.id] = session
        return session

    def forget(self, session: Session) -> None:
        """Drop a session whose stream has ended."""
        self._open.pop(session.id, None)

    def deliver(self, send: Send) -> None:
        """Hand a send to its session; one that has gone is reconciled when its agent comes back."""
        session = self._open.get(send.session)
        if session is None:
            return
        if isinstance(send, CloseSession):
            session.close(Conflict(send.why))
        else:
            session.put(send)

    def end(self, session_id: SessionId, error: QgjobError) -> None:
        """End a session with an error, if it is still open."""
        session = self._open.get(session_id)
        if session is not None:
            session.close(error)

    def close_all(self, why: QgjobError) -> None:
        """End every session."""
        for session in list(self._open.values()):
            session.close(why)
