"""Jobs and their logs."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response

from coordinator.core.model import JobState, Target
from coordinator.http.answers import answer, next_link
from coordinator.http.logs import END_ID, Events, LogResponse, Place, Text
from coordinator.http.models import MAX_ID, Explanation, Job, JobAlone, JobQuery, LogQuery, Retry, Submission
from coordinator.http.problems import problems
from coordinator.http.services import FindServices
from coordinator.wire import MAX_NAME, duration
from qgjob import resources
from qgjob.v1 import job_pb2, job_service_pb2, log_service_pb2

MICROSECONDS = 1_000_000
MAX_WARNING = 1_000

JobNumber = Annotated[int, Path(ge=1, le=MAX_ID)]
Key = Annotated[
    str,
    Header(
        max_length=MAX_NAME, description="The same key with the same body submits once, and answers with the same jobs."
    ),
]
LastEventId = Annotated[
    str, Header(max_length=64, description="Id of the last event that was read: the events go on after it.")
]
KnownTags = Annotated[
    str, Header(max_length=1_000, description="An `ETag` of before: while nothing has changed, the answer is 304.")
]


SCHEMA_OF_AN_EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("event", "id", "data")},
    "required": ["id", "data"],
}
EXAMPLE_OF_EVENTS = """event: attempt
id: 1:0
data: {"attempt": 1, "log": "open"}

id: 1:31
data: Running 1 test using 1 worker

event: attempt
id: 2:0
data: {"attempt": 1, "log": "complete"}

event: end
id: end
data: {}

