"""JobService: submit, get, list, cancel, retry, watch."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace

import grpc

from coordinator import why, wire
from coordinator.blobs import BlobStore
from coordinator.core.errors import InvalidRequest, NotFound, RequestIdReused, StorageUnavailable
from coordinator.core.events import CancelRequested, JobsSubmitted, RetryRequested
from coordinator.core.forecast import Forecast, Outlook
from coordinator.core.logfile import LogState
from coordinator.core.model import TERMINAL_JOB_STATES, Attempt, Job, JobId, JobState, TestResult
from coordinator.core.step import JobsAccepted
from coordinator.engine import Engine
from coordinator.environment import MAX_ENTRIES
from coordinator.logstore import LogStore
from coordinator.services.chunks import telling_storage
from coordinator.services.requests import AcceptedRequests
from coordinator.space import Space
from coordinator.store import JobFilter, Store
from qgjob.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

MAX_NAMED_PER_CALL = 10_000
JOBS_PER_READ = 10_000
HISTORIES_PER_READ = 100
"""Of so many jobs attempts and tests are read at once: those of a whole page may be far more than one answer holds."""


class JobService(job_service_pb2_grpc.JobServiceServicer):
    """Thin: wire -> engine or store -> wire. The HTTP port calls the same methods, and has no context."""

    def __init__(self, engine: Engine, store: Store, logs: LogStore, space: Space, blobs: BlobStore) -> None:
        self._engine = engine
        self._store = store
        self._logs = logs
        self._space = space
        self._blobs = blobs
        self._requests = AcceptedRequests(store)
        self._life = uuid.uuid4().hex

    async def SubmitJobs(
        self, request: job_service_pb2.SubmitJobsRequest, context: object = None
    ) -> job_service_pb2.SubmitJobsResponse:
        """Accept jobs, all or none."""
        specs = wire.job_specs(request)
        known = await self._requests.find(specs[0].org_id, request.request_id)

        async def check_new() -> None:
            await self._space.check_new()
            await self._check_bundles({spec.bundle_digest for spec in specs if spec.bundle_digest})

        if known is None:
            await check_new()
        accepted, jobs = await self._accept(
            specs[0].org_id,
            JobsSubmitted(
                org_id=specs[0].org_id,
                key=request.request_id or uuid.uuid4().hex,
                # Only a request with a name of its own can come again.
                payload_sha256=wire.payload_sha256(specs) if request.request_id else "",
                specs=specs,
                is_strict=request.strict,
                known=known,
            ),
            check_new,
        )
        return job_service_pb2.SubmitJobsResponse(
            jobs=self._jobs_out(jobs), replayed=accepted.is_replayed, warnings=accepted.warnings
        )

    async def GetJob(
        self, request: job_service_pb2.GetJobRequest, context: object = None
    ) -> job_service_pb2.GetJobResponse:
        """Return a job with its attempts and tests."""
        job_id = JobId(request.job_id)
        job = await self._job(job_id)
        store = self._store
        attempts, tests, earlier = await asyncio.to_thread(
            lambda: (store.attempts_of(job_id), store.tests_of(job_id), store.earlier_failures_of(job_id))
        )
        states = [await self._log_state(attempt) for attempt in attempts]
        told = [wire.attempt_out(attempt, state) for attempt, state in zip(attempts, states, strict=True)]
        return job_service_pb2.GetJobResponse(
            job=told_out(job, self._engine.forecast(), tests=tests, attempts=told, earlier_failures=earlier)
        )

    async def ExplainJob(
        self, request: job_service_pb2.ExplainJobRequest, context: object = None
    ) -> job_service_pb2.ExplainJobResponse:
        """Say why a job waits, what it does, or how it ended."""
        job = await self._job(JobId(request.job_id))
        found = self._engine.explain(job.id) if not job.is_terminal else None
        if found is None:
            # It may have ended since it was read.
            explanation = why.ended_out(await self._job(job.id))
        else:
            live, explained, now = found
            outlook = outlook_of(live, self._engine.forecast())
            explanation = why.explanation_out(live, explained, outlook, now)
        return job_service_pb2.ExplainJobResponse(explanation=explanation)

    async def _log_state(self, attempt: Attempt) -> LogState:
        """Return what is told of a log: open, while the storage does not answer. The job is shown all the same."""
        try:
            return await self._logs.state(attempt)
        except StorageUnavailable:
            return LogState.OPEN

    async def ListJobs(
        self, request: job_service_pb2.ListJobsRequest, context: object = None
    ) -> job_service_pb2.ListJobsResponse:
        """Return a page of jobs, newest first."""
        size = wire.page_size(request.page_size)
        wanted = job_filter(request.filter)
        before = _page_token(request.page_token)
        jobs = await asyncio.to_thread(self._store.list_jobs, wanted, size + 1, before)
        shown = await self._with_history(jobs[:size]) if request.with_history else self._jobs_out(jobs[:size])
        listed = wire.fitting(shown)
        token = str(listed[-1].id) if len(jobs) > len(listed) else ""
        return job_service_pb2.ListJobsResponse(jobs=listed, next_page_token=token)

    def revision(self) -> str:
        """Return a text that is another one once a list of jobs may tell anything else.

        To be taken before the jobs are read: they may be newer than it then, and never older.
        """
        committed, foreseen = self._engine.revision()
        return f"{self._life}-{committed}-{foreseen}-{self._store.jobs_forgotten}"

    async def CancelJobs(
        self, request: job_service_pb2.CancelJobsRequest, context: object = None
    ) -> job_service_pb2.CancelJobsResponse:
        """Ask for the end of jobs."""
        if len(request.job_ids) > MAX_NAMED_PER_CALL:
            raise InvalidRequest("job_ids", f"{len(request.job_ids)} jobs, and {MAX_NAMED_PER_CALL} is the limit")
        ids = [JobId(job_id) for job_id in request.job_ids] or await self._unfinished(request.filter)
        found = {job.id for job in await self._read(ids)}
        for job_id in ids:
            if job_id not in found:
                raise NotFound("job", job_id)
        for first in range(0, len(ids), MAX_NAMED_PER_CALL):
            await self._engine.submit(CancelRequested(jobs=tuple(ids[first : first + MAX_NAMED_PER_CALL])))
        shown = await self._read(ids[:MAX_NAMED_PER_CALL])
        return job_service_pb2.CancelJobsResponse(jobs=wire.fitting(self._jobs_out(shown)), selected=len(ids))

    async def RetryJob(
        self, request: job_service_pb2.RetryJobRequest, context: object = None
    ) -> job_service_pb2.RetryJobResponse:
        """Submit a new job with the spec of a terminal one."""
        named = wire.optional_text("request_id", request.request_id)
        old = await self._job(JobId(request.job_id))
        known = await self._requests.find(old.spec.org_id, named)
        if known is None:
            await self._space.check_new()
        _, jobs = await self._accept(
            old.spec.org_id,
            RetryRequested(
                job=old,
                key=named or uuid.uuid4().hex,
                payload_sha256=wire.payload_sha256([old.spec], old.id),
                known=known,
            ),
            self._space.check_new,
        )
        return job_service_pb2.RetryJobResponse(job=self._jobs_out(jobs)[0])

    async def _accept(
        self, org_id: str, event: JobsSubmitted | RetryRequested, check_new: Callable[[], Awaitable[None]]
    ) -> tuple[JobsAccepted, list[Job]]:
        """Accept jobs, or find those that were accepted under the key before: there is at least one.

        A key of which all jobs were pruned, and which is remembered still, is free again. Only what pruning has left
        of its request is deleted: under the same key others may have come first.

        Raises:
            RequestIdReused: There are other jobs of the key.
        """
        while True:
            # Whoever is told of an earlier request is told when it is durable: jobs that are not found are pruned.
            try:
                accepted = await self._engine.submit(event)
            except RequestIdReused as reused:
                spent = tuple(JobId(job_id) for job_id in reused.jobs)
                if await self._read(list(spent)):
                    raise
            else:
                assert accepted is not None
                jobs = list(accepted.jobs) or await self._read(list(accepted.job_ids))
                if jobs:
                    return accepted, jobs
                spent = accepted.job_ids
            await check_new()
            await asyncio.to_thread(self._store.forget_requests, [(org_id, event.key)])
            event = replace(event, known=None, spent=spent)

    async def WatchJobs(  # type: ignore[override]  # it writes through the context
        self,
        request: job_service_pb2.WatchJobsRequest,
        context: grpc.aio.ServicerContext[job_service_pb2.WatchJobsRequest, job_service_pb2.WatchJobsResponse],
    ) -> None:
        """Send each selected job as it stands, then after every change, until all are terminal or without end."""
        wanted = job_filter(request.filter)
        if not wanted.is_narrowed:
            raise InvalidRequest("filter", "set at least one field of the filter")
        ids = frozenset(wanted.ids)
        open_ids: set[JobId] = set()
        with self._engine.changes.subscribe(_watcher(wanted, ids)) as subscription:
            jobs = await self._read(list(ids)) if ids else await self._all(wanted)
            for missing in sorted(ids - {job.id for job in jobs}):
                raise NotFound("job", missing)
            is_caught_up = not request.keep_open
            while True:
                tests = await asyncio.to_thread(self._store.tests_of_jobs, [job.id for job in jobs])
                forecast = self._engine.forecast()
                for job in jobs:
                    (open_ids.discard if job.is_terminal else open_ids.add)(job.id)
                    # Without the expected start: what is estimated anew is no change of the job.
                    outlook = outlook_of(job, forecast)
                    place = outlook.place if outlook is not None else 0
                    message = wire.job_out(job, position=place, tests=tests.get(job.id, ()))
                    await context.write(job_service_pb2.WatchJobsResponse(job=message))
                if not is_caught_up:
                    is_caught_up = True
                    await context.write(job_service_pb2.WatchJobsResponse(caught_up=True))
                if not open_ids and not request.keep_open:
                    return
                changed = await self._read(await subscription.take())
                jobs = [job for job in changed if job.id in open_ids or job.id in ids or wanted.matches(job)]

    async def _check_bundles(self, digests: Iterable[str]) -> None:
        """Check that bundles were uploaded; from now on they are kept for long enough to be named by jobs.

        Raises:
            NotFound: One was not.
        """
        for digest in digests:
            with telling_storage():
                if await self._blobs.size(digest) is None:
                    raise NotFound("blob", digest)

    async def _job(self, job_id: JobId) -> Job:
        job = await asyncio.to_thread(self._store.get_job, job_id)
        if job is None:
            raise NotFound("job", job_id)
        return job

    async def _read(self, ids: list[JobId]) -> list[Job]:
        return await asyncio.to_thread(self._store.get_jobs, ids)

    async def _all(self, wanted: JobFilter) -> list[Job]:
        found: list[Job] = []
        while True:
            before = found[-1].id if found else None
            page = await asyncio.to_thread(self._store.list_jobs, wanted, JOBS_PER_READ, before)
            found += page
            if len(page) < JOBS_PER_READ:
                return found

    async def _unfinished(self, message: job_pb2.JobFilter) -> list[JobId]:
        wanted = job_filter(message)
        if not wanted.is_narrowed:
            raise InvalidRequest("job_ids", "name the jobs to cancel, or set at least one field of the filter")
        unfinished = tuple(state for state in JobState if state not in TERMINAL_JOB_STATES)
        states = tuple(state for state in wanted.states or unfinished if state in unfinished)
        if not states:
            return []
        return [job.id for job in await self._all(wanted.with_states(states))]

    async def _with_history(self, jobs: list[Job]) -> list[job_pb2.Job]:
        """Return the first jobs with their attempts and tests, as many as an answer may hold and a few more."""
        shown: list[job_pb2.Job] = []
        size = 0
        forecast = self._engine.forecast()
        for first in range(0, len(jobs), HISTORIES_PER_READ):
            part = jobs[first : first + HISTORIES_PER_READ]
            shown += await asyncio.to_thread(self._histories_out, part, forecast)
            size += sum(message.ByteSize() for message in shown[first:])
            if size > wire.MAX_MESSAGE_BYTES:
                break
        return shown

    def _histories_out(self, jobs: list[Job], forecast: Forecast) -> list[job_pb2.Job]:
        ids = [job.id for job in jobs]
        attempts, tests = self._store.attempts_of_jobs(ids), self._store.tests_of_jobs(ids)
        earlier = self._store.earlier_failures_of_jobs(ids)
        return [
            told_out(
                job,
                forecast,
                tests=tests.get(job.id, ()),
                # Where each log stands would take a look at each of them.
                attempts=[wire.attempt_out(attempt, None) for attempt in attempts.get(job.id, ())],
                earlier_failures=earlier.get(job.id, ()),
            )
            for job in jobs
        ]

    def _jobs_out(self, jobs: Iterable[Job]) -> list[job_pb2.Job]:
        return list(listed_out(jobs, self._engine.forecast()))


def outlook_of(job: Job, forecast: Forecast) -> Outlook | None:
    """Return how a job stands in the queue. A forecast may be older than what became of the job since."""
    return forecast.outlooks.get(job.id) if job.state is JobState.QUEUED else None


def listed_out(jobs: Iterable[Job], forecast: Forecast) -> Iterator[job_pb2.Job]:
    """Translate jobs of a list, each with what is foreseen of it."""
    for job in jobs:
        yield told_out(job, forecast)


def told_out(
    job: Job,
    forecast: Forecast,
    *,
    tests: Iterable[tuple[TestResult, int]] = (),
    attempts: Iterable[job_pb2.Attempt] = (),
    earlier_failures: Iterable[tuple[TestResult, int]] = (),
) -> job_pb2.Job:
    """Translate a job with what is foreseen of it, and with what was looked up."""
    outlook = outlook_of(job, forecast)
    told = wire.job_out(
        job,
        position=outlook.place if outlook is not None else 0,
        expected_start_us=outlook.start_us if outlook is not None else None,
        tests=tests,
        attempts=attempts,
        earlier_failures=earlier_failures,
    )
    return wire.within_bounds(told)


def job_filter(message: job_pb2.JobFilter) -> JobFilter:
    """Translate a filter.

    Raises:
        InvalidRequest: A field is out of its range.
    """
    if len(message.ids) > wire.MAX_JOBS_PER_CALL:
        raise InvalidRequest("filter.ids", f"{len(message.ids)} ids, and {wire.MAX_JOBS_PER_CALL} is the limit")
    if not 0 <= message.priority <= 5:
        raise InvalidRequest("filter.priority", f"priority {message.priority} is out of range; use 1 to 5")
    return JobFilter(
        states=wire.job_states(message.states),
        priority=message.priority or None,
        target=wire.target_filter(message.target),
        app_version_id=wire.optional_text("filter.app_version_id", message.app_version_id),
        org_id=wire.optional_text("filter.org_id", message.org_id),
        labels=tuple(wire.entries("filter.labels", message.labels, MAX_ENTRIES).items()),
        run=wire.optional_text("filter.run", message.run),
        ids=tuple(JobId(job_id) for job_id in message.ids),
    )


def _watcher(wanted: JobFilter, ids: frozenset[JobId]) -> Callable[[Job], bool]:
    """Want every change of the jobs, also the one that takes a job out of the filter's states."""
    if ids:
        return lambda job: job.id in ids
    return wanted.with_states(()).matches


def _page_token(token: str) -> JobId | None:
    if not token:
        return None
    if not token.isdecimal() or len(token) > 18:
        raise InvalidRequest("page_token", "page_token is not one that this service gave out")
    return JobId(int(token))
