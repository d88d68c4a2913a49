"""The queries. Every list is read through an index, newest first, by the id before which it goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, exists, func, select, tuple_, union_all

from coordinator.core.logfile import LogRecord
from coordinator.core.model import (
    TERMINAL_JOB_STATES,
    Agent,
    Attempt,
    AttemptId,
    Build,
    Counters,
    Crossing,
    Device,
    Expectation,
    Job,
    JobId,
    JobState,
    Lease,
    Request,
    TestResult,
    Trial,
    Upload,
)
from coordinator.store import rows, tables
from coordinator.store.filter import JobFilter
from coordinator.store.request_keys import RequestKey

IDS_PER_QUERY = 10_000
PAIRS_PER_QUERY = 1_000
_LIVE_STATES = tuple(state for state in JobState if state not in TERMINAL_JOB_STATES)

Id = TypeVar("Id", bound=int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is not finished, and everything about the lab itself: what a coordinator starts with."""

    counters: Counters
    jobs: tuple[Job, ...]
    """In the order of their submit sequence."""
    attempts: tuple[Attempt, ...]
    leases: tuple[Lease, ...]
    devices: tuple[Device, ...]
    agents: tuple[Agent, ...]
    builds: tuple[Build, ...]
    expectations: tuple[Expectation, ...]
    trials: tuple[Trial, ...]
    crossings: tuple[Crossing, ...]
    uploads: tuple[Upload, ...]


def counters(connection: Connection) -> Counters:
    """Return the counters."""
    return rows.counters(connection.execute(select(tables.counters)).one())


def snapshot(connection: Connection) -> Snapshot:
    """Return what is not finished, as one transaction sees it."""
    live = tables.jobs.c.state.in_([state.value for state in _LIVE_STATES])
    jobs = connection.execute(select(tables.jobs).where(live).order_by(tables.jobs.c.sequence))
    attempts = connection.execute(select(tables.attempts).where(tables.ATTEMPT_IS_OPEN).order_by(tables.attempts.c.id))
    leases = connection.execute(select(tables.leases).where(tables.LEASE_IS_LIVE).order_by(tables.leases.c.id))
    return Snapshot(
        counters=counters(connection),
        jobs=tuple(rows.job(row) for row in jobs),
        attempts=tuple(rows.attempt(row) for row in attempts),
        leases=tuple(rows.lease(row) for row in leases),
        devices=tuple(devices(connection)),
        agents=tuple(agents(connection)),
        builds=tuple(builds(connection)),
        expectations=tuple(expectations(connection)),
        trials=tuple(rows.trial(row) for row in connection.execute(select(tables.trials))),
        crossings=tuple(rows.crossing(row) for row in connection.execute(select(tables.crossings))),
        uploads=tuple(rows.upload(row) for row in connection.execute(select(tables.uploads))),
    )


def highest_job(connection: Connection) -> JobId:
    """Return the highest id of a job, 0 where there is none."""
    return JobId(connection.scalar(select(func.max(tables.jobs.c.id))) or 0)


def requests(connection: Connection, keys: Sequence[RequestKey]) -> list[Request]:
    """Return the requests that exist of organisations and keys."""
    table = tables.requests
    found: list[Request] = []
    for first in range(0, len(keys), PAIRS_PER_QUERY):
        wanted = tuple_(table.c.org_id, table.c.key).in_(keys[first : first + PAIRS_PER_QUERY])
        found += (rows.request(row) for row in connection.execute(select(table).where(wanted)))
    return found


def request_keys(connection: Connection, after: RequestKey | None, limit: int) -> list[RequestKey]:
    """Return the keys of at most `limit` requests in their order, all after one."""
    columns = tables.requests.c
    query = select(columns.org_id, columns.key).order_by(columns.org_id, columns.key).limit(limit)
    if after is not None:
        query = query.where(tuple_(columns.org_id, columns.key) > after)
    return [(row.org_id, row.key) for row in connection.execute(query)]


