"""Which devices serve which pools, without looking at every device.

Devices that no selector can tell apart, but by their own id, are a *kind of device* (`Sort`). A pool is matched against
the sorts once, when the first job comes to wait in it; afterwards a device knows its pools, and a pool its devices.
Selectors of `id` and `udid` name single devices: they are looked up, and only a pattern over ids has to try each.
"""

from __future__ import annotations

import fnmatch
import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.core.families import IDENTITY, Signature
from coordinator.core.model import (
    ALL_LANES,
    ANDROID,
    IOS,
    PLATFORM,
    AppKey,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    DeviceState,
    JobSpec,
    Lane,
    Target,
)

ASKING = (PLATFORM, *IDENTITY)
"""Demands by which a job may come to an iOS device."""
WHATEVER_IS_ASKED_FOR = "*"
"""As the model or the version of a slot of a cloud: its agent chooses the device when it knows the job."""
UNAVAILABLE = frozenset({DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING})
COMPACT_ABOVE = 64
EACH_LANE = tuple((lane,) for lane in ALL_LANES)
ALL_IN_ONE = (ALL_LANES,)

KINDS: dict[Target, frozenset[DeviceKind]] = {
    Target.ANY: frozenset({DeviceKind.EMULATOR, DeviceKind.DEVICE}),
    Target.EMULATOR: frozenset({DeviceKind.EMULATOR}),
    Target.DEVICE: frozenset({DeviceKind.DEVICE}),
    Target.BROWSERSTACK: frozenset({DeviceKind.BROWSERSTACK}),
}


def may_spill(spec: JobSpec, spill: Mapping[str, int]) -> bool:
    """Whether a job may use a slot of a cloud though it did not ask for one.

    Not one that asks for more than a platform: a cloud has every model, and the user means one of the lab.

    Args:
        spec: What was asked for.
        spill: Organisation -> the least priority that may.
    """
    least = spill.get(spec.org_id)
    is_allowed = least is not None and spec.priority >= least
    return is_allowed and spec.target is Target.ANY and all(name == PLATFORM for name, _ in spec.selector)


def _is_of_kind(facts: DeviceFacts, target: Target, spills: bool) -> bool:
    return facts.kind in KINDS[target] or (spills and facts.kind is DeviceKind.BROWSERSTACK)


@dataclass(frozen=True, slots=True)
class Miss:
    """A demand that a device does not meet."""

    attribute: str
    """`target`, or a name of the selector."""
    wanted: str
    has: str


def misses(facts: DeviceFacts, target: Target, selector: tuple[tuple[str, str], ...]) -> tuple[Miss, ...]:
    """Return the demands that a device does not meet."""
    kind = () if facts.kind in KINDS[target] else (Miss("target", target, facts.kind),)
    unmet = (Miss(name, want, _attribute(facts, name)) for name, want in selector if not _meets(facts, name, want))
    unasked = () if _is_asked_for(facts, selector) else (Miss(PLATFORM, ANDROID, facts.platform),)
    return (*kind, *unmet, *unasked)


def satisfies(
    facts: DeviceFacts, target: Target, selector: tuple[tuple[str, str], ...], *, spills: bool = False
) -> bool:
    """Whether a device is of the target's kind and meets every demand of the selector.

    A slot of a cloud will do for whatever target where jobs may spill over.
    """
    if not _is_of_kind(facts, target, spills) or not _is_asked_for(facts, selector):
        return False
    return all(_meets(facts, name, pattern) for name, pattern in selector)


def _is_asked_for(facts: DeviceFacts, selector: tuple[tuple[str, str], ...]) -> bool:
    """Whether a device may be given what does not speak of iOS; see `platforms`."""
    return facts.platform != IOS or any(name in ASKING for name, _ in selector)


def _meets(facts: DeviceFacts, name: str, pattern: str) -> bool:
    has = _attribute(facts, name)
    return has == WHATEVER_IS_ASKED_FOR or fnmatch.fnmatchcase(has.lower(), pattern.lower())


def _attribute(facts: DeviceFacts, name: str) -> str:
    match name:
        case "platform":
            return facts.platform
        case "os_version":
            return facts.os_version
        case "model":
            return facts.model
        case "udid":
            return facts.udid
        case "id":
            return facts.id
        case _:
            return facts.labels.get(name, "")


_SortKey = tuple[DeviceKind, str, str, str, tuple[tuple[str, str], ...], tuple[Lane, ...], tuple[str, ...]]


def _sort_key(facts: DeviceFacts) -> _SortKey:
    labels = tuple(sorted(facts.labels.items()))
    return (facts.kind, facts.platform, facts.model, facts.os_version, labels, facts.lanes, facts.orgs)


