"""Forgets what is old: finished jobs by age, and the oldest logs when all of them take too much space.

It goes in small steps with pauses, for every step holds up the engine's next commit. What a step of one pass leaves
behind, because the process ended, the next pass finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from coordinator.core.model import AttemptId
from coordinator.logstore import LogStore
from coordinator.store import Store

JOBS_PER_STEP = 100
LOGS_PER_STEP = 100
REQUESTS_PER_STEP = 100
PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept."""

    age_us: int | None = None
    """Since the end of a job; None for ever."""
    log_bytes: int | None = None
    """Of all logs together; None for any number."""


@dataclass(slots=True)
class Pruned:
    """What one pass came to."""

    jobs: int = 0
    requests: int = 0
    logs: int = 0
    emptied: int = 0


class Retention:
    """Prunes database and logs. Only the coordinator that leads may run it: its epoch is checked in every step."""

    def __init__(self, store: Store, logs: LogStore, limits: Limits, read_wall_us: Callable[[], int]) -> None:
        """Take what is to be kept."""
        self._store = store
        self._logs = logs
        self._limits = limits
        self._read_wall_us = read_wall_us

    async def run_once(self) -> Pruned:
        """Prune all that is due.

        Raises:
            StoreError: The database refused; what was done until then counts.
            OSError: The storage refused.
        """
        pruned = Pruned()
        if self._limits.age_us is not None:
            pruned.jobs = await self._forget_jobs(self._read_wall_us() - self._limits.age_us)
            pruned.requests = await self._forget_requests()
        if self._limits.log_bytes is not None:
            pruned.emptied = await self._empty_logs(self._limits.log_bytes)
        pruned.logs = await self._forget_logs()
        if pruned != Pruned():
            structlog.get_logger("coordinator").info(
                "pruned", jobs=pruned.jobs, requests=pruned.requests, logs=pruned.logs, emptied=pruned.emptied
            )
        return pruned

    async def _forget_jobs(self, before_us: int) -> int:
        count = 0
        while jobs := await asyncio.to_thread(self._store.old_jobs, before_us, JOBS_PER_STEP):
            await asyncio.to_thread(self._store.forget_jobs, jobs)
            count += len(jobs)
            await asyncio.sleep(PAUSE_S)
        return count

    async def _forget_requests(self) -> int:
        count = 0
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            spent, after = await asyncio.to_thread(self._store.spent_requests, after, REQUESTS_PER_STEP)
            if spent:
                await asyncio.to_thread(self._store.forget_requests, spent)
                count += len(spent)
            await asyncio.sleep(PAUSE_S)
        return count

    async def _empty_logs(self, limit: int) -> int:
        """Empty the oldest logs of ended jobs until all logs together keep the limit."""
        used = await self._logs.used()
        excess = sum(used.values()) - limit
        count = 0
        oldest = sorted(used)
        while excess > 0 and oldest:
            step, oldest = oldest[:LOGS_PER_STEP], oldest[LOGS_PER_STEP:]
            chosen: list[AttemptId] = []
            for attempt in await asyncio.to_thread(self._store.ended_attempts, step):
                if excess > 0:
                    chosen.append(attempt)
                    excess -= used[attempt]
            if chosen:
                count += await self._logs.empty(chosen)
            await asyncio.sleep(PAUSE_S)
        return count

    async def _forget_logs(self) -> int:
        count = 0
        while strays := await asyncio.to_thread(self._store.stray_logs, LOGS_PER_STEP):
            forgotten = await self._logs.forget(strays)
            if not forgotten:
                break
            count += forgotten
            await asyncio.sleep(PAUSE_S)
        return count
