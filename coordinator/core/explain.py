"""Why a job waits: the first constraint that keeps it from a device, in the words of the state that decides.

For people, not for decisions: it goes through all devices, though what they share with their sort is looked at once.
When the job is expected to start is a matter of `forecast`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.families import Signature, family_of
from coordinator.core.forecast import free_us, lease_of
from coordinator.core.ledger import Ledger
from coordinator.core.model import AgentState, Device, DeviceId, DeviceState, Job, JobId, JobState, Now, Upload
from coordinator.core.pools import Miss


class Why(StrEnum):
    """What keeps a job from running."""

    RUNNING = "running"
    ASSIGNED = "assigned"
    NOTHING_MATCHES = "nothing_matches"
    OFFLINE = "offline"
    ACCOUNT_FULL = "account_full"
    QUARANTINED = "quarantined"
    DRAINING = "draining"
    FENCING = "fencing"
    OTHER_LANES = "other_lanes"
    OTHER_ORGS = "other_orgs"
    QUOTA = "quota"
    JOINS_BATCH = "joins_batch"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job waits, or where it is. Times are wall time."""

    why: Why
    before: int = 0
    """Jobs that its device was given before it and has not ended."""
    matching: int = 0
    """Known devices that could run it, in whatever state."""
    usable: int = 0
    """Those of them that work."""
    held: tuple[tuple[Why, int], ...] = ()
    """What keeps the matching devices from it where none of them works, the most hopeful first."""
    device: DeviceId | None = None
    """Where it is; or which device is nearest: to be free, to be usable, or to match."""
    misses: tuple[Miss, ...] = ()
    """What the nearest device lacks where none matches."""
    detail: str = ""
    """What its agent or an operator says of the nearest device where none works, or of the one where it runs."""
    blocker: JobId | None = None
    """What runs on the nearest device."""
    free_us: int | None = None
    """When that device is expected to be free."""
    is_resting: bool = False
    """Whether a device works for its build, and the other builds that wait for its devices have more before them."""
    limit: int = 0
    """The quota of its organisation, 0 for none."""
    devices: int = 0
    """Devices that its organisation has."""
    upload: Upload | None = None
    """What its batch, or the one that it would join, waits for at a cloud."""


_HELD = {
    DeviceState.FENCING: Why.FENCING,
    DeviceState.DRAINING: Why.DRAINING,
    DeviceState.QUARANTINED: Why.QUARANTINED,
    DeviceState.OFFLINE: Why.OFFLINE,
}
"""Why a device that matches is not to be had, the most hopeful first."""
_KEPT = (Why.OTHER_LANES, Why.OTHER_ORGS)
"""What keeps a device from some jobs for good."""
MOST_SHOWN = 5
"""Lanes or organisations that are named in a sentence."""


def explain(ledger: Ledger, job: Job, now: Now) -> Explanation:
    """Return why a job that has not ended does not run."""
    if job.state is JobState.RUNNING:
        return Explanation(why=Why.RUNNING, device=job.device, detail=_kept_there(ledger, job))
    if job.state is not JobState.QUEUED:
        return _assigned(ledger, job)
    signature = family_of(job).signature
    matching = ledger.fleet.pools.matching(signature)
    if not matching:
        return _unmatched(ledger, signature)
    usable = [one for one in matching if _held_by(ledger, one, job) is None]
    return _waiting(ledger, job, matching, usable, now) if usable else _unusable(ledger, job, matching)


def _kept_there(ledger: Ledger, job: Job) -> str:
    """Return what keeps a test that runs from going on, as far as its agent knows."""
    device = ledger.fleet.devices.get(job.device) if job.device is not None else None
    return device.facts.reason if device is not None and device.facts.is_usable else ""


def _held_by(ledger: Ledger, device: Device, job: Job) -> Why | None:
    """Return why a device that matches is not to be had for a job, None if it is."""
    if device.facts.orgs and job.spec.org_id not in device.facts.orgs:
        return Why.OTHER_ORGS
    if job.spec.lane not in device.facts.lanes:
        return Why.OTHER_LANES
    if device.state is DeviceState.OFFLINE and _waits_for_account(ledger, device):
        return Why.ACCOUNT_FULL
    return _HELD.get(device.state)


def _waits_for_account(ledger: Ledger, device: Device) -> bool:
    is_there = device.facts.is_usable and ledger.fleet.session_of(device.agent) is not None
    return is_there and ledger.fleet.accounts.is_full(device)


