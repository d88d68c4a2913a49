"""The guaranteed share: who has waited for longer than anybody should, and whether it is their turn.

One decision in `Rules.guarantee_every` on the devices of a pool is for the oldest head that waits for them, once that
has waited for `Rules.guarantee_wait_us`: so a stream of urgent work starves nobody.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from coordinator.core.families import Bucket, Oldest, Pool, Rank, Signature, is_doubled
from coordinator.core.model import ALL_LANES, Lane, Rules
from coordinator.core.shares import Shares


class Guarantee:
    """The oldest heads of each pool, and how many decisions have passed them over."""

    def __init__(self, rules: Rules, shares: Shares, pools: dict[Signature, Pool]) -> None:
        """Take the pools that somebody else keeps."""
        self._rules = rules
        self._shares = shares
        self._pools = pools
        self._full: dict[str, list[Oldest]] = {}
        """Heads that would have their share if their organisation had not all its devices."""
        self._number = 0
        self.wall_us = 0

    def note(self, bucket: Bucket, rank: Rank) -> None:
        """Let a head have its guaranteed share in time, though its family may rest."""
        oldest = bucket.family.pool.oldest[bucket.lane]
        self._number += 1
        heapq.heappush(oldest, (rank[4], self._number, bucket, rank))
        if is_doubled(oldest):
            oldest[:] = [one for one in oldest if one[2].rank is one[3]]
            heapq.heapify(oldest)

    def starved(self, signature: Signature, lanes: tuple[Lane, ...] = ALL_LANES) -> Bucket | None:
        """Return the bucket of some lanes whose head has waited longest, if that is longer than anybody should."""
        pool = self._pools.get(signature)
        if pool is None:
            return None
        latest_us = self.wall_us - self._rules.guarantee_wait_us
        heaps = [heap for lane in lanes if (heap := pool.oldest[lane]) and heap[0][0] < latest_us]
        found = [one for heap in heaps if (one := self._starved_in(heap, latest_us)) is not None]
        return min(found, key=lambda one: one[:2])[2] if found else None

    def _starved_in(self, heap: list[Oldest], latest_us: int) -> Oldest | None:
        while heap and heap[0][0] < latest_us:
            oldest = heap[0]
            bucket, org = oldest[2], oldest[2].family.key.app.org_id
            if bucket.rank is not oldest[3]:
                heapq.heappop(heap)
            elif self._shares.is_full(org):
                self._full.setdefault(org, []).append(heapq.heappop(heap))
            else:
                return oldest
        return None

    def is_any_due(self, signatures: Iterable[Signature], lanes: tuple[Lane, ...] = ALL_LANES) -> bool:
        """Whether the next decision on a device that serves these pools and lanes is for the oldest head of one."""
        most = self._rules.guarantee_every - 1
        return any(self._pools[signature].passed.get(lanes, 0) >= most for signature in signatures)

    def note_decision(
        self, signatures: Iterable[Signature], lanes: tuple[Lane, ...] = ALL_LANES, *, is_guaranteed: bool
    ) -> None:
        """Count a decision on a device that serves these pools and lanes."""
        for signature in signatures:
            pool = self._pools.get(signature)
            if pool is not None:
                pool.passed[lanes] = 0 if is_guaranteed else pool.passed.get(lanes, 0) + 1

    def unpark(self, org: str) -> None:
        """Count an organisation's heads again, now that it has a device less."""
        for oldest in self._full.pop(org, []):
            bucket = oldest[2]
            heapq.heappush(bucket.family.pool.oldest[bucket.lane], oldest)
