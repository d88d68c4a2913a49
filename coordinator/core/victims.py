"""Leases that could make room for urgent work, in the order in which they should.

Only a batch whose jobs all have priority 1-2 as *submitted* makes room (else two aged jobs could throw each other out
for ever), and a job that was preempted twice is left alone. The lowest priority goes first, then who was preempted
least, then who has started nothing, then who would lose least work: that since the last boundary between two tests,
where the run can be resumed there, else all since its start.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from coordinator.core.model import (
    MAX_PREEMPTIONS,
    PREEMPTIBLE_PRIORITY,
    Attempt,
    AttemptId,
    Job,
    JobId,
    Lease,
    LeaseId,
    LeaseState,
)
from coordinator.core.pools import Sort

COMPACT_ABOVE = 64

_STATES = frozenset({LeaseState.OFFERED, LeaseState.ACTIVE})

Cost = tuple[int, int, bool, int, LeaseId]
"""(highest priority, most preemptions, whether a test runs, less the time since when work would be lost, lease)."""


def cost_of(
    lease: Lease,
    jobs: dict[JobId, Job],
    attempts: dict[AttemptId, Attempt],
    guaranteed: dict[JobId, None],
    boundaries: dict[AttemptId, int],
) -> Cost | None:
    """Return what it costs to take a device back from a lease; None if it must not be taken."""
    if lease.state not in _STATES or not lease.attempts:
        return None
    priority = preemptions = start_us = 0
    for attempt_id in lease.attempts:
        attempt = attempts[attempt_id]
        job = jobs[attempt.job]
        if job.spec.priority > PREEMPTIBLE_PRIORITY or job.preemptions >= MAX_PREEMPTIONS or job.id in guaranteed:
            return None
        priority = max(priority, job.spec.priority)
        preemptions = max(preemptions, job.preemptions)
        start_us = max(start_us, attempt.start_us or 0, boundaries.get(attempt_id, 0))
    return (priority, preemptions, start_us > 0, -(start_us or lease.grant_us), lease.id)


class Victims:
    """The leases that could make room, by the sort of their device."""

    def __init__(self) -> None:
        self._costs: dict[LeaseId, Cost] = {}
        self._heaps: dict[Sort, list[Cost]] = {}
        self.fresh: dict[Sort, None] = {}
        """Sorts of device on which another lease could make room since they were looked at."""

    def __contains__(self, lease: object) -> bool:
        """Whether a lease could make room."""
        return lease in self._costs

    def put(self, lease: LeaseId, sort: Sort, cost: Cost | None) -> None:
        """Note what a lease costs now."""
        if cost is None:
            self._costs.pop(lease, None)
            return
        if self._costs.get(lease) == cost:
            return
        self._costs[lease] = cost
        heap = self._heaps.setdefault(sort, [])
        heapq.heappush(heap, cost)
        self.fresh[sort] = None
        if len(heap) > COMPACT_ABOVE and not len(heap) & (len(heap) - 1):
            heap[:] = [one for one in heap if self._costs.get(one[-1]) == one]
            heapq.heapify(heap)

    def first(self, sorts: Iterable[Sort], may_yield: Callable[[LeaseId], bool]) -> LeaseId | None:
        """Return the lease that should make room first on devices of these sorts, among those that may."""
        costs = [cost for sort in sorts if (cost := self._first_of(sort, may_yield)) is not None]
        return min(costs)[-1] if costs else None

    def _first_of(self, sort: Sort, may_yield: Callable[[LeaseId], bool]) -> Cost | None:
        heap = self._heaps.get(sort, [])
        skipped: list[Cost] = []
        found: Cost | None = None
        while heap and found is None:
            cost = heap[0]
            if self._costs.get(cost[-1]) != cost:
                heapq.heappop(heap)
            elif may_yield(cost[-1]):
                found = cost
            else:
                skipped.append(heapq.heappop(heap))
        for cost in skipped:
            heapq.heappush(heap, cost)
        if not heap:
            self._heaps.pop(sort, None)
        return found
