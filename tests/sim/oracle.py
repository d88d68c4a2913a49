"""I7: who should have got a device, by looking at every waiting job. It knows nothing of the scheduler's indexes.

Documented exceptions to the order by priority: among jobs of one priority a device goes on with the build that it
holds, and a batch takes jobs of its own family along.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from coordinator.core.model import AppKey, Device, DeviceFacts, DeviceKind, DeviceState, Job, JobState, Lease, Target
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


def order_is_kept(scene: Scene, _step: Committed, write: Write) -> Iterator[str]:
    """I7: no eligible job of higher priority waits when a device is granted, nor an older one of the same priority."""
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    added = _added(scene.records, write.lease)
    if not added:
        return
    device = scene.records.devices[write.lease.device]
    waiting = [
        job
        for job in scene.records.jobs.values()
        if job.state is JobState.QUEUED and is_eligible(scene.records, device, job)
    ]
    if not waiting:
        return
    given, passed_over = min(map(_rank, added)), min(map(_rank, waiting))
    is_warm = device.app == write.lease.app and given[0] == passed_over[0]
    if passed_over < given and not is_warm:
        yield f"I7: {device.id} is given job {given[2]}, and job {passed_over[2]} comes first"
    last = max(map(_rank, added))
    for job in waiting:
        if _is_family(job, added[0]) and _rank(job) < last:
            yield f"I7: {device.id} is given job {last[2]}, and job {job.id} of the same family comes first"


def _rank(job: Job) -> tuple[int, int, int]:
    """Return (how low its priority is, whether it is new, its age): those that were given back come before new ones."""
    return (-job.spec.priority, 0 if job.attempt_count > (job.state is not JobState.QUEUED) else 1, job.sequence)


def _added(records: Records, lease: Lease) -> list[Job]:
    before = records.leases.get(lease.id)
    old = before.attempts if before is not None else ()
    return [records.jobs[records.attempts[attempt].job] for attempt in lease.attempts if attempt not in old]


def _is_family(job: Job, other: Job) -> bool:
    return _family(job) == _family(other)


def _family(job: Job) -> tuple[AppKey, object, object, object]:
    app = AppKey(org_id=job.spec.org_id, app_version_id=job.spec.app_version_id)
    return (app, job.spec.target, job.spec.selector, job.avoid)


def is_eligible(records: Records, device: Device, job: Job) -> bool:
    """Whether a device may run a job; one that failed it is avoided while another could take its place."""
    if not _matches(device.facts, job):
        return False
    if device.id not in job.avoid:
        return True
    return not any(
        other.id not in job.avoid
        and other.state not in (DeviceState.OFFLINE, DeviceState.QUARANTINED)
        and _matches(other.facts, job)
        for other in records.devices.values()
    )


def _matches(facts: DeviceFacts, job: Job) -> bool:
    if facts.kind not in KINDS[job.spec.target]:
        return False
    return all(name == "model" and fnmatch.fnmatch(facts.model.lower(), want) for name, want in job.spec.selector)
