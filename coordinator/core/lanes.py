"""The queues: who waits, and who is first for a pool.

A *family* holds the jobs that can share one install; a *pool* the families with one signature: target, selector and
devices to avoid. The jobs of a family with one submitted priority are a *bucket*, in their order. What a decision looks
at is the head of a bucket: it stands at the *level* of its effective priority, which rises while it waits. At a level
organisations take turns by their virtual time, and within one the families:

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
from collections import Counter
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field

from coordinator.core.burdens import Burden
from coordinator.core.model import (
    ALL_LANES,
    MAX_PRIORITY,
    MOST_AGED_PRIORITY,
    URGENT_PRIORITY,
    AppKey,
    DeviceId,
    Job,
    JobId,
    Lane,
    Rules,
    Target,
)
from coordinator.core.shares import Shares

Entry = tuple[int, int, int, JobId, int]
"""(0 for a job that was given back, when it was submitted, sequence, id, expected duration): the lower, the earlier."""
_Long = tuple[int, int, int, Entry]
"""(when it was submitted, less its expected duration, sequence, its entry): of the oldest the longest first."""
_Resting = tuple[int, int, "Bucket"]
"""(less the work for each device with which it rests, a number that keeps buckets from being compared, which)."""

COMPACT_ABOVE = 64
FRONT = 8
"""Entries of a heap that are looked at to see whether anything else stands in it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a device must satisfy to serve a pool."""

    target: Target
    selector: tuple[tuple[str, str], ...]
    avoid: tuple[DeviceId, ...]
    lane: Lane | None = None
    """Only where devices are avoided: whether others can take their place depends on it."""
    spills: bool = False
    """Whether slots of a cloud serve it besides what its target names."""
    hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: every decision looks pools up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", hash((self.target, self.selector, self.avoid, self.lane, self.spills)))

    def __hash__(self) -> int:
        return self.hash


def signature_of(job: Job) -> Signature:
    """Return the signature of the one pool that the job waits in."""
    lane = job.spec.lane if job.avoid else None
    return Signature(job.spec.target, job.spec.selector, job.avoid, lane, job.can_spill)


@dataclass(frozen=True, slots=True)
class FamilyKey:
    """Names a family: jobs that can share one install and one device."""

    app: AppKey
    signature: Signature


def family_of(job: Job) -> FamilyKey:
    """Return the family that the job belongs to."""
    return FamilyKey(job.app, signature_of(job))


def effective_priority(priority: int, waited_us: int, rules: Rules) -> int:
    """Return what a submitted priority counts for after a wait."""
    if priority >= MOST_AGED_PRIORITY:
        return priority
    return min(MOST_AGED_PRIORITY, priority + max(0, waited_us) // rules.age_us)


Rank = tuple[int, int, int, int, int, int]
"""(kind of family, less its work per device, 0 if its head was given back, when a device left the family last, when
its head was submitted, its sequence)."""
NO_DEVICE, LARGE, SPLITS, RESTS = 0, 1, 2, 3


@dataclass(slots=True, eq=False)
class Bucket:
    """The waiting jobs of a family with one submitted priority."""

    family: Family
    priority: int
    lane: Lane
    fresh: list[Entry] = field(default_factory=list)
    returned: list[Entry] = field(default_factory=list)
    """Jobs that were given back. They are the older ones, unless the wall clock was put back between the two: then a
    fresh one may have risen higher."""
    long: list[_Long] = field(default_factory=list)
    """Fresh jobs that are long enough to end the family."""
    size: int = 0
    level: int = 0
    rank: Rank | None = None
    """What its head stands in line with, or rests with; None while nothing but its own devices is wanted."""
    ages_us: int = 0
    """Wall time at which a job of it rises next; 0 if never."""
    rests_us: int | None = None
    """The work for each device with which it rests; None while it does not."""

    def heap_of(self, entry: Entry) -> list[Entry]:
        """Return the heap that an entry of this bucket stands in."""
        return self.fresh if entry[0] else self.returned


@dataclass(slots=True, eq=False)
class Family:
    """Jobs that can share one install: those that wait, and the work and devices of those that do not."""

    key: FamilyKey
    pool: Pool
    buckets: dict[int, Bucket] = field(default_factory=dict)
    size: int = 0
    waiting_us: int = 0
    """Expected work of those that wait."""
    held_us: int = 0
    """Expected work of those that are leased."""
    devices: int = 0
    devices_in: dict[Lane, int] = field(default_factory=lambda: dict.fromkeys(Lane, 0))
    """Those of its devices that serve a lane."""
    install_us: int = 0
    left_us: int = 0
    """Wall time at which a device left it last, 0 if none has: families take turns."""

    def per_device_us(self, more: int) -> int:
        """Return the work for each device if it had `more` of them."""
        return (self.waiting_us + self.held_us) // max(1, self.devices + more)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The first of a level: its organisation's virtual time, and its bucket."""

    level: int
    time: int
    org: str
    rank: Rank
    bucket: Bucket

    @property
    def order(self) -> tuple[int, int, str, Rank]:
        """Its place among all heads: the lower, the earlier."""
        return (-self.level, self.time, self.org, self.rank)


