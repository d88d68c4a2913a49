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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import grpc

from qgjob.access import RELEASE_KEY, Access
from qgjob.channel import NO_ACCESS, Coordinators
from qgjob.errors import ClientError, Unreachable, error_of, has_reached, is_passing, unreachable
from qgjob.v1.job_pb2 import (
    JOB_STATE_ASSIGNED,
    JOB_STATE_CANCELLED,
    JOB_STATE_COMPLETED,
    JOB_STATE_ERRORED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_TIMED_OUT,
    LOG_STATE_OPEN,
    Explanation,
    Job,
    JobFilter,
    JobSpec,
    LogState,
)
from qgjob.v1.job_service_pb2 import (
    CancelJobsRequest,
    ExplainJobRequest,
    GetJobRequest,
    ListJobsRequest,
    ListJobsResponse,
    RetryJobRequest,
    SubmitJobsRequest,
    SubmitJobsResponse,
    WatchJobsRequest,
)
from qgjob.v1.job_service_pb2_grpc import JobServiceStub

if TYPE_CHECKING:
    # The services that only some commands use are loaded by them.
    from qgjob.v1.agent_pb2 import Agent
    from qgjob.v1.agent_service_pb2 import ListAgentsResponse
    from qgjob.v1.blob_service_pb2 import FindBlobResponse, UploadBlobRequest
    from qgjob.v1.build_pb2 import Build
    from qgjob.v1.build_service_pb2 import ListBuildsResponse
    from qgjob.v1.device_pb2 import Device
    from qgjob.v1.device_service_pb2 import ListDevicesResponse
    from qgjob.v1.log_pb2 import LogChunk, LogCut
    from qgjob.v1.log_service_pb2 import FollowLogsRequest, FollowLogsResponse
    from qgjob.v1.queue_pb2 import QueueStatus

CALL_TIMEOUT_S = 30.0
CALL_PATIENCE_S = 1.5
"""How long a call that nobody answers is repeated: a wrong address should be told soon."""
FAILOVER_PATIENCE_S = 20.0
"""The same where several coordinators are named: when one has died, another needs a moment to take over."""
RESTART_PATIENCE_S = 20.0
"""How long a call is repeated that a stopping coordinator or a standby refused, or whose link broke: another one will
serve, and to notice a dead link alone takes up to 16 s."""
STREAM_PATIENCE_S = 300.0
FIRST_DELAY_S = 0.2
MAX_DELAY_S = 3.0
MAX_JOBS_PER_CALL = 10_000
MAX_CALL_BYTES = 900_000
"""Most bytes of job specs in one call; what the coordinator answers is larger and must fit 4 MiB."""
MAX_PAGE = 1_000
ACTIVE_STATES = (JOB_STATE_QUEUED, JOB_STATE_ASSIGNED, JOB_STATE_RUNNING)
TERMINAL_STATES = frozenset(
    {JOB_STATE_COMPLETED, JOB_STATE_FAILED, JOB_STATE_ERRORED, JOB_STATE_TIMED_OUT, JOB_STATE_CANCELLED}
)

Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Page(Protocol):
    """What every page has."""

    @property
    def next_page_token(self) -> str:
        """Empty on the last page."""


SomePage = TypeVar("SomePage", bound=Page)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPiece:
    """A piece of a job's log: bytes, or the beginning or end of an attempt."""

    attempt: int
    """Number of the attempt, from 1."""
    data: bytes = b""
    state: LogState.ValueType | None = None
    """OPEN where the attempt begins, COMPLETE or TRUNCATED where it ends, None for bytes."""
    offset: int = 0
    """Where the bytes begin in the log of the attempt."""
    times: tuple[tuple[int, datetime], ...] = ()
    """When bytes were written, if that was asked for and is known: an offset, and the time of all bytes up to the next.

    The first one counts for the first byte, and may name an earlier offset.
    """


