"""The store: one writer that commits whole steps, and readers that see only what is committed."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    and_,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from coordinator.core.model import (
    TERMINAL_JOB_STATES,
    TERMINAL_LEASE_STATES,
    Agent,
    Attempt,
    AttemptId,
    Build,
    Counters,
    Device,
    Job,
    JobId,
    Lease,
    Request,
    TestResult,
)
from coordinator.core.step import (
    PutAgent,
    PutAttempt,
    PutBuild,
    PutCounters,
    PutDevice,
    PutJob,
    PutLease,
    PutRequest,
    PutTest,
    Write,
)
from coordinator.store import rows
from coordinator.store import tables as t
from coordinator.store.filter import JobFilter

BUSY_TIMEOUT_MS = 10_000
READERS = 4
IDS_PER_QUERY = 500

_TERMINAL_JOBS = sorted(TERMINAL_JOB_STATES)
_TERMINAL_LEASES = sorted(TERMINAL_LEASE_STATES)


class StoreError(Exception):
    """The database cannot be used, or a commit failed: nothing of it was written."""


class StaleEpoch(StoreError):
    """Another coordinator has taken the database over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is not finished, and who stands in the lab."""

    jobs: list[Job]
    attempts: list[Attempt]
    leases: list[Lease]
    devices: list[Device]
    agents: list[Agent]
    builds: list[Build]


class Store:
    """A database that holds everything the coordinator must not forget.

    `commit` and `start_epoch` belong to one thread at a time; the readers may be called from any.
    """

    def __init__(self, writer: Engine, reader: Engine, cluster_id: str) -> None:
        self._writer = writer
        self._reader = reader
        self.cluster_id = cluster_id
        """Names this database; a new one has another."""
        self._epoch = 0

    @classmethod
    def open(cls, url: str) -> Store:
        """Open a database, bring its schema up to date, and name it if it is new.

        Raises:
            StoreError: It cannot be opened, is no database of ours, or belongs to a newer release.
        """
        try:
            writer = _engine(url, is_writer=True)
            with writer.begin() as connection:
                _migrate(connection, url)
                cluster_id = _name(connection)
            return cls(writer, _engine(url, is_writer=False), cluster_id)
        except (SQLAlchemyError, sqlite3.DatabaseError) as error:
            raise StoreError(f"cannot open the database {_shown(url)}: {_cause(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()

    # Writing

    def start_epoch(self) -> Counters:
        """Raise the epoch durably and return the counters.

        Raises:
            StoreError: The commit failed.
        """
        with self._transaction() as connection:
            row = connection.execute(select(t.counters)).one_or_none()
            before = rows.counters_record(row) if row is not None else Counters()
            values = {**rows.counters_row(before), "epoch": before.epoch + 1}
            if row is None:
                connection.execute(insert(t.counters).values(id=1, **values))
            else:
                connection.execute(update(t.counters).values(**values))
        self._epoch = before.epoch + 1
        return Counters(**values)

    def commit(self, writes: Sequence[Write]) -> None:
        """Write a whole step in one transaction. Of several writes of one record the last counts.

        Raises:
            StaleEpoch: Another coordinator has raised the epoch.
            StoreError: The commit failed; nothing was written.
        """
        batch = _Batch(writes)
        with self._transaction() as connection:
            epoch = connection.execute(select(t.counters.c.epoch)).scalar_one()
            if epoch != self._epoch:
                raise StaleEpoch(f"another coordinator took over with epoch {epoch}; this one had {self._epoch}")
            self._write(connection, batch)

    def _write(self, connection: Connection, batch: _Batch) -> None:
        if batch.counters is not None:
            connection.execute(update(t.counters).values(**rows.counters_row(batch.counters)))
        self._upsert(connection, t.jobs, batch.jobs, _is_open(t.jobs.c.state, _TERMINAL_JOBS))
        if batch.labels:
            connection.execute(_insert(connection, t.job_labels).on_conflict_do_nothing(), batch.labels)
        self._upsert(connection, t.attempts, batch.attempts, t.attempts.c.outcome.is_(None))
        self._upsert(connection, t.tests, batch.tests, None)
        self._upsert(connection, t.leases, batch.leases, _is_open(t.leases.c.state, _TERMINAL_LEASES))
        self._upsert(connection, t.devices, batch.devices, None)
        self._upsert(connection, t.agents, batch.agents, None)
        self._upsert(connection, t.builds, batch.builds, None)
        if batch.requests:
            connection.execute(insert(t.requests), batch.requests)

    def _upsert(self, connection: Connection, table: Table, batch: dict[Any, rows.Row], unless: Any) -> None:  # noqa: ANN401
        """Insert or replace rows; a row that `unless` calls finished is left as it is."""
        if not batch:
            return
        statement = _insert(connection, table)
        keys = [column.name for column in table.primary_key]
        changed = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
        connection.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=changed, where=unless), list(batch.values())
        )

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._writer.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the commit failed: {_cause(error)}") from error

    # Reading

    def load(self) -> Snapshot:
        """Return what is not finished."""
        with self._reader.connect() as connection:
            live = connection.execute(
                select(t.jobs).where(t.jobs.c.state.not_in(_TERMINAL_JOBS)).order_by(t.jobs.c.sequence)
            )
            jobs = [rows.job_record(row) for row in live]
            open_attempts = select(t.attempts).where(t.attempts.c.outcome.is_(None)).order_by(t.attempts.c.id)
            attempts = [rows.attempt_record(row) for row in connection.execute(open_attempts)]
            live_leases = select(t.leases).where(t.leases.c.state.not_in(_TERMINAL_LEASES)).order_by(t.leases.c.id)
            leases = [rows.lease_record(row) for row in connection.execute(live_leases)]
            devices = [
                rows.device_record(row) for row in connection.execute(select(t.devices).order_by(t.devices.c.id))
            ]
            agents = [rows.agent_record(row) for row in connection.execute(select(t.agents).order_by(t.agents.c.id))]
            builds = [rows.build_record(row) for row in connection.execute(select(t.builds))]
        return Snapshot(jobs=jobs, attempts=attempts, leases=leases, devices=devices, agents=agents, builds=builds)

    def find_request(self, org_id: str, key: str) -> Request | None:
        """Return the submit that was accepted under an idempotency key."""
        query = select(t.requests).where(t.requests.c.org_id == org_id, t.requests.c.key == key)
        with self._reader.connect() as connection:
            row = connection.execute(query).one_or_none()
        return rows.request_record(row) if row is not None else None

    def get_job(self, job_id: JobId) -> Job | None:
        """Return a job."""
        return next(iter(self.get_jobs([job_id])), None)

    def get_jobs(self, ids: Sequence[JobId]) -> list[Job]:
        """Return those of the jobs that exist, in the order of `ids`."""
        found: dict[JobId, Job] = {}
        with self._reader.connect() as connection:
            for first in range(0, len(ids), IDS_PER_QUERY):
                wanted = [job_id for job_id in ids[first : first + IDS_PER_QUERY] if 0 < job_id < 2**63]
                for row in connection.execute(select(t.jobs).where(t.jobs.c.id.in_(wanted))):
                    found[JobId(row.id)] = rows.job_record(row)
        return [found[job_id] for job_id in ids if job_id in found]

    def list_jobs(self, wanted: JobFilter, limit: int, before: JobId | None) -> list[Job]:
        """Return wanted jobs, newest first, at most `limit`, older than `before`."""
        query = _filtered(wanted).order_by(t.jobs.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(t.jobs.c.id < before)
        with self._reader.connect() as connection:
            return [rows.job_record(row) for row in connection.execute(query)]

    def get_attempt(self, attempt_id: AttemptId) -> Attempt | None:
        """Return an attempt."""
        if not 0 < attempt_id < 2**63:
            return None
        with self._reader.connect() as connection:
            row = connection.execute(select(t.attempts).where(t.attempts.c.id == attempt_id)).one_or_none()
        return rows.attempt_record(row) if row is not None else None

    def get_lease(self, attempt: Attempt) -> Lease | None:
        """Return the lease under which an attempt ran."""
        with self._reader.connect() as connection:
            row = connection.execute(select(t.leases).where(t.leases.c.id == attempt.lease)).one_or_none()
        return rows.lease_record(row) if row is not None else None

    def attempts_of(self, job_id: JobId) -> list[Attempt]:
        """Return a job's attempts, oldest first."""
        query = select(t.attempts).where(t.attempts.c.job_id == job_id).order_by(t.attempts.c.number)
        with self._reader.connect() as connection:
            return [rows.attempt_record(row) for row in connection.execute(query)]

    def tests_of(self, job_id: JobId) -> list[tuple[TestResult, int]]:
        """Return a job's tests, each with the number of the attempt that it came from."""
        return self.tests_of_jobs([job_id]).get(job_id, [])

    def tests_of_jobs(self, ids: Sequence[JobId]) -> dict[JobId, list[tuple[TestResult, int]]]:
        """Return the tests of several jobs."""
        found: dict[JobId, list[tuple[TestResult, int]]] = {}
        with self._reader.connect() as connection:
            for first in range(0, len(ids), IDS_PER_QUERY):
                query = select(t.tests).where(t.tests.c.job_id.in_(ids[first : first + IDS_PER_QUERY]))
                for row in connection.execute(query.order_by(t.tests.c.job_id, t.tests.c.title, t.tests.c.test_id)):
                    found.setdefault(JobId(row.job_id), []).append(rows.test_record(row))
        return found

    def list_builds(self) -> list[Build]:
        """Return all builds that were installed."""
        with self._reader.connect() as connection:
            return [rows.build_record(row) for row in connection.execute(select(t.builds))]

    def count_jobs(self) -> int:
        """Return how many jobs were ever accepted and are kept."""
        with self._reader.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(t.jobs)).scalar_one())


