"""Why a job waits: the first constraint that keeps it from a device, in the words of the state that decides.

For people, not for decisions: it may go through devices and through the jobs of a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.lanes import Family, family_of
from coordinator.core.ledger import WORKING, Ledger
from coordinator.core.model import Device, DeviceId, DeviceState, Job, JobId, JobState, Lease, Now


class Why(StrEnum):
    """What keeps a job from running."""

    STARTED = "started"
    ASSIGNED = "assigned"
    NOTHING_MATCHES = "nothing_matches"
    OFFLINE = "offline"
    QUARANTINED = "quarantined"
    QUOTA = "quota"
    JOINS_BATCH = "joins_batch"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job waits. Times are wall time; `ahead` counts jobs of its pool."""

    why: Why
    ahead: int = 0
    matching: int = 0
    """Known devices that could run it, in whatever state."""
    usable: int = 0
    """Those of them that work."""
    device: DeviceId | None = None
    """Where it is, or which device is expected to be free first."""
    blocker: JobId | None = None
    """What runs there."""
    free_us: int | None = None
    """When that device is expected to be free."""
    expected_start_us: int | None = None
    limit: int = 0
    """The quota that is used up."""


UNUSABLE = (DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING)


def explain(ledger: Ledger, job: Job, now: Now) -> Explanation:
    """Return why a job that has not ended does not run."""
    if job.state is JobState.RUNNING:
        return Explanation(why=Why.STARTED, device=job.device)
    if job.state is not JobState.QUEUED:
        return Explanation(why=Why.ASSIGNED, device=job.device)
    key = family_of(job)
    matching = [one for one in ledger.fleet.devices.values() if ledger.fleet.serves(one, key.signature)]
    usable = [one for one in matching if one.state not in UNUSABLE]
    if not usable:
        return Explanation(why=_unusable(matching), matching=len(matching))
    family = ledger.queues.family(key)
    assert family is not None, f"job {job.id} waits in no family"
    ahead, work_us = ledger.queues.ahead_of(job)
    first = min(usable, key=lambda device: (_free_us(ledger, device, now), device.id))
    free_us = _free_us(ledger, first, now)
    return Explanation(
        why=_blocked(ledger, family),
        ahead=ahead,
        matching=len(matching),
        usable=len(usable),
        device=first.id,
        blocker=_running_on(ledger, first),
        free_us=free_us,
        expected_start_us=free_us + work_us // len(usable),
        limit=ledger.shares.quota_of(key.app.org_id),
    )


def _unusable(matching: list[Device]) -> Why:
    if not matching:
        return Why.NOTHING_MATCHES
    is_held = any(one.state in (DeviceState.QUARANTINED, DeviceState.DRAINING) for one in matching)
    return Why.QUARANTINED if is_held else Why.OFFLINE


def _blocked(ledger: Ledger, family: Family) -> Why:
    if family.devices and not ledger.queues.is_offered(family):
        return Why.JOINS_BATCH
    return Why.QUOTA if ledger.shares.is_full(family.key.app.org_id) else Why.BUSY


def _lease_of(ledger: Ledger, device: Device) -> Lease | None:
    return ledger.fleet.leases.get(device.lease) if device.lease is not None else None


def _running_on(ledger: Ledger, device: Device) -> JobId | None:
    lease = _lease_of(ledger, device)
    return ledger.attempts[lease.attempts[0]].job if lease is not None and lease.attempts else None


def _free_us(ledger: Ledger, device: Device, now: Now) -> int:
    """Return when a device is expected to have ended what it was given."""
    lease = _lease_of(ledger, device)
    if lease is None:
        return now.wall_us
    left_us = 0 if lease.state in WORKING else ledger.settings.preempt_grace_us
    for attempt_id in lease.attempts:
        attempt = ledger.attempts[attempt_id]
        ran_us = now.wall_us - attempt.start_us if attempt.start_us is not None else 0
        left_us += max(0, ledger.durations.cautious_us(ledger.jobs[attempt.job].spec) - ran_us)
    return now.wall_us + left_us
