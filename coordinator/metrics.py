"""What is counted of the commits, for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from coordinator.core.ledger import Ledger
from coordinator.core.model import SECOND_US, JobId, Lane, Lease, LeaseId, LeaseState
from coordinator.core.step import PutAttempt, PutJob, PutLease, Write

WAIT_BUCKETS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400)
COMMIT_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_ENDS = (LeaseState.RELEASED, LeaseState.REVOKED, LeaseState.EXPIRED)


class Metrics:
    """Counters that start from nothing with every coordinator, and the registry in which they stand."""

    def __init__(self) -> None:
        """Count from nothing."""
        self.registry = CollectorRegistry()
        self._live = set[LeaseId]()
        self._waits = Histogram(
            "qgjob_queue_wait_seconds",
            "From the submit of a job to the start of its first test.",
            ["lane"],
            buckets=WAIT_BUCKETS_S,
            registry=self.registry,
        )
        self._commits = Histogram(
            "qgjob_commit_seconds",
            "How long a turn's commit took.",
            buckets=COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self._jobs_ended = Counter("qgjob_jobs_ended", "Jobs that ended.", ["status"], registry=self.registry)
        self._granted = Counter("qgjob_batches_granted", "Batches handed to agents.", registry=self.registry)
        self._ended = Counter("qgjob_batches_ended", "Batches that ended.", ["state"], registry=self.registry)
        self._expired = Counter("qgjob_lease_expiries", "Leases that nobody renewed in time.", registry=self.registry)
        for lane in Lane:
            self._waits.labels(lane)
        for state in _ENDS:
            self._ended.labels(state)

    def note_restored(self, ledger: Ledger) -> None:
        """Take up the leases of an earlier life."""
        self._live.update(ledger.fleet.leases)

    def note_commit(self, writes: Sequence[Write], took_s: float) -> None:
        """Count what one commit has changed."""
        self._commits.observe(took_s)
        started = {
            write.attempt.job: write.attempt.start_us
            for write in writes
            if isinstance(write, PutAttempt) and write.attempt.outcome is None and write.attempt.start_us is not None
        }
        for write in writes:
            if isinstance(write, PutLease):
                self._note_lease(write.lease)
            elif isinstance(write, PutJob):
                self._note_job(write, started)

    def _note_lease(self, lease: Lease) -> None:
        if lease.is_live:
            if lease.id not in self._live:
                self._live.add(lease.id)
                self._granted.inc()
        elif lease.id in self._live:
            self._live.discard(lease.id)
            self._ended.labels(lease.state).inc()
            if lease.state is LeaseState.EXPIRED:
                self._expired.inc()

    def _note_job(self, write: PutJob, started: dict[JobId, int]) -> None:
        job = write.job
        if job.is_terminal:
            self._jobs_ended.labels(job.state).inc()
        # A job's own start is that of its first test: later ones leave it.
        elif job.start_us is not None and started.get(job.id) == job.start_us:
            del started[job.id]
            self._waits.labels(job.spec.lane).observe((job.start_us - job.create_us) / SECOND_US)