def offline_detail(ledger: Ledger, device: Device) -> str:
    """Return why a device is offline; empty for one that is not.

    What an agent that has gone said of its device last is past: that it was stopping, or how the device was then.
    """
    if device.state is not DeviceState.OFFLINE:
        return ""
    agent = ledger.fleet.agents[device.agent]
    if agent.state is not AgentState.CONNECTED:
        return f"agent {agent.id} is {agent.state}"
    return _account_detail(ledger, device) or device.facts.reason


def _account_detail(ledger: Ledger, device: Device) -> str:
    """Return why a slot of a cloud can have no session now; empty if that is not what keeps it."""
    account = device.facts.account
    if account is None or not _waits_for_account(ledger, device):
        return ""
    ours, others = ledger.fleet.accounts.used(account.name)
    most = ledger.fleet.accounts.most(account.name)
    return f"no session left: {ours} of {most} are used by this lab, {others} by others ({account.name})"


def _assigned(ledger: Ledger, job: Job) -> Explanation:
    """Say what the device does before it comes to the job."""
    assert job.attempt is not None, f"job {job.id} is {job.state} without an attempt"
    lease = ledger.fleet.leases[ledger.attempts[job.attempt].lease]
    before = lease.attempts[: lease.attempts.index(job.attempt)]
    return Explanation(
        why=Why.ASSIGNED,
        before=len(before),
        device=job.device,
        blocker=ledger.attempts[before[0]].job if before else None,
        upload=ledger.uploads.awaited_on(lease.device),
    )


def _unmatched(ledger: Ledger, signature: Signature) -> Explanation:
    nearest = ledger.fleet.pools.nearest(signature)
    if nearest is None:
        return Explanation(why=Why.NOTHING_MATCHES)
    device, misses = nearest
    return Explanation(why=Why.NOTHING_MATCHES, device=device.id, misses=misses)


def _unusable(ledger: Ledger, job: Job, matching: list[Device]) -> Explanation:
    held_by = {device.id: why for device in matching if (why := _held_by(ledger, device, job)) is not None}
    counts = Counter(held_by.values())
    held = tuple((why, counts[why]) for why in (Why.ACCOUNT_FULL, *_HELD.values(), *_KEPT) if counts[why])
    nearest = min((one for one in matching if held_by[one.id] is held[0][0]), key=lambda one: one.id)
    return Explanation(
        why=held[0][0],
        matching=len(matching),
        held=held,
        device=nearest.id,
        detail=_kept_for(nearest, held[0][0]) if held[0][0] in _KEPT else _detail(ledger, nearest),
    )


def _kept_for(device: Device, why: Why) -> str:
    kept = device.facts.lanes if why is Why.OTHER_LANES else device.facts.orgs
    shown = [*kept[:MOST_SHOWN], *(["others"] if len(kept) > MOST_SHOWN else [])]
    return f"agent {device.agent} serves {' and '.join(shown)}"


def _detail(ledger: Ledger, device: Device) -> str:
    agent = ledger.fleet.agents[device.agent]
    match device.state:
        case DeviceState.OFFLINE:
            return offline_detail(ledger, device)
        case DeviceState.FENCING:
            return f"agent {agent.id} is {agent.state}"
        case _:
            return device.hold_reason or (f"agent {agent.id} is drained" if agent.is_draining else "")


def _waiting(ledger: Ledger, job: Job, matching: list[Device], usable: list[Device], now: Now) -> Explanation:
    first = min(usable, key=lambda device: (free_us(ledger, device, now), device.id))
    return Explanation(
        why=_blocked(ledger, job),
        matching=len(matching),
        usable=len(usable),
        device=first.id,
        blocker=_running_on(ledger, first),
        free_us=free_us(ledger, first, now),
        is_resting=ledger.queues.is_resting(job),
        limit=ledger.shares.quota_of(job.spec.org_id),
        devices=ledger.shares.devices_of(job.spec.org_id),
        upload=_awaited(ledger, job, usable),
    )


def _awaited(ledger: Ledger, job: Job, devices: list[Device]) -> Upload | None:
    """Return the upload that a device waits for which works for the build of a job."""
    working = (one for one in devices if (lease := lease_of(ledger, one)) is not None and lease.app == job.app)
    found = (ledger.uploads.awaited_on(one.id) for one in working)
    return next((upload for upload in found if upload is not None), None)


def _blocked(ledger: Ledger, job: Job) -> Why:
    if not ledger.queues.is_offered(job):
        return Why.JOINS_BATCH
    return Why.QUOTA if ledger.shares.is_full(job.spec.org_id) else Why.BUSY


def _running_on(ledger: Ledger, device: Device) -> JobId | None:
    lease = lease_of(ledger, device)
    return ledger.attempts[lease.attempts[0]].job if lease is not None and lease.attempts else None
