"""What is forgotten: finished jobs by age, with all that belongs to them, and logs whose bytes may go.

Rows go first and bytes after them; the rows of a log's parts go last. A crash in between leaves parts of which no
attempt is left, or whose log has ended without a byte, and those are found again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, or_, select, tuple_

from coordinator.core.model import TERMINAL_JOB_STATES, AttemptId, JobId, Request
from coordinator.store import reading, rows, tables
from coordinator.store.request_keys import RequestKey

IDS_PER_QUERY = 10_000
_JOB_ENDS = tuple(sorted(state.value for state in TERMINAL_JOB_STATES))


def old_jobs(connection: Connection, before_us: int, limit: int) -> list[JobId]:
    """Return jobs that ended before a time and of which nothing goes on, the lowest ids first."""
    jobs, attempts = tables.jobs.c, tables.attempts.c
    is_open = exists().where(attempts.job == jobs.id, attempts.outcome.is_(None))
    query = select(jobs.id).where(jobs.state.in_(_JOB_ENDS), jobs.end_us < before_us, ~is_open)
    return [JobId(found) for found in connection.scalars(query.order_by(jobs.id).limit(limit))]


def ended_attempts(connection: Connection, ids: Sequence[AttemptId]) -> list[AttemptId]:
    """Return those attempts whose job has ended, in their order."""
    joined = select(tables.attempts.c.id).join(tables.jobs, tables.jobs.c.id == tables.attempts.c.job)
    ended = and_(tables.jobs.c.state.in_(_JOB_ENDS), tables.attempts.c.outcome.is_not(None))
    query = joined.where(tables.attempts.c.id.in_(ids), ended).order_by(tables.attempts.c.id)
    return [AttemptId(found) for found in connection.scalars(query)]


def delete_jobs(connection: Connection, ids: Sequence[JobId]) -> None:
    """Delete jobs with their labels, tests and attempts, and the leases and forgotten devices that are spent then."""
    attempts, leases = tables.attempts.c, tables.leases.c
    spent = set(connection.scalars(select(attempts.lease).where(attempts.job.in_(ids))))
    parts = (tables.artifacts, tables.test_results, tables.earlier_failures, tables.attempts, tables.job_labels)
    for table in parts:
        connection.execute(delete(table).where(table.c.job.in_(ids)))
    connection.execute(delete(tables.jobs).where(tables.jobs.c.id.in_(ids)))
    is_used = exists().where(attempts.lease == leases.id)
    connection.execute(delete(tables.leases).where(leases.id.in_(spent), ~tables.LEASE_IS_LIVE, ~is_used))
    devices = tables.devices.c
    is_named = exists().where(leases.device == devices.id)
    connection.execute(delete(tables.devices).where(devices.is_forgotten.is_(True), ~is_named))


def spent_requests(connection: Connection, after: RequestKey, limit: int) -> tuple[list[RequestKey], RequestKey | None]:
    """Return which of the next `limit` requests have no job left, and after which one to go on."""
    table = tables.requests
    key = tuple_(table.c.org_id, table.c.key)
    query = select(table).where(key > after).order_by(table.c.org_id, table.c.key).limit(limit)
    page = [rows.request(row) for row in connection.execute(query)]
    return _spent(connection, page), (page[-1].org_id, page[-1].key) if len(page) == limit else None


def _spent(connection: Connection, requests: Sequence[Request]) -> list[RequestKey]:
    wanted = [job_id for request in requests for job_id in request.jobs]
    left: set[int] = set()
    for first in range(0, len(wanted), IDS_PER_QUERY):
        part = wanted[first : first + IDS_PER_QUERY]
        left.update(connection.scalars(select(tables.jobs.c.id).where(tables.jobs.c.id.in_(part))))
    return [(request.org_id, request.key) for request in requests if left.isdisjoint(request.jobs)]


def delete_requests(connection: Connection, keys: Sequence[RequestKey]) -> list[RequestKey]:
    """Delete those of these requests of which no job is left: since they were found a key may have come anew.

    Returns:
        Those that were deleted.
    """
    table = tables.requests
    deleted: list[RequestKey] = []
    for org_id, key in _spent(connection, reading.requests(connection, keys)):
        gone = connection.execute(delete(table).where(table.c.org_id == org_id, table.c.key == key))
        if gone.rowcount:
            deleted.append((org_id, key))
    return deleted


def stray_logs(connection: Connection, limit: int) -> list[AttemptId]:
    """Return attempts of whose logs parts are recorded that nobody can ask for any more."""
    parts, ends = tables.log_parts.c, tables.log_ends.c
    has_attempt = exists().where(tables.attempts.c.id == parts.attempt)
    is_empty = exists().where(ends.attempt == parts.attempt, ends.size == 0)
    query = select(parts.attempt).distinct().where(or_(~has_attempt, is_empty))
    return [AttemptId(found) for found in connection.scalars(query.limit(limit))]


def delete_parts(connection: Connection, attempts: Sequence[AttemptId]) -> None:
    """Delete what is recorded of logs whose bytes are gone; that a log has ended is kept as long as its attempt."""
    parts, ends = tables.log_parts, tables.log_ends
    connection.execute(delete(parts).where(parts.c.attempt.in_(attempts)))
    has_attempt: ColumnElement[bool] = exists().where(tables.attempts.c.id == ends.c.attempt)
    connection.execute(delete(ends).where(and_(ends.c.attempt.in_(attempts), ~has_attempt)))
