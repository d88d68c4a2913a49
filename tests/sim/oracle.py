"""I7: who should have got a device, by looking at every waiting job. It knows nothing of the scheduler's indexes.

Documented exceptions to the order by priority, which rises while a job waits: an organisation that has all the devices
of its quota does not wait; a family for which some device works already may leave its rest to that one; and who has
waited longer than everybody should may go first. Among jobs of one priority organisations take turns (tests/core judges
that), a device goes on with the build that it holds, and a batch takes jobs of its own family along.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.core.model import (
    AppKey,
    Device,
    DeviceKind,
    DeviceState,
    Job,
    JobState,
    Lease,
    LeaseState,
    Rules,
    Target,
)
from coordinator.core.step import PutLease, Write
from tests.sim.database import Records
from tests.sim.history import Committed
from tests.sim.scene import Scene

KINDS = {
    Target.ANY: (DeviceKind.EMULATOR, DeviceKind.DEVICE),
    Target.EMULATOR: (DeviceKind.EMULATOR,),
    Target.DEVICE: (DeviceKind.DEVICE,),
    Target.BROWSERSTACK: (DeviceKind.BROWSERSTACK,),
}
WORKING = (LeaseState.OFFERED, LeaseState.ACTIVE)
Family = tuple[AppKey, object, object, object, object, object]


def order_is_kept(scene: Scene, _step: Committed, write: Write) -> Iterator[str]:
    """I7: no eligible job of higher priority waits when a device is given work, nor an older one of the org."""
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    added = _added(scene.records, write.lease)
    if not added:
        return
    grant = _Grant(scene, write.lease, added)
    yield from grant.passed_over()
    yield from grant.out_of_order()
    yield from grant.over_quota()


def _added(records: Records, lease: Lease) -> list[Job]:
    before = records.leases.get(lease.id)
    old = before.attempts if before is not None else ()
    return [records.jobs[records.attempts[attempt].job] for attempt in lease.attempts if attempt not in old]


@dataclass
class _Grant:
    """Jobs that a device is given, and those that wait for it meanwhile."""

    scene: Scene
    lease: Lease
    added: list[Job]

    @property
    def _records(self) -> Records:
        return self.scene.records

    @property
    def _rules(self) -> Rules:
        return self.scene.plan.settings.rules

    @property
    def _device(self) -> Device:
        return self._records.devices[self.lease.device]

    @property
    def _wall_us(self) -> int:
        attempt = self.added[0].attempt
        assert attempt is not None
        return self._records.attempts[attempt].assign_us

    def _waiting(self) -> list[Job]:
        return [
            job
            for job in self._records.jobs.values()
            if job.state is JobState.QUEUED and is_eligible(self.scene, self._device, job)
        ]

    def _level(self, job: Job) -> int:
        """Return what its priority counts for after its wait."""
        priority = job.spec.priority
        waited_us = max(0, self._wall_us - job.create_us)
        while priority < 3 and waited_us >= self._rules.age_us:
            priority, waited_us = priority + 1, waited_us - self._rules.age_us
        return priority

    def _place(self, job: Job) -> tuple[int, int, int]:
        """Return (less its level, whether it is new, its age): those given back come before new ones."""
        tries = job.attempt_count - (job.state is not JobState.QUEUED)
        return (-self._level(job), 0 if tries else 1, job.create_us)

    def passed_over(self) -> Iterator[str]:
        waiting = [job for job in self._waiting() if not self._is_served(job) and not self._is_full(job.spec.org_id)]
        if not waiting or self._is_guaranteed(waiting):
            return
        given = min(self.added, key=self._place)
        highest = max(waiting, key=self._level)
        if self._level(highest) > self._level(given):
            yield f"I7: {self._device.id} is given job {given.id}, and job {highest.id} comes first"
        is_warm = self._device.app == self.lease.app or self.lease.id in self._records.leases
        for job in waiting:
            is_older = self._place(job) < self._place(given) and job.spec.org_id == given.spec.org_id
            if is_older and self._level(job) == self._level(given) and not is_warm and not self._had_a_device(job):
                yield f"I7: {self._device.id} is given job {given.id}, and job {job.id} has waited longer"

    def _is_served(self, job: Job) -> bool:
        """Whether a device that serves its lane works for the job's family already, this one by this grant included."""
        if _family(job) == _family(self.added[0]):
            return True
        return any(
            lease.state in WORKING
            and self.scene.plan.serves(lease.agent, job.spec.lane, job.spec.org_id)
            and any(
                _family(self._records.jobs[self._records.attempts[one].job]) == _family(job) for one in lease.attempts
            )
            for lease in self._records.leases.values()
        )

    def _had_a_device(self, job: Job) -> bool:
        """Whether the job's family has had its turn before."""
        app = _family(job)[0]
        turns = (one for one in self._records.leases.values() if not one.is_canary)
        return any(one.app == app and one.target is job.spec.target for one in turns)

    def _is_full(self, org_id: str) -> bool:
        quota = self._rules.quotas.get(org_id, 0)
        return bool(quota) and self._devices_of(org_id, None) >= quota

    def _devices_of(self, org_id: str, more: Lease | None) -> int:
        leases = (lease for lease in self._records.leases.values() if lease.is_live and not lease.is_canary)
        held = {lease.id for lease in leases if lease.app.org_id == org_id}
        return len(held | {more.id} if more is not None else held)

    def _is_guaranteed(self, waiting: list[Job]) -> bool:
        """Whether what is given has waited longer than everybody should, and longest in its pool."""
        oldest_us = min(job.create_us for job in self.added)
        pool = _family(self.added[0])[1:]
        return self._has_starved() and all(oldest_us <= job.create_us for job in waiting if _family(job)[1:] == pool)

    def _has_starved(self) -> bool:
        return self._wall_us - min(job.create_us for job in self.added) > self._rules.guarantee_wait_us

    def out_of_order(self) -> Iterator[str]:
        """Whether another job of the family should have been taken before the last one."""
        if self._has_starved():
            return
        last = max(self.added, key=self._place)
        for job in self._waiting():
            if _family(job) == _family(last) and self._place(job) < self._place(last):
                yield f"I7: {self._device.id} is given job {last.id}, and job {job.id} of the same family comes first"

    def over_quota(self) -> Iterator[str]:
        quota = self._rules.quotas.get(self.lease.app.org_id, 0)
        if quota and self.lease.id not in self._records.leases and not self.lease.is_canary:
            has = self._devices_of(self.lease.app.org_id, self.lease)
            if has > quota:
                yield f"I7: {self.lease.app.org_id} is given device {self._device.id}, its {has}th of {quota}"


