"""QueueService: the queue at a glance."""

from __future__ import annotations

import asyncio

from coordinator import wire
from coordinator.core.model import Job, JobId
from coordinator.engine import Engine
from coordinator.services.job import listed_out
from coordinator.store import Store
from qgjob.v1 import job_pb2, queue_service_pb2, queue_service_pb2_grpc

MOST_SHOWN = 1_000
"""Jobs that run, jobs that wait, and batches; fewer where they would not fit into a message. The lanes count all."""


class QueueService(queue_service_pb2_grpc.QueueServiceServicer):
    """Thin: engine and store -> wire."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store

    async def GetQueueStatus(
        self, request: queue_service_pb2.GetQueueStatusRequest, context: object = None
    ) -> queue_service_pb2.GetQueueStatusResponse:
        """Return lanes, running and waiting jobs, batches, devices, and what batches have saved."""
        queued, running = self._engine.census()
        status = wire.queue_status_out(
            queued=queued,
            running=running,
            running_jobs=await self._jobs(self._engine.running()),
            waiting_jobs=await self._jobs(self._engine.waiting()),
            counters=self._engine.scheduler.ledger.counters,
            drain_us=self._engine.forecast().drain_us,
            batches=[wire.batch_out(lease, running) for lease, running in self._engine.batches()[:MOST_SHOWN]],
            devices=self._engine.device_census(),
        )
        return queue_service_pb2.GetQueueStatusResponse(status=status)

    async def _jobs(self, ids: list[JobId]) -> list[job_pb2.Job]:
        shown = ids[:MOST_SHOWN]
        found: dict[JobId, Job] = {job.id: job for job in await asyncio.to_thread(self._store.get_jobs, shown)}
        jobs = [found[job_id] for job_id in shown if job_id in found]
        return wire.fitting(listed_out(jobs, self._engine.forecast()), wire.MAX_LISTED_BYTES // 2)
