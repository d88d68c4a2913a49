"""A typed client of the coordinator, for the command line and for programs.

    with Client("127.0.0.1:50051") as client:
        login = JobSpec(org_id="qualgent", app_version_id="xyz123", test="tests/login.spec.ts")
        submitted = client.submit_jobs([login])
        for job in client.watch_jobs(JobFilter(ids=[submitted.jobs[0].id])):
            print(job.id, job.state)

Calls that the coordinator may have missed are repeated under the same idempotency key; streams are resumed where they
broke, so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar, cast

import grpc

from qgjob.channel import open_channel
from qgjob.errors import error_of, is_passing
from qgjob.v1.agent_pb2 import Agent
from qgjob.v1.agent_service_pb2 import ListAgentsRequest
from qgjob.v1.agent_service_pb2_grpc import AgentServiceStub
from qgjob.v1.build_pb2 import Build
from qgjob.v1.build_service_pb2 import ListBuildsRequest
from qgjob.v1.build_service_pb2_grpc import BuildServiceStub
from qgjob.v1.device_pb2 import Device
from qgjob.v1.device_service_pb2 import ListDevicesRequest
from qgjob.v1.device_service_pb2_grpc import DeviceServiceStub
from qgjob.v1.job_pb2 import LOG_STATE_OPEN, Job, JobFilter, JobSpec, LogState
from qgjob.v1.job_service_pb2 import (
    CancelJobsRequest,
    GetJobRequest,
    ListJobsRequest,
    RetryJobRequest,
    SubmitJobsRequest,
    SubmitJobsResponse,
    WatchJobsRequest,
)
from qgjob.v1.job_service_pb2_grpc import JobServiceStub
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from qgjob.v1.log_service_pb2_grpc import LogServiceStub
from qgjob.v1.queue_pb2 import QueueStatus
from qgjob.v1.queue_service_pb2 import GetQueueStatusRequest
from qgjob.v1.queue_service_pb2_grpc import QueueServiceStub

CALL_TIMEOUT_S = 30.0
RETRIES = 2
RETRY_S = 0.3
MAX_RETRY_S = 3.0
PAGE = 1_000

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of a job's log: bytes, or the beginning or end of an attempt."""

    attempt: int
    """Number of the attempt, from 1."""
    data: bytes = b""
    state: LogState.ValueType | None = None
    """OPEN where the attempt begins, COMPLETE or TRUNCATED where it ends, None for bytes."""


