"""Looks up whether submits were accepted before: those that come at the same time together.

Nearly all are new, which memory knows of most: only the others cost a look-up. One whose commit is under way may be
found by neither; the scheduler remembers the newest by itself.
"""

from __future__ import annotations

import asyncio

from coordinator.core.model import Request
from coordinator.store import Store

Key = tuple[str, str]
"""Organisation, and what its client named the request."""


class AcceptedRequests:
    """The requests in the database. While one read is under way, those that come wait for the next, and share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Key, asyncio.Future[Request | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, org_id: str, key: str) -> Request | None:
        """Return what was accepted under a key; None for a request that is new, or names no key.

        Raises:
            StoreError: The database did not answer.
        """
        if not key or not self._store.may_have_request((org_id, key)):
            return None
        found = self._waiting.get((org_id, key))
        if found is None:
            found = self._waiting[org_id, key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        # The others that wait for it shall not lose it with a caller who goes away.
        return await asyncio.shield(found)

    async def _read_all(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting, {}
                await self._read(taken)
        finally:
            self._reading = None

    async def _read(self, taken: dict[Key, asyncio.Future[Request | None]]) -> None:
        try:
            requests = await asyncio.to_thread(self._store.find_requests, list(taken))
        except Exception as error:  # noqa: BLE001 - every caller gets it
            for answer in taken.values():
                answer.set_exception(error)
            return
        found = {(request.org_id, request.key): request for request in requests}
        for key, answer in taken.items():
            answer.set_result(found.get(key))
