"""What a coordinator has while it leads: engine, logs, sessions and services. It is made once, and never again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, cast

import structlog

from coordinator.blobs import BlobStore
from coordinator.config import Config
from coordinator.core.errors import QgjobError
from coordinator.core.model import Now
from coordinator.engine import Engine
from coordinator.http.services import Services
from coordinator.leadership import Leadership
from coordinator.logstore import LogStore
from coordinator.metrics import Metrics
from coordinator.retention import Limits, Retention
from coordinator.services.agent import AgentService
from coordinator.services.artifact import ArtifactService
from coordinator.services.blob import BlobService
from coordinator.services.build import BuildService
from coordinator.services.job import JobService
from coordinator.services.lab import DeviceService
from coordinator.services.log import LogService
from coordinator.services.queue import QueueService
from coordinator.sessions import Sessions
from coordinator.space import Space
from coordinator.storage import Storage
from coordinator.store import Store, StoreError
from coordinator.story import Story
from coordinator.switchboard import Switchboard
from qgjob.v1 import (
    agent_service_pb2_grpc,
    artifact_service_pb2_grpc,
    blob_service_pb2_grpc,
    build_service_pb2_grpc,
    device_service_pb2_grpc,
    job_service_pb2_grpc,
    log_service_pb2_grpc,
    queue_service_pb2_grpc,
)

if TYPE_CHECKING:
    import grpc

PRUNE_INTERVAL_S = 600.0
REQUESTS_PER_STEP = 1_000
TEND_INTERVAL_S = 10.0
"""Between two looks after what nobody waits for."""


def read_clocks() -> Now:
    """Read both clocks."""
    return Now(mono_us=time.monotonic_ns() // 1_000, wall_us=time.time_ns() // 1_000)


class House:
    """Everything behind the services."""

    def __init__(
        self,
        config: Config,
        store: Store,
        storage: Storage,
        space: Space,
        leadership: Leadership,
        metrics: Metrics | None = None,
    ) -> None:
        """Raise the epoch and take up what is not finished.

        Raises:
            StoreError: The database refused.
        """
        self._store = store
        self._space = space
        self._logs = LogStore(storage, store, may_acknowledge=leadership.leads, is_sole=True)
        self._blobs = BlobStore(storage.shelf(), config.data_dir / "uploads")
        self._most_blob_bytes = config.max_upload
        ages = [age for age in (config.retain_us, config.retain_artifacts_us) if age is not None]
        self._retain_artifacts_us = min(ages, default=None)
        limits = Limits(
            age_us=config.retain_us,
            log_bytes=config.retain_bytes,
            artifact_age_us=config.retain_artifacts_us,
            artifact_bytes=config.retain_artifact_bytes,
        )
        self._retention = Retention(
            store,
            self._logs,
            limits,
            lambda: read_clocks().wall_us,
            lambda digests: self._blobs.drop(digests, self._named),
        )
        space.keep_ballast()
        self._sessions = Sessions(leadership.check)
        self.engine = Engine(
            store=store,
            sessions=self._sessions,
            settings=config.settings,
            clock=read_clocks,
            story=Story(),
            space=space,
            check_leadership=leadership.check,
            metrics=metrics,
        )
        self.turning: asyncio.Task[None] | None = None
        """Ends with what ended the engine."""
        self._tending: asyncio.Task[None] | None = None
        self._pruned_s = -PRUNE_INTERVAL_S

    def connect(self, switchboard: Switchboard, version: str) -> Services:
        """Connect every service, and return those that answer over HTTP too."""
        server = cast("grpc.aio.Server", switchboard)  # all that the generated code knows
        agents = AgentService(self.engine, self._sessions, self._store.cluster_id, version)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        jobs = JobService(self.engine, self._store, self._logs, self._space, self._blobs)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        queue = QueueService(self.engine, self._store)
        queue_service_pb2_grpc.add_QueueServiceServicer_to_server(queue, server)
        devices = DeviceService(self.engine)
        device_service_pb2_grpc.add_DeviceServiceServicer_to_server(devices, server)
        builds = BuildService(self.engine, self._store, self._blobs)
        build_service_pb2_grpc.add_BuildServiceServicer_to_server(builds, server)
        blobs = BlobService(self.engine, self._blobs, self._space, most_bytes=self._most_blob_bytes)
        blob_service_pb2_grpc.add_BlobServiceServicer_to_server(blobs, server)
        artifacts = ArtifactService(
            self._store, self._blobs, self._space, lambda: read_clocks().wall_us, retain_us=self._retain_artifacts_us
        )
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)
        logs = LogService(self._store, self._logs, self.engine.changes, self._space, self.engine.known_lease)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(logs, server)
        return Services(
            jobs=jobs, logs=logs, queue=queue, devices=devices, agents=agents, builds=builds, artifacts=artifacts
        )

    def start(self) -> asyncio.Task[None]:
        """Begin to turn and to tend; return what ends when the engine does."""
        self._tending = asyncio.create_task(self._tend())
        self.turning = asyncio.create_task(self.engine.run())
        return self.turning

    async def _tend(self) -> None:
        """Learn which requests there are, make the ballast whole again once there is room, and forget what is old."""
        while True:
            try:
                await self._tend_once()
            except Exception:  # noqa: BLE001 - the top of a task: without it the disk would fill, and nobody would know why
                structlog.get_logger("coordinator").exception("not_tended", story="It is tried again later")
                await asyncio.sleep(TEND_INTERVAL_S)

    async def _tend_once(self) -> None:
        if self._space.is_writable:
            await self._learn_requests()
        await asyncio.sleep(TEND_INTERVAL_S)
        await asyncio.to_thread(self._space.keep_ballast)
        if self._space.is_writable and time.monotonic() - self._pruned_s >= PRUNE_INTERVAL_S:
            await self._prune()
            self._pruned_s = time.monotonic()

    async def _learn_requests(self) -> None:
        """Let submits be spared the look-up of their key. A start waits for none of it."""
        try:
            while not await asyncio.to_thread(self._store.learn_requests, REQUESTS_PER_STEP):
                pass
        except StoreError as error:
            story = "Submits take longer until it is tried again"
            structlog.get_logger("coordinator").error("requests_not_learnt", reason=str(error), story=story)

    async def _prune(self) -> None:
        try:
            await self._retention.run_once()
            await self._blobs.prune(self._named, now_s=time.time())
        except (StoreError, OSError) as error:
            structlog.get_logger("coordinator").error("not_pruned", reason=str(error), story="It is tried again later")

    async def _named(self, digests: Collection[str]) -> set[str]:
        """Return those blobs that an app version, a job or an artifact names."""
        artifacts = await asyncio.to_thread(self._store.artifact_blobs, digests)
        ledger = self.engine.scheduler.ledger
        named = {build.registered for build in ledger.builds.versions.values()}
        for job in ledger.jobs.values():
            named |= {job.build_digest, job.spec.bundle_digest}
        return artifacts | named.intersection(digests)

    def end_sessions(self, why: QgjobError) -> None:
        """End the session of every agent."""
        self._sessions.close_all(why)

    async def stop(self) -> None:
        """Finish what waits, and close the files."""
        self.engine.stop()
        if self.turning is not None:
            await asyncio.gather(self.turning, return_exceptions=True)
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._logs.close()