def job(connection: Connection, job_id: JobId) -> Job | None:
    """Return a job."""
    return next(iter(jobs(connection, [job_id])), None)


def jobs(connection: Connection, ids: Sequence[JobId]) -> list[Job]:
    """Return the jobs that exist, in the order asked for."""
    found: dict[int, Job] = {}
    for part in _parts(ids):
        for row in connection.execute(select(tables.jobs).where(tables.jobs.c.id.in_(part))):
            found[row.id] = rows.job(row)
    return [found[job_id] for job_id in ids if job_id in found]


def attempt(connection: Connection, attempt_id: AttemptId) -> Attempt | None:
    """Return an attempt."""
    if not _is_key(attempt_id):
        return None
    row = connection.execute(select(tables.attempts).where(tables.attempts.c.id == attempt_id)).first()
    return None if row is None else rows.attempt(row)


def lease_of(connection: Connection, attempt_id: AttemptId) -> Lease | None:
    """Return the lease under which an attempt runs or ran."""
    if not _is_key(attempt_id):
        return None
    joined = select(tables.leases).join(tables.attempts, tables.attempts.c.lease == tables.leases.c.id)
    row = connection.execute(joined.where(tables.attempts.c.id == attempt_id)).first()
    return None if row is None else rows.lease(row)


def log_of(connection: Connection, attempt_id: AttemptId) -> LogRecord:
    """Return what is recorded of an attempt's log."""
    if not _is_key(attempt_id):
        return LogRecord()
    table = tables.log_parts
    query = select(table).where(table.c.attempt == attempt_id).order_by(table.c.epoch, table.c.start)
    parts = tuple(rows.log_part(row) for row in connection.execute(query))
    end = connection.execute(select(tables.log_ends).where(tables.log_ends.c.attempt == attempt_id)).first()
    return LogRecord(parts=parts, end=None if end is None else rows.log_end(end))


def attempts_of(connection: Connection, ids: Sequence[JobId]) -> dict[JobId, list[Attempt]]:
    """Return the jobs' attempts, oldest first."""
    table = tables.attempts
    found: defaultdict[JobId, list[Attempt]] = defaultdict(list)
    for part in _parts(ids):
        for row in connection.execute(select(table).where(table.c.job.in_(part)).order_by(table.c.job, table.c.number)):
            found[JobId(row.job)].append(rows.attempt(row))
    return dict(found)


def tests_of(connection: Connection, ids: Sequence[JobId]) -> dict[JobId, list[tuple[TestResult, int]]]:
    """Return (result, number of its attempt) of the jobs' tests, in the order in which they ran."""
    table = tables.test_results
    found: defaultdict[JobId, list[tuple[TestResult, int]]] = defaultdict(list)
    for part in _parts(ids):
        # A report that was lost with its link comes with the result, after those of later tests.
        order = (table.c.job, table.c.attempt_number, func.coalesce(table.c.begin_us, 0), table.c.serial)
        query = select(table).where(table.c.job.in_(part)).order_by(*order)
        for row in connection.execute(query):
            found[JobId(row.job)].append((rows.test(row), row.attempt_number))
    return dict(found)


def earlier_failures_of(connection: Connection, ids: Sequence[JobId]) -> dict[JobId, list[tuple[TestResult, int]]]:
    """Return (failed result, number of its attempt) of the tests that a later attempt ran again, oldest first."""
    table = tables.earlier_failures
    # Where the agent told no begin, databases differ in which end it comes at.
    order = (table.c.job, table.c.attempt_number, func.coalesce(table.c.begin_us, 0), table.c.id)
    found: defaultdict[JobId, list[tuple[TestResult, int]]] = defaultdict(list)
    for part in _parts(ids):
        for row in connection.execute(select(table).where(table.c.job.in_(part)).order_by(*order)):
            found[JobId(row.job)].append((rows.test(row), row.attempt_number))
    return dict(found)