_Oldest = tuple[int, int, "Bucket", Rank]
"""When a head was submitted, a number that keeps buckets from being compared, its bucket, and its rank then."""
_Line = list[tuple[Rank, int, Bucket]]
"""Buckets of one organisation at one level. The number only keeps buckets from being compared."""


@dataclass(slots=True)
class _Level:
    orgs: list[tuple[int, str]] = field(default_factory=list)
    lines: dict[str, _Line] = field(default_factory=dict)
    parked: dict[str, None] = field(default_factory=dict)
    """Organisations with all the devices of their quota: not among `orgs` until they give one back."""


@dataclass(slots=True, eq=False)
class Pool:
    """The families with one signature."""

    signature: Signature
    families: dict[AppKey, Family] = field(default_factory=dict)
    orgs: Counter[str] = field(default_factory=Counter)
    """Families with waiting jobs of each organisation."""
    levels: dict[int, dict[Lane, _Level]] = field(
        default_factory=lambda: {level: {} for level in range(MAX_PRIORITY, 0, -1)}
    )
    """Only the lanes that ever came to stand at a level."""
    oldest: dict[Lane, list[_Oldest]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    urgent: int = 0
    """Waiting jobs that may preempt, and their expected work."""
    urgent_us: int = 0
    burden: Burden = field(default_factory=Burden)
    resting: dict[int, list[_Resting]] = field(default_factory=dict)
    """Submitted priority -> buckets that rest."""
    passed: dict[tuple[Lane, ...], int] = field(default_factory=dict)
    """Lanes -> decisions on devices that serve exactly these since the oldest head was served there for its age."""
    size: int = 0


class Queues:
    """All waiting jobs, and the families that are at work."""

    def __init__(self, rules: Rules, shares: Shares) -> None:
        self._rules = rules
        self._shares = shares
        self._wall_us = 0
        self._pools: dict[Signature, Pool] = {}
        self._waiting: dict[JobId, Entry] = {}
        self._queued_per_org: Counter[str] = Counter()
        self._pools_per_org: Counter[str] = Counter()
        self._aging: list[tuple[int, int, Bucket]] = []
        self._risen: dict[Bucket, None] = {}
        """Buckets that stand higher than they were submitted: they fall if the wall clock is put back."""
        self._parked: dict[str, dict[tuple[Signature, int, Lane], None]] = {}
        self._full: dict[str, list[_Oldest]] = {}
        """Heads that would have a guaranteed share if their organisation had not all its devices."""
        self._eased: dict[Signature, None] = {}
        """Pools that may have less before them than when their families were looked at."""
        self._number = 0
        self.touched: dict[Signature, None] = {}
        """Pools whose heads may have changed since they were looked at."""
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

    # Time

    def advance(self, wall_us: int) -> None:
        """Take note of the time, and let heads rise whose wait has become long enough.

        When the wall clock was put back those fall that have not waited so long any more; costs O(risen heads).
        """
        is_put_back, self._wall_us = wall_us < self._wall_us, wall_us
        if is_put_back:
            for bucket in list(self._risen):
                self._offer(bucket)
        while self._aging and self._aging[0][0] <= wall_us:
            due_us, _, bucket = heapq.heappop(self._aging)
            if bucket.ages_us == due_us:
                bucket.ages_us = 0
                self._offer(bucket)

    def next_aging_us(self) -> int | None:
        """Return the wall time at which a head rises next."""
        while self._aging and self._aging[0][2].ages_us != self._aging[0][0]:
            heapq.heappop(self._aging)
        return self._aging[0][0] if self._aging else None

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
        self._count_urgent(bucket, 1, expected_us)
        if job.spec.priority >= URGENT_PRIORITY:
            self.touched[family.key.signature] = None  # behind a head it may want a device more all the same
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
        self._eased[family.key.signature] = None
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
            heap[:] = [one for one in heap if self._is_waiting(one)]
            heapq.heapify(heap)
            bucket.long[:] = [one for one in bucket.long if self._is_waiting(one[3])]
            heapq.heapify(bucket.long)
        if not family.size:
            self._count_family(family, -1)

    def _count_urgent(self, bucket: Bucket, change: int, change_us: int) -> None:
        if bucket.priority >= URGENT_PRIORITY:
            bucket.family.pool.urgent += change
            bucket.family.pool.urgent_us += change_us

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
            bucket = only if only is not None else self.first_bucket(family, lanes)
            entry = self.head_of(bucket) if bucket is not None else None
            if bucket is None or entry is None or self._level_at(bucket, entry) < floor:
                break
            entry = self._too_long_to_wait(bucket, entry) or entry
            del self._waiting[entry[3]]
            self._forget(bucket, entry)
            taken.append((-bucket.priority, entry[0], entry[1], -entry[4], entry[3]))
            work_us -= entry[4]
        for bucket in family.buckets.values():
            self._offer(bucket)
        self._drop_if_done(family)
        return [one[4] for one in sorted(taken)]

    def _too_long_to_wait(self, bucket: Bucket, head: Entry) -> Entry | None:
        """Return the longest of the jobs that were submitted with a fresh head if the others would be done before it.

        It takes more than its part of what each device of the family has before it: were it left to the end, all but
        its own device would have nothing to do. Before that its length would only make the others wait.
        """
        longest = bucket.long
        while longest and not self._is_waiting(longest[0][3]):
            heapq.heappop(longest)
        if not longest or not head[0] or longest[0][0] != head[1]:
            return None
        entry = longest[0][3]
        return entry if entry[4] * self._rules.long_parts >= bucket.family.per_device_us(0) else None

    def _is_waiting(self, entry: Entry) -> bool:
        return self._waiting.get(entry[3]) is entry

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
        return self.family_in(key.signature, key.app)

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

    # Devices of families

    def join(self, key: FamilyKey, install_us: int, lanes: tuple[Lane, ...] = ALL_LANES) -> None:
        """Note that one more device works for a family; it serves some lanes."""
        family = self._family(key, install_us)
        family.devices += 1
        for lane in lanes:
            family.devices_in[lane] += 1
        self._offer_all(family)

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
        self.touched[key.signature] = None
        self._offer_all(family)
        self._drop_if_done(family)

    def hold(self, key: FamilyKey, priority: int, change_us: int) -> None:
        """Note that a family's leased work has grown or shrunk, by a job of a submitted priority."""
        family = self._family(key, self._family_install_us(key))
        family.held_us += change_us
        family.pool.burden.add(priority, change_us)
        self._eased[key.signature] = None
        self._drop_if_done(family)

    def offer_again(self, key: FamilyKey) -> None:
        """Let a family stand where it belongs now that the work of its devices has changed."""
        family = self.family(key)
        if family is not None:
            self._offer_all(family)

    def note_devices(self, signature: Signature, devices: int) -> None:
        """Note how many devices could serve a pool in which jobs wait."""
        pool = self._pools.get(signature)
        if pool is not None and pool.burden.devices != devices:
            pool.burden.devices = devices
            self._eased[signature] = None

    def wake(self) -> None:
        """Offer those again that rest no more, now that the devices of their pools have less before them.

        Not at once when that changes: a batch is counted out of the queue before it is counted as leased.
        """
        eased, self._eased = self._eased, {}
        for signature in eased:
            pool = self._pools.get(signature)
            for priority in pool.resting if pool is not None else ():
                self._wake(self._pools[signature], priority)

    def _wake(self, pool: Pool, priority: int) -> None:
        resting = pool.resting[priority]
        while resting:
            each_us, bucket = -resting[0][0], resting[0][2]
            is_asleep = bucket.rests_us == each_us
            if is_asleep and not pool.burden.is_reached(each_us, priority, self._rules.split_percent):
                return
            heapq.heappop(resting)
            if is_asleep:
                bucket.rests_us = None
                self._offer(bucket)

    def note_install(self, app: AppKey, install_us: int) -> None:
        """Let the families of a build stand where they belong now that it is known better how long its install takes.

        Costs O(pools).
        """
        for pool in self._pools.values():
            family = pool.families.get(app)
            if family is not None and family.install_us != install_us:
                family.install_us = install_us
                self._offer_all(family)

    def _family_install_us(self, key: FamilyKey) -> int:
        family = self.family(key)
        return family.install_us if family is not None else 0

    # Heads

    def _clean(self, heap: list[Entry]) -> Entry | None:
        while heap and not self._is_waiting(heap[0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def head_of(self, bucket: Bucket) -> Entry | None:
        """Return a bucket's first job, None if none waits: the highest, and of equals one that was given back."""
        fresh = self._clean(bucket.fresh)
        returned = self._clean(bucket.returned) if bucket.returned else None
        if returned is None or fresh is None:
            return fresh if returned is None else returned
        return returned if self._level_at(bucket, returned) >= self._level_at(bucket, fresh) else fresh

    def _level_at(self, bucket: Bucket, entry: Entry) -> int:
        return effective_priority(bucket.priority, self._wall_us - entry[1], self._rules)

    def first_bucket(self, family: Family, lanes: tuple[Lane, ...] = ALL_LANES) -> Bucket | None:
        """Return the bucket of a family's first job of some lanes."""
        best: Bucket | None = None
        best_key: tuple[int, Entry] | None = None
        for bucket in family.buckets.values():
            entry = self.head_of(bucket) if bucket.lane in lanes else None
            if entry is None:
                continue
            key = (-self._level_at(bucket, entry), entry)
            if best_key is None or key < best_key:
                best, best_key = bucket, key
        return best

    def first_level(self, family: Family, lanes: tuple[Lane, ...] = ALL_LANES) -> int:
        """Return the level of a family's first job of some lanes, 0 if none waits."""
        bucket = self.first_bucket(family, lanes)
        entry = self.head_of(bucket) if bucket is not None else None
        return self._level_at(bucket, entry) if bucket is not None and entry is not None else 0

    def _offer_family(self, family: Family, changed: Bucket) -> None:
        """Let a family's buckets stand where they belong after one of them has changed."""
        before = changed.rank
        self._offer(changed)
        if changed.rank is not before:
            for bucket in family.buckets.values():
                if bucket is not changed:
                    self._offer(bucket)
        self._drop_if_done(family)

    def _offer_all(self, family: Family) -> None:
        for bucket in family.buckets.values():
            self._offer(bucket)

    def _offer(self, bucket: Bucket) -> None:
        """Put a bucket where its head belongs, if it does not stand there yet."""
        entry = self.head_of(bucket)
        kind = self._kind(bucket) if entry is not None else None
        if entry is None:
            bucket.rests_us = None
        if entry is None or kind is None:
            bucket.rank = None
            self._risen.pop(bucket, None)
            return
        level = self._level_at(bucket, entry)
        size = -(bucket.family.per_device_us(1).bit_length()) if kind is not NO_DEVICE else 0
        rank: Rank = (kind, size, entry[0], bucket.family.left_us, entry[1], entry[2])
        self._note_aging(bucket, level)
        if bucket.rank == rank and bucket.level == level:
            return
        bucket.rank, bucket.level = rank, level
        self._note_oldest(bucket, rank)
        if kind is not RESTS:
            self._line_up(bucket, rank, level)

    def _kind(self, bucket: Bucket) -> int | None:
        family, rules = bucket.family, self._rules
        if not family.devices_in[bucket.lane]:
            return NO_DEVICE
        per_device_us = family.per_device_us(1)
        installs = rules.urgent_split_installs if bucket.priority >= URGENT_PRIORITY else rules.split_installs
        is_large = per_device_us > rules.batch_most_us
        if not is_large and per_device_us <= installs * family.install_us:
            return None
        if self._rests(bucket, per_device_us):
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
            if _is_doubled(resting):
                resting[:] = [one for one in resting if one[2].rests_us == -one[0]]
                heapq.heapify(resting)
        return True

    def _line_up(self, bucket: Bucket, rank: Rank, level: int) -> None:
        pool, org = bucket.family.pool, bucket.family.key.app.org_id
        at = pool.levels[level].get(bucket.lane)
        if at is None:
            at = pool.levels[level][bucket.lane] = _Level()
        line = at.lines.get(org)
        if line is None:
            line = at.lines[org] = []
            heapq.heappush(at.orgs, (self._shares.time_of(org), org))
        self._number += 1
        heapq.heappush(line, (rank, self._number, bucket))
        if _is_doubled(line):
            line[:] = [one for one in line if one[2].rank is one[0]]
            heapq.heapify(line)
        self.touched[pool.signature] = None

    def _note_oldest(self, bucket: Bucket, rank: Rank) -> None:
        """Let a head have its guaranteed share in time, though its family may rest."""
        oldest = bucket.family.pool.oldest[bucket.lane]
        self._number += 1
        heapq.heappush(oldest, (rank[4], self._number, bucket, rank))
        if _is_doubled(oldest):
            oldest[:] = [one for one in oldest if one[2].rank is one[3]]
            heapq.heapify(oldest)

    def _note_aging(self, bucket: Bucket, level: int) -> None:
        if bucket.priority >= MOST_AGED_PRIORITY:
            return
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
        return self._level_at(bucket, entry) < MOST_AGED_PRIORITY

    def _rises_us(self, bucket: Bucket, entry: Entry) -> int:
        """Return the wall time at which a job rises next."""
        return entry[1] + (self._level_at(bucket, entry) - bucket.priority + 1) * self._rules.age_us

    def first(self, signature: Signature, least: int = 1, lanes: tuple[Lane, ...] = ALL_LANES) -> Head | None:
        """Return the first head of a pool in some lanes, of at least a level.

        The highest level at which anything is offered, there the organisation with the least virtual time, and of that
        the first family.
        """
        pool = self._pools.get(signature)
        if pool is None:
            return None
        for level in range(MAX_PRIORITY, least - 1, -1):
            best: Head | None = None
            for lane, at in pool.levels[level].items():
                if at.orgs and lane in lanes and (head := self._first_at(at, level, lane, signature)) is not None:
                    best = head if best is None or head.order < best.order else best
            if best is not None:
                return best
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

    def _first_at(self, at: _Level, level: int, lane: Lane, signature: Signature) -> Head | None:
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
                self._parked.setdefault(org, {})[signature, level, lane] = None
            else:
                return Head(level, time, org, first[0], first[2])
        return None

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

    def _has_other(self, at: _Level, level: int, family: Family) -> bool:
        org = family.key.app.org_id  # its own, though it may have its quota: the device would go to its next job
        orgs = [one for _, one in at.orgs] + ([org] if org in at.parked else [])
        if len(orgs) != 1:
            return bool(orgs)
        front = at.lines[orgs[0]][:FRONT]
        return len(front) == FRONT or any(self._is_of_other(one, level, family) for one in front)

    def _is_of_other(self, one: tuple[Rank, int, Bucket], level: int, family: Family) -> bool:
        return one[2].family is not family and one[2].rank is one[0] and one[2].level == level

    def _still_stands(self, first: tuple[Rank, int, Bucket]) -> bool:
        """Whether a bucket still is what it is offered as: work that was done since may have made it less."""
        if first[0][0] == NO_DEVICE:
            return True
        self._offer(first[2])
        return first[2].rank is first[0]

    def _first_in(self, line: _Line, level: int) -> tuple[Rank, int, Bucket] | None:
        while line and not (line[0][2].rank is line[0][0] and line[0][2].level == level):
            heapq.heappop(line)
        return line[0] if line else None

    def unpark(self, org: str) -> None:
        """Offer an organisation again that has a device less."""
        for signature, level, lane in self._parked.pop(org, {}):
            pool = self._pools.get(signature)
            at = pool.levels[level].get(lane) if pool is not None else None  # it may have been made anew
            if at is not None and at.parked.pop(org, org) is None:
                heapq.heappush(at.orgs, (self._shares.time_of(org), org))
                self.touched[signature] = None
        for oldest in self._full.pop(org, []):
            bucket = oldest[2]
            heapq.heappush(bucket.family.pool.oldest[bucket.lane], oldest)

    # The guaranteed share

    def starved(self, signature: Signature, lanes: tuple[Lane, ...] = ALL_LANES) -> Bucket | None:
        """Return the bucket of some lanes whose head has waited longest, if that is longer than anybody should."""
        pool = self._pools.get(signature)
        if pool is None:
            return None
        found = [one for lane in lanes if (one := self._starved_in(pool.oldest[lane])) is not None]
        return min(found, key=lambda one: one[:2])[2] if found else None

    def _starved_in(self, heap: list[_Oldest]) -> _Oldest | None:
        while heap and self._wall_us - heap[0][0] > self._rules.guarantee_wait_us:
            oldest = heap[0]
            bucket, org = oldest[2], oldest[2].family.key.app.org_id
            if bucket.rank is not oldest[3]:
                heapq.heappop(heap)
            elif self._shares.is_full(org):
                self._full.setdefault(org, []).append(heapq.heappop(heap))
            else:
                return oldest
        return None

    def is_due(self, signature: Signature, lanes: tuple[Lane, ...] = ALL_LANES) -> bool:
        """Whether the next decision on a device of a pool that serves these lanes is for the oldest head."""
        return self._pools[signature].passed.get(lanes, 0) >= self._rules.guarantee_every - 1

    def note_decision(
        self, signatures: Iterable[Signature], lanes: tuple[Lane, ...] = ALL_LANES, *, is_guaranteed: bool
    ) -> None:
        """Count a decision on a device that serves these pools and lanes."""
        for signature in signatures:
            pool = self._pools.get(signature)
            if pool is not None:
                pool.passed[lanes] = 0 if is_guaranteed else pool.passed.get(lanes, 0) + 1

    # For people

    def is_offered(self, job: Job) -> bool:
        """Whether a waiting job's family stands in line for another device that serves its lane."""
        rank = self._pools[signature_of(job)].families[family_of(job).app].buckets[job.spec.priority].rank
        return rank is not None and rank[0] != RESTS

    def _place(self, priority: int, entry: Entry) -> tuple[int, int, int, int]:
        level = effective_priority(priority, self._wall_us - entry[1], self._rules)
        return (-level, entry[0], entry[1], entry[2])

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
            if self._is_waiting(entry)
        )

    def in_order(self) -> list[JobId]:
        """Return all waiting jobs, the first first. Costs O(n log n): for people, not for decisions."""
        return [entry[3] for _, _, entry in self._sorted()]

    def _sorted(self) -> list[tuple[tuple[int, int, int, int], Signature, Entry]]:
        # Of jobs that were submitted together a long one may well run before its turn.
        found = [
            (self._place(bucket.priority, entry), pool.signature, entry)
            for pool in self._pools.values()
            for family in pool.families.values()
            for bucket in family.buckets.values()
            for entry in (*bucket.returned, *bucket.fresh)
            if self._is_waiting(entry)
        ]
        return sorted(found, key=lambda one: one[0])


def _is_doubled(heap: Sized) -> bool:
    """Whether a heap has grown to twice what it was when it was looked at for dead entries last."""
    size = len(heap)
    return size > COMPACT_ABOVE and not size & (size - 1)
