"""Decisions: which family next, on which device, and how much work at a time. Nothing changes in here."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.families import NO_DEVICE, Bucket, Family, FamilyKey, Head, Signature
from coordinator.core.lanes import Queues
from coordinator.core.model import (
    LANE_OF,
    URGENT_PRIORITY,
    AppKey,
    Device,
    DeviceId,
    DeviceKind,
    Lane,
    Rules,
)
from coordinator.core.pools import Pools, Sort
from coordinator.core.records import drafted
from coordinator.core.shares import Shares

_COST_RANK = {DeviceKind.EMULATOR: 0, DeviceKind.DEVICE: 1, DeviceKind.BROWSERSTACK: 2}


@drafted
@dataclass(frozen=True, slots=True)
class Choice:
    """What a device shall do next."""

    family: Family
    floor: int
    """The effective priority below which another family comes first."""
    lanes: tuple[Lane, ...]
    """The lanes that the device serves."""
    signatures: list[Signature]
    """The pools with waiting jobs that the device serves."""
    starved: Bucket | None = None
    """The jobs that have waited longer than anybody should, if it is for them."""


class Policy:
    """Reads the state, and says what should be done."""

    def __init__(self, rules: Rules, queues: Queues, pools: Pools, shares: Shares) -> None:
        self._rules = rules
        self._queues = queues
        self._heads = queues.heads
        self._guarantee = queues.guarantee
        self._pools = pools
        self._shares = shares

    # Which family

    def next_family(self, device: Device, wall_us: int, *, current: FamilyKey | None, at_work_us: int) -> Choice | None:
        """Return what a device does next.

        Args:
            device: Which.
            wall_us: Now.
            current: The family that it works for, if it has a lease.
            at_work_us: How long it has worked for it.
        """
        signatures = self._pools.signatures_of(device)
        lanes = device.facts.lanes
        starved = self._starved(signatures, lanes)
        if starved is not None:
            return Choice(starved.family, 0, lanes, signatures, starved)
        best = self._best_head(signatures, lanes, current.app.org_id if current is not None else None)
        own = self._own_family(device, signatures, current)
        if own is None:
            return self._choice(best.bucket.family, signatures, lanes) if best is not None else None
        level = self._heads.first_level(own, lanes)
        if best is None or level > best.level or best.bucket.family is own:
            return self._choice(own, signatures, lanes)
        if level == best.level and self._goes_on(own, best, wall_us, current is not None, at_work_us):
            return self._choice(own, signatures, lanes)
        return self._choice(best.bucket.family, signatures, lanes)

    def _choice(self, family: Family, signatures: list[Signature], lanes: tuple[Lane, ...]) -> Choice:
        """Take a family's jobs down the lanes while nothing else that waits for the device comes first."""
        only = self._heads.only_level(family)
        if only is not None:  # whatever else comes first: none of its jobs stands lower
            return Choice(family, only, lanes, signatures)
        level = self._heads.first_level(family, lanes)
        others = max((self._heads.level_of_others(signature, family, lanes) for signature in signatures), default=0)
        return Choice(family, min(level, others), lanes, signatures)

    def _starved(self, signatures: list[Signature], lanes: tuple[Lane, ...]) -> Bucket | None:
        """Return the oldest of all that a device serves, if one of its pools is due.

        Not the oldest of the due pools alone: pools that are due more often, because more devices count for them, would
        take every turn of a device.
        """
        if not self._guarantee.is_any_due(signatures, lanes):
            return None
        starved = [self._guarantee.starved(signature, lanes) for signature in signatures]
        due = [bucket for bucket in starved if bucket is not None]
        return min(due, key=self._age_of, default=None)

    def _age_of(self, bucket: Bucket) -> tuple[int, int]:
        entry = self._heads.head_of(bucket)
        assert entry is not None, f"nothing waits with priority {bucket.priority} of {bucket.family.key}"
        return (entry[1], entry[2])

    def best_head(self, device: Device, current: FamilyKey) -> Head | None:
        """Return the highest head that waits for a device which works for a family, None for none."""
        return self._best_head(self._pools.signatures_of(device), device.facts.lanes, current.app.org_id)

    def _best_head(self, signatures: list[Signature], lanes: tuple[Lane, ...], holder: str | None) -> Head | None:
        """Return the first head for a device. Its holder's own counts though it has its quota: this device is of it."""
        best: Head | None = None
        full_holder = holder if holder is not None and self._shares.is_full(holder) else None
        for signature in signatures:
            best = _earlier(best, self._heads.first(signature, best.level if best is not None else 1, lanes))
            if full_holder is not None:
                least = best.level if best is not None else 1
                best = _earlier(best, self._heads.first_of(full_holder, signature, least, lanes))
        return best

    def _own_family(self, device: Device, signatures: list[Signature], current: FamilyKey | None) -> Family | None:
        """Return the waiting family that a device can go on with without an install, the highest first."""
        if current is not None:
            family = self._queues.family(current)
            if family is None or current.signature not in signatures:
                return None
            return family if self._heads.first_level(family, device.facts.lanes) else None
        if device.app is None or self._shares.is_full(device.app.org_id):
            return None
        warm: Family | None = None
        warm_level = 0
        for signature in signatures:
            family = self._queues.family_in(signature, device.app)
            if family is None or not family.size:
                continue
            level = self._heads.first_level(family, device.facts.lanes)
            if level > warm_level:
                warm, warm_level = family, level
        return warm

    def _goes_on(self, own: Family, best: Head, wall_us: int, is_leased: bool, at_work_us: int) -> bool:
        """Whether a device goes on with its build though another head of the same level waits."""
        rules = self._rules
        lag_us = self._shares.time_of(own.key.app.org_id) - best.time
        if best.rank[0] == NO_DEVICE:
            waited_us = at_work_us if is_leased else wall_us - max(best.rank[3], best.rank[4])
            return waited_us <= rules.batch_most_us and lag_us <= rules.lag_us
        return lag_us <= rules.lag_us or (is_leased and at_work_us <= rules.batch_most_us)

    # Which device

    def choose_device(self, signature: Signature, app: AppKey, priority: int, lane: Lane) -> Device | None:
        """Return the free device for jobs of a family that were submitted in a lane.

        A slot of a cloud that was not asked for comes after everything else. Of the others, one that holds the build
        comes first; then one that is kept for few lanes, or for some organisations; then the device that the fewest
        other pools could use, then the cheaper kind (emulator, phone, paid slot), then the lane's rule: high takes the
        least used, low the most used so that fresh devices stay free, normal the one that is free longest.
        """
        named = self._pools.idle_named(signature, lane)
        if named is not None:
            return min(named, key=lambda device: (device.app != app, _COST_RANK[device.facts.kind]), default=None)
        avoid = self._pools.avoided_by(signature)
        found: list[tuple[Sort, DeviceId, bool]] = []
        for sort in self._pools.sorts_of(signature):
            if sort.idle and lane in sort.facts.lanes:
                device_id, is_warm = _first_idle(sort, app, priority, avoid)
                if device_id is not None:
                    found.append((sort, device_id, is_warm))
        if not found:
            return None
        first = found[0] if len(found) == 1 else min(found, key=lambda one: self._rank(signature, priority, *one))
        return self._pools.device(first[1])

    def _rank(
        self, signature: Signature, priority: int, sort: Sort, device_id: DeviceId, is_warm: bool
    ) -> tuple[bool, bool, int, bool, int, int, int]:
        return (
            signature.spills and sort.facts.kind is DeviceKind.BROWSERSTACK,
            not is_warm,
            len(sort.facts.lanes),
            not sort.facts.orgs,
            len(sort.signatures),
            _COST_RANK[sort.facts.kind],
            self._use_rank(device_id, sort, priority),
        )

    def _use_rank(self, device_id: DeviceId, sort: Sort, priority: int) -> int:
        match LANE_OF[priority]:
            case Lane.HIGH:
                return self._pools.device(device_id).busy_us
            case Lane.NORMAL:
                return sort.idle[device_id]
            case Lane.LOW:
                return -self._pools.device(device_id).busy_us

    # How much

    def batch_work_us(self, family: Family, lanes: tuple[Lane, ...], install_us: int, coming: int) -> int:
        """Return how much work a batch of a family is filled with.

        Enough to pay for its install; but where several devices share what waits, or could, half of a device's part at
        most: so they end together, and none holds what another could run.

        Args:
            family: Whose.
            lanes: The lanes that the device serves.
            install_us: How long the family's install takes.
            coming: Devices that are being taken back for its pool.
        """
        rules = self._rules
        enough_us = min(max(rules.split_installs * install_us, rules.batch_least_us), rules.batch_most_us)
        first = self._heads.first_bucket(family, lanes)
        is_urgent = first is not None and first.priority >= URGENT_PRIORITY
        installs = rules.urgent_split_installs if is_urgent else rules.split_installs
        pays = family.waiting_us // max(1, installs * install_us)
        if first is not None and is_urgent:
            pays = min(pays, first.size)
        free = self._pools.free_for(family.key.signature, first.lane) if first is not None else 0
        devices = max(family.devices, min(pays, free + coming))
        if devices <= 1:
            return enough_us
        return min(enough_us, max(1, family.waiting_us // (2 * devices)))


def _earlier(one: Head | None, other: Head | None) -> Head | None:
    """Return the first of two heads, of equals the one."""
    if one is None or other is None:
        return other if one is None else one
    return other if other.order < one.order else one


def _first_idle(sort: Sort, app: AppKey, priority: int, avoid: tuple[DeviceId, ...]) -> tuple[DeviceId | None, bool]:
    """Return the first free device of a sort, and whether it holds the build."""
    for device_id in sort.warm.get(app, ()):
        if device_id not in avoid:
            return device_id, True
    match LANE_OF[priority]:
        case Lane.HIGH:
            return sort.first_by_use(sort.least_used, avoid), False
        case Lane.NORMAL:
            return next((device_id for device_id in sort.idle if device_id not in avoid), None), False
        case Lane.LOW:
            return sort.first_by_use(sort.most_used, avoid), False