def devices(connection: Connection) -> list[Device]:
    """Return all devices that are known by id."""
    known = select(tables.devices).where(tables.devices.c.is_forgotten.is_(False)).order_by(tables.devices.c.id)
    return [rows.device(row) for row in connection.execute(known)]


def agents(connection: Connection) -> list[Agent]:
    """Return all agents by id."""
    return [rows.agent(row) for row in connection.execute(select(tables.agents).order_by(tables.agents.c.id))]


def builds(connection: Connection) -> list[Build]:
    """Return all builds by organisation and app version."""
    table = tables.builds
    found = connection.execute(select(table).order_by(table.c.org_id, table.c.app_version_id))
    return [rows.build(row) for row in found]


def expectations(connection: Connection) -> list[Expectation]:
    """Return what is expected of all tests."""
    table = tables.expectations
    found = connection.execute(select(table).order_by(table.c.org_id, table.c.test, table.c.kind))
    return [rows.expectation(row) for row in found]


def job_page(connection: Connection, wanted: JobFilter, limit: int, before: JobId | None) -> list[Job]:
    """Return at most `limit` jobs that a filter selects, newest first, all older than `before`."""
    if len(wanted.states) > 1 and not wanted.ids:
        # An index gives the newest of one state at once, but of several only after sorting all of them.
        each = [_page(wanted.with_states((state,)), limit, before).subquery() for state in dict.fromkeys(wanted.states)]
        ids = union_all(*(select(page.c.id) for page in each)).subquery()
    else:
        ids = _page(wanted, limit, before).subquery()
    query = select(tables.jobs).where(tables.jobs.c.id.in_(select(ids.c.id)))
    found = connection.execute(query.order_by(tables.jobs.c.id.desc()).limit(limit))
    return [rows.job(row) for row in found]


def _page(wanted: JobFilter, limit: int, before: JobId | None) -> Select[int]:
    job_id: ColumnElement[int] = tables.jobs.c.id
    query = select(job_id.label("id"))
    if wanted.labels:
        # The rarer way in is through a label; the index gives its jobs in order.
        first, *others = wanted.labels
        table = tables.job_labels
        job_id = table.c.job
        query = select(job_id.label("id")).join(tables.jobs, tables.jobs.c.id == job_id).where(_is_label(table, first))
        query = query.where(*(_has_label(tables.jobs.c.id, label) for label in others))
    if before is not None:
        query = query.where(job_id < before)
    return query.where(*_conditions(wanted)).order_by(job_id.desc()).limit(limit)


def _is_label(table: FromClause, label: tuple[str, str]) -> ColumnElement[bool]:
    return and_(table.c.name == label[0], table.c.value == label[1])


def _has_label(job_id: ColumnElement[int], label: tuple[str, str]) -> ColumnElement[bool]:
    table = tables.job_labels.alias()
    return exists().where(table.c.job == job_id, _is_label(table, label))


def _conditions(wanted: JobFilter) -> Iterator[ColumnElement[bool]]:
    columns = tables.jobs.c
    if wanted.states:
        yield columns.state.in_([state.value for state in wanted.states])
    if wanted.priority is not None:
        yield columns.priority == wanted.priority
    if wanted.target is not None:
        yield columns.target == wanted.target.value
    if wanted.app_version_id:
        yield columns.app_version_id == wanted.app_version_id
    if wanted.org_id:
        yield columns.org_id == wanted.org_id
    if wanted.run:
        yield columns.run == wanted.run
    if wanted.ids:
        yield columns.id.in_([job_id for job_id in wanted.ids if _is_key(job_id)])


def _is_key(number: int) -> bool:
    """Whether a number that somebody sent could be an id at all; the databases refuse those beyond 64 bits."""
    return 0 < number < 2**63


def _parts(ids: Sequence[Id]) -> Iterator[Sequence[Id]]:
    """Cut ids so that no query has more parameters than the databases take."""
    keys = [key for key in ids if _is_key(key)]
    for first in range(0, len(keys), IDS_PER_QUERY):
        yield keys[first : first + IDS_PER_QUERY]
