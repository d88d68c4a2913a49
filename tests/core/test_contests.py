"""A device that two agents announce: it stays where it is, and nothing else of the second agent suffers for it."""

from __future__ import annotations

from coordinator.core.events import DevicesReported, ReadmitRequested
from coordinator.core.model import AgentId, Device, DeviceConflict, DeviceFacts, DeviceId, DeviceKind, DeviceState
from coordinator.core.step import SendConflicts, Step
from tests.core.lab import AgentOnPaper, Lab, emulator, spec

PHONE = DeviceId("R58")


def phone(model: str = "Pixel 8") -> DeviceFacts:
    return emulator("R58", id=PHONE, kind=DeviceKind.DEVICE, model=model)


def device(lab: Lab) -> Device:
    return lab.scheduler.ledger.fleet.devices[PHONE]


def report(agent: AgentOnPaper, *devices: DeviceFacts) -> Step:
    return agent.lab.handle(DevicesReported(session=agent.session, devices=devices))


def news(lab: Lab, agent: AgentOnPaper) -> tuple[DeviceConflict, ...] | None:
    """What an agent was told last of its conflicts."""
    told = [one for one in lab.sends if isinstance(one, SendConflicts) and one.session == agent.session]
    return told[-1].conflicts if told else None


def test_session_is_accepted_and_the_device_of_another_agent_alone_is_left_out() -> None:
    lab = Lab()
    lab.connect("one", phone())
    two = lab.connect("two", phone(), emulator("emulator-1", "two"))
    assert device(lab).agent == "one"
    assert [one.id for one in lab.scheduler.ledger.fleet.devices_of(AgentId("two"))] == ["emulator-1@two"]
    assert news(lab, two) == (DeviceConflict(device=PHONE, owner=AgentId("one")),)
    lab.submit(spec("a", selector=(("agent", "two"),)), spec("b"), spec("c", app_version_id="other"))
    assert lab.scheduler.ledger.contests.of_device(PHONE) == ("two",)


def test_device_is_taken_over_in_the_turn_in_which_the_first_agent_lets_go() -> None:
    lab = Lab()
    one = lab.connect("one", phone())
    two = lab.connect("two", phone(model="Pixel 9"))
    report(one)
    assert (device(lab).agent, device(lab).state, device(lab).facts.model) == ("two", DeviceState.IDLE, "Pixel 9")
    assert news(lab, two) == ()
    lab.submit(spec())
    assert lab.scheduler.ledger.fleet.leases[lab.lease_on(PHONE).id].agent == "two"


def test_first_agent_that_says_goodbye_or_is_lost_lets_its_idle_device_go() -> None:
    for goodbye in (True, False):
        lab = Lab()
        one = lab.connect("one", phone())
        lab.connect("two", phone())
        one.lose(goodbye=goodbye)
        assert (device(lab).agent, device(lab).state) == ("two", DeviceState.IDLE)


def test_leased_device_is_not_taken_over_before_its_lease_is_known_to_be_over() -> None:
    lab = Lab()
    lab.submit(spec())
    one = lab.connect("one", phone())
    lease = one.adopt(PHONE)
    one.start(lease)
    lab.connect("two", phone())
    report(one)
    assert device(lab).agent == "one", "its test runs still"
    one.lose()
    lab.pass_time(3_600)
    assert (device(lab).agent, device(lab).state) == ("one", DeviceState.FENCING)
    lab.handle(ReadmitRequested(device=PHONE, host_is_gone=True))
    assert device(lab).agent == "two"
    assert lab.jobs_of(lab.lease_on(PHONE)) == [1]


def test_device_of_a_lost_agent_is_taken_over_when_its_next_life_comes_without_it() -> None:
    lab = Lab()
    lab.submit(spec(selector=(("id", PHONE),)))
    one = lab.connect("one", phone())
    one.start(one.adopt(PHONE))
    two = lab.connect("two", phone())
    one.lose()
    lab.pass_time(60)
    lab.connect("one", boot="boot-2")
    assert device(lab).agent == "two"
    assert lab.jobs_of(two.adopt(PHONE)) == [1]


def test_conflict_ends_with_the_session_that_announced_the_device_or_with_its_next_report() -> None:
    lab = Lab()
    one = lab.connect("one", phone())
    two, three = lab.connect("two", phone()), lab.connect("three", phone())
    two.lose()
    report(three)
    assert news(lab, three) == ()
    report(one)
    assert (device(lab).agent, device(lab).state) == ("one", DeviceState.OFFLINE)


def test_third_agent_is_told_who_has_the_device_now() -> None:
    lab = Lab()
    one = lab.connect("one", phone())
    lab.connect("two", phone())
    three = lab.connect("three", phone())
    report(one)
    assert device(lab).agent == "two"
    assert news(lab, three) == (DeviceConflict(device=PHONE, owner=AgentId("two")),)


def test_same_report_again_is_not_told_again_but_each_session_is_told() -> None:
    lab = Lab()
    lab.connect("one", phone())
    two = lab.connect("two", phone())
    lab.sends.clear()
    report(two, phone())
    assert news(lab, two) is None
    again = lab.connect("two", phone())
    assert news(lab, again) == (DeviceConflict(device=PHONE, owner=AgentId("one")),)
