"""Jobs and their logs, for a client: submitted, read, watched and followed to their end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import cast

import grpc

from qgjob.client.artifacts import ArtifactClient
from qgjob.client.connection import CALL_TIMEOUT_S, MAX_PAGE
from qgjob.client.known import ACTIVE_STATES, TERMINAL_STATES, KnownJobs
from qgjob.client.lab import LabClient
from qgjob.client.logpieces import LogCursor, LogPiece
from qgjob.client.patience import seconds_left
from qgjob.client.submits import MAX_JOBS_PER_CALL, part_key, parts, repeat_hint
from qgjob.errors import ClientError, Unreachable, unreachable
from qgjob.v1.job_pb2 import (
    Explanation,
    Job,
    JobFilter,
    JobSpec,
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


class Client(LabClient, ArtifactClient):
    """Talks to the coordinator of a lab, or to the one of several that serves. Several threads may use it at once.

    Every method raises a `qgjob.errors.ClientError` when the call is refused or never arrives.
    """

    @property
    def _jobs(self) -> JobServiceStub:
        return JobServiceStub(self._channel)

    def submit_jobs(
        self, specs: Sequence[JobSpec], *, request_id: str | None = None, strict: bool = False
    ) -> SubmitJobsResponse:
        """Submit jobs; they are durable when this returns.

        What one call can carry is accepted as a whole or not at all. More is split, always in the same way, so that a
        repetition under the same `request_id` gives back what was accepted and submits the rest.
        """
        key = request_id or uuid.uuid4().hex
        whole = SubmitJobsResponse(replayed=True)
        for number, part in enumerate(parts(specs)):
            request = SubmitJobsRequest(jobs=part, request_id=part_key(key, number), strict=strict)
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

    def list_jobs(self, wanted: JobFilter, limit: int, *, with_history: bool = False) -> list[Job]:
        """Return wanted jobs, newest first, at most `limit`; with their attempts and tests where these are asked for.

        What is not told of an attempt in a list is where its log stands.
        """
        return list(self.iter_jobs(wanted, limit, with_history=with_history))

    def iter_jobs(self, wanted: JobFilter, limit: int | None = None, *, with_history: bool = False) -> Iterator[Job]:
        """Yield what `list_jobs` returns, a page at a time."""

        def read(size: int, token: str) -> ListJobsResponse:
            request = ListJobsRequest(filter=wanted, page_size=size, page_token=token, with_history=with_history)
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
            call = JobServiceStub(channel).WatchJobs(WatchJobsRequest(filter=wanted), timeout=seconds_left(deadline))
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
                patience.wait(seconds_left(deadline))
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
        known = KnownJobs()
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

    def _left_out(self, known: KnownJobs, snapshot: Sequence[Job]) -> Iterator[Job]:
        """Yield the known jobs that a new snapshot does not show: they have changed while nobody looked."""
        ids = known.ids_beside(snapshot)
        for start in range(0, len(ids), MAX_PAGE):
            yield from self.iter_jobs(JobFilter(ids=ids[start : start + MAX_PAGE]))

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
        cursor = LogCursor()
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
