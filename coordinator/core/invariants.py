"""What must hold between any two steps. Called by tests and simulations: a broken one is a bug of ours."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.families import FamilyKey
from coordinator.core.ledger import WORKING, Ledger
from coordinator.core.model import Attempt, Device, DeviceId, DeviceState, Job, JobState, Lane, Lease, LeaseId
from coordinator.core.step import DropDevice, PutAttempt, PutDevice, PutJob, PutLease, Write

_HOLDING = frozenset({DeviceState.RESERVED, DeviceState.LEASED})
_HELD = frozenset({DeviceState.QUARANTINED, DeviceState.DRAINING})


def check(ledger: Ledger, *, is_ordered: bool = True) -> None:
    """Check the whole state.

    Args:
        ledger: The state.
        is_ordered: Whether facts come in the order in which they came about. If not, the start of a test may be heard
            of before the end of the one before it.

    Raises:
        AssertionError: It contradicts itself; the text says where.
    """
    _check_jobs(ledger)
    _check_leases(ledger, is_ordered)
    _check_devices(ledger)
    _check_families(ledger)


def check_written(ledger: Ledger, writes: Iterable[Write], *, is_ordered: bool = True) -> None:
    """Check the records that steps have just put: far less than the whole, which must be checked now and then besides.

    Args:
        ledger: The state after those steps.
        writes: What they have put.
        is_ordered: As for `check`.

    Raises:
        AssertionError: As `check`.
    """
    for write in writes:
        match write:
            case PutJob(job):
                _check_known_job(ledger, job)
            case PutAttempt(attempt):
                _check_known_attempt(ledger, attempt)
            case PutLease(lease):
                _check_known_lease(ledger, lease, is_ordered)
            case PutDevice(device):
                _check_known_device(ledger, device.id)
            case DropDevice(device_id):
                _check_known_device(ledger, device_id)
            case _:
                pass
    counted = sum(ledger.queued.values()) + sum(ledger.running.values())
    assert counted == len(ledger.jobs), f"{counted} jobs are counted, and there are {len(ledger.jobs)}"


def _check_known_job(ledger: Ledger, written: Job) -> None:
    job = ledger.jobs.get(written.id)
    if job is not None:
        _check_job(ledger, job)
    else:
        assert written.id not in ledger.queues, f"job {written.id} is forgotten and waits in its queue"


def _check_known_attempt(ledger: Ledger, written: Attempt) -> None:
    attempt = ledger.attempts.get(written.id)
    if attempt is not None:
        lease = ledger.fleet.leases.get(attempt.lease)
        assert lease is not None, f"attempt {attempt.id} belongs to no live lease"
        assert attempt.id in lease.attempts, f"attempt {attempt.id} is not among those of lease {lease.id}"


def _check_known_lease(ledger: Ledger, written: Lease, is_ordered: bool) -> None:
    lease = ledger.fleet.leases.get(written.id)
    if lease is not None:
        assert lease.is_live, f"lease {lease.id} is {lease.state} and still in memory"
        held = ledger.fleet.devices[lease.device].lease
        assert held == lease.id, f"{lease.device} has leases {held} and {lease.id}"
        _check_attempts(ledger, lease, is_ordered)


def _check_known_device(ledger: Ledger, device_id: DeviceId) -> None:
    device = ledger.fleet.devices.get(device_id)
    if device is not None:
        _check_device(ledger, device)
    else:
        is_held = any(lease.device == device_id for lease in ledger.fleet.leases.values())
        assert not is_held, f"{device_id} is forgotten and has a lease"


def _check_jobs(ledger: Ledger) -> None:
    queued, running = dict.fromkeys(ledger.queued, 0), dict.fromkeys(ledger.running, 0)
    for job in ledger.jobs.values():
        _check_job(ledger, job)
        (queued if job.state is JobState.QUEUED else running)[job.spec.lane] += 1
    assert queued == ledger.queued, f"counted {queued}, kept {ledger.queued} waiting jobs"
    assert running == ledger.running, f"counted {running}, kept {ledger.running} running jobs"


def _check_job(ledger: Ledger, job: Job) -> None:
    assert not job.is_terminal, f"job {job.id} is {job.state} and still in memory"
    is_queued = job.state is JobState.QUEUED
    assert is_queued == (job.id in ledger.queues), f"job {job.id} is {job.state}; its queue says otherwise"
    assert is_queued or job.attempt in ledger.attempts, f"job {job.id} is {job.state} without an open attempt"


def _check_leases(ledger: Ledger, is_ordered: bool) -> None:
    held: dict[DeviceId, LeaseId] = {}
    for lease in ledger.fleet.leases.values():
        assert lease.is_live, f"lease {lease.id} is {lease.state} and still in memory"
        assert lease.device not in held, f"{lease.device} has leases {held[lease.device]} and {lease.id}"
        held[lease.device] = lease.id
        _check_attempts(ledger, lease, is_ordered)
    owned = {attempt for lease in ledger.fleet.leases.values() for attempt in lease.attempts}
    assert owned == set(ledger.attempts), "an open attempt belongs to no live lease"


def _check_attempts(ledger: Ledger, lease: Lease, is_ordered: bool) -> None:
    assert len(set(lease.attempts)) == len(lease.attempts), f"lease {lease.id} holds an attempt twice"
    for attempt_id in lease.attempts:
        attempt = ledger.attempts[attempt_id]
        assert attempt.outcome is None, f"attempt {attempt_id} has ended and is still leased"
        assert attempt.lease == lease.id, f"attempt {attempt_id} is of lease {attempt.lease}, not {lease.id}"
        assert ledger.jobs[attempt.job].attempt == attempt_id, f"job {attempt.job} knows another attempt"
    for attempt_id, _ in lease.revoked:
        assert attempt_id in lease.attempts, f"lease {lease.id} takes back attempt {attempt_id} that it does not hold"
    started = [attempt for attempt in lease.attempts if ledger.attempts[attempt].start_us is not None]
    assert len(started) <= 1 or not is_ordered, f"lease {lease.id} runs {len(started)} tests on one device"


def _check_devices(ledger: Ledger) -> None:
    for device in ledger.fleet.devices.values():
        _check_device(ledger, device)


def _check_device(ledger: Ledger, device: Device) -> None:
    lease = ledger.fleet.leases.get(device.lease) if device.lease is not None else None
    is_holding = device.state in _HOLDING or (device.state in _HELD and device.lease is not None)
    assert device.agent in ledger.fleet.agents, f"{device.id} is of {device.agent}, of which nothing is known"
    is_held = ledger.is_held(device)
    assert device.state in (DeviceState.FENCING, DeviceState.OFFLINE) or is_held == (device.state in _HELD), (
        f"{device.id} is {device.state}, and its hold is {device.hold}"
    )
    assert is_holding == (lease is not None), f"{device.id} is {device.state} with lease {device.lease}"
    if lease is not None:
        assert lease.device == device.id, f"{device.id} is said to hold lease {lease.id} of {lease.device}"
        assert lease.fence.number == device.fence_number, f"lease {lease.id} is not the newest of {device.id}"
        assert lease.is_canary or device.state is not DeviceState.QUARANTINED, f"{device.id} works in quarantine"


def _check_families(ledger: Ledger) -> None:
    """Count the devices of each family anew, by lane."""
    fleet = ledger.fleet
    counted: dict[FamilyKey, dict[Lane, int]] = {}
    for lease in fleet.leases.values():
        if lease.state in WORKING and not lease.is_canary:
            devices_in = counted.setdefault(fleet.family_of(lease.id), {})
            for lane in fleet.devices[lease.device].facts.lanes:
                devices_in[lane] = devices_in.get(lane, 0) + 1
    for key, devices_in in counted.items():
        family = ledger.queues.family(key)
        assert family is not None, f"leases work for {key}, of which nothing is known"
        for lane, count in family.devices_in.items():
            assert count == devices_in.get(lane, 0), f"{key} is said to have {count} devices for {lane}"
