"""What a lab has done, for `replay`: read alone, in one transaction that cannot write."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from coordinator.core.model import AppKey, DeviceId, DeviceKind, Job, JobState
from coordinator.store import rows, tables
from coordinator.store.dialect import checked_url, history_engine, refuse_foreign_file, shown, translated
from coordinator.store.errors import StoreUnreadable
from coordinator.store.schema import check_schema, is_current

JUDGED_STATES = (JobState.COMPLETED, JobState.FAILED, JobState.TIMED_OUT)
"""States of a job whose test ran for as long as it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A job whose test ran to its end."""

    job: Job
    duration_us: int
    """How long its last attempt ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The jobs of a span of time, and the lab that ran them."""

    runs: tuple[PastRun, ...]
    """In the order of their submit."""
    others: int
    """Jobs that never ran to their end: cancelled, lost by the lab, or not done yet."""
    devices: dict[DeviceId, DeviceKind]
    """Those on which anything ran."""
    install_us: dict[AppKey, int]
    installs: int
    """How many were made."""


def read_history(url: str, since_us: int) -> History:
    """Return what was submitted since a wall time, and how it went.

    Raises:
        StoreError: The database cannot be read.
    """
    parsed = checked_url(url)
    refuse_foreign_file(parsed)
    engine = history_engine(parsed)
    try:
        with translated(parsed), engine.begin() as connection:
            check_schema(connection, shown(parsed))
            if not is_current(connection):
                raise StoreUnreadable(f"{shown(parsed)} was written by an older release; start the coordinator once")
            return _history(connection, since_us)
    finally:
        engine.dispose()


def _history(connection: Connection, since_us: int) -> History:
    jobs, attempts, devices = tables.jobs, tables.attempts, tables.devices
    is_recent = jobs.c.create_us >= since_us
    has_run = and_(is_recent, attempts.c.start_us.is_not(None), attempts.c.end_us.is_not(None))
    past = (
        select(jobs, (attempts.c.end_us - attempts.c.start_us).label("duration_us"))
        .join(attempts, attempts.c.id == jobs.c.attempt)
        .where(has_run, jobs.c.state.in_([state.value for state in JUDGED_STATES]))
        .order_by(jobs.c.sequence)
    )
    runs = tuple(PastRun(job=rows.job(row), duration_us=row.duration_us) for row in connection.execute(past))
    used = select(attempts.c.device).join(jobs, jobs.c.id == attempts.c.job).where(has_run).distinct()
    known = select(devices.c.id, devices.c.kind).where(devices.c.id.in_(used)).order_by(devices.c.id)
    submitted = connection.scalar(select(func.count()).select_from(jobs).where(is_recent))
    made = select(func.sum(tables.leases.c.installs)).where(tables.leases.c.grant_us >= since_us)
    return History(
        runs=runs,
        others=(submitted or 0) - len(runs),
        devices={DeviceId(row.id): DeviceKind(row.kind) for row in connection.execute(known)},
        install_us={
            build.app: build.mean_install_us
            for build in (rows.build(row) for row in connection.execute(select(tables.builds)))
        },
        installs=int(connection.scalar(made) or 0),
    )