"""


def make_router(find: FindServices, streams: Counter[str], stopping: asyncio.Event) -> APIRouter:
    """Return the paths of jobs."""
    router = APIRouter(prefix="/jobs", tags=["Jobs"])

    @router.post(
        "/submit",
        status_code=201,
        response_model=list[Job],
        responses=problems(400, 409, 413, 429, 507),
        summary="Submit jobs",
    )
    async def submit(body: Submission, idempotency_key: Key = "") -> Response:
        """Accept jobs, all or none; the answer comes when they are durable."""
        request = job_service_pb2.SubmitJobsRequest(
            jobs=[_spec(body, test) for test in body.specs], request_id=idempotency_key, strict=body.strict
        )
        accepted = await find().jobs.SubmitJobs(request)
        headers = {}
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        if accepted.warnings:
            told = "; ".join(accepted.warnings)[:MAX_WARNING]
            headers["Qgjob-Warning"] = told.encode("ascii", "replace").decode()
        return await answer(find, lambda: resources.jobs(accepted.jobs), 201, headers)

    @router.get(
        "",
        response_model=list[Job],
        responses={304: {"description": "Nothing has changed since the answer with this `ETag`."}, **problems(400)},
        summary="List jobs",
    )
    async def list_jobs(
        request: Request, query: Annotated[JobQuery, Query()], if_none_match: KnownTags = ""
    ) -> Response:
        """Return a page of jobs, newest first; a `Link` header with `rel="next"` leads to the next page."""
        jobs = find().jobs
        # No answer lies in a cache (see the gate): who asks again keeps what it was told with this tag.
        tag = {"ETag": f'W/"{jobs.revision()}"'}
        if tag["ETag"] in (known.strip() for known in if_none_match.split(",")):
            return Response(status_code=304, headers=tag)
        found = await jobs.ListJobs(
            job_service_pb2.ListJobsRequest(
                filter=_filter(query), page_size=query.limit, page_token=query.page_token, with_history=query.history
            )
        )
        headers = {**tag, **next_link(request, found.next_page_token)}
        return await answer(find, lambda: resources.jobs(found.jobs), headers=headers)

    @router.get("/{job_id}", response_model=JobAlone, responses=problems(400, 404), summary="Look at a job")
    async def get_job(job_id: JobNumber) -> Response:
        """Return a job with its attempts and tests, and with what keeps it if it has not begun."""
        jobs = find().jobs
        found = (await jobs.GetJob(job_service_pb2.GetJobRequest(job_id=job_id))).job
        if not resources.is_waiting(found):
            return await answer(find, lambda: resources.job(found))
        told = await jobs.ExplainJob(job_service_pb2.ExplainJobRequest(job_id=job_id))
        return await answer(find, lambda: resources.job_with_why(found, told.explanation))

    @router.get(
        "/{job_id}/why",
        response_model=Explanation,
        responses=problems(400, 404),
        summary="Why a job waits",
    )
    async def explain_job(job_id: JobNumber) -> Response:
        """Return what keeps a job from running, in a sentence and in fields; or where it runs, or how it ended."""
        found = await find().jobs.ExplainJob(job_service_pb2.ExplainJobRequest(job_id=job_id))
        return await answer(find, lambda: resources.explanation(found.explanation))

    @router.delete("/{job_id}", response_model=Job, responses=problems(400, 404, 507), summary="Cancel a job")
    async def cancel_job(job_id: JobNumber) -> Response:
        """Ask for the end of a job. One that has ended stays as it is; one that runs is `cancel_requested` first."""
        cancelled = await find().jobs.CancelJobs(job_service_pb2.CancelJobsRequest(job_ids=[job_id]))
        return await answer(find, lambda: resources.job(cancelled.jobs[0]))

    @router.post(
        "/{job_id}/retry",
        status_code=201,
        response_model=Job,
        responses=problems(400, 404, 409, 413, 429, 507),
        summary="Submit a job again",
    )
    async def retry_job(job_id: JobNumber, body: Retry, idempotency_key: Key = "") -> Response:
        """Return a new job with the spec of one that has ended. The body is `{}`, as JSON."""
        again = await find().jobs.RetryJob(job_service_pb2.RetryJobRequest(job_id=job_id, request_id=idempotency_key))
        return await answer(find, lambda: resources.job(again.job), 201)

    @router.get(
        "/{job_id}/logs",
        response_class=Response,
        summary="Read or follow a log",
        responses={
            200: {
                "description": "The log through all attempts in order, byte for byte; or events.",
                "content": {
                    "text/plain": {"schema": {"type": "string"}, "example": "Running 1 test using 1 worker\n"},
                    "text/event-stream": {"schema": SCHEMA_OF_AN_EVENT, "example": EXAMPLE_OF_EVENTS},
                },
            },
            204: {"description": "`Last-Event-ID` is that of the event `end`: nothing more will come."},
            **problems(400, 404, 429),
        },
    )
    async def read_log(
        request: Request, job_id: JobNumber, query: Annotated[LogQuery, Query()], last_event_id: LastEventId = ""
    ) -> Response:
        """Return a job's log: what there is, or with `follow=true` all until it is closed.

        A follower gets server-sent events, or the bare text if it accepts `text/plain`. Each event without a name holds
        whole lines; `attempt` tells that a try's log begins or is closed, `end` that nothing more comes.
        """
        if last_event_id == END_ID:
            return Response(status_code=204)
        place = Place.parse(last_event_id) if last_event_id else Place()
        wanted = log_service_pb2.FollowLogsRequest(
            job_id=job_id,
            attempt_number=query.attempt or 0,
            tail_lines=0 if last_event_id else query.tail or 0,
            follow=query.follow,
            from_attempt_number=place.attempt,
            from_offset=place.offset,
            timestamps=query.timestamps,
        )
        has_events = _wants_events(request.headers.get("accept", ""), is_follower=query.follow)
        return LogResponse(find().logs, wanted, place=place if has_events else None, streams=streams, stopping=stopping)

    return router


def _wants_events(accept: str, *, is_follower: bool) -> bool:
    """Whether a log goes out as events: as asked for, else to who follows."""
    for form, has_events in ((Events.media_type, True), (Text.media_type, False)):
        if form.partition(";")[0] in accept:
            return has_events
    return is_follower


def _spec(body: Submission, test: str) -> job_pb2.JobSpec:
    return job_pb2.JobSpec(
        org_id=body.org_id,
        app_version_id=body.app_version_id,
        test=test,
        priority=body.priority,
        target=_target(body.target),
        selector=body.selector,
        env=body.env,
        secrets=body.secrets,
        labels=body.labels,
        retries=body.retries,
        timeout=duration(round(body.timeout_seconds * MICROSECONDS)),
        run=body.run,
    )


def _filter(query: JobQuery) -> job_pb2.JobFilter:
    return job_pb2.JobFilter(
        states=[_state(state) for state in (*query.status, *query.status_filter)],
        priority=query.priority or 0,
        target=job_pb2.TARGET_UNSPECIFIED if query.target is None else _target(query.target),
        app_version_id=query.app_version_id,
        org_id=query.org_id,
        labels=dict(label.split("=", 1) for label in query.label),
        run=query.run,
    )


def _target(target: Target) -> job_pb2.Target.ValueType:
    return job_pb2.Target.Value(f"TARGET_{target.name}")


def _state(state: JobState) -> job_pb2.JobState.ValueType:
    return job_pb2.JobState.Value(f"JOB_STATE_{state.name}")
