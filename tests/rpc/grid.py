"""A coordinator of this process on a free port, its stubs, and agents that tests speak for over the wire."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from coordinator.config import Config
from coordinator.core.model import Settings
from coordinator.house import House
from coordinator.server import Server
from qgjob.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    artifact_service_pb2_grpc,
    blob_service_pb2_grpc,
    build_service_pb2_grpc,
    device_pb2,
    device_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    lease_pb2,
    log_service_pb2_grpc,
    queue_service_pb2_grpc,
)

PATIENCE_S = 60.0
DIGEST = "d" * 64

OPTIONS = (("grpc.max_receive_message_length", 4 * 1_024 * 1_024), ("grpc.max_send_message_length", 64 * 1_024 * 1_024))

Connection = grpc.aio.StreamStreamCall[agent_service_pb2.ConnectRequest, agent_service_pb2.ConnectResponse]
Command = agent_service_pb2.ConnectResponse


class Grid:
    """A coordinator that can be started again on what it left."""

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        *,
        retain_us: int | None = None,
        database_url: str = "",
        leader_ttl_s: float = 10.0,
        http: str | None = None,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._retain_us = retain_us
        self._database_url = database_url or f"sqlite:///{directory / 'qgjob.db'}"
        self._leader_ttl_s = leader_ttl_s
        self._http = http
        self._keys = itertools.count(1)
        self.listen = "127.0.0.1:0"
        self.server: Server

    async def start(self) -> None:
        config = Config(
            listen=self.listen,
            data_dir=self._directory,
            database_url=self._database_url,
            settings=self._settings,
            http=self._http,
            retain_us=self._retain_us,
            leader_ttl_s=self._leader_ttl_s,
        )
        self.server = Server(config, "0.1.0")
        self.address = await self.server.start()
        self.channel = grpc.aio.insecure_channel(self.address, options=OPTIONS)
        self.jobs = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.queue = queue_service_pb2_grpc.QueueServiceStub(self.channel)
        self.devices = device_service_pb2_grpc.DeviceServiceStub(self.channel)
        self.blobs = blob_service_pb2_grpc.BlobServiceStub(self.channel)
        self.artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(self.channel)
        self.builds = build_service_pb2_grpc.BuildServiceStub(self.channel)
        self.agents = agent_service_pb2_grpc.AgentServiceStub(self.channel)
        self.logs = log_service_pb2_grpc.LogServiceStub(self.channel)

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def submit(self, *specs: job_pb2.JobSpec, **fields: Any) -> list[int]:  # noqa: ANN401 - fields of the request
        answer = await self.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=specs, **fields))
        return [job.id for job in answer.jobs]

    async def job(self, job_id: int) -> job_pb2.Job:
        return (await self.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job_id))).job

    async def job_when(self, job_id: int, state: int) -> job_pb2.Job:
        """Watch a job until it stands so."""
        request = job_service_pb2.WatchJobsRequest(filter=job_pb2.JobFilter(ids=[job_id]))
        async with asyncio.timeout(PATIENCE_S):
            async for message in self.jobs.WatchJobs(request):
                if message.job.state == state:
                    return message.job
        raise AssertionError(f"job {job_id} ended, and was never {job_pb2.JobState.Name(state)}")  # type: ignore[arg-type]

    def learning(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Return what is set once this coordinator, when it leads from now on, knows all requests of before."""
        has_learnt = asyncio.Event()
        learn = House._learn_requests

        async def observed(house: House) -> None:
            await learn(house)
            if house is self.server._house:
                has_learnt.set()

        monkeypatch.setattr(House, "_learn_requests", observed)
        return has_learnt

    def agent(self) -> AgentOnTheWire:
        return AgentOnTheWire(self.agents.Connect())


