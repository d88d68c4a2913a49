"""What waits, as decisions see it: pools, their families, and the buckets of jobs in those.

A *family* holds the jobs that can share one install; a *pool* the families with one signature: target, selector,
devices to avoid, and the organisation where agents are kept for that. The jobs of a family with one submitted priority
are a *bucket*, in their order. `lanes` keeps them, `heads` says which is first, `guarantee` which has waited too long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from dataclasses import dataclass, field
from functools import lru_cache

from coordinator.core.burdens import Burden
from coordinator.core.model import (
    MAX_PRIORITY,
    MOST_AGED_PRIORITY,
    AppKey,
    DeviceId,
    Job,
    JobId,
    Lane,
    Rules,
    Target,
)

Entry = tuple[int, int, int, JobId, int]
"""(0 for a job that was given back, when it was submitted, sequence, id, expected duration): the lower, the earlier."""
Long = tuple[int, int, int, Entry]
"""(when it was submitted, less its expected duration, sequence, its entry): of the oldest the longest first."""
Resting = tuple[int, int, "Bucket"]
"""(less the work for each device with which it rests, a number that keeps buckets from being compared, which)."""

IDENTITY = ("id", "udid")
"""Demands that name single devices."""
COMPACT_ABOVE = 64
KNOWN_SIGNATURES = 16_384


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
    org: str = ""
    """The organisation of its jobs, where agents are kept for that; such agents serve no other pools."""
    is_of_sorts: bool = field(init=False, repr=False, compare=False)
    """Whether the sort of a device says all: it names no single devices, and none to avoid."""
    hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: every decision looks pools up."""

    def __post_init__(self) -> None:
        is_of_sorts = not self.avoid and all(name not in IDENTITY for name, _ in self.selector)
        object.__setattr__(self, "is_of_sorts", is_of_sorts)
        told = (self.target, self.selector, self.avoid, self.lane, self.spills, self.org)
        object.__setattr__(self, "hash", hash(told))

    def __hash__(self) -> int:
        return self.hash


def signature_of(job: Job) -> Signature:
    """Return the signature of the one pool that the job waits in."""
    lane = job.spec.lane if job.avoid else None
    return _signature(job.spec.target, job.spec.selector, job.avoid, lane, job.can_spill, job.kept_org)


@lru_cache(maxsize=KNOWN_SIGNATURES)
def _signature(
    target: Target,
    selector: tuple[tuple[str, str], ...],
    avoid: tuple[DeviceId, ...],
    lane: Lane | None,
    spills: bool,
    org: str,
) -> Signature:
    """Return a signature; the many jobs of one share it, so that looking its pool up compares no fields."""
    return Signature(target, selector, avoid, lane, spills, org)


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
    long: list[Long] = field(default_factory=list)
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


Oldest = tuple[int, int, "Bucket", Rank]
"""When a head was submitted, a number that keeps buckets from being compared, its bucket, and its rank then."""
Line = list[tuple[Rank, int, Bucket]]
"""Buckets of one organisation at one level. The number only keeps buckets from being compared."""


@dataclass(slots=True)
class Level:
    """The buckets of a pool and a lane whose heads count for the same priority."""

    orgs: list[tuple[int, str]] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    parked: dict[str, None] = field(default_factory=dict)
    """Organisations with all the devices of their quota: not among `orgs` until they give one back."""


@dataclass(slots=True, eq=False)
class Head:
    """The first of a level: its organisation's virtual time, and its bucket.

    Never changed, but not frozen: a decision makes a dozen.
    """

    level: int
    time: int
    org: str
    rank: Rank
    bucket: Bucket

    @property
    def order(self) -> tuple[int, int, str, Rank]:
        """Its place among all heads: the lower, the earlier."""
        return (-self.level, self.time, self.org, self.rank)


@dataclass(slots=True, eq=False)
class Pool:
    """The families with one signature."""

    signature: Signature
    families: dict[AppKey, Family] = field(default_factory=dict)
    orgs: Counter[str] = field(default_factory=Counter)
    """Families with waiting jobs of each organisation."""
    levels: dict[int, dict[Lane, Level]] = field(
        default_factory=lambda: {level: {} for level in range(MAX_PRIORITY, 0, -1)}
    )
    """Only the lanes that ever came to stand at a level."""
    oldest: dict[Lane, list[Oldest]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    urgent: int = 0
    """Waiting jobs that may preempt, and their expected work."""
    urgent_us: int = 0
    burden: Burden = field(default_factory=Burden)
    resting: dict[int, list[Resting]] = field(default_factory=dict)
    """Submitted priority -> buckets that rest."""
    first: dict[tuple[Lane, ...], Head | None] = field(default_factory=dict)
    """Lanes -> the first head of the pool in them, as far as it was looked for since anything of the pool has changed:
    a decision asks a dozen times, and changes one or two of the pools that its device serves."""
    passed: dict[tuple[Lane, ...], int] = field(default_factory=dict)
    """Lanes -> decisions on devices that serve exactly these since the oldest head was served there for its age."""
    size: int = 0


def is_doubled(heap: Sized) -> bool:
    """Whether a heap has grown to twice what it was when it was looked at for dead entries last."""
    size = len(heap)
    return size > COMPACT_ABOVE and not size & (size - 1)
