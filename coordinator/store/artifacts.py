"""The queries of artifacts. A blob is named by any number of them; an attempt's go all at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, tuple_

from coordinator.core.artifacts import MAX_ATTEMPT_BYTES, MAX_FILES, REPORT_PAGES, Artifact, ArtifactKind
from coordinator.core.model import TERMINAL_JOB_STATES, AttemptId, JobId
from coordinator.store import tables

DIGESTS_PER_QUERY = 10_000
_JOB_ENDS = tuple(sorted(state.value for state in TERMINAL_JOB_STATES))


class Recording(Enum):
    """What became of an artifact that was to be recorded."""

    RECORDED = auto()
    """It is there, or was before."""
    OTHER_BYTES = auto()
    """One of this name has other bytes."""
    TOO_MUCH = auto()
    """The attempt has as many files or bytes as may be kept of one."""
    ATTEMPT_GONE = auto()
    """Its attempt was forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of an attempt."""

    attempt: AttemptId
    size: int
    """Bytes of all its files."""


def record(connection: Connection, artifact: Artifact) -> Recording:
    """Record an artifact of an attempt that is known."""
    table = tables.artifacts.c
    attempt = connection.execute(select(tables.attempts.c.job).where(tables.attempts.c.id == artifact.attempt)).first()
    if attempt is None or attempt.job != artifact.job:
        return Recording.ATTEMPT_GONE
    is_same = and_(table.attempt == artifact.attempt, table.name == artifact.name)
    found = connection.execute(select(table.digest).where(is_same)).first()
    if found is not None:
        return Recording.RECORDED if found.digest == artifact.digest else Recording.OTHER_BYTES
    query = select(func.count(), func.coalesce(func.sum(table.size), 0)).where(table.attempt == artifact.attempt)
    files, size = connection.execute(query).one()
    if files >= MAX_FILES or int(size) + artifact.size > MAX_ATTEMPT_BYTES:
        return Recording.TOO_MUCH
    connection.execute(insert(tables.artifacts), _values(artifact))
    return Recording.RECORDED


def of_job(connection: Connection, job: JobId, after: tuple[int, str], limit: int) -> list[Artifact]:
    """Return at most `limit` artifacts of a job, by number of the attempt and name, after one of these."""
    table = tables.artifacts
    key = tuple_(table.c.attempt_number, table.c.name)
    query = select(table).where(table.c.job == job, key > after)
    return [_artifact(row) for row in connection.execute(query.order_by(*key).limit(limit))]


def one(connection: Connection, job: JobId, attempt_number: int, name: str) -> Artifact | None:
    """Return one artifact."""
    table = tables.artifacts
    wanted = and_(table.c.job == job, table.c.attempt_number == attempt_number, table.c.name == name)
    row = connection.execute(select(table).where(wanted)).first()
    return None if row is None else _artifact(row)


def earlier_reports(connection: Connection, job: JobId, number: int) -> list[Artifact]:
    """Return what Playwright merges of the attempts of a job before one, the oldest first."""
    table = tables.artifacts
    is_wanted = and_(
        table.c.job == job, table.c.attempt_number < number, table.c.kind == ArtifactKind.BLOB_REPORT.value
    )
    return [_artifact(row) for row in connection.execute(select(table).where(is_wanted).order_by(table.c.attempt))]


def report(connection: Connection, job: JobId) -> Artifact | None:
    """Return the first page of the HTML report of the last attempt of a job that has one; a merged one first."""
    table = tables.artifacts
    is_page = and_(table.c.job == job, table.c.name.in_(REPORT_PAGES))
    # By its name "merged/..." comes after "html-report/...".
    query = select(table).where(is_page).order_by(table.c.attempt_number.desc(), table.c.name.desc())
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _artifact(row)


def named(connection: Connection, digests: Collection[str]) -> set[str]:
    """Return those blobs that an artifact is."""
    column = tables.artifacts.c.digest
    asked = list(digests)
    found: set[str] = set()
    for first in range(0, len(asked), DIGESTS_PER_QUERY):
        part = asked[first : first + DIGESTS_PER_QUERY]
        found.update(connection.scalars(select(column).distinct().where(column.in_(part))))
    return found


def digests_of_jobs(connection: Connection, jobs: Sequence[JobId]) -> set[str]:
    """Return the blobs that the artifacts of jobs are."""
    table = tables.artifacts.c
    return set(connection.scalars(select(table.digest).distinct().where(table.job.in_(jobs))))


def stored_bytes(connection: Connection) -> int:
    """Return the size of all artifacts together; bytes that several share count once."""
    table = tables.artifacts.c
    blobs = select(table.digest, table.size).distinct().subquery()
    return int(connection.scalar(select(func.coalesce(func.sum(blobs.c.size), 0))) or 0)


def oldest(connection: Connection, before_us: int | None, limit: int) -> list[Kept]:
    """Return attempts of ended jobs with artifacts, the oldest first.

    Args:
        connection: Any.
        before_us: Only those whose last artifact was stored before this wall time; None for all.
        limit: How many at most.
    """
    table, jobs = tables.artifacts.c, tables.jobs.c
    query = (
        select(table.attempt, func.sum(table.size).label("size"))
        .join(tables.jobs, jobs.id == table.job)
        .where(jobs.state.in_(_JOB_ENDS))
        .group_by(table.attempt)
        .order_by(table.attempt)
        .limit(limit)
    )
    if before_us is not None:
        is_old: ColumnElement[bool] = func.max(table.create_us) < before_us
        query = query.having(is_old)
    return [Kept(attempt=AttemptId(row.attempt), size=int(row.size)) for row in connection.execute(query)]


def forget(connection: Connection, attempts: Sequence[AttemptId]) -> set[str]:
    """Delete the artifacts of attempts; return the blobs that they were."""
    table = tables.artifacts
    is_chosen = table.c.attempt.in_(attempts)
    digests = set(connection.scalars(select(table.c.digest).distinct().where(is_chosen)))
    connection.execute(delete(table).where(is_chosen))
    return digests


def _values(artifact: Artifact) -> dict[str, Any]:
    return {
        "attempt": artifact.attempt,
        "name": artifact.name,
        "job": artifact.job,
        "attempt_number": artifact.attempt_number,
        "kind": artifact.kind.value,
        "content_type": artifact.content_type,
        "size": artifact.size,
        "digest": artifact.digest,
        "create_us": artifact.create_us,
        "url": artifact.url,
    }


def _artifact(row: Row[Any]) -> Artifact:
    return Artifact(
        job=JobId(row.job),
        attempt=AttemptId(row.attempt),
        attempt_number=row.attempt_number,
        name=row.name,
        kind=ArtifactKind(row.kind),
        content_type=row.content_type,
        size=row.size,
        digest=row.digest,
        create_us=row.create_us,
        url=row.url,
    )