class _Batch:
    """The rows of a step: one for each record, the last write of it."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.counters: Counters | None = None
        self.jobs: dict[Any, rows.Row] = {}
        self.labels: list[rows.Row] = []
        self.attempts: dict[Any, rows.Row] = {}
        self.tests: dict[Any, rows.Row] = {}
        self.leases: dict[Any, rows.Row] = {}
        self.devices: dict[Any, rows.Row] = {}
        self.agents: dict[Any, rows.Row] = {}
        self.builds: dict[Any, rows.Row] = {}
        self.requests: list[rows.Row] = []
        for write in writes:
            self._add(write)

    def _add(self, write: Write) -> None:
        match write:
            case PutJob(job):
                self.jobs[job.id] = rows.job_row(job)
                if job.attempt_count == 0:
                    self.labels += [{"job_id": job.id, "name": n, "value": v} for n, v in job.spec.labels.items()]
            case PutAttempt(attempt):
                self.attempts[attempt.id] = rows.attempt_row(attempt)
            case PutTest(attempt, test):
                self.tests[attempt.job, test.id] = rows.test_row(attempt, test)
            case PutLease(lease):
                self.leases[lease.id] = rows.lease_row(lease)
            case PutDevice(device):
                self.devices[device.id] = rows.device_row(device)
            case PutAgent(agent):
                self.agents[agent.id] = rows.agent_row(agent)
            case PutBuild(build):
                self.builds[build.app] = rows.build_row(build)
            case PutRequest(request):
                self.requests.append(rows.request_row(request))
            case PutCounters(counters):
                self.counters = counters


def _is_open(state: Column[str], terminal: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a row is not finished; NOT IN cannot be sent with many rows."""
    return and_(*(state != value for value in terminal))


