"""Forgets what is old: finished jobs and artifacts by age, and the oldest logs and artifacts when they take too much.

It goes in small steps with pauses, for every step holds up the engine's next commit. What a step of one pass leaves
behind, because the process ended, the next pass finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass

import structlog

from coordinator.core.model import AttemptId
from coordinator.logstore import LogStore
from coordinator.store import Store

JOBS_PER_STEP = 100
LOGS_PER_STEP = 100
REQUESTS_PER_STEP = 100
ATTEMPTS_PER_STEP = 20
PAUSE_S = 0.02

DropBlobs = Callable[[Collection[str]], Awaitable[object]]
"""Frees the space of those blobs that nothing names any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is kept."""

    age_us: int | None = None
    """Since the end of a job; None for ever."""
    log_bytes: int | None = None
    """Of all logs together; None for any number."""
    artifact_age_us: int | None = None
    """Since the last artifact of an attempt was stored; None for as long as its job."""
    artifact_bytes: int | None = None
    """Of all artifacts together; None for any number."""


@dataclass(slots=True)
class Pruned:
    """What one pass came to."""

    jobs: int = 0
    requests: int = 0
    logs: int = 0
    emptied: int = 0
    artifacts: int = 0
    """Attempts whose artifacts were forgotten while their job stays."""


class Retention:
    """Prunes database and logs. Only the coordinator that leads may run it: its epoch is checked in every step."""

    def __init__(
        self, store: Store, logs: LogStore, limits: Limits, read_wall_us: Callable[[], int], drop_blobs: DropBlobs
    ) -> None:
        """Take what is to be kept, and what frees the bytes of artifacts that are forgotten."""
        self._store = store
        self._logs = logs
        self._limits = limits
        self._read_wall_us = read_wall_us
        self._drop_blobs = drop_blobs

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
        if self._limits.artifact_age_us is not None:
            pruned.artifacts += await self._forget_old_artifacts(self._read_wall_us() - self._limits.artifact_age_us)
        if self._limits.artifact_bytes is not None:
            pruned.artifacts += await self._forget_excess_artifacts(self._limits.artifact_bytes)
        if self._limits.log_bytes is not None:
            pruned.emptied = await self._empty_logs(self._limits.log_bytes)
        pruned.logs = await self._forget_logs()
        if pruned != Pruned():
            structlog.get_logger("coordinator").info("pruned", **asdict(pruned))
        return pruned

    async def _forget_jobs(self, before_us: int) -> int:
        count = 0
        while jobs := await asyncio.to_thread(self._store.old_jobs, before_us, JOBS_PER_STEP):
            await self._drop_blobs(await asyncio.to_thread(self._store.forget_jobs, jobs))
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

    async def _forget_old_artifacts(self, before_us: int) -> int:
        count = 0
        while kept := await asyncio.to_thread(self._store.oldest_artifacts, before_us, ATTEMPTS_PER_STEP):
            await self._forget_artifacts([one.attempt for one in kept])
            count += len(kept)
        return count

    async def _forget_excess_artifacts(self, limit: int) -> int:
        """Forget the oldest artifacts of ended jobs until all together keep the limit."""
        count = 0
        while (excess := await asyncio.to_thread(self._store.artifact_bytes) - limit) > 0:
            chosen: list[AttemptId] = []
            for one in await asyncio.to_thread(self._store.oldest_artifacts, None, ATTEMPTS_PER_STEP):
                if excess > 0:
                    chosen.append(one.attempt)
                    # At most: bytes that others share are freed with the last of them, which the next look shows.
                    excess -= one.size
            if not chosen:
                break  # what is left belongs to jobs that go on
            await self._forget_artifacts(chosen)
            count += len(chosen)
        return count

    async def _forget_artifacts(self, attempts: list[AttemptId]) -> None:
        """Rows go first. What a crash in between leaves of bytes goes when it is found that nothing names them."""
        await self._drop_blobs(await asyncio.to_thread(self._store.forget_artifacts, attempts))
        await asyncio.sleep(PAUSE_S)

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