@dataclass(slots=True)
class _ByUse:
    """The free devices of a sort by how much they were used when they fell free."""

    sign: int
    heap: list[tuple[int, int, DeviceId]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sort:
    """Devices that differ by nothing but who they are."""

    facts: DeviceFacts
    """Of any of them."""
    size: int = 0
    available: int = 0
    """Those that are in use or could be."""
    signatures: dict[Signature, None] = field(default_factory=dict)
    """Pools with waiting jobs that they serve, as far as the sort can tell."""
    idle: dict[DeviceId, int] = field(default_factory=dict)
    """Free ones, the longest free first, with the number under which they fell free."""
    warm: dict[AppKey, dict[DeviceId, None]] = field(default_factory=dict)
    """Free ones by the build that they hold."""
    least_used: _ByUse = field(default_factory=lambda: _ByUse(1))
    most_used: _ByUse = field(default_factory=lambda: _ByUse(-1))

    def add_idle(self, device: Device, number: int) -> None:
        """Note that a device is free."""
        device_id = device.id
        self.idle[device_id] = number
        if device.app is not None:
            self.warm.setdefault(device.app, {})[device_id] = None
        for order in (self.least_used, self.most_used):
            heapq.heappush(order.heap, (order.sign * device.busy_us, number, device_id))
            if len(order.heap) > COMPACT_ABOVE and len(order.heap) > 2 * len(self.idle):
                order.heap = [entry for entry in order.heap if self.idle.get(entry[2]) == entry[1]]
                heapq.heapify(order.heap)

    def remove_idle(self, device: Device) -> None:
        """Note that a device is not free any more."""
        del self.idle[device.id]
        if device.app is not None:
            held = self.warm[device.app]
            del held[device.id]
            if not held:
                del self.warm[device.app]

    def first_by_use(self, order: _ByUse, avoid: tuple[DeviceId, ...]) -> DeviceId | None:
        """Return the first free device of an order that is not to be avoided. Costs O((avoided + 1) x log n)."""
        skipped: list[tuple[int, int, DeviceId]] = []
        found: DeviceId | None = None
        while order.heap and found is None:
            entry = order.heap[0]
            if self.idle.get(entry[2]) != entry[1]:
                heapq.heappop(order.heap)
            elif entry[2] in avoid:
                skipped.append(heapq.heappop(order.heap))
            else:
                found = entry[2]
        for entry in skipped:
            heapq.heappush(order.heap, entry)
        return found


class Pools:
    """All devices by sort, and the pools that each sort serves."""

    def __init__(self) -> None:
        self._sorts: dict[_SortKey, Sort] = {}
        self._sort_of: dict[DeviceId, Sort] = {}
        self._devices: dict[DeviceId, Device] = {}
        self._by_name: dict[str, dict[DeviceId, None]] = {}
        """Lower-case id or udid -> devices."""
        self._live: dict[Signature, tuple[Sort, ...]] = {}
        self._number = 0
        self.free_count = 0
        """Free devices of all sorts."""
        self._kept = 0
        """Sorts that do not serve all lanes."""
        self.touched: dict[Signature, None] = {}
        """Pools for which a device may have become free since they were looked at."""
        self._crews: dict[Signature, int] = {}
        """How many devices serve each pool, as far as their sorts can tell."""
        self.manned: dict[Signature, int] = {}
        """The same for pools in which that has changed since they were looked at."""

    # Devices

    def put(self, device: Device) -> None:
        """Take in a device as it is now."""
        device_id = device.id
        before = self._devices.get(device_id)
        if before is not None and _is_alike(before.facts, device.facts):
            self._devices[device_id] = device
            self._move(before, device, self._sort_of[device_id])
            return
        if before is not None:
            self._leave(before)
        sort = self._enter(device)
        self._devices[device_id] = device
        self._count(device, sort)

    def drop(self, device_id: DeviceId) -> None:
        """Forget a device."""
        self._leave(self._devices.pop(device_id))

    def _move(self, before: Device, device: Device, sort: Sort) -> None:
        was_idle, is_idle = before.state is DeviceState.IDLE, device.state is DeviceState.IDLE
        if was_idle and (not is_idle or before.app != device.app):
            self._unset_idle(before, sort)
            was_idle = False
        was_available, is_available = before.state not in UNAVAILABLE, device.state not in UNAVAILABLE
        if was_available is not is_available:
            self._change_available(sort, is_available - was_available)
        if is_idle and not was_idle:
            self._set_idle(device, sort)
        if was_available and not is_available:
            self._touch_avoiding(sort)

    def _count(self, device: Device, sort: Sort) -> None:
        if device.state not in UNAVAILABLE:
            self._change_available(sort, 1)
        if device.state is DeviceState.IDLE:
            self._set_idle(device, sort)

    def _change_available(self, sort: Sort, change: int) -> None:
        sort.available += change
        for signature in sort.signatures:
            self._crews[signature] += change
            self.manned[signature] = self._crews[signature]

    def _set_idle(self, device: Device, sort: Sort) -> None:
        self._number += 1
        self.free_count += 1
        sort.add_idle(device, self._number)
        self.touched.update(sort.signatures)

    def _unset_idle(self, device: Device, sort: Sort) -> None:
        self.free_count -= 1
        sort.remove_idle(device)

    def _touch_avoiding(self, sort: Sort) -> None:
        """Look again at pools that avoid devices: what could take their place has become less."""
        self.touched.update((signature, None) for signature in sort.signatures if signature.avoid)

    def _enter(self, device: Device) -> Sort:
        key = _sort_key(device.facts)
        sort = self._sorts.get(key)
        if sort is None:
            sort = self._sorts[key] = Sort(device.facts)
            self._kept += device.facts.lanes != ALL_LANES
            for signature in self._live:
                if self._suits(sort, signature):
                    self._live[signature] = (*self._live[signature], sort)
                    sort.signatures[signature] = None
        sort.size += 1
        self._sort_of[device.id] = sort
        for name in _names(device.facts):
            self._by_name.setdefault(name, {})[device.id] = None
        return sort

    def _leave(self, device: Device) -> None:
        sort = self._sort_of.pop(device.id)
        if device.state is DeviceState.IDLE:
            self._unset_idle(device, sort)
        if device.state not in UNAVAILABLE:
            self._change_available(sort, -1)
        sort.size -= 1
        self._touch_avoiding(sort)
        for name in _names(device.facts):
            named = self._by_name[name]
            named.pop(device.id, None)
            if not named:
                del self._by_name[name]
        if not sort.size:
            del self._sorts[_sort_key(device.facts)]
            self._kept -= device.facts.lanes != ALL_LANES
            for signature in sort.signatures:
                self._live[signature] = tuple(one for one in self._live[signature] if one is not sort)

    # Pools

    def _suits(self, sort: Sort, signature: Signature) -> bool:
        return _takes(sort.facts, signature) and _satisfies_but_identity(sort.facts, signature)

    def open(self, signature: Signature) -> int:
        """Match a pool in which jobs wait now, and return about how many devices could serve it."""
        if signature in self._live:
            return self._crews[signature]
        sorts = tuple(sort for sort in self._sorts.values() if self._suits(sort, signature))
        self._live[signature] = sorts
        for sort in sorts:
            sort.signatures[signature] = None
        crew = self._crews[signature] = sum(sort.available for sort in sorts)
        return crew

    def close(self, signature: Signature) -> None:
        """Forget a pool in which nothing waits."""
        for sort in self._live.pop(signature, ()):
            del sort.signatures[signature]
        self._crews.pop(signature, None)

    def sorts_of(self, signature: Signature) -> tuple[Sort, ...]:
        """Return the sorts of device that serve a pool with waiting jobs."""
        return self._live[signature]

    def device(self, device_id: DeviceId) -> Device:
        """Return a device as it is now."""
        return self._devices[device_id]

    def sort_of(self, device_id: DeviceId) -> Sort:
        """Return the sort of a device."""
        return self._sort_of[device_id]

    def signatures_of(self, device: Device) -> list[Signature]:
        """Return the pools with waiting jobs that a device serves."""
        sort = self._sort_of[device.id]
        return [one for one in sort.signatures if one.is_of_sorts or self._serves(device, one)]

    def serves(self, device: Device, signature: Signature, lane: Lane) -> bool:
        """Whether a device may run jobs of a pool that were submitted in a lane."""
        is_kept = lane not in device.facts.lanes or not _is_for(device.facts, signature.org)
        return not is_kept and self.matches(device, signature)

    def matches(self, device: Device, signature: Signature) -> bool:
        """Whether a device has what jobs of a pool ask for, whichever lanes and organisations it serves.

        A device that failed a job is avoided only while another one could take its place.
        """
        return _satisfies(device.facts, signature) and self._serves(device, signature)

    def matching(self, signature: Signature) -> list[Device]:
        """Return all devices that match a pool. What they share with their sort is looked at once for all of them."""
        sorts = {sort for sort in self._sorts.values() if _satisfies_but_identity(sort.facts, signature)}
        found = [device for device_id, device in self._devices.items() if self._sort_of[device_id] in sorts]
        if signature.is_of_sorts:
            return found
        return [device for device in found if self._serves(device, signature)]

    def nearest(self, signature: Signature) -> tuple[Device, tuple[Miss, ...]] | None:
        """Return the device that misses least of what a pool asks for, and what that is; None if there is no device."""

        def lacks(facts: DeviceFacts) -> tuple[Miss, ...]:
            return misses(facts, signature.target, signature.selector)

        devices = self._devices.values()
        if _is_narrow(signature):
            found = min(devices, key=lambda one: (len(lacks(one.facts)), one.id), default=None)
        else:
            counts = {sort: len(lacks(sort.facts)) for sort in self._sorts.values()}
            least = min(counts.values(), default=0)
            near = (one for one in devices if counts[self._sort_of[one.id]] == least)
            found = min(near, key=lambda one: one.id, default=None)
        return (found, lacks(found.facts)) if found is not None else None

    def _serves(self, device: Device, signature: Signature) -> bool:
        """Tell what the device's sort could not."""
        for name, pattern in signature.selector:
            if name in IDENTITY and not _meets(device.facts, name, pattern):
                return False
        return device.id not in signature.avoid or not self._has_alternative(signature)

    def _has_alternative(self, signature: Signature) -> bool:
        if _is_narrow(signature):
            return any(
                device.id not in signature.avoid and device.state not in UNAVAILABLE
                for device in self._named(signature)
            )
        sorts = self._live.get(signature)
        if sorts is None:
            sorts = tuple(sort for sort in self._sorts.values() if self._suits(sort, signature))
        avoided = (self._devices.get(device_id) for device_id in signature.avoid)
        taken = sum(
            1
            for device in avoided
            if device is not None and device.state not in UNAVAILABLE and self._sort_of[device.id] in sorts
        )
        return sum(sort.available for sort in sorts) > taken

    def _named(self, signature: Signature) -> Iterator[Device]:
        """Yield the devices that a pool with a selector of `id` or `udid` names."""
        pattern = next(pattern for name, pattern in signature.selector if name in IDENTITY).lower()
        is_exact = not any(mark in pattern for mark in "*?[")
        candidates: Iterable[DeviceId] = self._by_name.get(pattern, ()) if is_exact else self._devices
        for device_id in candidates:
            device = self._devices[device_id]
            if _satisfies(device.facts, signature) and _takes(device.facts, signature):
                yield device

    def has_match(self, signature: Signature) -> bool:
        """Whether any known device could serve a pool, which need not have jobs."""
        if _is_narrow(signature):
            return next(self._named(signature), None) is not None
        return any(self._suits(sort, signature) for sort in self._sorts.values())

    def idle_named(self, signature: Signature, lane: Lane) -> list[Device] | None:
        """Return the free devices of a pool that names devices; None for one that does not."""
        if not _is_narrow(signature):
            return None
        return [
            one
            for one in self._named(signature)
            if one.state is DeviceState.IDLE and lane in one.facts.lanes and self._serves(one, signature)
        ]

    def shared_lanes(self) -> tuple[tuple[Lane, ...], ...]:
        """Return the lanes in groups that the same devices serve: all in one while no agent is kept for some."""
        return EACH_LANE if self._kept else ALL_IN_ONE

    def has_free(self, signature: Signature, lane: Lane) -> bool:
        """Whether a free device may serve a lane of a pool."""
        return any(sort.idle and lane in sort.facts.lanes for sort in self._live.get(signature, ()))

    def free_for(self, signature: Signature, lane: Lane) -> int:
        """Return about how many free devices serve a lane of a pool: some may be named by nobody or to be avoided."""
        sorts = self._live.get(signature, ())
        if not self._kept:
            return sum(len(sort.idle) for sort in sorts)
        return sum(len(sort.idle) for sort in sorts if lane in sort.facts.lanes)

    def avoided_by(self, signature: Signature) -> tuple[DeviceId, ...]:
        """Return the devices that a pool really does without now."""
        return signature.avoid if signature.avoid and self._has_alternative(signature) else ()


def _is_alike(before: DeviceFacts, after: DeviceFacts) -> bool:
    """Whether no pool can tell two reports of a device apart: its battery, or its reason, is nothing to them."""
    if before is after:
        return True
    return before.udid == after.udid and _sort_key(before) == _sort_key(after)


def _satisfies(facts: DeviceFacts, signature: Signature) -> bool:
    return satisfies(facts, signature.target, signature.selector, spills=signature.spills)


def _satisfies_but_identity(facts: DeviceFacts, signature: Signature) -> bool:
    if not _is_of_kind(facts, signature.target, signature.spills) or not _is_asked_for(facts, signature.selector):
        return False
    return all(_meets(facts, name, pattern) for name, pattern in signature.selector if name not in IDENTITY)


def _names(facts: DeviceFacts) -> tuple[str, ...]:
    return tuple({facts.id.lower(): None, facts.udid.lower(): None})


def _takes(facts: DeviceFacts, signature: Signature) -> bool:
    """Whether a device is not kept for other lanes or organisations than those of a pool."""
    return (signature.lane is None or signature.lane in facts.lanes) and _is_for(facts, signature.org)


def _is_for(facts: DeviceFacts, org: str) -> bool:
    return not facts.orgs or org in facts.orgs


def _is_narrow(signature: Signature) -> bool:
    return any(name in IDENTITY for name, _ in signature.selector)
