"""The queues: all jobs that wait, in their pools, families and buckets, and the devices that families have.

`families` says what those are, `heads` who is first among them, `guarantee` who has waited for too long. Every
operation costs O(log n); nothing scans the jobs.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

from coordinator.core.families import (
    COMPACT_ABOVE,
    RESTS,
    Bucket,
    Entry,
    Family,
    FamilyKey,
    Pool,
    Signature,
    family_of,
    signature_of,
)
from coordinator.core.guarantee import Guarantee
from coordinator.core.heads import Heads
from coordinator.core.model import ALL_LANES, URGENT_PRIORITY, AppKey, Job, JobId, Lane, Rules
from coordinator.core.shares import Shares


class Queues:
    """All waiting jobs, and the families that are at work."""

    def __init__(self, rules: Rules, shares: Shares) -> None:
        self._rules = rules
        self._pools: dict[Signature, Pool] = {}
        self._waiting: dict[JobId, Entry] = {}
        self._queued_per_org: Counter[str] = Counter()
        self._pools_per_org: Counter[str] = Counter()
        self._wall_us = 0
        self.guarantee = Guarantee(rules, shares, self._pools)
        self.heads = Heads(rules, shares, self._pools, self._waiting, self.guarantee)
        self.grown: dict[FamilyKey, None] = {}
        """Families with devices to which jobs were added since they were looked at."""

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._waiting

    def signatures(self) -> Iterator[Signature]:
        """Yield the signatures of the pools in which something waits."""
        for signature, pool in self._pools.items():
            if pool.size:
                yield signature

    def is_live(self, signature: Signature) -> bool:
        """Whether anything waits in a pool."""
        pool = self._pools.get(signature)
        return pool is not None and pool.size > 0

    def queued_of(self, org_id: str) -> int:
        """Return how many jobs of an organisation wait."""
        return self._queued_per_org[org_id]

    def pools_with(self, org_id: str, signatures: Iterable[Signature]) -> tuple[int, int]:
        """Return how many pools an organisation and all would have if jobs with these signatures came."""
        wanted = frozenset(signatures)
        live = frozenset(self.signatures())
        mine = sum(1 for one in wanted if one not in live or org_id not in self._pools[one].orgs)
        return self._pools_per_org[org_id] + mine, len(live | wanted)

    def advance(self, wall_us: int) -> None:
        """Take note of the time, and let heads rise whose wait has become long enough."""
        self._wall_us = self.guarantee.wall_us = wall_us
        self.heads.advance(wall_us)

    # Jobs

    def push(self, job: Job, expected_us: int, install_us: int) -> None:
        """Let a job wait."""
        assert job.id not in self._waiting, f"job {job.id} waits twice"
        family = self._family(family_of(job), install_us)
        if not family.size:
            self._count_family(family, 1)
        bucket = family.buckets.get(job.spec.priority)
        if bucket is None:
            bucket = family.buckets[job.spec.priority] = Bucket(family, job.spec.priority, job.spec.lane)
        entry: Entry = (0 if job.attempt_count else 1, job.create_us, job.sequence, job.id, expected_us)
        self._waiting[job.id] = entry
        heapq.heappush(bucket.heap_of(entry), entry)
        if entry[0] and expected_us > self._rules.long_us:
            heapq.heappush(bucket.long, (job.create_us, -expected_us, job.sequence, entry))
        bucket.size += 1
        family.size += 1
        family.pool.size += 1
        family.waiting_us += expected_us
        family.pool.burden.add(job.spec.priority, expected_us)
        family.pool.first.clear()  # who was first may rest, now that others have more before them
        self._count_urgent(bucket, 1, expected_us)
        if job.spec.priority >= URGENT_PRIORITY:
            self.heads.touched[family.key.signature] = None  # behind a head it may want a device more all the same
        self._queued_per_org[job.spec.org_id] += 1
        if family.devices:
            self.grown[family.key] = None
        self._offer_family(family, bucket)

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it stands."""
        entry = self._waiting.pop(job.id)
        key = family_of(job)
        family = self._pools[key.signature].families[key.app]
        bucket = family.buckets[job.spec.priority]
        self._forget(bucket, entry)
        self._offer_family(family, bucket)

    def _forget(self, bucket: Bucket, entry: Entry) -> None:
        """Count a job out whose entry is not among the waiting any more."""
        family, org = bucket.family, bucket.family.key.app.org_id
        bucket.size -= 1
        family.size -= 1
        family.pool.size -= 1
        family.waiting_us -= entry[4]
        family.pool.burden.add(bucket.priority, -entry[4])
        self.heads.weigh(family.pool)
        self._count_urgent(bucket, -1, -entry[4])
        self._queued_per_org[org] -= 1
        if not self._queued_per_org[org]:
            del self._queued_per_org[org]
        heap = bucket.heap_of(entry)
        if not bucket.size:
            bucket.fresh.clear()
            bucket.returned.clear()
            bucket.long.clear()
        elif len(heap) > COMPACT_ABOVE and len(heap) > 2 * bucket.size:
            heap[:] = [one for one in heap if self.heads.is_waiting(one)]
            heapq.heapify(heap)
            bucket.long[:] = [one for one in bucket.long if self.heads.is_waiting(one[3])]
            heapq.heapify(bucket.long)
        if not family.size:
            self._count_family(family, -1)

    def _count_urgent(self, bucket: Bucket, change: int, change_us: int) -> None:
        if bucket.priority >= URGENT_PRIORITY:
            bucket.family.pool.urgent += change
            bucket.family.pool.urgent_us += change_us

    def has_urgent(self, signature: Signature) -> bool:
        """Whether jobs that may preempt wait in a pool."""
        pool = self._pools.get(signature)
        return pool is not None and pool.urgent > 0

    def urgent_in(self, signature: Signature) -> tuple[int, int]:
        """Return how many jobs that may preempt wait in a pool, and their expected work."""
        pool = self._pools.get(signature)
        return (pool.urgent, pool.urgent_us) if pool is not None else (0, 0)

    def take(
        self,
        family: Family,
        most: int,
        work_us: int,
        floor: int,
        only: Bucket | None = None,
        lanes: tuple[Lane, ...] = ALL_LANES,
    ) -> list[JobId]:
        """Take the first jobs of a family out, in the order in which they shall run.

        The family stands where it stood until the device that takes them joins it, or it is offered again.

        They are taken by age, but of those that were submitted together first what would else end the family alone;
        and in a batch the longest of those runs first, so that devices that share a family end together.

        Args:
            family: Whose.
            most: How many at most.
            work_us: Expected work after which it is enough.
            floor: The level below which something else comes first.
            only: The bucket that they are taken from; None for whichever is first.
            lanes: The lanes that the device serves.
        """
        taken: list[tuple[int, int, int, int, JobId]] = []
        while len(taken) < most and work_us > 0:
            bucket = only if only is not None else self.heads.first_bucket(family, lanes)
            entry = self.heads.head_of(bucket) if bucket is not None else None
            if bucket is None or entry is None or self.heads.level_at(bucket, entry) < floor:
                break
            entry = self._too_long_to_wait(bucket, entry) or entry
            del self._waiting[entry[3]]
            self._forget(bucket, entry)
            taken.append((-bucket.priority, entry[0], entry[1], -entry[4], entry[3]))
            work_us -= entry[4]
        return [one[4] for one in sorted(taken)]

    def _too_long_to_wait(self, bucket: Bucket, head: Entry) -> Entry | None:
        """Return the longest of the jobs that were submitted with a fresh head if the others would be done before it.

        It takes more than its part of what each device of the family has before it: were it left to the end, all but
        its own device would have nothing to do. Before that its length would only make the others wait.
        """
        longest = bucket.long
        while longest and not self.heads.is_waiting(longest[0][3]):
            heapq.heappop(longest)
        if not longest or not head[0] or longest[0][0] != head[1]:
            return None
        entry = longest[0][3]
        return entry if entry[4] * self._rules.long_parts >= bucket.family.per_device_us(0) else None

    # Families

    def _family(self, key: FamilyKey, install_us: int) -> Family:
        pool = self._pools.get(key.signature)
        if pool is None:
            pool = self._pools[key.signature] = Pool(key.signature)
        family = pool.families.get(key.app)
        if family is None:
            family = pool.families[key.app] = Family(key, pool)
        family.install_us = install_us
        return family

    def family(self, key: FamilyKey) -> Family | None:
        """Return a family that has waiting jobs or devices."""
        pool = self._pools.get(key.signature)
        return pool.families.get(key.app) if pool is not None else None

    def family_in(self, signature: Signature, app: AppKey) -> Family | None:
        """Return the family of a build in a pool, if it has waiting jobs or devices."""
        pool = self._pools.get(signature)
        return pool.families.get(app) if pool is not None else None

    def _drop_if_done(self, family: Family) -> None:
        if family.size or family.devices or family.held_us:
            return
        pool = family.pool
        if pool.families.get(family.key.app) is family:
            del pool.families[family.key.app]
        if not pool.families:
            self._pools.pop(pool.signature, None)

    def _count_family(self, family: Family, change: int) -> None:
        org, pool = family.key.app.org_id, family.pool
        had = pool.orgs[org] > 0
        pool.orgs[org] += change
        has = pool.orgs[org] > 0
        if not has:
            del pool.orgs[org]
        self._pools_per_org[org] += has - had
        if not self._pools_per_org[org]:
            del self._pools_per_org[org]

    def _offer_family(self, family: Family, changed: Bucket) -> None:
        """Let a family's buckets stand where they belong after one of them has changed."""
        before = changed.rank
        self.heads.offer(changed)
        if changed.rank is not before:
            for bucket in family.buckets.values():
                if bucket is not changed:
                    self.heads.offer(bucket)
        self._drop_if_done(family)

    # Devices of families

    def join(self, key: FamilyKey, install_us: int, lanes: tuple[Lane, ...] = ALL_LANES) -> None:
        """Note that one more device works for a family; it serves some lanes."""
        family = self._family(key, install_us)
        family.devices += 1
        for lane in lanes:
            family.devices_in[lane] += 1
        self.heads.offer_all(family)

    def look_again(self, key: FamilyKey) -> None:
        """Note that a device may take more work of a family than before."""
        self.grown[key] = None

    def part(self, key: FamilyKey, lanes: tuple[Lane, ...] = ALL_LANES) -> None:
        """Note that a device does not work for a family any more."""
        family = self._pools[key.signature].families[key.app]
        family.devices -= 1
        for lane in lanes:
            family.devices_in[lane] -= 1
        family.left_us = self._wall_us
        self.heads.touched[key.signature] = None
        self.heads.offer_all(family)
        self._drop_if_done(family)

    def hold(self, key: FamilyKey, priority: int, change_us: int) -> None:
        """Note that a family's leased work has grown or shrunk, by a job of a submitted priority."""
        family = self.family(key) or self._family(key, 0)
        family.held_us += change_us
        family.pool.burden.add(priority, change_us)
        self.heads.weigh(family.pool)
        if not family.held_us:
            self._drop_if_done(family)

    def offer_again(self, key: FamilyKey) -> None:
        """Let a family stand where it belongs now that what waits, or the work of its devices, has changed."""
        family = self.family(key)
        if family is not None:
            self.heads.offer_all(family)

    def note_devices(self, signature: Signature, devices: int) -> None:
        """Note how many devices could serve a pool in which jobs wait."""
        pool = self._pools.get(signature)
        if pool is not None and pool.burden.devices != devices:
            pool.burden.devices = devices
            self.heads.weigh(pool)

    def note_install(self, app: AppKey, install_us: int) -> None:
        """Let the families of a build stand where they belong now that it is known better how long its install takes.

        Costs O(pools).
        """
        for pool in self._pools.values():
            family = pool.families.get(app)
            if family is not None and family.install_us != install_us:
                family.install_us = install_us
                self.heads.offer_all(family)

    def unpark(self, org: str) -> None:
        """Offer an organisation again that has a device less."""
        self.heads.unpark(org)
        self.guarantee.unpark(org)

    # For people

    def is_offered(self, job: Job) -> bool:
        """Whether a waiting job's family stands in line for another device that serves its lane."""
        return self._bucket_of(job).rank is not None and not self.is_resting(job)

    def is_resting(self, job: Job) -> bool:
        """Whether a waiting job's family takes no other device while the others of its pool have more before them."""
        rank = self._bucket_of(job).rank
        return rank is not None and rank[0] == RESTS

    def _bucket_of(self, job: Job) -> Bucket:
        return self._pools[signature_of(job)].families[family_of(job).app].buckets[job.spec.priority]

    def _place(self, bucket: Bucket, entry: Entry) -> tuple[int, int, int, int]:
        return (-self.heads.level_at(bucket, entry), entry[0], entry[1], entry[2])

    def places(self) -> dict[JobId, int]:
        """Return each waiting job's place among those of its pool, from 1. Costs O(n log n): for people."""
        counts: Counter[Signature] = Counter()
        places: dict[JobId, int] = {}
        for _, signature, entry in self._sorted():
            counts[signature] += 1
            places[entry[3]] = counts[signature]
        return places

    def waiting_for(self, app: AppKey) -> list[JobId]:
        """Return the jobs that wait to test a build, by their ids."""
        families = (pool.families[app] for pool in self._pools.values() if app in pool.families)
        return sorted(
            entry[3]
            for family in families
            for bucket in family.buckets.values()
            for entry in (*bucket.returned, *bucket.fresh)
            if self.heads.is_waiting(entry)
        )

    def in_order(self) -> list[JobId]:
        """Return all waiting jobs, the first first. Costs O(n log n): for people, not for decisions."""
        return [entry[3] for _, _, entry in self._sorted()]

    def _sorted(self) -> list[tuple[tuple[int, int, int, int], Signature, Entry]]:
        # Of jobs that were submitted together a long one may well run before its turn.
        found = [
            (self._place(bucket, entry), pool.signature, entry)
            for pool in self._pools.values()
            for family in pool.families.values()
            for bucket in family.buckets.values()
            for entry in (*bucket.returned, *bucket.fresh)
            if self.heads.is_waiting(entry)
        ]
        return sorted(found, key=lambda one: one[0])
