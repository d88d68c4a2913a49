"""One event costs little, however many families or devices it concerns."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator.core.dispatch import MOST_GROWN, Dispatcher
from coordinator.core.families import Family, FamilyKey, family_of
from coordinator.core.heads import MOST_RISES
from coordinator.core.model import SECOND_US, Device, DeviceId, JobId, Lease, Rules, Settings
from coordinator.core.policy import Choice, Policy
from tests.core.lab import Lab, emulator, spec

AGE_S = 60
DEVICES = 12


def crowd_of_families() -> Lab:
    """Return a lab in which so many families wait that the rise of all takes three turns."""
    lab = Lab(Settings(rules=Rules(age_us=AGE_S * SECOND_US)))
    lab.submit(*(spec("t", app_version_id=f"b{number}", priority=1) for number in range(2 * MOST_RISES + 10)))
    return lab


def risen(lab: Lab) -> int:
    """Return how many families stand higher than they were submitted."""
    queues = lab.scheduler.ledger.queues
    families = [queues.family(family_of(job)) for job in lab.scheduler.ledger.jobs.values()]
    return Counter(family.buckets[1].level for family in families if family is not None)[2]


def test_heads_that_were_submitted_together_rise_a_few_in_each_turn() -> None:
    lab = crowd_of_families()
    lab.mono_us += AGE_S * SECOND_US
    found = []
    while lab.scheduler.next_deadline() == lab.mono_us:
        lab.expire()
        found.append(risen(lab))
    assert found == [MOST_RISES, 2 * MOST_RISES, 2 * MOST_RISES + 10]


def test_events_of_one_turn_let_no_more_heads_rise_than_one_of_them() -> None:
    lab = crowd_of_families()
    lab.mono_us += AGE_S * SECOND_US
    for job_id in (1, 2, 3):
        lab.cancel(JobId(job_id))
    assert risen(lab) <= MOST_RISES
    lab.expire()
    assert MOST_RISES < risen(lab) <= 2 * MOST_RISES


def test_heads_that_rise_at_the_end_of_a_turn_are_looked_at_in_that_turn() -> None:
    lab = crowd_of_families()
    lab.mono_us += AGE_S * SECOND_US
    lab.cancel(JobId(1))
    lab.expire()
    assert not lab.scheduler.ledger.queues.heads.touched, "and the next turn may be an hour away"


def test_device_takes_the_first_of_those_that_have_risen_and_then_the_others() -> None:
    lab = crowd_of_families()
    lab.mono_us += AGE_S * SECOND_US
    lab.expire()
    lab.submit(spec("young", app_version_id="young", priority=2))
    lab.connect("lab", emulator("e1"))
    assert lab.lease_on("e1@lab").app.app_version_id == "b0"


def test_job_that_joins_full_batches_of_many_devices_costs_no_look_at_what_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[str] = []
    next_family = Policy.next_family

    def counted(
        policy: Policy, device: Device, wall_us: int, *, current: FamilyKey | None, at_work_us: int
    ) -> Choice | None:
        looks.append(device.id)
        return next_family(policy, device, wall_us, current=current, at_work_us=at_work_us)

    lab = Lab()
    lab.submit(*(spec(f"t{number}") for number in range(20 * DEVICES)))
    agent = lab.connect("lab", *(emulator(f"e{number}") for number in range(DEVICES)))
    at_work = [device.id for device in lab.scheduler.ledger.fleet.devices.values() if device.lease is not None]
    assert len(at_work) > DEVICES // 2
    for device in at_work:
        agent.start(agent.adopt(device))
    lab.submit(spec("fills the batch whose test began last"))
    monkeypatch.setattr(Policy, "next_family", counted)
    lab.submit(spec("one more"))
    assert looks == []


def test_job_that_joins_a_family_on_many_devices_is_offered_to_a_few_of_them_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[DeviceId] = []

    def counted(_: Dispatcher, lease: Lease, family: Family) -> bool:
        looks.append(lease.device)
        return False

    devices = MOST_GROWN + 6
    lab = Lab()
    lab.submit(*(spec(f"t{number}") for number in range(10 * devices)))
    agent = lab.connect("lab", *(emulator(f"e{number}") for number in range(devices)))
    at_work = [device.id for device in lab.scheduler.ledger.fleet.devices.values() if device.lease is not None]
    assert len(at_work) == devices
    for device in at_work:
        agent.adopt(device)
    monkeypatch.setattr(Dispatcher, "_has_room", counted)
    lab.submit(spec("one more"))
    assert len(set(looks)) == len(looks) == MOST_GROWN
    lab.submit(spec("and another"))
    assert len(looks) == 2 * MOST_GROWN
    assert set(looks) == set(at_work)


def test_job_that_joins_a_batch_with_room_is_given_to_it_at_once() -> None:
    lab = Lab()
    lab.submit(spec("a"))
    agent = lab.connect("lab", emulator("e1"))
    agent.start(agent.adopt("e1@lab"))
    lab.submit(spec("b"))
    assert len(lab.lease_on("e1@lab").attempts) == 2
