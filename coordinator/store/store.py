"""The coordinator's memory: one writer that commits batches, and a few readers that see what was committed.

No method knows of asyncio. All may be called from any thread; those that write take turns.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import URL, Connection, select, update

from coordinator.core.artifacts import Artifact
from coordinator.core.logfile import LogRecord, LogWrite
from coordinator.core.model import (
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
from coordinator.core.step import Write
from coordinator.store import artifacts, leader, pruning, reading, tables
from coordinator.store.artifacts import Kept, Recording
from coordinator.store.batch import fold
from coordinator.store.dialect import (
    LEADER_TTL_S,
    checked_url,
    reader_engine,
    refuse_foreign_file,
    shown,
    translated,
    writer_engine,
)
from coordinator.store.errors import StoreFull
from coordinator.store.filter import JobFilter
from coordinator.store.group import GroupCommit
from coordinator.store.leader import LeaderRow
from coordinator.store.lock import DatabaseLock
from coordinator.store.reading import Snapshot
from coordinator.store.request_keys import RequestKey, RequestKeys
from coordinator.store.schema import check_schema, is_led, migrate
from coordinator.store.writing import BatchWriter

Answer = TypeVar("Answer")


class Store:
    """A database. All methods raise `StoreError` when it cannot do what it was asked."""

    def __init__(self, url: URL, give_back: Callable[[], bool], leader_ttl_s: float) -> None:
        """Connect; `Store.open` is the way in."""
        self._url = url
        self._give_back = give_back
        self._writer = writer_engine(url, leader_ttl_s)
        self._readers = reader_engine(url, leader_ttl_s)
        self._lock: DatabaseLock | None = None
        self.leader_row: LeaderRow | None = None
        """Says who leads, where several processes may open this database for themselves; else nobody asks."""
        self._turn = threading.Lock()
        self._group = GroupCommit(self._write)
        self._batches: BatchWriter | None = None
        self.first_attempt: AttemptId | None = None
        """No attempt from here on was before our epoch; None before there is one."""
        self._request_keys = RequestKeys()
        self.cluster_id = ""
        """Names this database for all its lives."""
        self.storage_id = ""
        """Names the directory of logs and blobs that belongs to this database."""
        self.is_new = False
        """Whether no coordinator had served from this database when that was last asked."""
        self.jobs_forgotten = 0
        """Since it was opened."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        is_sole: bool = False,
        leader_ttl_s: float = LEADER_TTL_S,
        give_back: Callable[[], bool] = lambda: False,
    ) -> Store:
        """Open a database, make it or bring it to this release's schema.

        Args:
            url: SQLAlchemy's.
            is_sole: Until `close`, no other process may open a SQLite database in this way. It is locked before
                anything is changed in it. On PostgreSQL others may, and who holds the leader row has it for itself:
                nobody else begins an epoch, or changes the schema.
            leader_ttl_s: How long the leader row is held after a renewal.
            give_back: Frees space that was held for a commit on a full disk, and returns whether there was any.

        Raises:
            StoreInUse: Another process has it for itself.
            StoreUnreadable: It is damaged, somebody else's, or cannot be reached.
            SchemaTooNew: A newer release wrote it.
        """
        checked = checked_url(url)
        refuse_foreign_file(checked)
        store = cls(checked, give_back, leader_ttl_s)
        try:
            if is_sole and store.is_sqlite:
                store._lock = DatabaseLock(checked)
            elif is_sole:
                store.leader_row = LeaderRow(checked, leader_ttl_s)
            store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    def _prepare(self) -> None:
        with translated(self._url), self._writer.begin() as connection:
            if self.leader_row is not None and is_led(connection):
                check_schema(connection, shown(self._url))
            else:
                migrate(connection, shown(self._url))
            self._read_meta(connection)

    def _read_meta(self, connection: Connection) -> None:
        meta = connection.execute(select(tables.meta)).one()
        self.cluster_id, self.storage_id = meta.cluster_id, meta.storage_id
        self.is_new = _is_new(connection)

    def take_over(self) -> None:
        """Catch up where somebody else may have led meanwhile, or have put a backup back: once the leader row is ours.

        Raises:
            SchemaTooNew: A newer release led.
        """
        if self.leader_row is None:
            return
        with translated(self._url), self._writer.begin() as connection:
            migrate(connection, shown(self._url))
            self._read_meta(connection)

    def has_been_led(self) -> bool:
        """Whether any coordinator has begun an epoch."""
        self.is_new = self._read(_is_new)
        return not self.is_new

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this host."""
        return self._url.get_backend_name() == "sqlite"

    def close(self) -> None:
        """Close all connections, then let another process have the database."""
        self._readers.dispose()
        self._writer.dispose()
        if self.leader_row is not None:
            self.leader_row.close()
        if self._lock is not None:
            self._lock.release()

    # Writes

    def _write(self, work: Callable[[Connection], Answer]) -> Answer:
        """Do work in a transaction of the one connection that writes; again if the disk is full and has ballast."""
        try:
            return self._try_to_write(work)
        except StoreFull:
            if not self._give_back():
                raise
            return self._try_to_write(work)

    def _try_to_write(self, work: Callable[[Connection], Answer]) -> Answer:
        with self._turn, translated(self._url, is_commit=True), self._writer.begin() as connection:
            return work(connection)

    def start_epoch(self) -> Counters:
        """Raise the epoch durably: from now on no earlier opener of this database can commit.

        Raises:
            StaleEpoch: Another coordinator holds the leader row.
        """
        table = tables.counters

        def raise_epoch(connection: Connection) -> tuple[Counters, BatchWriter]:
            connection.execute(update(table).values(epoch=table.c.epoch + 1))
            if self.leader_row is not None:
                # After the update, which may have waited for the lock of one who led before.
                self.leader_row.check(connection)
            counters = reading.counters(connection)
            highest = reading.highest_job(connection)
            return counters, BatchWriter(connection.dialect, counters.epoch, highest)

        counters, self._batches = self._write(raise_epoch)
        self.first_attempt = AttemptId(counters.next_attempt)
        # What others inserted until now is there to be learnt, and from now on nobody else inserts.
        self._request_keys = RequestKeys()
        return counters

    def begin_new_cluster(self) -> None:
        """Say that this database was restored: give it another name, and let nobody who wrote to it before go on."""

        def rename(connection: Connection) -> str:
            name = uuid.uuid4().hex
            connection.execute(update(tables.meta).values(cluster_id=name))
            connection.execute(update(tables.counters).values(epoch=tables.counters.c.epoch + 1))
            leader.free(connection)
            return name

        self.cluster_id = self._write(rename)

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all writes durable in one transaction, or none. It may be one with what is recorded of logs.

        Raises:
            StaleEpoch: Another coordinator has started an epoch of its own.
            StoreFull: There is no space.
            OutcomeUnknown: It may have happened or not.
        """
        batches = self._batches
        assert batches is not None, "start_epoch comes before the first commit"
        if not writes:
            return
        batch = fold(writes)
        self._request_keys.add((request.org_id, request.key) for request in batch.requests)
        self._group.do(lambda connection: batches.write(connection, batch))
        batches.note_committed(batch)

    @property
    def epoch(self) -> int:
        """Ours, under which everything is written."""
        assert self._batches is not None, "there is no epoch before start_epoch"
        return self._batches.epoch

    def put_logs(self, writes: Sequence[LogWrite]) -> None:
        """Record durably what became of logs: all of it, or nothing.

        Raises:
            StaleEpoch: Another coordinator has started an epoch of its own.
            StoreFull: There is no space.
        """
        batches = self._batches
        assert batches is not None, "start_epoch comes before the first commit"
        self._group.do(lambda connection: batches.write_logs(connection, writes))

    # Artifacts

    def record_artifact(self, artifact: Artifact) -> Recording:
        """Record durably what an attempt left behind, once its bytes are stored.

        Raises:
            StaleEpoch: Another coordinator has started an epoch of its own.
            StoreFull: There is no space.
        """
        return self._write_checked(lambda connection: artifacts.record(connection, artifact))

    def artifacts_of(self, job_id: JobId, after: tuple[int, str], limit: int) -> list[Artifact]:
        """Return at most `limit` artifacts of a job, by number of the attempt and name, after one of these."""
        return self._read(lambda connection: artifacts.of_job(connection, job_id, after, limit))

    def get_artifact(self, job_id: JobId, attempt_number: int, name: str) -> Artifact | None:
        """Return one artifact of a job."""
        return self._read(lambda connection: artifacts.one(connection, job_id, attempt_number, name))

    def earlier_reports(self, job_id: JobId, number: int) -> list[Artifact]:
        """Return what Playwright merges of the attempts of a job before one, the oldest first."""
        return self._read(lambda connection: artifacts.earlier_reports(connection, job_id, number))

    def report_of(self, job_id: JobId) -> Artifact | None:
        """Return the first page of the HTML report of the last attempt of a job that has one."""
        return self._read(lambda connection: artifacts.report(connection, job_id))

    def artifact_blobs(self, digests: Collection[str]) -> set[str]:
        """Return those blobs that an artifact is."""
        return self._read(lambda connection: artifacts.named(connection, digests))

    def artifact_bytes(self) -> int:
        """Return the size of all artifacts together; bytes that several share count once."""
        return self._read(artifacts.stored_bytes)

    def oldest_artifacts(self, before_us: int | None, limit: int) -> list[Kept]:
        """Return attempts of ended jobs with artifacts, the oldest first, if asked only those before a wall time."""
        return self._read(lambda connection: artifacts.oldest(connection, before_us, limit))

    def forget_artifacts(self, attempts: Sequence[AttemptId]) -> set[str]:
        """Delete the artifacts of attempts, in one transaction; return the blobs that they were."""
        return self._write_checked(lambda connection: artifacts.forget(connection, attempts))

    # Forgetting

    def old_jobs(self, before_us: int, limit: int) -> list[JobId]:
        """Return at most `limit` jobs that ended before a wall time, the lowest ids first."""
        return self._read(lambda connection: pruning.old_jobs(connection, before_us, limit))

    def forget_jobs(self, ids: Sequence[JobId]) -> set[str]:
        """Delete ended jobs with all that belongs to them, in one transaction; their logs become strays.

        Returns:
            The blobs that their artifacts were.
        """

        def forget(connection: Connection) -> set[str]:
            digests = artifacts.digests_of_jobs(connection, ids)
            pruning.delete_jobs(connection, ids)
            return digests

        digests = self._write_checked(forget)
        self.jobs_forgotten += len(ids)
        return digests

    def spent_requests(self, after: RequestKey, limit: int) -> tuple[list[RequestKey], RequestKey | None]:
        """Look at `limit` requests after one; return the (org_id, key) of those without a job, and where to go on."""
        return self._read(lambda connection: pruning.spent_requests(connection, after, limit))

    def forget_requests(self, keys: Sequence[RequestKey]) -> None:
        """Delete those of these requests of which no job is left, in one transaction."""
        known = self._request_keys
        # Else a row may go before it is learnt: what is discarded then could be the same key, inserted anew.
        may_discard = known.is_complete
        deleted = self._write_checked(lambda connection: pruning.delete_requests(connection, keys))
        if may_discard and not known.discard(deleted):
            structlog.get_logger("coordinator").error(
                "request_keys_incomplete",
                keys=len(deleted),
                story="A key had a row and was not known: all are learnt anew, and submits look theirs up until then",
            )

    def ended_attempts(self, ids: Sequence[AttemptId]) -> list[AttemptId]:
        """Return those attempts of which nothing more is awaited: their jobs have ended."""
        return self._read(lambda connection: pruning.ended_attempts(connection, ids))

    def stray_logs(self, limit: int) -> list[AttemptId]:
        """Return at most `limit` attempts of which log parts are recorded, though nobody can read them any more."""
        return self._read(lambda connection: pruning.stray_logs(connection, limit))

    def forget_parts(self, attempts: Sequence[AttemptId]) -> None:
        """Delete what is recorded of the parts of logs whose bytes are gone, in one transaction."""
        self._write_checked(lambda connection: pruning.delete_parts(connection, attempts))

    def _write_checked(self, work: Callable[[Connection], Answer]) -> Answer:
        batches = self._batches
        assert batches is not None, "start_epoch comes before the first commit"

        def check_and_work(connection: Connection) -> Answer:
            batches.check_epoch(connection)
            return work(connection)

        return self._write(check_and_work)

    # Reads

    def _read(self, query: Callable[[Connection], Answer]) -> Answer:
        with translated(self._url), self._readers.begin() as connection:
            return query(connection)

    def load(self) -> Snapshot:
        """Return what is not finished, and the lab."""
        return self._read(reading.snapshot)

    def learn_requests(self, limit: int) -> bool:
        """Learn the keys of the next `limit` requests that were accepted before this epoch.

        Returns:
            Whether all are known: `may_have_request` says anything of use only then.
        """
        known = self._request_keys
        if not known.is_complete:
            keys = self._read(lambda connection: reading.request_keys(connection, known.last_learnt, limit))
            known.learn(keys, is_last=len(keys) < limit)
        return known.is_complete

    def may_have_request(self, key: RequestKey) -> bool:
        """Whether a submit may have been accepted under an (org_id, key); if not, none is. Asks no database."""
        return self._request_keys.may_hold(key)

    def find_requests(self, keys: Sequence[RequestKey]) -> list[Request]:
        """Return the submits that were accepted under idempotency keys, each an (org_id, key)."""
        return self._read(lambda connection: reading.requests(connection, keys))

    def get_job(self, job_id: JobId) -> Job | None:
        """Return a job."""
        return self._read(lambda connection: reading.job(connection, job_id))

    def get_jobs(self, ids: Sequence[JobId]) -> list[Job]:
        """Return the jobs that exist, in the order asked for."""
        return self._read(lambda connection: reading.jobs(connection, ids))

    def list_jobs(self, wanted: JobFilter, limit: int, before: JobId | None = None) -> list[Job]:
        """Return at most `limit` jobs that a filter selects, newest first, all older than `before`."""
        return self._read(lambda connection: reading.job_page(connection, wanted, limit, before))

    def get_attempt(self, attempt_id: AttemptId) -> Attempt | None:
        """Return an attempt."""
        return self._read(lambda connection: reading.attempt(connection, attempt_id))

    def lease_of(self, attempt_id: AttemptId) -> Lease | None:
        """Return the lease under which an attempt runs or ran."""
        return self._read(lambda connection: reading.lease_of(connection, attempt_id))

    def log_of(self, attempt_id: AttemptId) -> LogRecord:
        """Return what is recorded of an attempt's log."""
        return self._read(lambda connection: reading.log_of(connection, attempt_id))

    def attempts_of(self, job_id: JobId) -> list[Attempt]:
        """Return a job's attempts, oldest first."""
        return self.attempts_of_jobs([job_id]).get(job_id, [])

    def attempts_of_jobs(self, ids: Sequence[JobId]) -> dict[JobId, list[Attempt]]:
        """Return the same of many jobs; jobs without attempts are left out."""
        return self._read(lambda connection: reading.attempts_of(connection, ids))

    def tests_of(self, job_id: JobId) -> list[tuple[TestResult, int]]:
        """Return (result, number of the last attempt that ran it) of a job's tests, in the order in which they ran."""
        return self.tests_of_jobs([job_id]).get(job_id, [])

    def earlier_failures_of(self, job_id: JobId) -> list[tuple[TestResult, int]]:
        """Return (failed result, number of its attempt) of tests that a later attempt ran again, oldest first."""
        return self.earlier_failures_of_jobs([job_id]).get(job_id, [])

    def earlier_failures_of_jobs(self, ids: Sequence[JobId]) -> dict[JobId, list[tuple[TestResult, int]]]:
        """Return the same of many jobs; jobs without any are left out."""
        return self._read(lambda connection: reading.earlier_failures_of(connection, ids))

    def tests_of_jobs(self, ids: Sequence[JobId]) -> dict[JobId, list[tuple[TestResult, int]]]:
        """Return the same of many jobs; jobs without tests are left out."""
        return self._read(lambda connection: reading.tests_of(connection, ids))

    def list_devices(self) -> list[Device]:
        """Return all devices by id."""
        return self._read(reading.devices)

    def list_agents(self) -> list[Agent]:
        """Return all agents by id."""
        return self._read(reading.agents)

    def list_builds(self) -> list[Build]:
        """Return all builds by organisation and app version."""
        return self._read(reading.builds)


def _is_new(connection: Connection) -> bool:
    return connection.scalar(select(tables.counters.c.epoch)) == 0
