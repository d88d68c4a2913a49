"""Builds the gRPC server, wires the parts, and stops gracefully."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.config import Config, ConfigError
from coordinator.core.model import Now
from coordinator.engine import Engine
from coordinator.interceptors import AccessInterceptor, RefusalInterceptor, ReleaseInterceptor
from coordinator.logstore import LogStore
from coordinator.retention import Limits, Retention
from coordinator.services.agent import AgentService
from coordinator.services.job import JobService
from coordinator.services.lab import BuildService, DeviceService
from coordinator.services.log import LogService
from coordinator.services.queue import QueueService
from coordinator.sessions import Sessions
from coordinator.space import Space
from coordinator.storage import claim, open_storage
from coordinator.store import Store, StoreError, StoreFull
from coordinator.story import Story
from coordinator.tls import server_credentials
from coordinator.tokens import TokenFile
from coordinator.wire import MAX_MESSAGE_BYTES
from qgjob import links
from qgjob.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    build_service_pb2,
    build_service_pb2_grpc,
    device_service_pb2,
    device_service_pb2_grpc,
    job_service_pb2,
    job_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    queue_service_pb2,
    queue_service_pb2_grpc,
)

STOP_GRACE_S = 2.0
PRUNE_INTERVAL_S = 600.0
TEND_INTERVAL_S = 10.0
"""Between two looks after what nobody waits for."""

SERVICES = (
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name,
    build_service_pb2.DESCRIPTOR.services_by_name["BuildService"].full_name,
    device_service_pb2.DESCRIPTOR.services_by_name["DeviceService"].full_name,
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"].full_name,
    queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"].full_name,
)

OPTIONS: Sequence[tuple[str, Any]] = (
    # Without this a second coordinator binds the same port in silence.
    ("grpc.so_reuseport", 0),
    *links.SERVER,
    # A follower that stops reading then holds about 100 KB here instead of several MB.
    ("grpc.http2.bdp_probe", 0),
    # A reconnect storm of thousands of streams is taken in, not refused.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 30_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


def read_clocks() -> Now:
    """Read both clocks."""
    return Now(mono_us=time.monotonic_ns() // 1_000, wall_us=time.time_ns() // 1_000)


def _interceptors(config: Config, release: str) -> tuple[grpc.aio.ServerInterceptor, ...]:
    """Return what a call passes, in order: who has no token is told of nothing else."""
    access = () if config.token_file is None else (AccessInterceptor(TokenFile(config.token_file)),)
    return (RefusalInterceptor(), *access, ReleaseInterceptor(release))


class Server:
    """A whole coordinator."""

    def __init__(self, config: Config, version: str) -> None:
        self._config = config
        self._space = Space(config.data_dir, min_free=config.min_free)
        self._store = self._open_store()
        storage = open_storage(config.data_dir, config.storage)
        claim(storage, self._store.storage_id, may_be_new=self._may_name_storage())
        self._logs = LogStore(storage, self._store)
        limits = Limits(age_us=config.retain_us, log_bytes=config.retain_bytes)
        self._retention = Retention(self._store, self._logs, limits, lambda: read_clocks().wall_us)
        self._space.keep_ballast()
        self._sessions = Sessions()
        self.engine = Engine(
            store=self._store,
            sessions=self._sessions,
            settings=config.settings,
            clock=read_clocks,
            story=Story(),
            space=self._space,
        )
        self._health = health.aio.HealthServicer()
        self._grpc = grpc.aio.server(interceptors=_interceptors(config, version), options=OPTIONS)
        self._credentials = server_credentials(config.tls) if config.tls is not None else None
        self._register(version)
        self._turning: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    def _open_store(self) -> Store:
        def open_it() -> Store:
            return Store.open(self._config.database_url, is_sole=True, give_back=self._space.give_back)

        try:
            return open_it()
        except StoreFull:
            if not self._space.give_back_all():
                raise
            return open_it()

    def _may_name_storage(self) -> bool:
        """Whether a data directory without a name may be ours.

        A SQLite database has one coordinator, which is told its directory; one on PostgreSQL could be anywhere. A
        bucket that does not bear the name holds no logs of a database that has some.
        """
        return self._store.is_new or (self._store.is_sqlite and self._config.storage is None)

    def _register(self, version: str) -> None:
        agents = AgentService(self.engine, self._sessions, self._store.cluster_id, version)
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, self._grpc)
        jobs = JobService(self.engine, self._store, self._logs, self._space)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._grpc)
        queue_service_pb2_grpc.add_QueueServiceServicer_to_server(QueueService(self.engine, self._store), self._grpc)
        device_service_pb2_grpc.add_DeviceServiceServicer_to_server(DeviceService(self.engine), self._grpc)
        build_service_pb2_grpc.add_BuildServiceServicer_to_server(BuildService(self._store), self._grpc)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(
            LogService(self._store, self._logs, self.engine.changes, self._space), self._grpc
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> str:
        """Begin to serve and return HOST:PORT.

        Raises:
            ConfigError: The address is taken or not ours.
        """
        host = self._config.listen.rpartition(":")[0]
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {self._config.listen}",
                "another coordinator may run there; choose another --listen, port 0 picks a free one",
            ) from error
        self._turning = asyncio.create_task(self.engine.run())
        self._tending = asyncio.create_task(self._tend())
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._grpc.start()
        return f"{host}:{port}"

    def _add_port(self) -> int:
        if self._credentials is None:
            return self._grpc.add_insecure_port(self._config.listen)
        return self._grpc.add_secure_port(self._config.listen, self._credentials)

    async def wait(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set.

        Raises:
            Exception: What ended the engine.
        """
        assert self._turning is not None
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait((waiting, self._turning), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._turning.done():
            self._turning.result()

    async def _tend(self) -> None:
        """Make the ballast whole again once there is room, and forget what is old."""
        pruned_s = -PRUNE_INTERVAL_S
        while True:
            await asyncio.sleep(TEND_INTERVAL_S)
            await asyncio.to_thread(self._space.keep_ballast)
            if self._space.is_writable and time.monotonic() - pruned_s >= PRUNE_INTERVAL_S:
                await self._prune()
                pruned_s = time.monotonic()

    async def _prune(self) -> None:
        try:
            await self._retention.run_once()
        except (StoreError, OSError) as error:
            structlog.get_logger("coordinator").error("not_pruned", reason=str(error), story="It is tried again later")

    async def stop(self) -> None:
        """Refuse new calls, end the streams, finish what waits, close the files."""
        await self._health.enter_graceful_shutdown()
        self._sessions.close_all()
        await self._grpc.stop(STOP_GRACE_S)
        self.engine.stop()
        if self._turning is not None:
            await asyncio.gather(self._turning, return_exceptions=True)
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._logs.close()
        self._store.close()
