"""What must hold between any two steps. Called by tests and simulations: a broken one is a bug of ours."""

from __future__ import annotations

from collections import Counter

from coordinator.core.ledger import WORKING, Ledger
from coordinator.core.model import DeviceId, DeviceState, JobState, Lease, LeaseId

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


def _check_jobs(ledger: Ledger) -> None:
    queued, running = dict.fromkeys(ledger.queued, 0), dict.fromkeys(ledger.running, 0)
    for job in ledger.jobs.values():
        assert not job.is_terminal, f"job {job.id} is {job.state} and still in memory"
        is_queued = job.state is JobState.QUEUED
        assert is_queued == (job.id in ledger.queues), f"job {job.id} is {job.state}; its queue says otherwise"
        if is_queued:
            queued[job.spec.lane] += 1
        else:
            running[job.spec.lane] += 1
            assert job.attempt in ledger.attempts, f"job {job.id} is {job.state} without an open attempt"
    assert queued == ledger.queued, f"counted {queued}, kept {ledger.queued} waiting jobs"
    assert running == ledger.running, f"counted {running}, kept {ledger.running} running jobs"


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
        lease = ledger.fleet.leases.get(device.lease) if device.lease is not None else None
        is_holding = device.state in _HOLDING or (device.state in _HELD and device.lease is not None)
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
    working = [lease for lease in ledger.fleet.leases.values() if lease.state in WORKING and not lease.is_canary]
    expected = Counter(
        (ledger.fleet.family_of(lease.id), lane)
        for lease in working
        for lane in ledger.fleet.devices[lease.device].facts.lanes
    )
    for lease in working:
        family = ledger.queues.family(ledger.fleet.family_of(lease.id))
        assert family is not None, f"lease {lease.id} works for no family"
        for lane, count in family.devices_in.items():
            assert count == expected[family.key, lane], f"{family.key} is said to have {count} devices for {lane}"
