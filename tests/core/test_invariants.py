"""The check of what was just written notices what the check of the whole would, where that is among the writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from coordinator.core import invariants
from coordinator.core.events import JobsSubmitted
from coordinator.core.ledger import Ledger
from coordinator.core.model import AttemptId, DeviceId, DeviceState, JobId, LeaseId, LeaseState
from coordinator.core.step import Write
from tests.core.lab import Lab, spec


def written() -> tuple[Ledger, tuple[Write, ...]]:
    """Return a state with job 1 on a device and job 2 behind it, and the writes that have led to it."""
    lab = Lab()
    lab.connect()
    specs = (spec(), spec(app_version_id="another"))
    step = lab.handle(JobsSubmitted(org_id="qualgent", key="key", payload_sha256="p", specs=specs))
    return lab.scheduler.ledger, step.writes


def test_sound_state_passes() -> None:
    invariants.check_written(*written())


def lose_the_attempt(ledger: Ledger) -> None:
    del ledger.attempts[AttemptId(1)]


def forget_the_queued_job(ledger: Ledger) -> None:
    del ledger.jobs[JobId(2)]


def miscount(ledger: Ledger) -> None:
    lane = next(lane for lane, waiting in ledger.queued.items() if waiting)
    ledger.queued[lane] += 1


def lose_the_lease(ledger: Ledger) -> None:
    del ledger.fleet.leases[LeaseId(1)]


def keep_an_ended_lease(ledger: Ledger) -> None:
    lease = ledger.fleet.leases[LeaseId(1)]
    ledger.fleet.leases[lease.id] = replace(lease, state=LeaseState.RELEASED)


def free_the_device(ledger: Ledger) -> None:
    device = ledger.fleet.devices[DeviceId("emulator-1@lab")]
    ledger.fleet.devices[device.id] = replace(device, state=DeviceState.IDLE, lease=None)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lose_the_attempt, "without an open attempt"),
        (forget_the_queued_job, "is forgotten and waits"),
        (miscount, "jobs are counted"),
        (lose_the_lease, "is reserved with lease 1"),
        (keep_an_ended_lease, "still in memory"),
        (free_the_device, "has leases None and 1"),
    ],
)
def test_damage_to_what_was_written_is_noticed(damage: Callable[[Ledger], None], told: str) -> None:
    ledger, writes = written()
    damage(ledger)
    with pytest.raises(AssertionError, match=told):
        invariants.check_written(ledger, writes)
