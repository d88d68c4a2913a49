"""Which job is first: the order in which the families of a pool are offered to devices.

What a decision looks at is the head of a bucket: it stands at the *level* of its effective priority, which rises while
it waits. At a level organisations take turns by their virtual time, and within one the families:

1. those that no device works for: jobs that were given back, then families that never had a device by the age of their
   head, then those that left one to others, the longest ago first;
2. those whose devices would all be busy for a whole batch if there were one more, the largest first;
3. those for which one more device just pays.

A family for which one more device does not pay is not offered at all (its own devices take its jobs), and neither is an
organisation that has all the devices that its quota allows. A family whose devices have less before them than the
others of its pool *rests* until that has changed (`burdens`).

A device may be kept for some lanes. It serves jobs that were submitted in them, and no wait lifts another one onto it:
so at each level the buckets of each lane have lines of their own.

Heaps are cleaned lazily: an entry counts while it still is its bucket's own. Every operation costs O(log n), besides
the few levels; nothing scans the jobs.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from coordinator.core.families import (
    LARGE,
    NO_DEVICE,
    RESTS,
    SPLITS,
    Bucket,
    Entry,
    Family,
    Head,
    Level,
    Line,
    Pool,
    Rank,
    Resting,
    Signature,
    effective_priority,
    is_doubled,
)
from coordinator.core.guarantee import Guarantee
from coordinator.core.model import (
    ALL_LANES,
    MAX_PRIORITY,
    MOST_AGED_PRIORITY,
    URGENT_PRIORITY,
    JobId,
    Lane,
    Rules,
)
from coordinator.core.shares import Shares

FRONT = 8
"""Entries of a heap that are looked at to see whether anything else stands in it."""
MOST_RISES = 64
"""So many heads rise in one turn. Of thousands that were submitted together the others rise in the turns after it."""


class Heads:
    """The heads of all buckets, in line for devices of their pools."""

    def __init__(
        self,
        rules: Rules,
        shares: Shares,
        pools: Mapping[Signature, Pool],
        waiting: Mapping[JobId, Entry],
        guarantee: Guarantee,
    ) -> None:
        """Take the pools and the waiting jobs that somebody else keeps."""
        self._rules = rules
        self._shares = shares
        self._pools = pools
        self._waiting = waiting
        self._guarantee = guarantee
        self._wall_us = 0
        self._aging: list[tuple[int, int, Bucket]] = []
        self._rises_left = MOST_RISES
        self._risen: dict[Bucket, None] = {}
        """Buckets that stand higher than they were submitted: they fall if the wall clock is put back."""
        self._parked: dict[str, dict[tuple[Signature, int, Lane], None]] = {}
        self._weighed: dict[Pool, None] = {}
        """Pools that may have less before them than when their families were looked at."""
        self._number = 0
        self.touched: dict[Signature, None] = {}
        """Pools whose heads may have changed since they were looked at."""

    # Time

    def advance(self, wall_us: int) -> None:
        """Take note of the time, and let heads rise whose wait has become long enough: `MOST_RISES` at one time.

        When the wall clock was put back those fall that have not waited so long any more; costs O(risen heads).
        """
        is_put_back = wall_us < self._wall_us
        if wall_us != self._wall_us:
            self._rises_left = MOST_RISES
        self._wall_us = wall_us
        if is_put_back:
            for bucket in list(self._risen):
                self.offer(bucket)
        while self._rises_left and self._aging and self._aging[0][0] <= wall_us:
            due_us, _, bucket = heapq.heappop(self._aging)
            if bucket.ages_us == due_us:
                self._rises_left -= 1
                bucket.ages_us = 0
                self.offer(bucket)

    def begin_turn(self) -> None:
        """Let as many heads rise again, though no time may have passed."""
        self._rises_left = MOST_RISES

    def next_aging_us(self) -> int | None:
        """Return the wall time at which a head rises next."""
        while self._aging and self._aging[0][2].ages_us != self._aging[0][0]:
            heapq.heappop(self._aging)
        return self._aging[0][0] if self._aging else None

    def _note_aging(self, bucket: Bucket, level: int) -> None:
        if level > bucket.priority:
            self._risen[bucket] = None
        else:
            self._risen.pop(bucket, None)
        heads = (heap[0] for heap in (bucket.fresh, bucket.returned) if heap)
        due_us = min((self._rises_us(bucket, one) for one in heads if self._can_rise(bucket, one)), default=0)
        if bucket.ages_us != due_us:
            bucket.ages_us = due_us
            if due_us:
                self._number += 1
                heapq.heappush(self._aging, (due_us, self._number, bucket))

    def _can_rise(self, bucket: Bucket, entry: Entry) -> bool:
        return self.level_at(bucket, entry) < MOST_AGED_PRIORITY

    def _rises_us(self, bucket: Bucket, entry: Entry) -> int:
        """Return the wall time at which a job rises next."""
        return entry[1] + (self.level_at(bucket, entry) - bucket.priority + 1) * self._rules.age_us

    # The first job of a family

    def _clean(self, heap: list[Entry]) -> Entry | None:
        while heap and not self.is_waiting(heap[0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def is_waiting(self, entry: Entry) -> bool:
        """Whether an entry of a heap still counts."""
        return self._waiting.get(entry[3]) is entry

    def head_of(self, bucket: Bucket) -> Entry | None:
        """Return a bucket's first job, None if none waits: the highest, and of equals one that was given back."""
        heap = bucket.fresh
        is_clean = heap and self._waiting.get(heap[0][3]) is heap[0]
        fresh = heap[0] if is_clean else self._clean(heap)  # nearly always clean: every decision looks at many
        if not bucket.returned:
            return fresh
        returned = self._clean(bucket.returned)
        if returned is None or fresh is None:
            return fresh if returned is None else returned
        return returned if self.level_at(bucket, returned) >= self.level_at(bucket, fresh) else fresh

    def level_at(self, bucket: Bucket, entry: Entry) -> int:
        """Return what the submitted priority of a job in a bucket counts for after its wait."""
        if bucket.priority >= MOST_AGED_PRIORITY:
            return bucket.priority
        return effective_priority(bucket.priority, self._wall_us - entry[1], self._rules)

    def first_bucket(self, family: Family, lanes: tuple[Lane, ...] = ALL_LANES) -> Bucket | None:
        """Return the bucket of a family's first job of some lanes."""
        if len(family.buckets) == 1:  # as nearly always
            (only,) = family.buckets.values()
            return only if only.lane in lanes and self.head_of(only) is not None else None
        best: Bucket | None = None
        best_key: tuple[int, Entry] | None = None
        for bucket in family.buckets.values():
            entry = self.head_of(bucket) if bucket.lane in lanes else None
            if entry is None:
                continue
            key = (-self.level_at(bucket, entry), entry)
            if best_key is None or key < best_key:
                best, best_key = bucket, key
        return best

    def first_level(self, family: Family, lanes: tuple[Lane, ...] = ALL_LANES) -> int:
        """Return the level of a family's first job of some lanes, 0 if none waits."""
        first = 0
        for bucket in family.buckets.values():
            entry = self.head_of(bucket) if bucket.lane in lanes else None
            if entry is not None:
                first = max(first, self.level_at(bucket, entry))
        return first

    def only_level(self, family: Family) -> int | None:
        """Return the level of all of a family's jobs, None if it cannot be told at once that they have the same."""
        priorities = [bucket.priority for bucket in family.buckets.values() if bucket.size]
        return priorities[0] if len(priorities) == 1 and priorities[0] >= MOST_AGED_PRIORITY else None

    # Who is offered

    def offer(self, bucket: Bucket) -> None:
        """Put a bucket where its head belongs, if it does not stand there yet."""
        entry = self.head_of(bucket) if bucket.size else None
        if entry is None:
            bucket.rests_us = None
            self._withdraw(bucket)
            return
        each_us = bucket.family.per_device_us(1)
        kind = self._kind(bucket, each_us)
        if kind is None:
            self._withdraw(bucket)
            return
        level = self.level_at(bucket, entry)
        size = -each_us.bit_length() if kind is not NO_DEVICE else 0
        rank: Rank = (kind, size, entry[0], bucket.family.left_us, entry[1], entry[2])
        if bucket.priority < MOST_AGED_PRIORITY:
            self._note_aging(bucket, level)
        if bucket.rank == rank and bucket.level == level:
            return
        bucket.rank, bucket.level = rank, level
        bucket.family.pool.first.clear()
        self._guarantee.note(bucket, rank)
        if kind is not RESTS:
            self._line_up(bucket, rank, level)

    def _withdraw(self, bucket: Bucket) -> None:
        if bucket.rank is not None:
            bucket.rank = None
            bucket.family.pool.first.clear()
        self._risen.pop(bucket, None)

    def offer_all(self, family: Family) -> None:
        """Let all buckets of a family stand where they belong."""
        for bucket in family.buckets.values():
            self.offer(bucket)

    def _kind(self, bucket: Bucket, each_us: int) -> int | None:
        """Return what a bucket is offered as, None for not at all.

        Args:
            bucket: Of a family with waiting jobs.
            each_us: The family's work for each device if it had one more.
        """
        family, rules = bucket.family, self._rules
        if not family.devices_in[bucket.lane]:
            return NO_DEVICE
        installs = rules.urgent_split_installs if bucket.priority >= URGENT_PRIORITY else rules.split_installs
        is_large = each_us > rules.batch_most_us
        if not is_large and each_us <= installs * family.install_us:
            return None
        if self._rests(bucket, each_us):
            return RESTS
        return LARGE if is_large else SPLITS

    def _rests(self, bucket: Bucket, each_us: int) -> bool:
        """Whether a family leaves its jobs to its devices because others have more before them; it is noted then."""
        pool = bucket.family.pool
        if pool.burden.is_reached(each_us, bucket.priority, self._rules.split_percent):
            bucket.rests_us = None
            return False
        if bucket.rests_us != each_us:
            bucket.rests_us = each_us
            self._number += 1
            resting = pool.resting.setdefault(bucket.priority, [])
            heapq.heappush(resting, (-each_us, self._number, bucket))
            if is_doubled(resting):
                resting[:] = [one for one in resting if one[2].rests_us == -one[0]]
                heapq.heapify(resting)
        return True

    def weigh(self, pool: Pool) -> None:
        """Note that a family of a pool, or all of its devices together, may have less before them than they had.

        Who was first may be for no other device any more, and who rests may be for one.
        """
        pool.first.clear()
        self._weighed[pool] = None

    def wake(self) -> None:
        """Offer those again that rest no more, now that the devices of their pools have less before them.

        Not at once when that changes: a batch is counted out of the queue before it is counted as leased.
        """
        if not self._weighed:
            return
        weighed, self._weighed = self._weighed, {}
        for pool in weighed:
            for priority, resting in pool.resting.items() if pool.families else ():
                if resting:
                    self._wake(pool, priority, resting)

    def _wake(self, pool: Pool, priority: int, resting: list[Resting]) -> None:
        while resting:
            each_us, bucket = -resting[0][0], resting[0][2]
            is_asleep = bucket.rests_us == each_us
            if is_asleep and not pool.burden.is_reached(each_us, priority, self._rules.split_percent):
                return
            heapq.heappop(resting)
            if is_asleep:
                bucket.rests_us = None
                self.offer(bucket)

    def _line_up(self, bucket: Bucket, rank: Rank, level: int) -> None:
        pool, org = bucket.family.pool, bucket.family.key.app.org_id
        at = pool.levels[level].get(bucket.lane)
        if at is None:
            at = pool.levels[level][bucket.lane] = Level()
        line = at.lines.get(org)
        if line is None:
            line = at.lines[org] = []
            heapq.heappush(at.orgs, (self._shares.time_of(org), org))
        self._number += 1
        heapq.heappush(line, (rank, self._number, bucket))
        if is_doubled(line):
            line[:] = [one for one in line if one[2].rank is one[0]]
            heapq.heapify(line)
        self.touched[pool.signature] = None

    # Who is first in a pool

    def first(self, signature: Signature, least: int = 1, lanes: tuple[Lane, ...] = ALL_LANES) -> Head | None:
        """Return the first head of a pool in some lanes, of at least a level.

        The highest level at which anything is offered, there the organisation with the least virtual time, and of that
        the first family.
        """
        pool = self._pools.get(signature)
        if pool is None:
            return None
        head = pool.first[lanes] if lanes in pool.first else self._look_for_first(pool, lanes)
        if head is not None and (self._shares.time_of(head.org) != head.time or self._shares.is_full(head.org)):
            head = self._look_for_first(pool, lanes)
        return head if head is not None and head.level >= least else None

    def _look_for_first(self, pool: Pool, lanes: tuple[Lane, ...]) -> Head | None:
        """Look for the first head of a pool, and keep it until anything of the pool changes.

        What changes elsewhere is the virtual time of an organisation and whether it has its quota. Times only rise: so
        who was first stays it while its own time is the same.
        """
        while True:
            pool.first[lanes] = None
            found = self._first_of_levels(pool, lanes)
            if lanes in pool.first:  # else the look itself has moved a head, perhaps to where it had been before
                pool.first[lanes] = found
                return found

    def _first_of_levels(self, pool: Pool, lanes: tuple[Lane, ...]) -> Head | None:
        for level, by_lane in pool.levels.items():
            found: Head | None = None
            for lane, at in by_lane.items():
                if at.orgs and lane in lanes and (head := self._first_at(at, level, lane, pool)) is not None:
                    found = head if found is None or head.order < found.order else found
            if found is not None:
                return found
        return None

    def first_of(self, org: str, signature: Signature, least: int, lanes: tuple[Lane, ...]) -> Head | None:
        """Return the first head of an organisation in a pool, of at least a level, whether or not it has its quota.

        For a device that works for that organisation: if it gives it back, its next job may have it.
        """
        pool = self._pools.get(signature)
        if pool is None:
            return None
        for level in range(MAX_PRIORITY, least - 1, -1):
            found = [
                first
                for lane, at in pool.levels[level].items()
                if lane in lanes and org in at.lines and (first := self._first_in(at.lines[org], level)) is not None
            ]
            if found:
                first = min(found)
                return Head(level, self._shares.time_of(org), org, first[0], first[2])
        return None

    def _first_at(self, at: Level, level: int, lane: Lane, pool: Pool) -> Head | None:
        while at.orgs:
            time, org = at.orgs[0]
            true = self._shares.time_of(org)
            if true > time:
                heapq.heapreplace(at.orgs, (true, org))
                continue
            first = self._first_in(at.lines[org], level)
            if first is None:
                heapq.heappop(at.orgs)
                del at.lines[org]
            elif not self._still_stands(first):
                continue
            elif self._shares.is_full(org):
                heapq.heappop(at.orgs)
                at.parked[org] = None
                self._parked.setdefault(org, {})[pool.signature, level, lane] = None
            else:
                return Head(level, time, org, first[0], first[2])
        return None

    def _first_in(self, line: Line, level: int) -> tuple[Rank, int, Bucket] | None:
        while line and not (line[0][2].rank is line[0][0] and line[0][2].level == level):
            heapq.heappop(line)
        return line[0] if line else None

    def _still_stands(self, first: tuple[Rank, int, Bucket]) -> bool:
        """Whether a bucket still is what it is offered as: work that was done since may have made it less."""
        if first[0][0] == NO_DEVICE:
            return True
        self.offer(first[2])
        return first[2].rank is first[0]

    def level_of_others(self, signature: Signature, family: Family, lanes: tuple[Lane, ...] = ALL_LANES) -> int:
        """Return the highest level of a pool at which another family may be offered in some lanes, 0 for none.

        Looks at no more than a few entries of each level: where it cannot tell it says that there is one.
        """
        pool = self._pools[signature]
        for level, by_lane in pool.levels.items():
            for lane, at in by_lane.items():
                if (at.orgs or at.parked) and lane in lanes and self._has_other(at, level, family):
                    return level
        return 0

    def _has_other(self, at: Level, level: int, family: Family) -> bool:
        org = family.key.app.org_id  # its own, though it may have its quota: the device would go to its next job
        is_parked = org in at.parked
        if len(at.orgs) + is_parked != 1:
            return bool(at.orgs or is_parked)
        only = org if is_parked else at.orgs[0][1]
        front = at.lines[only][:FRONT]
        return len(front) == FRONT or any(self._is_of_other(one, level, family) for one in front)

    def _is_of_other(self, one: tuple[Rank, int, Bucket], level: int, family: Family) -> bool:
        return one[2].family is not family and one[2].rank is one[0] and one[2].level == level

    def unpark(self, org: str) -> None:
        """Offer an organisation again that has a device less."""
        for signature, level, lane in self._parked.pop(org, {}):
            pool = self._pools.get(signature)
            at = pool.levels[level].get(lane) if pool is not None else None  # it may have been made anew
            if pool is not None and at is not None and at.parked.pop(org, org) is None:
                heapq.heappush(at.orgs, (self._shares.time_of(org), org))
                pool.first.clear()
                self.touched[signature] = None
