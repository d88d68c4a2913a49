"""`why`, by the state that causes each answer."""

from __future__ import annotations

import pytest

from coordinator.core.events import DevicesReported, HoldRequested
from coordinator.core.explain import Explanation, Why, explain, offline_detail
from coordinator.core.model import SECOND_US, DeviceHold, DeviceId, DeviceKind, JobId, Rules, Settings, Target
from coordinator.core.pools import Miss
from tests.core.lab import START_WALL_US, Lab, emulator, spec

E1 = DeviceId("e1@lab")


def why(lab: Lab, job: int) -> Explanation:
    ledger = lab.scheduler.ledger
    return explain(ledger, ledger.jobs[JobId(job)], lab.now)


def test_nothing_matches() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"))
    lab.submit(spec("a", target=Target.BROWSERSTACK))
    wanted = Miss("target", "browserstack", "emulator")
    assert why(lab, 1) == Explanation(why=Why.NOTHING_MATCHES, device=E1, misses=(wanted,))


def test_nearest_device_is_the_one_that_lacks_least() -> None:
    lab = Lab()
    phone = emulator("p1", kind=DeviceKind.DEVICE, model="Galaxy S24", labels={"rack": "a"})
    lab.connect("lab", emulator("e1"), phone)
    lab.submit(spec("a", target=Target.DEVICE, selector=(("model", "Pixel*"), ("rack", "a"))))
    found = why(lab, 1)
    assert found.device == phone.id
    assert found.misses == (Miss("model", "Pixel*", "Galaxy S24"),)


def test_all_that_match_are_offline() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("e1", is_usable=False),)))
    lab.submit(spec("a"))
    held = ((Why.OFFLINE, 1),)
    assert why(lab, 1) == Explanation(why=Why.OFFLINE, matching=1, held=held, device=E1)


def test_of_several_that_cannot_be_used_the_most_hopeful_is_named_first() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), emulator("e2"), emulator("e3"))
    gone = emulator("e3", is_usable=False, reason="unauthorised")
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("e1"), emulator("e2"), gone)))
    lab.handle(HoldRequested(device=E1, hold=DeviceHold.QUARANTINE, reason="a cracked screen"))
    lab.handle(HoldRequested(device=DeviceId("e2@lab"), hold=DeviceHold.DRAIN))
    lab.submit(spec("a"))
    found = why(lab, 1)
    assert found.held == ((Why.DRAINING, 1), (Why.QUARANTINED, 1), (Why.OFFLINE, 1))
    assert (found.why, found.device) == (Why.DRAINING, "e2@lab")


def test_device_whose_agent_was_lost_in_a_batch_is_fencing() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"), spec("b"))
    agent.start(agent.adopt("e1@lab"))
    agent.lose()
    lab.pass_time(60)
    found = why(lab, 2)
    assert (found.why, found.device, found.detail) == (Why.FENCING, E1, "agent lab is disconnected")


def test_device_of_an_agent_that_has_stopped_is_not_said_to_be_stopping() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    stopping = emulator("e1", is_usable=False, reason="its agent is stopping")
    lab.handle(DevicesReported(session=agent.session, devices=(stopping,)))
    lab.submit(spec("a"))
    assert why(lab, 1).detail == "its agent is stopping"
    agent.lose(goodbye=True)
    assert why(lab, 1).detail == "agent lab is stopped"
    lab.connect("lab", emulator("e2"))
    device = lab.scheduler.ledger.fleet.devices[E1]
    assert offline_detail(lab.scheduler.ledger, device) == "its agent does not see it"


@pytest.mark.parametrize(
    ("hold", "reason"), [(DeviceHold.QUARANTINE, Why.QUARANTINED), (DeviceHold.DRAIN, Why.DRAINING)]
)
def test_all_that_match_are_held_by_an_operator(hold: DeviceHold, reason: Why) -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"))
    lab.handle(HoldRequested(device=E1, hold=hold, reason="a cracked screen"))
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=reason, matching=1, held=((reason, 1),), device=E1, detail="a cracked screen")


def test_all_that_match_are_busy_with_what_and_until_when() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"))
    lease = agent.adopt("e1@lab")
    agent.install(lease)
    agent.start(lease)
    lab.submit(spec("b", app_version_id="b", priority=4))
    lab.submit(spec("c", app_version_id="c"))
    lab.mono_us += 20 * SECOND_US
    found = why(lab, 3)
    assert (found.why, found.device, found.blocker) == (Why.BUSY, E1, 1)
    # A test that nothing is known of takes a minute, nine times of ten.
    assert found.free_us == START_WALL_US + 60 * SECOND_US


def test_organisation_has_all_its_devices() -> None:
    lab = Lab(Settings(rules=Rules(default_quota=1)))
    lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"))
    lab.submit(spec("b", app_version_id="b"))
    found = why(lab, 2)
    assert (found.why, found.limit, found.devices) == (Why.QUOTA, 1, 1)


def test_batch_of_its_own_build_takes_it_next() -> None:
    lab = Lab(Settings(max_batch=1))
    lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"), spec("b"))
    assert why(lab, 2).why is Why.JOINS_BATCH


def test_family_that_rests_is_told_from_one_for_which_no_install_pays() -> None:
    lab = Lab(Settings(max_batch=1, rules=Rules(split_installs=1)))
    lab.submit(*(spec(f"l{number}", app_version_id="large") for number in range(30)))
    last = lab.submit(*(spec(f"s{number}", app_version_id="small") for number in range(5))).job_ids[-1]
    lab.connect("lab", *(emulator(f"e{number}") for number in range(4)))
    assert (why(lab, last).why, why(lab, last).is_resting) == (Why.JOINS_BATCH, True)


def test_job_that_has_a_device_waits_no_more() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=Why.ASSIGNED, device=E1)
    agent.start(agent.adopt("e1@lab"))
    assert why(lab, 1) == Explanation(why=Why.RUNNING, device=E1)


def test_job_of_a_batch_waits_for_those_before_it() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"), spec("b"), spec("c"))
    agent.start(agent.adopt("e1@lab"))
    assert why(lab, 3) == Explanation(why=Why.ASSIGNED, device=E1, before=2, blocker=JobId(1))