def _filtered(wanted: JobFilter) -> Select[Any]:
    query = select(t.jobs)
    columns = t.jobs.c
    if wanted.states:
        query = query.where(columns.state.in_([state.value for state in wanted.states]))
    if wanted.priority is not None:
        query = query.where(columns.priority == wanted.priority)
    if wanted.target is not None:
        query = query.where(columns.target == wanted.target.value)
    if wanted.app_version_id:
        query = query.where(columns.app_version_id == wanted.app_version_id)
    if wanted.org_id:
        query = query.where(columns.org_id == wanted.org_id)
    if wanted.run:
        query = query.where(columns.run == wanted.run)
    if wanted.ids:
        query = query.where(columns.id.in_(wanted.ids))
    for name, value in wanted.labels:
        labelled = select(t.job_labels.c.job_id).where(t.job_labels.c.name == name, t.job_labels.c.value == value)
        query = query.where(columns.id.in_(labelled))
    return query


def _insert(connection: Connection, table: Table) -> Any:  # noqa: ANN401 - the two dialects share this interface, not a class
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _engine(url: str, *, is_writer: bool) -> Engine:
    is_sqlite = url.startswith("sqlite")
    pool_size = 1 if is_writer else READERS
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=60, hide_parameters=True)
    if is_sqlite:
        _set_up_sqlite(engine, is_writer=is_writer)
    return engine


def _set_up_sqlite(engine: Engine, *, is_writer: bool) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver must not begin transactions on its own: `begun` below does, and says which kind.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        if not is_writer:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def _migrate(connection: Connection, url: str) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise StoreError(
            f"the database {_shown(url)} has schema {current}, which a newer release made;"
            " start that release, or restore a backup"
        )
    command.upgrade(config, "head")


def _name(connection: Connection) -> str:
    named = connection.execute(select(t.meta.c.value).where(t.meta.c.name == "cluster_id")).scalar_one_or_none()
    if named is None:
        named = uuid.uuid4().hex
        connection.execute(insert(t.meta).values(name="cluster_id", value=named))
    return str(named)


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _shown(url: str) -> str:
    """Return a database URL without its password."""
    return create_engine(url).url.render_as_string(hide_password=True) if "@" in url else url
