"""`why`, by the state that causes each answer."""

from __future__ import annotations

import pytest

from coordinator.core.events import DevicesReported, HoldRequested
from coordinator.core.explain import Explanation, Why, explain
from coordinator.core.model import SECOND_US, DeviceHold, DeviceId, JobId, Rules, Settings, Target
from tests.core.lab import START_WALL_US, Lab, emulator, spec

E1 = DeviceId("e1@lab")


def why(lab: Lab, job: int) -> Explanation:
    ledger = lab.scheduler.ledger
    return explain(ledger, ledger.jobs[JobId(job)], lab.now)


def test_nothing_matches() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"))
    lab.submit(spec("a", target=Target.BROWSERSTACK))
    assert why(lab, 1) == Explanation(why=Why.NOTHING_MATCHES)


def test_all_that_match_are_offline() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("e1", is_usable=False),)))
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=Why.OFFLINE, matching=1)


@pytest.mark.parametrize("hold", [DeviceHold.QUARANTINE, DeviceHold.DRAIN])
def test_all_that_match_are_held_by_an_operator(hold: DeviceHold) -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"))
    lab.handle(HoldRequested(device=E1, hold=hold))
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=Why.QUARANTINED, matching=1)


def test_all_that_match_are_busy_with_what_until_when_and_how_many_come_before() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"))
    agent.start(agent.adopt("e1@lab"))
    lab.submit(spec("b", app_version_id="b", priority=4))
    lab.submit(spec("c", app_version_id="c"))
    lab.mono_us += 20 * SECOND_US
    found = why(lab, 3)
    assert (found.why, found.device, found.blocker, found.ahead) == (Why.BUSY, E1, 1, 1)
    # A test that nothing is known of takes a minute, nine times of ten; the job before it half a minute.
    assert found.free_us == START_WALL_US + 60 * SECOND_US
    assert found.expected_start_us == START_WALL_US + 90 * SECOND_US


def test_organisation_has_all_its_devices() -> None:
    lab = Lab(Settings(rules=Rules(default_quota=1)))
    lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"))
    lab.submit(spec("b", app_version_id="b"))
    found = why(lab, 2)
    assert (found.why, found.limit) == (Why.QUOTA, 1)


def test_batch_of_its_own_build_takes_it_next() -> None:
    lab = Lab(Settings(max_batch=1))
    lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"), spec("b"))
    assert why(lab, 2).why is Why.JOINS_BATCH


def test_job_that_has_a_device_waits_no_more() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=Why.ASSIGNED, device=E1)
    agent.start(agent.adopt("e1@lab"))
    assert why(lab, 1) == Explanation(why=Why.STARTED, device=E1)
