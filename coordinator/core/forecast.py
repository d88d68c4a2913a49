"""When waiting jobs are expected to start, and when the queue is expected to be empty.

For people, not for decisions: it goes through all devices and all waiting jobs once, in the order in which they stand,
and gives each the device that is free first. What it does not foresee is whatever comes later.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from coordinator.core.families import Signature, family_of
from coordinator.core.ledger import Ledger
from coordinator.core.model import AppKey, AttemptId, Device, DeviceId, DeviceState, Job, JobId, Lane, Lease, Now

USABLE = frozenset({DeviceState.IDLE, DeviceState.RESERVED, DeviceState.LEASED})
"""States of a device that can be counted on. A FENCING one waits for the word of its agent, and nobody knows when."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How a waiting job stands."""

    place: int
    """Among the jobs of its pool, from 1."""
    start_us: int | None
    """Wall time at which its test is expected to begin; None while no device can be counted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """How all waiting jobs stand."""

    outlooks: dict[JobId, Outlook]
    drain_us: int | None
    """When the last job is expected to end; None if there is none, or if some job has no device."""


NO_FORECAST = Forecast(outlooks={}, drain_us=None)


def forecast(ledger: Ledger, now: Now) -> Forecast:
    """Return what is to be expected. Costs O(n log n) in the waiting jobs, and O(devices) for each of their pools."""
    plan = _Plan(ledger, now)
    outlooks: dict[JobId, Outlook] = {}
    is_known = True
    for job_id, place in ledger.queues.places().items():
        start_us = plan.place(ledger.jobs[job_id])
        outlooks[job_id] = Outlook(place=place, start_us=start_us)
        is_known = is_known and start_us is not None
    return Forecast(outlooks=outlooks, drain_us=plan.end_us() if is_known else None)


def lease_of(ledger: Ledger, device: Device) -> Lease | None:
    """Return the live lease of a device."""
    return ledger.fleet.leases.get(device.lease) if device.lease is not None else None


def free_us(ledger: Ledger, device: Device, now: Now) -> int:
    """Return the wall time at which a device is expected to have ended what it was given."""
    lease = lease_of(ledger, device)
    if lease is None:
        return now.wall_us
    taken_back = dict(lease.revoked)
    left_us = sum(_left_us(ledger, attempt, now) for attempt in lease.attempts if attempt not in taken_back)
    stopping = [_left_us(ledger, attempt, now) for attempt in lease.attempts if _is_stopping(ledger, lease, attempt)]
    left_us += sum(min(ledger.settings.preempt_grace_us, one) for one in stopping)
    if lease.attempts and device.app != lease.app:
        left_us += ledger.install_us(lease.app)
    return now.wall_us + left_us


def _is_stopping(ledger: Ledger, lease: Lease, attempt: AttemptId) -> bool:
    return attempt in dict(lease.revoked) and ledger.attempts[attempt].start_us is not None


def _left_us(ledger: Ledger, attempt_id: AttemptId, now: Now) -> int:
    attempt = ledger.attempts[attempt_id]
    ran_us = now.wall_us - attempt.start_us if attempt.start_us is not None else 0
    return max(0, ledger.durations.cautious_us(ledger.jobs[attempt.job].spec) - ran_us)


class _Plan:
    """What every device is expected to do."""

    def __init__(self, ledger: Ledger, now: Now) -> None:
        self._ledger = ledger
        self._now = now
        usable = [device for device in ledger.fleet.devices.values() if device.state in USABLE]
        self._usable = usable
        self._free_us = {device.id: free_us(ledger, device, now) for device in usable}
        self._app = {device.id: lease.app if (lease := lease_of(ledger, device)) else device.app for device in usable}
        self._lines: dict[tuple[Signature, Lane], list[tuple[int, DeviceId]]] = {}
        """Pool and lane -> the devices that serve it by when they are free; an entry may be too early."""
        self._slots: dict[str, list[int]] = {}
        """Organisation with a quota -> when it may have each of its devices."""
        self._ends = [self._free_us[device.id] for device in usable if lease_of(ledger, device) is not None]

    def place(self, job: Job) -> int | None:
        """Give a job the device that is free first, and return when it starts there."""
        key = family_of(job)
        line = self._line(key.signature, job.spec.lane)
        if not line:
            return None
        while line[0][0] < self._free_us[line[0][1]]:
            heapq.heapreplace(line, (self._free_us[line[0][1]], line[0][1]))
        device = line[0][1]
        start_us = max(self._free_us[device], self._slot_us(key.app.org_id)) + self._setup_us(device, key.app)
        end_us = start_us + self._ledger.durations.expected_us(job.spec)
        self._free_us[device], self._app[device] = end_us, key.app
        self._take_slot(key.app.org_id, end_us)
        self._ends.append(end_us)
        return start_us

    def end_us(self) -> int | None:
        """Return when the last job ends."""
        return max(self._ends, default=None)

    def _line(self, signature: Signature, lane: Lane) -> list[tuple[int, DeviceId]]:
        line = self._lines.get((signature, lane))
        if line is None:
            serves = self._ledger.fleet.serves
            serving = (device.id for device in self._usable if serves(device, signature, lane))
            line = self._lines[signature, lane] = [(self._free_us[device], device) for device in serving]
            heapq.heapify(line)
        return line

    def _setup_us(self, device: DeviceId, app: AppKey) -> int:
        return 0 if self._app[device] == app else self._ledger.install_us(app)

    def _slot_us(self, org_id: str) -> int:
        """Return when an organisation may have another device."""
        quota = self._ledger.shares.quota_of(org_id)
        if not quota:
            return 0
        slots = self._slots.get(org_id)
        if slots is None:
            slots = self._slots[org_id] = self._held_until(org_id)
            slots += [self._now.wall_us] * (quota - len(slots))
            heapq.heapify(slots)
        return slots[0]

    def _held_until(self, org_id: str) -> list[int]:
        fleet = self._ledger.fleet
        held = [fleet.devices[lease.device] for lease in fleet.leases.values() if lease.app.org_id == org_id]
        return [free_us(self._ledger, device, self._now) for device in held]

    def _take_slot(self, org_id: str, end_us: int) -> None:
        if org_id in self._slots:
            heapq.heapreplace(self._slots[org_id], end_us)