def _family(job: Job) -> Family:
    lane = job.spec.lane if job.avoid else None
    return (job.app, job.spec.target, job.spec.selector, job.avoid, lane, job.can_spill)


def is_eligible(scene: Scene, device: Device, job: Job) -> bool:
    """Whether a device may run a job; one that failed it is avoided while another could take its place."""
    if not _matches(scene, device, job):
        return False
    if device.id not in job.avoid:
        return True
    return not any(
        other.id not in job.avoid
        and other.state not in (DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING)
        and _matches(scene, other, job)
        for other in scene.records.devices.values()
    )


def _matches(scene: Scene, device: Device, job: Job) -> bool:
    is_served = scene.plan.serves(device.agent, job.spec.lane, job.spec.org_id)
    return is_served and is_asked_for(scene.plan.settings.rules, device, job)


def is_asked_for(rules: Rules, device: Device, job: Job) -> bool:
    """Whether a job asked for such a device, or may spill over to it, by the lab's own rules."""
    facts, spec = device.facts, job.spec
    kinds = KINDS[spec.target]
    if spec.target is Target.ANY and not spec.selector and spec.priority >= rules.spill.get(spec.org_id, 6):
        kinds = tuple(DeviceKind)
    return facts.kind in kinds and all(
        name == "model" and (facts.model == "*" or fnmatch.fnmatch(facts.model.lower(), want))
        for name, want in spec.selector
    )
