"""Decisions: which family next, on which device, how many jobs at a time, and who makes room. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.core.fleet import Fleet
from coordinator.core.lanes import FamilyKey, Place, Queues, Signature
from coordinator.core.model import (
    SECOND_US,
    AppKey,
    Attempt,
    AttemptId,
    Build,
    Device,
    DeviceKind,
    DeviceState,
    Job,
    JobId,
    Lane,
    Lease,
    LeaseState,
    lane_of,
)

EXPECTED_SPEC_US = 15 * SECOND_US
EXPECTED_INSTALL_US = 10 * SECOND_US
MIN_BATCH_WORK_US = 120 * SECOND_US
INSTALLS_PER_BATCH = 4
"""A batch is filled until its tests are expected to take four installs, and two minutes at least."""

MAX_PREEMPTIONS = 2
URGENT_PRIORITY = 4
PREEMPTIBLE_PRIORITY = 2

_COST_RANK = {DeviceKind.EMULATOR: 0, DeviceKind.DEVICE: 1, DeviceKind.BROWSERSTACK: 2}


def next_family(queues: Queues, fleet: Fleet, device: Device) -> FamilyKey | None:
    """Return the family to run on a device: the earliest head, or one of the same priority whose build it holds."""
    best: tuple[Place, FamilyKey] | None = None
    warm: tuple[Place, FamilyKey] | None = None
    for signature in queues.signatures():
        if not fleet.serves(device, signature):
            continue
        head = queues.head_of_pool(signature)
        if head is not None and (best is None or head[0] < best[0]):
            best = head
        if device.app is not None:
            key = FamilyKey(device.app, signature)
            family_head = queues.head_of_family(key)
            if family_head is not None and (warm is None or family_head[0] < warm[0]):
                warm = (family_head[0], key)
    if best is not None and warm is not None and warm[0][0] == best[0][0]:
        return warm[1]
    return best[1] if best is not None else None


def best_head(queues: Queues, fleet: Fleet, device: Device) -> Place | None:
    """Return the place of the first job that a device could run."""
    heads = (queues.head_of_pool(signature) for signature in queues.signatures() if fleet.serves(device, signature))
    return min((head[0] for head in heads if head is not None), default=None)


def choose_device(fleet: Fleet, signature: Signature, app: AppKey, priority: int) -> Device | None:
    """Return the free device for a family.

    One that holds the build comes first, then the cheaper kind (emulator, phone, paid slot), then the lane's rule:
    high takes the least used, low the most used so that fresh devices stay free, normal the one that is free longest.
    """
    best: Device | None = None
    best_rank: tuple[int, int, int] | None = None
    for device in fleet.idle_devices():
        if not fleet.serves(device, signature):
            continue
        rank = (0 if device.app == app else 1, _COST_RANK[device.facts.kind], _use_rank(device, priority))
        if best_rank is None or rank < best_rank:
            best, best_rank = device, rank
    return best


def _use_rank(device: Device, priority: int) -> int:
    match lane_of(priority):
        case Lane.HIGH:
            return device.busy_us
        case Lane.NORMAL:
            return device.free_us
        case Lane.LOW:
            return -device.busy_us


def batch_size(build: Build | None, most: int) -> int:
    """Return how many jobs a batch holds at a time: enough work to pay for its install, and never more than `most`."""
    install_us = build.mean_install_us if build is not None else EXPECTED_INSTALL_US
    work_us = max(INSTALLS_PER_BATCH * install_us, MIN_BATCH_WORK_US)
    return max(1, min(most, -(-work_us // EXPECTED_SPEC_US)))


def choose_victim(
    fleet: Fleet, signature: Signature, jobs: Mapping[JobId, Job], attempts: Mapping[AttemptId, Attempt]
) -> Lease | None:
    """Return the lease that makes room for urgent work: the lowest priority, then the least lost, then the youngest.

    Only batches whose jobs all have priority 1-2 as submitted, and were preempted less than twice, make room.
    """
    candidates = []
    for lease in fleet.leases.values():
        if lease.state not in (LeaseState.OFFERED, LeaseState.ACTIVE):
            continue
        device = fleet.devices[lease.device]
        if device.state is DeviceState.DRAINING or not fleet.serves(device, signature):
            continue
        held = [jobs[attempts[attempt].job] for attempt in lease.attempts]
        if not held or any(not _is_preemptible(job) for job in held):
            continue
        highest = max(job.spec.priority for job in held)
        preemptions = max(job.preemptions for job in held)
        candidates.append(((highest, preemptions, -lease.grant_us, lease.id), lease))
    return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def _is_preemptible(job: Job) -> bool:
    return job.spec.priority <= PREEMPTIBLE_PRIORITY and job.preemptions < MAX_PREEMPTIONS
