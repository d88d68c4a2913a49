"""When running tests are expected to end, and how long urgent work waits for that before it interrupts any.

An interruption costs the lab about an install: the device goes to another build, and comes back. So where a device is
expected to fall free within the time of one, urgent work waits for it, once; the grace of whoever is interrupted after
that is shorter by as much, and the urgent job waits no longer than if it had interrupted at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from coordinator.core.families import Signature
from coordinator.core.model import LeaseId
from coordinator.core.pools import Sort

COMPACT_ABOVE = 64


class Endings:
    """Leases on which a test runs, by its expected end and the sort of their device."""

    def __init__(self) -> None:
        self._ends: dict[LeaseId, int] = {}
        self._heaps: dict[Sort, list[tuple[int, LeaseId]]] = {}

    def put(self, lease: LeaseId, sort: Sort, end_us: int) -> None:
        """Note when the test that runs on a lease is expected to end, in wall time."""
        self._ends[lease] = end_us
        heap = self._heaps.setdefault(sort, [])
        heapq.heappush(heap, (end_us, lease))
        if len(heap) > COMPACT_ABOVE and not len(heap) & (len(heap) - 1):
            heap[:] = [one for one in heap if self._ends.get(one[1]) == one[0]]
            heapq.heapify(heap)

    def __len__(self) -> int:
        """Return how many entries are held, those that do not count any more included."""
        return sum(len(heap) for heap in self._heaps.values())

    def drop(self, lease: LeaseId) -> None:
        """Note that the test has ended."""
        self._ends.pop(lease, None)

    def count(
        self, sorts: Iterable[Sort], wall_us: int, until_us: int, most: int, falls_free: Callable[[LeaseId], bool]
    ) -> int:
        """Return how many devices of these sorts are expected to fall free by a time, at most so many.

        A test that runs longer than expected may run for ever: it does not count.
        """
        found = 0
        for sort in sorts:
            heap, passed_over = self._heaps.get(sort, []), []
            while heap and heap[0][0] <= until_us and found < most:
                end_us, lease = entry = heapq.heappop(heap)
                if end_us <= wall_us or self._ends.get(lease) != end_us:
                    continue
                passed_over.append(entry)
                found += falls_free(lease)
            for entry in passed_over:
                heapq.heappush(heap, entry)
            if not heap:
                self._heaps.pop(sort, None)
        return found


class Patience:
    """Pools whose urgent jobs wait for tests to end, or have waited for it in vain."""

    def __init__(self) -> None:
        self._until: dict[Signature, int] = {}
        self._spent: dict[Signature, None] = {}

    def is_any_waiting(self) -> bool:
        """Whether any pool waits."""
        return bool(self._until)

    def is_waiting(self, pool: Signature) -> bool:
        """Whether a pool waits."""
        return pool in self._until

    def is_spent(self, pool: Signature) -> bool:
        """Whether a pool has waited in vain."""
        return pool in self._spent

    def left_us(self, pool: Signature, bound_us: int, mono_us: int) -> int:
        """Return how much longer a pool may wait."""
        if pool in self._spent:
            return 0
        return max(0, self._until.get(pool, mono_us + bound_us) - mono_us)

    def begin(self, pool: Signature, left_us: int, mono_us: int) -> None:
        """Let a pool wait; one that waits already gets no more time."""
        self._until.setdefault(pool, mono_us + left_us)

    def end(self, pool: Signature) -> None:
        """Forget a pool that needs nothing more."""
        self._until.pop(pool, None)
        self._spent.pop(pool, None)

    def spend(self, mono_us: int) -> list[Signature]:
        """Return the pools whose time is over now."""
        if not self._until:
            return []
        over = [pool for pool, until_us in self._until.items() if until_us <= mono_us]
        for pool in over:
            del self._until[pool]
            self._spent[pool] = None
        return over

    def next_us(self) -> int | None:
        """Return when the time of the next pool is over, on the monotonic clock."""
        return min(self._until.values()) if self._until else None