class Client:
    """Talks to the coordinator of a lab, or to the one of several that serves. Several threads may use it at once.

    Every method raises a `qgjob.errors.ClientError` when the call is refused or never arrives.
    """

    def __init__(
        self,
        target: str,
        *,
        access: Access = NO_ACCESS,
        call_patience_s: float | None = None,
        patience_s: float = STREAM_PATIENCE_S,
        on_lost: Callable[[ClientError], None] | None = None,
    ) -> None:
        """Open a channel to each address.

        Args:
            target: The coordinator's HOST:PORT, or those of several with commas between them.
            access: TLS and token.
            call_patience_s: How long a call that nobody answers is tried again; the default is short, and longer where
                several coordinators are named.
            patience_s: How long a broken stream is tried again, from the last message that came.
            on_lost: Called when a stream breaks and is tried again, on the thread that reads it; once for all streams,
                until something is heard again.
        """
        self._coordinators = Coordinators(target, access)
        self.target = self._coordinators.shown
        usual_s = CALL_PATIENCE_S if len(self._coordinators) == 1 else FAILOVER_PATIENCE_S
        self._call_patience_s = usual_s if call_patience_s is None else call_patience_s
        self._patience_s = patience_s
        self._on_lost = on_lost
        self._is_closed = False
        self._has_heard = False
        self._is_lost = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether the channels were closed from this side."""
        return self._is_closed

    def close(self) -> None:
        """Close the channels; streams that still run on other threads end with a ClientError."""
        self._is_closed = True
        self._coordinators.close()

    @property
    def _channel(self) -> grpc.Channel:
        return self._coordinators.channel

    @property
    def _jobs(self) -> JobServiceStub:
        return JobServiceStub(self._channel)

    def _stream_patience(self) -> _Patience:
        unproven_s = None if self._has_heard else self._call_patience_s
        return _Patience(self._patience_s, unproven_s=unproven_s, least_tries=len(self._coordinators))

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Make a call that may be repeated; a coordinator that starts again is waited for a moment."""
        patience = _Patience(self._call_patience_s, least_tries=len(self._coordinators))
        while True:
            channel = self._channel
            try:
                answer = call()
            except grpc.RpcError as error:
                failure = error_of(error, self.target)
                if has_reached(error):
                    patience.extend(RESTART_PATIENCE_S)
                if not is_passing(error) or patience.is_over():
                    raise failure from error
                self._coordinators.leave(channel)
                patience.wait(0 if _leads_elsewhere(failure, patience) else None)
            else:
                self._has_heard = True
                return answer

    def _resume(
        self, error: grpc.RpcError, channel: grpc.Channel, patience: _Patience, deadline: float | None = None
    ) -> None:
        """Wait a moment before a broken stream is opened again, or raise what it died of."""
        failure = error_of(error, self.target)
        if has_reached(error):
            patience.extend(RESTART_PATIENCE_S)
        if self._is_closed or not is_passing(error) or patience.is_over():
            raise failure from error
        is_elsewhere = _leads_elsewhere(failure, patience)
        if not is_elsewhere:
            self._tell_lost(failure)
        self._coordinators.leave(channel)
        patience.wait(0 if is_elsewhere else _left(deadline))
        if self._is_closed:
            raise failure from error

    def _tell_lost(self, failure: ClientError) -> None:
        if not self._is_lost and self._on_lost is not None:
            self._is_lost = True
            self._on_lost(failure)

    # Jobs

    def submit_jobs(
        self, specs: Sequence[JobSpec], *, request_id: str | None = None, strict: bool = False
    ) -> SubmitJobsResponse:
        """Submit jobs; they are durable when this returns.

        What one call can carry is accepted as a whole or not at all. More is split, always in the same way, so that a
        repetition under the same `request_id` gives back what was accepted and submits the rest.
        """
        key = request_id or uuid.uuid4().hex
        whole = SubmitJobsResponse(replayed=True)
        for number, part in enumerate(_parts(specs)):
            request = SubmitJobsRequest(jobs=part, request_id=_part_key(key, number), strict=strict)
            try:
                answer = self._call(lambda request=request: self._jobs.SubmitJobs(request, timeout=CALL_TIMEOUT_S))  # type: ignore[misc]
            except ClientError as error:
                if whole.jobs:
                    error.hint = f"{len(whole.jobs)} of {len(specs)} jobs were accepted; {repeat_hint(key)}"
                raise
            whole.jobs.extend(answer.jobs)
            whole.warnings.extend(warning for warning in answer.warnings if warning not in whole.warnings)
            whole.replayed = whole.replayed and answer.replayed
        return whole

    def get_job(self, job_id: int) -> Job:
        """Return a job with its attempts and tests."""
        return self._call(lambda: self._jobs.GetJob(GetJobRequest(job_id=job_id), timeout=CALL_TIMEOUT_S)).job

    def explain_job(self, job_id: int) -> Explanation:
        """Return why a job waits, what it does, or how it ended."""
        request = ExplainJobRequest(job_id=job_id)
        return self._call(lambda: self._jobs.ExplainJob(request, timeout=CALL_TIMEOUT_S)).explanation

    def list_jobs(self, wanted: JobFilter, limit: int) -> list[Job]:
        """Return wanted jobs, newest first, at most `limit`."""
        return list(self.iter_jobs(wanted, limit))

    def iter_jobs(self, wanted: JobFilter, limit: int | None = None) -> Iterator[Job]:
        """Yield wanted jobs, newest first, a page at a time, at most `limit`."""

        def read(size: int, token: str) -> ListJobsResponse:
            request = ListJobsRequest(filter=wanted, page_size=size, page_token=token)
            return self._jobs.ListJobs(request, timeout=CALL_TIMEOUT_S)

        return self._pages(read, lambda page: page.jobs, limit)

    def cancel_jobs(self, ids: Sequence[int] = (), wanted: JobFilter | None = None) -> list[Job]:
        """Ask for the end of jobs. Those that have ended are returned unchanged."""
        if not ids:
            request = CancelJobsRequest(filter=wanted)
            return list(self._call(lambda: self._jobs.CancelJobs(request, timeout=CALL_TIMEOUT_S)).jobs)
        jobs: list[Job] = []
        for start in range(0, len(ids), MAX_JOBS_PER_CALL):
            request = CancelJobsRequest(job_ids=ids[start : start + MAX_JOBS_PER_CALL])
            jobs += self._call(lambda request=request: self._jobs.CancelJobs(request, timeout=CALL_TIMEOUT_S)).jobs  # type: ignore[misc]
        return jobs

    def retry_job(self, job_id: int, *, request_id: str | None = None) -> Job:
        """Submit a new job with the spec of a terminal one."""
        request = RetryJobRequest(job_id=job_id, request_id=request_id or uuid.uuid4().hex)
        return self._call(lambda: self._jobs.RetryJob(request, timeout=CALL_TIMEOUT_S)).job

    def watch_jobs(self, wanted: JobFilter, *, timeout_s: float | None = None) -> Iterator[Job]:
        """Yield each wanted job as it stands, then after every change, until all are terminal.

        A broken stream is opened again, and a job that has not changed meanwhile does not come a second time. Of more
        ids than one call takes the first are watched to their end before the next.

        Raises:
            TimeoutError: `timeout_s` passed first.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for start in range(0, max(1, len(wanted.ids)), MAX_JOBS_PER_CALL):
            part = JobFilter()
            part.CopyFrom(wanted)
            part.ids[:] = wanted.ids[start : start + MAX_JOBS_PER_CALL]
            yield from self._watch(part, deadline)

    def wait_for_jobs(self, ids: Sequence[int], *, timeout_s: float | None = None) -> list[Job]:
        """Wait until jobs have ended, and return them in the order of `ids`, with their tests.

        Raises:
            TimeoutError: `timeout_s` passed first; the jobs go on.
        """
        if not ids:
            return []
        jobs = {job.id: job for job in self.watch_jobs(JobFilter(ids=ids), timeout_s=timeout_s)}
        return [jobs[job_id] for job_id in ids]

    def _watch(self, wanted: JobFilter, deadline: float | None) -> Iterator[Job]:
        seen: dict[int, bytes] = {}
        unfinished = set(wanted.ids)
        patience = self._stream_patience()
        while True:
            channel = self._channel
            call = JobServiceStub(channel).WatchJobs(WatchJobsRequest(filter=wanted), timeout=_left(deadline))
            try:
                for message in call:
                    patience.renew()
                    self._is_lost = False
                    job = message.job
                    if job.state in TERMINAL_STATES:
                        unfinished.discard(job.id)
                    known = job.SerializeToString(deterministic=True)
                    if seen.get(job.id) != known:
                        seen[job.id] = known
                        yield job
                if not unfinished:
                    return
                if patience.is_over():
                    raise unreachable(self.target)
                patience.wait(_left(deadline))
            except grpc.RpcError as error:
                code = cast("grpc.Call", error).code()
                if code is grpc.StatusCode.DEADLINE_EXCEEDED and deadline is not None:
                    raise TimeoutError from error
                self._resume(error, channel, patience, deadline)
            finally:
                call.cancel()

    def follow_active_jobs(self) -> Iterator[list[Job]]:
        """Yield the unfinished jobs as they stand, then those that have changed, until they end, and so on for ever.

        The first list may be empty, and so may the first after a broken stream was opened again; that one also holds
        the jobs that have ended meanwhile.
        """
        request = WatchJobsRequest(filter=JobFilter(states=ACTIVE_STATES), keep_open=True)
        patience = self._stream_patience()
        known = _KnownJobs()
        while True:
            channel = self._channel
            call = JobServiceStub(channel).WatchJobs(request)
            snapshot: list[Job] | None = []
            try:
                for message in call:
                    patience.renew()
                    self._is_lost = False
                    if snapshot is None:
                        yield known.news([message.job])
                    elif message.caught_up:
                        yield known.news([*snapshot, *self._left_out(known, snapshot)])
                        snapshot = None
                    else:
                        snapshot.append(message.job)
                if patience.is_over():
                    raise unreachable(self.target)
                patience.wait()
            except grpc.RpcError as error:
                self._resume(error, channel, patience)
            except Unreachable:
                if self._is_closed or patience.is_over():
                    raise
                patience.wait()
            finally:
                call.cancel()

    def _left_out(self, known: _KnownJobs, snapshot: Sequence[Job]) -> Iterator[Job]:
        """Yield the known jobs that a new snapshot does not show: they have changed while nobody looked."""
        ids = known.ids_beside(snapshot)
        for start in range(0, len(ids), MAX_PAGE):
            yield from self.iter_jobs(JobFilter(ids=ids[start : start + MAX_PAGE]))

    # Logs

    def follow_logs(
        self, job_id: int, *, attempt: int = 0, follow: bool = True, tail: int = 0, timestamps: bool = False
    ) -> Iterator[LogPiece]:
        """Yield a job's log through its attempts in order; with `follow` until the job and its log have ended.

        A broken stream is opened again at the first byte that has not come yet.

        Args:
            job_id: The job.
            attempt: Only this attempt, from 1; 0 for all.
            follow: Go on until the job is terminal and its log closed; else end at what is stored now.
            tail: Begin so many lines before the end of the last attempt; 0 for the whole.
            timestamps: Tell when the bytes were written.
        """
        from qgjob.v1.log_service_pb2 import FollowLogsRequest
        from qgjob.v1.log_service_pb2_grpc import LogServiceStub

        patience = self._stream_patience()
        cursor = _LogCursor()
        while True:
            request = FollowLogsRequest(
                job_id=job_id, attempt_number=attempt, follow=follow, tail_lines=tail, timestamps=timestamps
            )
            cursor.aim(request)
            channel = self._channel
            call = LogServiceStub(channel).FollowLogs(request)
            try:
                for message in call:
                    piece = cursor.take(message)
                    if piece is not None:
                        patience.renew()
                        self._is_lost = False
                        yield piece
                    if cursor.has_gap:
                        break
                else:
                    return
                if patience.is_over():
                    raise unreachable(self.target)
                patience.wait()
            except grpc.RpcError as error:
                if attempt and cursor.has_ended(attempt):
                    return
                self._resume(error, channel, patience)
            finally:
                call.cancel()

    # The lab

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
            said = _without_estimates(status)
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
        self, org_id: str, app_version_id: str, digest: str, *, file_name: str = "", is_replacing: bool = False
    ) -> Build:
        """Say which uploaded blob an app version is; jobs that were accepted before keep their build."""
        from qgjob.v1.build_service_pb2 import RegisterBuildRequest
        from qgjob.v1.build_service_pb2_grpc import BuildServiceStub

        request = RegisterBuildRequest(
            org_id=org_id, app_version_id=app_version_id, digest=digest, file_name=file_name, replace=is_replacing
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

    def _pages(
        self,
        read: Callable[[int, str], SomePage],
        items: Callable[[SomePage], Iterable[Item]],
        limit: int | None = None,
    ) -> Iterator[Item]:
        """Yield the items of page after page. A page that is too large for one message is asked for in halves."""
        token = ""
        most = MAX_PAGE
        left = limit
        while left is None or left > 0:
            size = most if left is None else min(most, left)
            try:
                page = self._call(lambda size=size, token=token: read(size, token))  # type: ignore[misc]
            except ClientError as error:
                if error.reason != "MESSAGE_TOO_LARGE" or size == 1:
                    raise
                most = size // 2
                continue
            for item in items(page):
                yield item
                left = None if left is None else left - 1
            token = page.next_page_token
            if not token:
                return


def _left(deadline: float | None) -> float | None:
    """Return the seconds until a monotonic instant; None where there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _was_late(failure: ClientError) -> bool:
    """Whether a call had a time limit, and no answer came within it."""
    cause = failure.__cause__
    return isinstance(cause, grpc.RpcError) and cast("grpc.Call", cause).code() is grpc.StatusCode.DEADLINE_EXCEEDED


