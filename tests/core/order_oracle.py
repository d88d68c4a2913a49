"""Who should have got a device, by going through every job, lease and charge: nothing of the scheduler's indexes.

It follows the writes of steps one by one. Estimates are taken as given; virtual times are added up anew from what was
charged. Among what it knows are the named exceptions to the order: quotas, families whose own devices take their rest,
be it because another install would not pay or because others of their pool have more before them, builds that a device
goes on with, and the guaranteed share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from coordinator.core.model import (
    AppKey,
    Attempt,
    AttemptId,
    AttemptOutcome,
    Device,
    DeviceKind,
    DeviceState,
    Job,
    JobState,
    Lane,
    Lease,
    LeaseId,
    LeaseState,
    Rules,
    Target,
)
from coordinator.core.step import PutAttempt, PutJob, PutLease, Step
from tests.core.records import Records

KINDS = {
    Target.ANY: (DeviceKind.EMULATOR, DeviceKind.DEVICE),
    Target.EMULATOR: (DeviceKind.EMULATOR,),
    Target.DEVICE: (DeviceKind.DEVICE,),
    Target.BROWSERSTACK: (DeviceKind.BROWSERSTACK,),
}
WORKING = (LeaseState.OFFERED, LeaseState.ACTIVE)
OUT_OF_USE = (DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING)
ROUNDING_US = 100
"""What divisions by weights may differ by."""
Family = tuple[AppKey, Target]


@dataclass
class Account:
    """What an organisation was charged: its virtual time is the most that it ever owed, since it was here last."""

    weight: int
    owed_us: int = 0
    most_us: int = 0
    time_us: int = 0
    """Of its earlier visits."""
    jobs: int = 0

    def charge(self, span_us: int) -> None:
        self.owed_us += span_us
        self.most_us = max(self.most_us, self.owed_us)

    @property
    def virtual_us(self) -> int:
        return self.time_us + self.most_us * 100 // self.weight


@dataclass
class OrderOracle:
    rules: Rules
    expected_us: Callable[[AttemptId, Job], int]
    """What a leased job was expected to take, and what a waiting one is."""
    install_us: Callable[[AppKey, Target], int]
    """What a family's install is expected to take. That of a build which nobody has installed drifts with the installs
    of others, and a family goes by what was expected when it was looked at last."""
    records: Records = field(default_factory=Records)
    accounts: dict[str, Account] = field(default_factory=dict)
    charged: dict[AttemptId, int] = field(default_factory=dict)
    before: dict[AttemptId, int] = field(default_factory=dict)
    """The virtual time of a job's organisation just before it was charged for the attempt."""
    families: dict[LeaseId, Family] = field(default_factory=dict)
    left: dict[Family, int] = field(default_factory=dict)
    grants: int = 0

    def follow(self, step: Step) -> Iterator[str]:
        """Take in a step and yield what it should not have done."""
        for write in step.writes:
            match write:
                case PutJob(job):
                    self._count(job)
                case PutAttempt(attempt):
                    self._charge(attempt)
                case PutLease(lease):
                    added = self._added(lease)
                    if added:
                        self.grants += 1
                        yield from _Grant(self, lease, added).breaches()
                    self._note_left(lease)
                case _:
                    pass
            self.records.apply([write])
        yield from self._left_idle()

    def installed(self, org_id: str, install_us: int) -> None:
        self.accounts[org_id].charge(install_us)

    def _count(self, job: Job) -> None:
        org = job.spec.org_id
        account = self.accounts.setdefault(org, Account(self.rules.weights.get(org, 100)))
        if job.id not in self.records.jobs:
            if not account.jobs:
                others = [one.virtual_us for name, one in self.accounts.items() if one.jobs and name != org]
                account.time_us += max(0, min(others, default=0) - account.virtual_us)
            account.jobs += 1
        elif job.is_terminal:
            account.jobs -= 1

    def _charge(self, attempt: Attempt) -> None:
        job = self.records.jobs[attempt.job]
        account = self.accounts[job.spec.org_id]
        if attempt.id not in self.records.attempts:
            self.before[attempt.id] = account.virtual_us
            self.charged[attempt.id] = self.expected_us(attempt.id, job)
            account.charge(self.charged[attempt.id])
        elif attempt.outcome is not None:
            assert attempt.end_us is not None
            taken_us = attempt.end_us - attempt.start_us if attempt.start_us is not None else 0
            account.charge(taken_us - self.charged[attempt.id])

    def _added(self, lease: Lease) -> list[Job]:
        known = self.records.leases.get(lease.id)
        old = known.attempts if known is not None else ()
        added = [self.records.jobs[self.records.attempts[one].job] for one in lease.attempts if one not in old]
        if added and known is None:
            self.families[lease.id] = family_of(added[0])
        return added

    def _note_left(self, lease: Lease) -> None:
        known = self.records.leases.get(lease.id)
        if known is not None and known.state in WORKING and lease.state not in WORKING:
            self.left[self.families[lease.id]] = 1

    def work_of(self, family: Family) -> int:
        """Return the expected work of a family: of jobs that wait, and of those that are leased."""
        waiting = sum(
            self.expected_us(AttemptId(0), job)
            for job in self.records.jobs.values()
            if job.state is JobState.QUEUED and family_of(job) == family
        )
        held = sum(
            self.charged[attempt.id]
            for attempt in self.records.attempts.values()
            if attempt.outcome is None and family_of(self.records.jobs[attempt.job]) == family
        )
        return waiting + held

    def devices_of(self, org_id: str, but: LeaseId | None = None) -> int:
        """Return how many devices an organisation has, one lease left out."""
        leases = self.records.leases.values()
        return sum(1 for one in leases if one.is_live and one.app.org_id == org_id and one.id != but)

    def working_for(self, family: Family, lane: Lane | None = None) -> int:
        """Return how many devices work for a family; only those that serve a lane, if one is named."""
        devices = self.records.devices
        return sum(
            1
            for one in self.records.leases.values()
            if one.state in WORKING
            and self.families[one.id] == family
            and (lane is None or lane in devices[one.device].facts.lanes)
        )

    def pays(self, job: Job) -> bool:
        """Whether another device pays for its install, and is rather for this family than for others."""
        family = family_of(job)
        if not self.working_for(family, job.spec.lane):
            return True
        installs = self.rules.urgent_split_installs if job.spec.priority >= 4 else self.rules.split_installs
        each_us = self.work_of(family) // (self.working_for(family) + 1)
        if each_us <= installs * self.install_us(*family) and each_us <= self.rules.batch_most_us:
            return False
        return each_us * 100 >= self.rules.split_percent * self.part_of_a_device(job.spec.target, job.spec.priority)

    def _left_idle(self) -> Iterator[str]:
        """Say which device a step leaves free though a job that waits should have it."""
        idle = [one for one in self.records.devices.values() if one.state is DeviceState.IDLE]
        if not idle:
            return
        for job in self.records.jobs.values():
            quota = self.rules.quotas.get(job.spec.org_id, 0)
            if job.state is not JobState.QUEUED or (quota and self.devices_of(job.spec.org_id) >= quota):
                continue
            for device in idle:
                if (
                    device.facts.kind in KINDS[job.spec.target]
                    and job.spec.lane in device.facts.lanes
                    and self.pays(job)
                ):
                    yield f"{device.id} is left free, and job {job.id} waits for it"

    def part_of_a_device(self, target: Target, priority: int) -> Fraction:
        """Return what each device for a target has before it, of all that was submitted with at least a priority."""
        jobs = [job for job in self.records.jobs.values() if job.spec.target is target and not job.is_terminal]
        open_attempts = {one.job: one.id for one in self.records.attempts.values() if one.outcome is None}
        work_us = 0
        for job in jobs:
            if job.spec.priority >= priority:
                attempt = open_attempts.get(job.id)
                work_us += self.expected_us(AttemptId(0), job) if attempt is None else self.charged[attempt]
        devices = self.records.devices.values()
        usable = sum(1 for one in devices if one.facts.kind in KINDS[target] and one.state not in OUT_OF_USE)
        return Fraction(work_us, usable) if usable else Fraction(work_us + 1)


