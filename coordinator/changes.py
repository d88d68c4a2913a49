"""Tells who waits for a job that it has changed. Carries no records: who is told reads what was committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordinator.core.model import Job, JobId


class Subscription:
    """The jobs that have changed since they were last taken; each stands once, however often it changed."""

    def __init__(self, is_wanted: Callable[[Job], bool]) -> None:
        self._is_wanted = is_wanted
        self._changed: dict[JobId, None] = {}
        self._has_news = asyncio.Event()

    def offer(self, job: Job) -> None:
        """Note a change if it is wanted."""
        if self._is_wanted(job):
            self._changed[job.id] = None
            self._has_news.set()

    async def take(self) -> list[JobId]:
        """Wait for changes and return their jobs."""
        await self._has_news.wait()
        self._has_news.clear()
        changed, self._changed = list(self._changed), {}
        return changed


class Changes:
    """All who wait."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}

    @contextmanager
    def subscribe(self, is_wanted: Callable[[Job], bool]) -> Iterator[Subscription]:
        """Hear of the changes of wanted jobs while the context lasts."""
        subscription = Subscription(is_wanted)
        self._subscriptions[subscription] = None
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]

    def publish(self, job: Job) -> None:
        """Tell that a change of a job was committed."""
        for subscription in self._subscriptions:
            subscription.offer(job)