class Client:
    """Talks to one coordinator. Not for several threads at once.

    Every method raises a `qgjob.errors.ClientError` when the call is refused or never arrives.
    """

    def __init__(self, target: str, *, patience_s: float = 300.0) -> None:
        """Open a channel to HOST:PORT. `patience_s` is how long a broken stream is tried again."""
        self.target = target
        self._patience_s = patience_s
        self._channel = open_channel(target)
        self._jobs = JobServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Make a call that may be repeated; a coordinator that starts again is waited for a moment."""
        for tried in range(RETRIES + 1):
            try:
                return call()
            except grpc.RpcError as error:
                if tried == RETRIES or not is_passing(error):
                    raise error_of(error, self.target) from error
                time.sleep(RETRY_S * (tried + 1))
        raise AssertionError("unreachable")

    # Jobs

    def submit_jobs(
        self, specs: Sequence[JobSpec], *, request_id: str | None = None, strict: bool = False
    ) -> SubmitJobsResponse:
        """Submit jobs, all or none; they are durable when this returns."""
        request = SubmitJobsRequest(jobs=specs, request_id=request_id or uuid.uuid4().hex, strict=strict)
        return self._call(lambda: self._jobs.SubmitJobs(request, timeout=CALL_TIMEOUT_S))

    def get_job(self, job_id: int) -> Job:
        """Return a job with its attempts and tests."""
        return self._call(lambda: self._jobs.GetJob(GetJobRequest(job_id=job_id), timeout=CALL_TIMEOUT_S)).job

    def list_jobs(self, wanted: JobFilter, limit: int) -> list[Job]:
        """Return wanted jobs, newest first, at most `limit`."""
        jobs: list[Job] = []
        token = ""
        while len(jobs) < limit:
            request = ListJobsRequest(filter=wanted, page_size=min(PAGE, limit - len(jobs)), page_token=token)
            page = self._call(lambda request=request: self._jobs.ListJobs(request, timeout=CALL_TIMEOUT_S))  # type: ignore[misc]
            jobs += page.jobs
            token = page.next_page_token
            if not token:
                break
        return jobs

    def cancel_jobs(self, ids: Sequence[int] = (), wanted: JobFilter | None = None) -> list[Job]:
        """Ask for the end of jobs."""
        request = CancelJobsRequest(job_ids=ids, filter=wanted)
        return list(self._call(lambda: self._jobs.CancelJobs(request, timeout=CALL_TIMEOUT_S)).jobs)

    def retry_job(self, job_id: int, *, request_id: str | None = None) -> Job:
        """Submit a new job with the spec of a terminal one."""
        request = RetryJobRequest(job_id=job_id, request_id=request_id or uuid.uuid4().hex)
        return self._call(lambda: self._jobs.RetryJob(request, timeout=CALL_TIMEOUT_S)).job

    def watch_jobs(self, wanted: JobFilter, *, timeout_s: float | None = None) -> Iterator[Job]:
        """Yield each wanted job as it stands, then after every change, until all are terminal.

        Raises:
            TimeoutError: `timeout_s` passed first.
        """
        seen: dict[int, bytes] = {}
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience = _Patience(self._patience_s)
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            call = self._jobs.WatchJobs(WatchJobsRequest(filter=wanted), timeout=left_s)
            try:
                for message in call:
                    patience.renew()
                    known = message.job.SerializeToString(deterministic=True)
                    if seen.get(message.job.id) != known:
                        seen[message.job.id] = known
                        yield message.job
                return
            except grpc.RpcError as error:
                is_late = deadline is not None and time.monotonic() >= deadline - 0.01
                if is_late and cast("grpc.Call", error).code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise TimeoutError from error
                if not is_passing(error) or patience.is_over():
                    raise error_of(error, self.target) from error
                patience.wait()
            finally:
                call.cancel()

    # Logs

    def follow_logs(self, job_id: int, *, attempt: int = 0, follow: bool = True, tail: int = 0) -> Iterator[LogPiece]:
        """Yield a job's log through its attempts in order; with `follow` until the job and its log have ended."""
        logs = LogServiceStub(self._channel)
        patience = _Patience(self._patience_s)
        request = FollowLogsRequest(job_id=job_id, attempt_number=attempt, follow=follow, tail_lines=tail)
        begun = ended = 0
        while True:
            call = logs.FollowLogs(request)
            try:
                for message in call:
                    patience.renew()
                    if message.WhichOneof("piece") == "cut":
                        cut = message.cut
                        number = cut.attempt_number
                        is_begin = cut.state == LOG_STATE_OPEN and number > begun
                        if is_begin:
                            begun = number
                            request.from_attempt_number, request.from_offset = number, 0
                        elif cut.state != LOG_STATE_OPEN and number > ended:
                            ended = number
                            request.from_attempt_number, request.from_offset = number + 1, 0
                        else:
                            continue
                        yield LogPiece(attempt=number, state=cut.state)
                    else:
                        request.from_offset = message.chunk.offset + len(message.chunk.data)
                        request.tail_lines = 0
                        yield LogPiece(attempt=begun, data=message.chunk.data)
                return
            except grpc.RpcError as error:
                if not is_passing(error) or patience.is_over() or not follow:
                    raise error_of(error, self.target) from error
                patience.wait()
            finally:
                call.cancel()

    # The lab

    def queue_status(self) -> QueueStatus:
        """Return the queue at a glance."""
        queue = QueueServiceStub(self._channel)
        return self._call(lambda: queue.GetQueueStatus(GetQueueStatusRequest(), timeout=CALL_TIMEOUT_S)).status

    def list_devices(self) -> list[Device]:
        """Return all devices by id."""
        stub = DeviceServiceStub(self._channel)
        return self._pages(
            lambda token: stub.ListDevices(ListDevicesRequest(page_token=token), timeout=CALL_TIMEOUT_S),
            lambda page: list(page.devices),
        )

    def list_agents(self) -> list[Agent]:
        """Return all agents by name."""
        stub = AgentServiceStub(self._channel)
        return self._pages(
            lambda token: stub.ListAgents(ListAgentsRequest(page_token=token), timeout=CALL_TIMEOUT_S),
            lambda page: list(page.agents),
        )

    def list_builds(self, org_id: str = "") -> list[Build]:
        """Return the builds that the lab has tested, the last installed first."""
        stub = BuildServiceStub(self._channel)
        return self._pages(
            lambda token: stub.ListBuilds(ListBuildsRequest(org_id=org_id, page_token=token), timeout=CALL_TIMEOUT_S),
            lambda page: list(page.builds),
        )

    def _pages(self, read: Callable[[str], Page], items: Callable[[Page], list[Answer]]) -> list[Answer]:
        found: list[Answer] = []
        token = ""
        while True:
            page = self._call(lambda token=token: read(token))  # type: ignore[misc]
            found += items(page)
            token = page.next_page_token  # type: ignore[attr-defined]
            if not token:
                return found


Page = TypeVar("Page")


class _Patience:
    """How long a broken stream is tried again: from the last message that came through."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._delay_s = RETRY_S
        self._since = time.monotonic()
        self._has_heard = False

    def renew(self) -> None:
        self._since = time.monotonic()
        self._delay_s = RETRY_S
        self._has_heard = True

    def is_over(self) -> bool:
        """Whether to give up. Who never answered is not waited for: the address may be wrong."""
        seconds = self._seconds if self._has_heard else RETRIES * RETRY_S
        return time.monotonic() - self._since > seconds

    def wait(self) -> None:
        time.sleep(self._delay_s)
        self._delay_s = min(MAX_RETRY_S, self._delay_s * 2)
