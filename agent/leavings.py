"""What attempts left behind, from the end of a run to the coordinator: kept, merged, uploaded.

The verdict has gone ahead of all this, and nothing waits for it but the orderly end of the agent.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import structlog

from agent.artifact_uploader import ArtifactUploader
from agent.artifacts import ArtifactSpool, LeftBehind, warn_lost
from agent.core.model import AgentId, ArtifactKind
from agent.core.step import StartAttempt
from agent.earlier_reports import EarlierReports
from agent.runners.protocol import Merge, MergeFailed, Verdict
from agent.runners.results import Results

OWN, MERGED = 1, 2
"""Parcels of an attempt: what it left itself, and the report of all attempts up to it."""


class Leavings:
    """All of one agent. Everything runs on one event loop."""

    def __init__(self, spool: ArtifactSpool, channel: Callable[[], grpc.aio.Channel], agent: AgentId) -> None:
        """Take the place on disk, the way to the coordinator of the moment, and who speaks."""
        self._spool = spool
        self._uploader = ArtifactUploader(spool, channel, agent)
        self._earlier = EarlierReports(channel, agent)
        self._keeping: set[asyncio.Task[None]] = set()
        """Work on what is not in the spool yet."""
        self._out = structlog.get_logger("agent")

    async def run(self) -> None:
        """Upload for ever. What is not kept when this ends is lost."""
        try:
            await self._uploader.run()
        finally:
            for task in self._keeping:
                task.cancel()
            await asyncio.gather(*self._keeping, return_exceptions=True)

    def forget_all(self) -> None:
        """Drop everything: it belongs to another database. It blocks."""
        self._uploader.forget_all()

    async def flushed(self) -> None:
        """Wait until everything is kept, and nothing waits for the coordinator."""
        if self._keeping:
            await asyncio.wait(self._keeping)
        await self._uploader.flushed()

    def take(self, action: StartAttempt, verdict: Verdict, results: Results) -> None:
        """Take what a run has left over, if it has left anything."""
        if not verdict.left_behind:
            return
        task = asyncio.create_task(self._take(action, verdict, results))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _take(self, action: StartAttempt, verdict: Verdict, results: Results) -> None:
        try:
            await self._keep(action, (results.file(action, verdict), *verdict.left_behind), OWN)
            if verdict.merge is not None:
                await self._merge(action, verdict, verdict.merge)
        except MergeFailed as error:
            self._out.warning("reports_not_merged", job=action.job.job_id, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the top of a task: told, and nothing else hangs on it
            self._out.error("artifacts_lost", job=action.job.job_id, reason=f"they cannot be kept: {error}")

    async def _merge(self, action: StartAttempt, verdict: Verdict, merge: Merge) -> None:
        """Make one report of all attempts of a job up to this one, and keep it as well.

        A run that was ended from outside has no report but that one. Of one that goes on elsewhere the next has it.
        """
        job = action.job
        is_missing = verdict.outcome is not None and not any(
            one.kind is ArtifactKind.JSON_REPORT for one in verdict.left_behind
        )
        with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
            earlier = list[Path]()
            if job.attempt_number > 1:
                earlier = await self._earlier.fetch(job.attempt_id, action.key, Path(folder))
            if earlier or is_missing:
                await self._keep(action, await merge(earlier), MERGED)

    async def _keep(self, action: StartAttempt, left: Sequence[LeftBehind], part: int) -> None:
        job = action.job
        secrets = [value for _, value in job.secrets]
        lost = await asyncio.to_thread(self._spool.keep, job.attempt_id, action.key, left, secrets, part)
        warn_lost(job.attempt_id, lost)
        self._uploader.note()