def family_of(job: Job) -> Family:
    return (AppKey(org_id=job.spec.org_id, app_version_id=job.spec.app_version_id), job.spec.target)


@dataclass
class _Grant:
    """What one lease was given, and who waited meanwhile."""

    oracle: OrderOracle
    lease: Lease
    added: list[Job]

    @property
    def _is_new(self) -> bool:
        return self.lease.id not in self.oracle.records.leases

    @property
    def _device(self) -> Device:
        return self.oracle.records.devices[self.lease.device]

    @property
    def _wall_us(self) -> int:
        attempt = self.added[0].attempt
        assert attempt is not None
        return self.oracle.records.attempts[attempt].assign_us

    def _level(self, job: Job) -> int:
        priority, waited_us = job.spec.priority, self._wall_us - job.create_us
        while priority < 3 and waited_us >= self.oracle.rules.age_us:
            priority, waited_us = priority + 1, waited_us - self.oracle.rules.age_us
        return priority

    def _is_full(self, org_id: str) -> bool:
        quota = self.oracle.rules.quotas.get(org_id, 0)
        return bool(quota) and self.oracle.devices_of(org_id, self.lease.id) >= quota

    def _offered(self) -> list[Job]:
        """Return the jobs of other families that wait for the device and may have it."""
        return [
            job
            for job in self.oracle.records.jobs.values()
            if job.state is JobState.QUEUED
            and family_of(job) != family_of(self.added[0])
            and self._device.facts.kind in KINDS[job.spec.target]
            and job.spec.lane in self._device.facts.lanes
            and not self._is_full(job.spec.org_id)
            and self.oracle.pays(job)
        ]

    def _is_guaranteed(self) -> bool:
        oldest_us = min(job.create_us for job in self.added)
        return self._wall_us - oldest_us > self.oracle.rules.guarantee_wait_us

    def breaches(self) -> Iterator[str]:
        first = self.added[0]
        if self._is_new and self._is_full(first.spec.org_id):
            yield f"{first.spec.org_id} has its quota and is given {self.lease.device}"
        if any(family_of(job) != self.oracle.families[self.lease.id] for job in self.added):
            yield f"lease {self.lease.id} mixes families"
        for job in self.added:
            if job.spec.lane not in self._device.facts.lanes:
                yield f"{self.lease.device} does not serve the {job.spec.lane} lane and is given job {job.id}"
        if self._is_guaranteed():
            return
        given = max(self.added, key=self._level)
        if self._is_new and not self._is_warm() and not any(self.oracle.pays(job) for job in self.added):
            yield f"job {given.id} gets its family another device, for which its work does not pay"
        offered = self._offered()
        for job in offered:
            if self._level(job) > self._level(given):
                yield f"job {given.id} is given {self.lease.device}, and job {job.id} has a higher priority"
        equals = [job for job in offered if self._level(job) == self._level(given)]
        yield from self._unfair(given, equals) if self._is_new else self._too_long(given, equals)
        yield from self._too_low(offered)

    def _is_warm(self) -> bool:
        return self._device.app == self.lease.app

    def _unfair(self, given: Job, equals: list[Job]) -> Iterator[str]:
        """Say who should have had a free device, among those of the same priority."""
        assert given.attempt is not None
        ours_us = min(self.oracle.before[one] for one in self.lease.attempts)
        slack_us = self.oracle.rules.lag_us if self._is_warm() else 0
        for job in equals:
            theirs_us = self.oracle.accounts[job.spec.org_id].virtual_us
            if job.spec.org_id != given.spec.org_id and ours_us > theirs_us + slack_us + ROUNDING_US:
                yield f"{given.spec.org_id} is given {self.lease.device}, and {job.spec.org_id} has had less"
            if job.spec.org_id == given.spec.org_id and not self._is_warm():
                yield from self._out_of_turn(given, job)

    def _out_of_turn(self, given: Job, job: Job) -> Iterator[str]:
        mine, other = family_of(given), family_of(job)
        if self.oracle.working_for(mine, given.spec.lane) and not self.oracle.working_for(other, job.spec.lane):
            yield f"job {given.id} gets its family another device, and that of job {job.id} has none"
        are_new = not any(
            self.oracle.working_for(one) or one in self.oracle.left or self._was_given_back(one)
            for one in (mine, other)
        )
        if are_new and (job.create_us, job.sequence) < min((one.create_us, one.sequence) for one in self.added):
            yield f"job {given.id} is given {self.lease.device}, and job {job.id} has waited longer"

    def _was_given_back(self, family: Family) -> bool:
        return any(
            attempt.outcome not in (None, AttemptOutcome.PASSED)
            for attempt in self.oracle.records.attempts.values()
            if family_of(self.oracle.records.jobs[attempt.job]) == family
        )

    def _too_long(self, given: Job, equals: list[Job]) -> Iterator[str]:
        """Say which family without a device should have had this one after so long a batch."""
        if self._wall_us - self.lease.grant_us <= self.oracle.rules.batch_most_us:
            return
        account = self.oracle.accounts
        ours_us = min(self.oracle.before[one] for one in self.lease.attempts if one in self._new_attempts())
        for job in equals:
            is_theirs = account[job.spec.org_id].virtual_us + ROUNDING_US < ours_us
            if not self.oracle.working_for(family_of(job), job.spec.lane) and is_theirs:
                yield f"lease {self.lease.id} goes on after its time, and nobody works for job {job.id}"

    def _new_attempts(self) -> list[AttemptId]:
        return [job.attempt for job in self.added if job.attempt is not None]

    def _too_low(self, offered: list[Job]) -> Iterator[str]:
        """Say which job of another family comes before the last one that was taken along."""
        last = min(self.added, key=self._level)
        for job in offered:
            if self._level(job) > self._level(last):
                yield f"job {last.id} is taken along, and job {job.id} has a higher priority"
