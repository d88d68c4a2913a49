"""The lab as a client sees it: queue, devices, agents, builds, blobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import grpc

from qgjob.access import RELEASE_KEY
from qgjob.errors import ClientError, Unreachable, error_of, is_passing

if TYPE_CHECKING:
    # The services that only some commands use are loaded by them.
    from qgjob.v1.agent_pb2 import Agent
    from qgjob.v1.agent_service_pb2 import ListAgentsResponse
    from qgjob.v1.blob_service_pb2 import FindBlobResponse, UploadBlobRequest
    from qgjob.v1.build_pb2 import Build
    from qgjob.v1.build_service_pb2 import ListBuildsResponse
    from qgjob.v1.device_pb2 import Device
    from qgjob.v1.device_service_pb2 import ListDevicesResponse
    from qgjob.v1.queue_pb2 import QueueStatus
from qgjob.client.connection import CALL_TIMEOUT_S, Connection
from qgjob.client.known import without_estimates


class LabClient(Connection):
    """Asks about the lab, and lets an operator hold what is in it."""

    def release(self, *, timeout_s: float = CALL_TIMEOUT_S) -> str:
        """Return the release of the coordinator that answers; empty where it does not say.

        Args:
            timeout_s: How long each of several is given to answer.
        """
        for _ in range(len(self._coordinators) - 1):
            channel = self._channel
            try:
                return self._release(timeout_s)
            except Unreachable as error:
                if not _was_late(error):
                    raise
                self._coordinators.leave(channel)
        return self._release(timeout_s)

    def _release(self, timeout_s: float) -> str:
        from qgjob.v1.agent_service_pb2 import ListAgentsRequest
        from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub

        request = ListAgentsRequest(page_size=1)
        _, call = self._call(lambda: AgentServiceStub(self._channel).ListAgents.with_call(request, timeout=timeout_s))
        told = {key: value for key, value in call.trailing_metadata() or () if isinstance(value, str)}
        return told.get(RELEASE_KEY, "")

    def queue_status(self) -> QueueStatus:
        """Return the queue at a glance."""
        from qgjob.v1.queue_service_pb2 import GetQueueStatusRequest
        from qgjob.v1.queue_service_pb2_grpc import QueueServiceStub

        request = GetQueueStatusRequest()
        return self._call(
            lambda: QueueServiceStub(self._channel).GetQueueStatus(request, timeout=CALL_TIMEOUT_S)
        ).status

    def follow_queue(self, *, every_s: float = 0.5) -> Iterator[QueueStatus]:
        """Yield the queue as it stands, then whenever a look shows that it has changed, without end."""
        patience = self._stream_patience()
        told = b""
        while True:
            try:
                status = self.queue_status()
            except Unreachable as error:
                if self._is_closed or patience.is_over():
                    raise
                self._tell_lost(error)
                patience.wait()
                continue
            patience.renew()
            self._is_lost = False
            said = without_estimates(status)
            if said != told:
                told = said
                yield status
            time.sleep(every_s)

    def list_devices(self) -> list[Device]:
        """Return all devices by id."""
        from qgjob.v1.device_service_pb2 import ListDevicesRequest
        from qgjob.v1.device_service_pb2_grpc import DeviceServiceStub

        def read(size: int, token: str) -> ListDevicesResponse:
            return DeviceServiceStub(self._channel).ListDevices(
                ListDevicesRequest(page_size=size, page_token=token), timeout=CALL_TIMEOUT_S
            )

        return list(self._pages(read, lambda page: page.devices))

    def list_agents(self) -> list[Agent]:
        """Return all agents by name."""
        from qgjob.v1.agent_service_pb2 import ListAgentsRequest
        from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub

        def read(size: int, token: str) -> ListAgentsResponse:
            return AgentServiceStub(self._channel).ListAgents(
                ListAgentsRequest(page_size=size, page_token=token), timeout=CALL_TIMEOUT_S
            )

        return list(self._pages(read, lambda page: page.agents))

    def drain_agent(self, name: str, *, interrupt: bool = False) -> Agent:
        """Keep new work off an agent's devices. What runs ends; with `interrupt` it is ended, and runs elsewhere."""
        from qgjob.v1.agent_service_pb2 import DrainAgentRequest
        from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub

        request = DrainAgentRequest(agent_id=name, interrupt=interrupt)
        return self._call(lambda: AgentServiceStub(self._channel).DrainAgent(request, timeout=CALL_TIMEOUT_S)).agent

    def resume_agent(self, name: str) -> Agent:
        """Let a drained agent work again."""
        from qgjob.v1.agent_service_pb2 import ResumeAgentRequest
        from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub

        request = ResumeAgentRequest(agent_id=name)
        return self._call(lambda: AgentServiceStub(self._channel).ResumeAgent(request, timeout=CALL_TIMEOUT_S)).agent

    def forget_agent(self, name: str) -> Agent:
        """Forget an agent that will not come back, and all of its devices; return it as it was known last."""
        from qgjob.v1.agent_service_pb2 import ForgetAgentRequest
        from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub

        request = ForgetAgentRequest(agent_id=name)
        return self._call(lambda: AgentServiceStub(self._channel).ForgetAgent(request, timeout=CALL_TIMEOUT_S)).agent

    def quarantine_device(self, device_id: str, reason: str = "") -> Device:
        """Keep new work off a device with which something is wrong."""
        from qgjob.v1.device_service_pb2 import QuarantineDeviceRequest
        from qgjob.v1.device_service_pb2_grpc import DeviceServiceStub

        request = QuarantineDeviceRequest(device_id=device_id, reason=reason)
        return self._call(
            lambda: DeviceServiceStub(self._channel).QuarantineDevice(request, timeout=CALL_TIMEOUT_S)
        ).device

    def drain_device(self, device_id: str, reason: str = "") -> Device:
        """Keep new work off a device that is needed for something else."""
        from qgjob.v1.device_service_pb2 import DrainDeviceRequest
        from qgjob.v1.device_service_pb2_grpc import DeviceServiceStub

        request = DrainDeviceRequest(device_id=device_id, reason=reason)
        return self._call(lambda: DeviceServiceStub(self._channel).DrainDevice(request, timeout=CALL_TIMEOUT_S)).device

    def readmit_device(self, device_id: str, *, host_is_gone: bool = False) -> Device:
        """Let a held device work again; with `host_is_gone` one, too, that waits for an agent who will not come."""
        from qgjob.v1.device_service_pb2 import ReadmitDeviceRequest
        from qgjob.v1.device_service_pb2_grpc import DeviceServiceStub

        request = ReadmitDeviceRequest(device_id=device_id, host_is_gone=host_is_gone)
        return self._call(
            lambda: DeviceServiceStub(self._channel).ReadmitDevice(request, timeout=CALL_TIMEOUT_S)
        ).device

    def list_builds(self, org_id: str = "", *, limit: int | None = None) -> list[Build]:
        """Return the builds, the last registered or installed first, at most `limit`."""
        from qgjob.v1.build_service_pb2 import ListBuildsRequest
        from qgjob.v1.build_service_pb2_grpc import BuildServiceStub

        def read(size: int, token: str) -> ListBuildsResponse:
            request = ListBuildsRequest(org_id=org_id, page_size=size, page_token=token)
            return BuildServiceStub(self._channel).ListBuilds(request, timeout=CALL_TIMEOUT_S)

        return list(self._pages(read, lambda page: page.builds, limit))

    def register_build(
        self,
        org_id: str,
        app_version_id: str,
        digest: str,
        *,
        file_name: str = "",
        is_replacing: bool = False,
        platform: str = "",
        kind: str = "",
    ) -> Build:
        """Say which uploaded blob an app version is; jobs that were accepted before keep their build.

        `platform` and `kind` are what `qgjob.appfile.read_app_file` tells of it.
        """
        from qgjob.v1.build_service_pb2 import RegisterBuildRequest
        from qgjob.v1.build_service_pb2_grpc import BuildServiceStub
        from qgjob.v1.device_pb2 import DeviceKind

        request = RegisterBuildRequest(
            org_id=org_id,
            app_version_id=app_version_id,
            digest=digest,
            file_name=file_name,
            replace=is_replacing,
            platform=platform,
            device_kind=DeviceKind.Value(f"DEVICE_KIND_{kind.upper() or 'UNSPECIFIED'}"),
        )
        return self._call(lambda: BuildServiceStub(self._channel).RegisterBuild(request, timeout=CALL_TIMEOUT_S)).build

    def find_blob(self, digest: str, size: int) -> FindBlobResponse:
        """Ask what is stored of a blob; see `qgjob.uploads`, which brings whole files."""
        from qgjob.v1.blob_service_pb2 import FindBlobRequest
        from qgjob.v1.blob_service_pb2_grpc import BlobServiceStub

        request = FindBlobRequest(digest=digest, size=size)
        return self._call(lambda: BlobServiceStub(self._channel).FindBlob(request, timeout=CALL_TIMEOUT_S))

    def send_blob(self, messages: Iterator[UploadBlobRequest]) -> None:
        """Send a blob over one stream, which is not repeated when it breaks."""
        from qgjob.v1.blob_service_pb2_grpc import BlobServiceStub

        channel = self._channel
        try:
            BlobServiceStub(channel).UploadBlob(messages)
        except grpc.RpcError as error:
            if is_passing(error):
                self._coordinators.leave(channel)
            raise error_of(error, self.target) from error


def _was_late(failure: ClientError) -> bool:
    """Whether a call had a time limit, and no answer came within it."""
    cause = failure.__cause__
    return isinstance(cause, grpc.RpcError) and cast("grpc.Call", cause).code() is grpc.StatusCode.DEADLINE_EXCEEDED
