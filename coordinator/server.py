"""Builds the gRPC server and the HTTP port, leads or stands by behind it, and stops gracefully."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.config import Config, ConfigError, is_loopback
from coordinator.core.errors import NotLeader, ShuttingDown
from coordinator.engine import Engine
from coordinator.house import House
from coordinator.http.port import HttpPort
from coordinator.http.services import Services
from coordinator.interceptors import AccessInterceptor, RefusalInterceptor, ReleaseInterceptor
from coordinator.leadership import Leadership, RowLeadership, Sole
from coordinator.metrics import Metrics
from coordinator.space import Space
from coordinator.storage import check, claim, open_storage
from coordinator.store import Store, StoreFull
from coordinator.switchboard import Switchboard
from coordinator.tls import server_credentials
from coordinator.tokens import TokenFile
from coordinator.wire import MAX_MESSAGE_BYTES
from qgjob import links
from qgjob.v1 import (
    agent_service_pb2,
    artifact_service_pb2,
    blob_service_pb2,
    build_service_pb2,
    device_service_pb2,
    job_service_pb2,
    log_service_pb2,
    queue_service_pb2,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp

STOP_GRACE_S = 2.0
LEADER = "qgjob.Leader"
"""What health calls the coordinator that leads; the others serve nothing but refusals."""
FIRST_LOOK_S = 0.1
EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - compared, not listened on

_DESCRIPTORS = (
    agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
    artifact_service_pb2.DESCRIPTOR.services_by_name["ArtifactService"],
    blob_service_pb2.DESCRIPTOR.services_by_name["BlobService"],
    build_service_pb2.DESCRIPTOR.services_by_name["BuildService"],
    device_service_pb2.DESCRIPTOR.services_by_name["DeviceService"],
    job_service_pb2.DESCRIPTOR.services_by_name["JobService"],
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"],
    queue_service_pb2.DESCRIPTOR.services_by_name["QueueService"],
)
SERVICES = tuple(service.full_name for service in _DESCRIPTORS)
METHODS = frozenset(f"/{service.full_name}/{method.name}" for service in _DESCRIPTORS for method in service.methods)

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


def _interceptors(
    tokens: TokenFile | None, release: str, streams: Counter[str]
) -> tuple[grpc.aio.ServerInterceptor, ...]:
    """Return what a call passes, in order: who has no token is told of nothing else."""
    access = () if tokens is None else (AccessInterceptor(tokens),)
    return (RefusalInterceptor(streams=streams), *access, ReleaseInterceptor(release))


def shown(address: str) -> str:
    """Return how others can reach an address of ours: one that stands for all is none to call."""
    host, _, port = address.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in EVERYWHERE else address


class Server:
    """A whole coordinator, which leads or stands by."""

    def __init__(self, config: Config, version: str) -> None:
        """Open the database and the storage."""
        self._config = config
        self._version = version
        self._space = Space(config.data_dir, min_free=config.min_free)
        self._store = self._open_store()
        self._storage = open_storage(config.data_dir, config.storage)
        self._health = health.aio.HealthServicer()
        self._tokens = TokenFile(config.token_file) if config.token_file is not None else None
        self._metrics = Metrics()
        self._streams: Counter[str] = Counter()
        interceptors = _interceptors(self._tokens, version, self._streams)
        self._grpc = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
        self._credentials = server_credentials(config.tls) if config.tls is not None else None
        self._leadership: Leadership = Sole()
        self._switchboard = Switchboard(METHODS, lambda: self._leadership.check())
        self._grpc.add_generic_rpc_handlers((self._switchboard,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)
        self._house: House | None = None
        self._services: Services | None = None
        self._http: HttpPort | None = None
        self._serving_http: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None

    def _open_store(self) -> Store:
        def open_it() -> Store:
            return Store.open(
                self._config.database_url,
                is_sole=True,
                leader_ttl_s=self._config.leader_ttl_s,
                give_back=self._space.give_back,
            )

        try:
            return open_it()
        except StoreFull:
            if not self._space.give_back_all():
                raise
            return open_it()

    # The storage

    def _check_storage(self) -> None:
        check(self._storage, self._store.storage_id, may_be_new=self._may_name_storage())

    def _may_name_storage(self) -> bool:
        """Whether a data directory without a name may be ours.

        A SQLite database has one coordinator, which is told its directory; one on PostgreSQL could be anywhere. A
        bucket that does not bear the name holds no logs of a database that has some.
        """
        return self._store.is_new or (self._store.is_sqlite and self._config.storage is None)

    # Start

    @property
    def engine(self) -> Engine:
        """Of the coordinator that leads."""
        assert self._house is not None, "a standby has no engine"
        return self._house.engine

    @property
    def leads(self) -> bool:
        """Whether this coordinator leads, rather than standing by."""
        return self._house is not None

    @property
    def is_alive(self) -> bool:
        """Whether it goes on to lead, or to stand by: nothing has ended that."""
        return self._life is not None and not self._life.done()

    async def start(self) -> str:
        """Begin to serve, or to stand by, and return HOST:PORT.

        Raises:
            ConfigError: The address is taken or not ours, or the storage is not the database's.
            StoreError: The database refused.
        """
        self._check_storage()
        if self._config.http is not None:
            self._http = HttpPort(self._config.http, self._config.tls, self._make_app)
        host = self._config.listen.rpartition(":")[0]
        try:
            port = self._add_port()
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {self._config.listen}",
                "another coordinator may run there; choose another --listen, port 0 picks a free one",
            ) from error
        address = f"{host}:{port}"
        if self._store.leader_row is not None:
            self._leadership = RowLeadership(self._store.leader_row, self._config.leader_ttl_s, shown(address))
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        for service in (LEADER, *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        if await self._is_first():
            await self._lead()
        else:
            self._check_storage()
        self._life = asyncio.create_task(self._live())
        await self._grpc.start()
        if self._http is not None:
            self._serving_http = asyncio.create_task(self._http.serve())
        return address

    def _add_port(self) -> int:
        if self._credentials is None:
            return self._grpc.add_insecure_port(self._config.listen)
        return self._grpc.add_secure_port(self._config.listen, self._credentials)

    async def _is_first(self) -> bool:
        """Whether this coordinator leads from the start on.

        A database that was never led bears no storage yet. Who stands by there waits until the leader has named its
        own: to find at the takeover that it was another one would be too late.
        """
        while not await self._leadership.try_to_take():
            if await asyncio.to_thread(self._store.has_been_led):
                return False
            await asyncio.sleep(FIRST_LOOK_S)
        return True

    # HTTP

    def _make_app(self) -> ASGIApp:
        """Make what the HTTP port serves. Loading it takes a while."""
        from coordinator.http.app import Parts, make_app
        from coordinator.http.collector import LabCollector

        assert self._config.http is not None
        self._metrics.registry.register(LabCollector(lambda: self.engine, self._streams))
        host = self._config.http.rpartition(":")[0].strip("[]")
        return make_app(
            Parts(
                services=self._find_services,
                registry=self._metrics.registry,
                streams=self._streams,
                tokens=self._tokens,
                asks_for_own_name=self._tokens is None and is_loopback(host),
                stopping=self._stopping,
                release=self._version,
            )
        )

    def _find_services(self) -> Services:
        """Return what may answer for the lab over HTTP; `/readyz` asks here too.

        Raises:
            NotLeader: Another coordinator leads, or this one does not yet.
            ShuttingDown: This coordinator is stopping, or its engine has ended.
        """
        self._leadership.check()
        if self._services is None:
            raise NotLeader("this coordinator takes over just now; repeat the call in a moment")
        if self.engine.is_stopping:
            raise ShuttingDown("the coordinator is stopping; repeat the call in a moment")
        return self._services

    @property
    def http_address(self) -> str | None:
        """HOST:PORT of the HTTP port once it is bound; None without one."""
        return self._http.address if self._http is not None else None

    # Leading

    async def _live(self) -> None:
        """Stand by until this coordinator leads, and lead.

        Raises:
            Exception: What ended that.
        """
        if self._house is None:
            await self._leadership.win()
            await self._lead()
            structlog.get_logger("coordinator").info("took_over", epoch=self.engine.epoch)
        assert self._keeping is not None
        assert self._house is not None
        turning = self._house.turning
        assert turning is not None
        await asyncio.wait((turning, self._keeping), return_when=asyncio.FIRST_COMPLETED)
        for task in (self._keeping, turning):
            if task.done():
                task.result()

    async def _lead(self) -> None:
        """Begin an epoch, and serve. The leadership is renewed meanwhile: to restore a large queue takes time."""
        self._keeping = asyncio.create_task(self._leadership.keep())
        try:
            house = await asyncio.to_thread(self._open_house)
        except BaseException:
            self._keeping.cancel()
            await self._leadership.release()
            raise
        services = house.connect(self._switchboard, self._version)
        house.start()
        self._house = house
        self._services = services
        for service in (LEADER, *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def _open_house(self) -> House:
        self._store.take_over()
        claim(self._storage, self._store.storage_id, may_be_new=self._may_name_storage())
        return House(self._config, self._store, self._storage, self._space, self._leadership, self._metrics)

    async def wait(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set.

        Raises:
            NotLeader: Another coordinator leads, or may do so.
            Exception: What else ended this one.
        """
        assert self._life is not None
        waiting = asyncio.create_task(stopping.wait())
        working = [task for task in (self._life, self._serving_http) if task is not None]
        await asyncio.wait((waiting, *working), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in working:
            if task.done():
                task.result()

    # End

    async def stop(self) -> None:
        """Refuse new calls, end the streams, finish what waits, close the files, and let another lead."""
        await self._health.enter_graceful_shutdown()
        if self._house is not None:
            self._house.end_sessions(ShuttingDown("the coordinator is stopping"))
        self._stopping.set()
        if self._http is not None:
            self._http.stop()
        await self._grpc.stop(STOP_GRACE_S)
        if self._serving_http is not None:
            await asyncio.gather(self._serving_http, return_exceptions=True)
        if self._http is not None:
            self._http.close()
        if self._house is not None:
            await self._house.stop()
        for task in (self._life, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._leadership.release()
        self._store.close()

    async def fall_silent(self, why: NotLeader) -> None:
        """End all streams at once. What is in memory counts no more, so nothing else is worth an orderly end."""
        if self._house is not None:
            self._house.end_sessions(why)
        self._stopping.set()
        await self._grpc.stop(None)