class AgentOnTheWire:
    """One session of an agent that says what a test lets it say."""

    def __init__(self, call: Connection) -> None:
        self.call = call
        self._unread: list[Command] = []

    async def say(self, **event: Any) -> None:  # noqa: ANN401 - any fact
        await self.call.write(agent_service_pb2.ConnectRequest(**event))

    async def hello(self, *devices: device_pb2.DeviceFacts, **fields: Any) -> agent_service_pb2.Welcome:  # noqa: ANN401
        await self.say(hello=hello(*devices, **fields))
        return (await self.hear("welcome")).welcome

    async def hear(self, kind: str) -> Command:
        """Return the next command of a kind; the others stay for later."""
        for index, kept in enumerate(self._unread):
            if kept.WhichOneof("command") == kind:
                return self._unread.pop(index)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                message: object = await self.call.read()
                if not isinstance(message, agent_service_pb2.ConnectResponse):
                    raise AssertionError(f"the stream ended: {await self.call.code()} {await self.call.details()}")
                if message.WhichOneof("command") == kind:
                    return message
                self._unread.append(message)

    async def lease(self) -> lease_pb2.LeaseSpec:
        """Hear of a lease and adopt it."""
        lease = (await self.hear("adopt_lease")).adopt_lease.lease
        await self.say(lease_adopted=agent_service_pb2.LeaseAdopted(echo=echo(lease)))
        return lease

    async def finish(
        self,
        lease: lease_pb2.LeaseSpec,
        attempt_id: int,
        outcome: job_pb2.AttemptOutcome.ValueType = job_pb2.ATTEMPT_OUTCOME_PASSED,
        **fields: Any,  # noqa: ANN401
    ) -> None:
        """Start and end an attempt, and wait until the result is durable."""
        await self.say(attempt_started=agent_service_pb2.AttemptStarted(key=lease.key, attempt_id=attempt_id))
        result = lease_pb2.AttemptResult(attempt_id=attempt_id, key=lease.key, outcome=outcome, **fields)
        await self.say(attempt_finished=agent_service_pb2.AttemptFinished(result=result))
        while attempt_id not in (await self.hear("acknowledge_results")).acknowledge_results.attempt_ids:
            pass

    async def status(self) -> tuple[grpc.StatusCode, str, ErrorInfo]:
        """Wait for the end of the stream and return how it ended."""
        async with asyncio.timeout(PATIENCE_S):
            return (
                await self.call.code(),
                str(await self.call.details()),
                error_info(await self.call.trailing_metadata()),
            )


def hello(*devices: device_pb2.DeviceFacts, **fields: Any) -> agent_service_pb2.Hello:  # noqa: ANN401 - any field
    known: dict[str, Any] = {
        "agent_id": "lab",
        "boot_id": "boot-1",
        "version": "0.1.0",
        "protocol": 1,
        "host": "mac-mini",
        "devices": devices,
        **fields,
    }
    return agent_service_pb2.Hello(**known)


def echo(lease: lease_pb2.LeaseSpec, started: Iterable[int] = ()) -> lease_pb2.LeaseEcho:
    return lease_pb2.LeaseEcho(key=lease.key, revision=lease.revision, started_attempt_ids=started)


def phone(name: str = "phone-1", **fields: Any) -> device_pb2.DeviceFacts:  # noqa: ANN401 - any field
    known: dict[str, Any] = {
        "id": name,
        "kind": device_pb2.DEVICE_KIND_DEVICE,
        "platform": "android",
        "model": "Pixel 8",
        "os_version": "14",
        "udid": name,
        "usable": True,
        **fields,
    }
    return device_pb2.DeviceFacts(**known)


def spec(test: str = "tests/login.spec.ts", **fields: Any) -> job_pb2.JobSpec:  # noqa: ANN401 - any field
    return job_pb2.JobSpec(**{"org_id": "qualgent", "app_version_id": "xyz123", "test": test, **fields})


def seconds(number: int) -> Duration:
    return Duration(seconds=number)


def error_info(trailers: Any) -> ErrorInfo:  # noqa: ANN401 - grpc's metadata
    """Return what the trailers of a refusal tell; empty where they tell nothing."""
    info = ErrorInfo()
    binary = dict(trailers or ()).get("grpc-status-details-bin")
    if binary is not None:
        assert Status.FromString(binary).details[0].Unpack(info)
    return info


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str, ErrorInfo]:
    """Wait for a call that is refused, and return its code, sentence and details."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), str(error.details()), error_info(error.trailing_metadata())
    raise AssertionError(f"it was not refused: {answer}")
