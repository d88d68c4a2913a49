"""What a follower was told already, so that only news is told again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qgjob.v1.job_pb2 import (
    JOB_STATE_ASSIGNED,
    JOB_STATE_CANCELLED,
    JOB_STATE_COMPLETED,
    JOB_STATE_ERRORED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_TIMED_OUT,
    Job,
)

if TYPE_CHECKING:
    # The services that only some commands use are loaded by them.
    from qgjob.v1.queue_pb2 import QueueStatus
ACTIVE_STATES = (JOB_STATE_QUEUED, JOB_STATE_ASSIGNED, JOB_STATE_RUNNING)
TERMINAL_STATES = frozenset(
    {JOB_STATE_COMPLETED, JOB_STATE_FAILED, JOB_STATE_ERRORED, JOB_STATE_TIMED_OUT, JOB_STATE_CANCELLED}
)


class KnownJobs:
    """What a follower was told of the jobs that have not ended."""

    def __init__(self) -> None:
        self._told: dict[int, bytes] = {}

    def ids_beside(self, jobs: Iterable[Job]) -> list[int]:
        """Return the known jobs that are not among these."""
        return sorted(self._told.keys() - {job.id for job in jobs})

    def news(self, jobs: Iterable[Job]) -> list[Job]:
        """Return those of which something new is told, and remember it."""
        changed = []
        for job in jobs:
            said = job.SerializeToString(deterministic=True)
            if self._told.get(job.id) != said:
                self._told[job.id] = said
                changed.append(job)
            if job.state in TERMINAL_STATES:
                del self._told[job.id]
        return changed


def without_estimates(status: QueueStatus) -> bytes:
    """Return what of the queue has changed when it differs: what is expected is estimated anew at each look."""
    known = type(status)()
    known.CopyFrom(status)
    known.ClearField("expected_drain_time")
    for job in known.waiting:
        job.ClearField("expected_start_time")
    return known.SerializeToString(deterministic=True)
