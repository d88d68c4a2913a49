"""The statements of a commit. The conditions that must hold between commits are part of the SQL itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Table, and_, bindparam, delete, exists, insert, or_, select, update

from coordinator.core.logfile import LogEnd, LogPart, LogRestart, LogWrite
from coordinator.core.model import TERMINAL_JOB_STATES, Counters, Job, JobId, JobState, TestState, Upload
from coordinator.store import rows, tables
from coordinator.store.batch import Batch
from coordinator.store.dialect import Guard, upsert
from coordinator.store.errors import StaleEpoch
from coordinator.store.statement import Statement, Values

IDS_PER_QUERY = 10_000
_JOB_ENDS = tuple(sorted(state.value for state in TERMINAL_JOB_STATES))
_AT_WORK = frozenset({JobState.ASSIGNED, JobState.RUNNING})
_FAILED = (TestState.FAILED.value, TestState.TIMED_OUT.value)


class BatchWriter:
    """Writes batches over a connection. It belongs to one epoch."""

    def __init__(self, dialect: Dialect, epoch: int, highest_job: JobId) -> None:
        """Prepare the statements.

        Args:
            dialect: Of the connection.
            epoch: Ours; nothing is written once it is not the database's any more.
            highest_job: No job above it is in the table.
        """
        self.epoch = epoch
        """Ours."""
        self._highest_job = highest_job
        self._at_work: set[JobId] = set()
        """Jobs that the table holds, for they are on devices by our own word; the others are looked for."""
        ours = tables.counters.c.epoch == epoch
        # On PostgreSQL the lock keeps the epoch from rising before our commit; SQLite has one writer anyway.
        self._find_epoch = Statement(dialect, select(tables.counters.c.id).where(ours).with_for_update(read=True))
        self._put_counters = Statement(dialect, update(tables.counters).where(ours))
        self._insert_job = Statement(dialect, insert(tables.jobs))
        self._insert_label = Statement(dialect, insert(tables.job_labels))
        self._insert_request = Statement(dialect, insert(tables.requests))
        self._update_job = Statement(dialect, _job_update())
        self._put_device = _upsert(dialect, tables.devices, ("id",))
        self._put_agent = _upsert(dialect, tables.agents, ("id",))
        self._drop_agent = _delete(dialect, tables.agents, ("id",))
        self._drop_device = Statement(dialect, _device_drop())
        self._forget_device = Statement(dialect, _device_mark())
        self._put_build = _upsert(dialect, tables.builds, ("org_id", "app_version_id"))
        self._put_trial = _upsert(dialect, tables.trials, ("org_id", "app_version_id", "digest"))
        self._drop_trial = _delete(dialect, tables.trials, ("org_id", "app_version_id", "digest"))
        self._put_crossing = _upsert(dialect, tables.crossings, ("subject",))
        self._drop_crossing = _delete(dialect, tables.crossings, ("subject",))
        self._put_upload = _upsert(dialect, tables.uploads, ("account", "digest"))
        self._drop_upload = _delete(dialect, tables.uploads, ("account", "digest"))
        self._put_expectation = _upsert(dialect, tables.expectations, ("org_id", "test", "kind"))
        self._put_lease = _upsert(
            dialect,
            tables.leases,
            ("id",),
            lambda new: or_(tables.LEASE_IS_LIVE, tables.leases.c.state == new.state),
        )
        self._put_attempt = _upsert(
            dialect,
            tables.attempts,
            ("id",),
            lambda new: or_(tables.ATTEMPT_IS_OPEN, tables.attempts.c.outcome == new.outcome),
        )
        put_test = upsert(
            dialect.name,
            tables.test_results,
            ("job", "id"),
            ("attempt_number", "title", "state", "duration_us", "error", "begin_us"),
            lambda new: tables.test_results.c.attempt_number <= new.attempt_number,
        )
        self._put_test = Statement(dialect, put_test)
        self._keep_failure = Statement(dialect, _failure_keeping())
        self._put_log_part = _upsert(dialect, tables.log_parts, ("attempt", "epoch", "start"))
        self._put_log_end = _upsert(dialect, tables.log_ends, ("attempt",))

    def write_logs(self, connection: Connection, writes: Sequence[LogWrite]) -> None:
        """Record what became of logs, those that begin anew first.

        Raises:
            StaleEpoch: Somebody else has raised the epoch.
        """
        self.check_epoch(connection)
        restarted = [write.attempt for write in writes if isinstance(write, LogRestart)]
        if restarted:
            connection.execute(delete(tables.log_parts).where(tables.log_parts.c.attempt.in_(restarted)))
        parts = [rows.log_part_values(write) for write in writes if isinstance(write, LogPart)]
        self._put_log_part.run_all(connection, parts)
        ends = [rows.log_end_values(write) for write in writes if isinstance(write, LogEnd)]
        self._put_log_end.run_all(connection, ends)

    def write(self, connection: Connection, batch: Batch) -> None:
        """Write a batch within the connection's transaction, those first that others refer to.

        Raises:
            StaleEpoch: Somebody else has raised the epoch.
        """
        self._check_epoch(connection, batch.counters)
        self._put_agent.run_all(connection, [rows.agent_values(agent) for agent in batch.agents.values()])
        self._put_device.run_all(connection, [rows.device_values(device) for device in batch.devices.values()])
        # The ended ones first: their devices may have been granted anew in the same batch.
        leases = sorted(batch.leases.values(), key=lambda lease: lease.is_live)
        self._put_lease.run_all(connection, [rows.lease_values(lease) for lease in leases])
        self._write_jobs(connection, list(batch.jobs.values()))
        self._put_attempt.run_all(connection, [rows.attempt_values(attempt) for attempt in batch.attempts.values()])
        self._write_tests(connection, [rows.test_values(attempt, test) for attempt, test in batch.tests.values()])
        self._put_build.run_all(connection, [rows.build_values(build) for build in batch.builds.values()])
        self._write_evidence(connection, batch)
        self._write_uploads(connection, list(batch.uploads.values()))
        expectations = [rows.expectation_values(one) for one in batch.expectations.values()]
        self._put_expectation.run_all(connection, expectations)
        self._insert_request.run_all(connection, [rows.request_values(request) for request in batch.requests])
        self._drop_forgotten(connection, batch)

    def _drop_forgotten(self, connection: Connection, batch: Batch) -> None:
        """Delete what is forgotten; a device that leases of the past name is marked, and goes with the last of them."""
        devices = [{"of": device_id} for device_id in batch.dropped_devices]
        self._drop_device.run_all(connection, devices)
        self._forget_device.run_all(connection, devices)
        self._drop_agent.run_all(connection, [{"id": agent_id} for agent_id in batch.dropped_agents])

    def _write_tests(self, connection: Connection, tests: list[Values]) -> None:
        """Write tests; a failure of an earlier attempt is kept beside what replaces it."""
        repeated = (test for test in tests if test["attempt_number"] > 1)
        keys = [{"of": test["job"], "test": test["id"], "before": test["attempt_number"]} for test in repeated]
        self._keep_failure.run_all(connection, keys)
        self._put_test.run_all(connection, tests)

    def _write_evidence(self, connection: Connection, batch: Batch) -> None:
        """Write what blame is laid by; what says nothing any more is deleted."""
        trials, crossings = batch.trials.values(), batch.crossings.values()
        self._drop_trial.run_all(connection, [rows.trial_key(trial) for trial in trials if trial.says_nothing])
        self._put_trial.run_all(connection, [rows.trial_values(trial) for trial in trials if not trial.says_nothing])
        over = [{"subject": crossing.subject} for crossing in crossings if not crossing.places]
        self._drop_crossing.run_all(connection, over)
        kept = [rows.crossing_values(crossing) for crossing in crossings if crossing.places]
        self._put_crossing.run_all(connection, kept)

    def _write_uploads(self, connection: Connection, uploads: Sequence[Upload]) -> None:
        """Write what is known of builds at accounts; what was given up is deleted."""
        self._drop_upload.run_all(connection, [one.key._asdict() for one in uploads if one.is_given_up])
        self._put_upload.run_all(connection, [rows.upload_values(one) for one in uploads if not one.is_given_up])

    def check_epoch(self, connection: Connection) -> None:
        """Make sure that nobody else takes the database over before this transaction has ended.

        Raises:
            StaleEpoch: Somebody has.
        """
        self._check_epoch(connection, None)

    def note_committed(self, batch: Batch) -> None:
        """Remember which jobs the table holds: the highest, and those at work, which are soon written again."""
        self._highest_job = max(self._highest_job, *batch.jobs, JobId(0)) if batch.jobs else self._highest_job
        for job in batch.jobs.values():
            if job.state in _AT_WORK:
                self._at_work.add(job.id)
            else:
                self._at_work.discard(job.id)

    def _check_epoch(self, connection: Connection, counters: Counters | None) -> None:
        if counters is None:
            is_ours = self._find_epoch.run(connection, {}).first() is not None
        else:
            assert counters.epoch == self.epoch, f"counters of epoch {counters.epoch} in epoch {self.epoch}"
            is_ours = self._put_counters.run(connection, rows.counters_values(counters)).rowcount == 1
        if not is_ours:
            raise StaleEpoch(f"another coordinator has taken over: epoch {self.epoch} is not the newest any more")

    def _write_jobs(self, connection: Connection, jobs: list[Job]) -> None:
        asked = [job.id for job in jobs if job.id <= self._highest_job and job.id not in self._at_work]
        found = _known_jobs(connection, asked)
        known = {job.id for job in jobs if job.id in self._at_work or job.id in found}
        added = [job for job in jobs if job.id not in known]
        self._insert_job.run_all(connection, [rows.accepted_values(job) | rows.progress_values(job) for job in added])
        self._insert_label.run_all(connection, [values for job in added for values in rows.label_values(job)])
        moved = [
            {"of": job.id, "new_state": job.state.value, **rows.progress_values(job)} for job in jobs if job.id in known
        ]
        self._update_job.run_all(connection, moved)


def _upsert(dialect: Dialect, table: Table, key: tuple[str, ...], guard: Guard | None = None) -> Statement:
    values = tuple(column.name for column in table.columns if column.name not in key)
    return Statement(dialect, upsert(dialect.name, table, key, values, guard))


def _delete(dialect: Dialect, table: Table, key: tuple[str, ...]) -> Statement:
    return Statement(dialect, delete(table).where(*(table.c[name] == bindparam(name) for name in key)))


def _device_drop() -> Any:  # noqa: ANN401 - an executable
    """Return the deletion of a device that no lease names."""
    devices = tables.devices
    is_named = exists().where(tables.leases.c.device == devices.c.id)
    return delete(devices).where(devices.c.id == bindparam("of"), ~is_named)


def _device_mark() -> Any:  # noqa: ANN401 - an executable
    """Return the update of a device that leases name, and that is not to be read any more."""
    return update(tables.devices).where(tables.devices.c.id == bindparam("of")).values(is_forgotten=True)


def _failure_keeping() -> Any:  # noqa: ANN401 - an executable
    """Return the copy of a test's result that is failed, and that the result of a later attempt is to replace."""
    result, kept = tables.test_results.c, tables.earlier_failures.c
    is_failed = or_(*(result.state == state for state in _FAILED))
    is_replaced = and_(
        result.job == bindparam("of"), result.id == bindparam("test"), result.attempt_number < bindparam("before")
    )
    names = [column.name for column in kept]
    found = select(*(result[name] for name in names)).where(is_replaced, is_failed)
    return insert(tables.earlier_failures).from_select(names, found)


def _job_update() -> Any:  # noqa: ANN401 - an executable
    """Return the update of what changes of a job; a job that has ended stays so."""
    columns = tables.jobs.c
    stays = columns.state == bindparam("new_state")
    # Spelt out: NOT IN expands at each execution, which many rows at once cannot.
    is_open = and_(*(columns.state != state for state in _JOB_ENDS))
    return update(tables.jobs).where(columns.id == bindparam("of"), or_(is_open, stays))


def _known_jobs(connection: Connection, ids: list[JobId]) -> frozenset[int]:
    known: set[int] = set()
    for first in range(0, len(ids), IDS_PER_QUERY):
        part = ids[first : first + IDS_PER_QUERY]
        known.update(connection.scalars(select(tables.jobs.c.id).where(tables.jobs.c.id.in_(part))))
    return frozenset(known)