def _leads_elsewhere(failure: ClientError, patience: _Patience) -> bool:
    """Whether a standby refused, and an address is left where the leader may be: nothing is waited for then."""
    return failure.reason == "NOT_LEADER" and patience.has_untried


def _parts(specs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
    """Yield specs in as few calls as can carry them; the same specs are always cut in the same places."""
    part: list[JobSpec] = []
    size = 0
    for spec in specs:
        more = spec.ByteSize() + 8
        if part and (len(part) == MAX_JOBS_PER_CALL or size + more > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(spec)
        size += more
    yield part


def _part_key(key: str, number: int) -> str:
    """Return the idempotency key of one call of a split submit."""
    if number == 0:
        return key
    import hashlib

    return hashlib.sha256(f"{key}/{number}".encode()).hexdigest()


def repeat_hint(key: str) -> str:
    """Return how a submit is repeated that may have been accepted."""
    return f"repeat the same submit with --idempotency-key {key}: nothing is submitted twice"


class _KnownJobs:
    """What a follower was told of the jobs that have not ended."""

    def __init__(self) -> None:
        self._told: dict[int, bytes] = {}

    def ids_beside(self, jobs: Iterable[Job]) -> list[int]:
        """Return the known jobs that are not among these."""
        return sorted(self._told.keys() - {job.id for job in jobs})

    def news(self, jobs: Iterable[Job]) -> list[Job]:
        """Return those of which something new is told, and remember it."""
        changed = []
        for job in jobs:
            said = job.SerializeToString(deterministic=True)
            if self._told.get(job.id) != said:
                self._told[job.id] = said
                changed.append(job)
            if job.state in TERMINAL_STATES:
                del self._told[job.id]
        return changed


class _LogCursor:
    """Where a follower stands in a job's log: which attempt, and which of its bytes comes next."""

    def __init__(self) -> None:
        self._number = 0
        self._attempt_id = 0
        self._next_byte: int | None = None
        """None until the first bytes of the attempt: a tail begins somewhere in the middle."""
        self._is_closed = False
        self.has_gap = False

    def aim(self, request: FollowLogsRequest) -> None:
        """Let a request go on where this stands."""
        self.has_gap = False
        if self._is_closed:
            request.from_attempt_number = self._number + 1
            request.tail_lines = 0
        elif self._next_byte is not None:
            request.from_attempt_number = self._number
            request.from_offset = self._next_byte
            request.tail_lines = 0
        else:
            request.from_attempt_number = self._number

    def has_ended(self, number: int) -> bool:
        """Whether the end of this attempt's log has come."""
        return self._is_closed and self._number >= number

    def take(self, message: FollowLogsResponse) -> LogPiece | None:
        """Return what is new in a message, None where nothing is."""
        match message.WhichOneof("piece"):
            case "cut":
                return self._cut(message.cut)
            case "chunk":
                return self._chunk(message.chunk)
            case _:
                return None

    def _cut(self, cut: LogCut) -> LogPiece | None:
        if cut.state == LOG_STATE_OPEN:
            if cut.attempt_number <= self._number:
                return None
            self._number, self._attempt_id = cut.attempt_number, cut.attempt_id
            self._next_byte, self._is_closed = None, False
        else:
            if cut.attempt_number != self._number or self._is_closed:
                return None
            self._is_closed = True
        return LogPiece(attempt=cut.attempt_number, state=cut.state)

    def _chunk(self, chunk: LogChunk) -> LogPiece | None:
        if chunk.attempt_id != self._attempt_id or self._is_closed:
            return None
        if self._next_byte is None:
            self._next_byte = chunk.offset
        if chunk.offset > self._next_byte:
            self.has_gap = True
            return None
        data = chunk.data[self._next_byte - chunk.offset :]
        offset, self._next_byte = self._next_byte, self._next_byte + len(data)
        times = tuple((mark.offset, mark.time.ToDatetime(UTC)) for mark in chunk.marks)
        return LogPiece(attempt=self._number, data=data, offset=offset, times=times) if data else None


def _without_estimates(status: QueueStatus) -> bytes:
    """Return what of the queue has changed when it differs: what is expected is estimated anew at each look."""
    known = type(status)()
    known.CopyFrom(status)
    known.ClearField("expected_drain_time")
    for job in known.waiting:
        job.ClearField("expected_start_time")
    return known.SerializeToString(deterministic=True)


class _Patience:
    """How long something is tried again, with growing pauses: from its beginning, or the last sign of life."""

    def __init__(self, seconds: float, *, unproven_s: float | None = None, least_tries: int = 1) -> None:
        """Take the span, and the most of it for who never answered yet and may be a wrong address.

        However long a try takes, there are at least as many: one for each address.
        """
        self._seconds = seconds
        self._tries_left = least_tries - 1
        self._unproven_s = unproven_s
        self._since = time.monotonic()
        self._delay_s = FIRST_DELAY_S

    def renew(self) -> None:
        self._since = time.monotonic()
        self._delay_s = FIRST_DELAY_S
        self._unproven_s = None

    def extend(self, seconds: float) -> None:
        self._seconds = max(self._seconds, seconds)
        if self._unproven_s is not None:
            self._unproven_s = max(self._unproven_s, seconds)

    @property
    def has_untried(self) -> bool:
        """Whether an address is left that was not tried."""
        return self._tries_left > 0

    def is_over(self) -> bool:
        seconds = self._seconds if self._unproven_s is None else min(self._seconds, self._unproven_s)
        return self._tries_left <= 0 and time.monotonic() - self._since > seconds

    def wait(self, most_s: float | None = None) -> None:
        self._tries_left -= 1
        time.sleep(self._delay_s if most_s is None else min(self._delay_s, most_s))
        self._delay_s = min(MAX_DELAY_S, self._delay_s * 2)
