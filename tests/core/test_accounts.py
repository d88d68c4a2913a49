"""Agents that share an account of a cloud share its sessions, and leave room for whoever else uses it."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.events import DevicesReported
from coordinator.core.explain import Why, explain
from coordinator.core.model import (
    SECOND_US,
    Account,
    AgentId,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    DeviceState,
    JobState,
    Target,
)
from tests.core.lab import AgentOnPaper, Lab, emulator, spec
from tests.core.test_restart import RestartingLab

TWO = Account(name="lab_user@cloud", sessions=2)


def slots(agent: str, count: int, account: Account = TWO) -> tuple[DeviceFacts, ...]:
    return tuple(
        DeviceFacts(
            id=DeviceId(f"slot-{number}@{agent}"),
            kind=DeviceKind.BROWSERSTACK,
            model="*",
            os_version="*",
            udid=f"slot-{number}",
            account=account,
        )
        for number in range(1, count + 1)
    )


def report(lab: Lab, agent: AgentOnPaper, devices: tuple[DeviceFacts, ...]) -> None:
    lab.handle(DevicesReported(session=agent.session, devices=devices))


def submit(lab: Lab, *apps: str) -> None:
    """Submit a job of each build: they share no batch."""
    for app in apps:
        lab.submit(spec("a", app_version_id=app, target=Target.BROWSERSTACK))


def states(lab: Lab) -> dict[str, str]:
    return {str(one.id): str(one.state) for one in lab.scheduler.ledger.fleet.devices.values()}


def leased(lab: Lab) -> list[str]:
    return sorted(device.id for device in lab.scheduler.ledger.fleet.devices.values() if device.lease is not None)


def test_two_agents_on_one_account_never_have_more_leases_than_it_has_sessions() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 2))
    lab.connect("two", *slots("two", 2))
    submit(lab, "a", "b", "c", "d")
    assert len(leased(lab)) == 2
    assert sorted(states(lab).values()) == ["offline", "offline", "reserved", "reserved"]


def test_slot_is_back_as_soon_as_a_lease_of_the_other_agent_has_ended() -> None:
    lab = Lab()
    one = lab.connect("one", *slots("one", 2))
    submit(lab, "a", "b")
    lab.connect("two", *slots("two", 2))
    submit(lab, "c")
    assert leased(lab) == ["slot-1@one", "slot-2@one"]
    lease = one.adopt("slot-1@one")
    one.install(lease)
    one.run(lease)
    assert len(leased(lab)) == 2
    assert lab.job(3).state is JobState.ASSIGNED


def test_sessions_of_strangers_take_room_and_give_it_back() -> None:
    lab = Lab()
    agent = lab.connect("one", *slots("one", 2, replace(TWO, others=2)))
    submit(lab, "a", "b")
    assert leased(lab) == []
    report(lab, agent, slots("one", 2, replace(TWO, others=1)))
    assert len(leased(lab)) == 1
    report(lab, agent, slots("one", 2))
    assert len(leased(lab)) == 2


def test_sessions_of_the_other_agent_are_no_strangers() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 1))
    submit(lab, "a")
    assert leased(lab) == ["slot-1@one"]
    lab.connect("two", *slots("two", 1, replace(TWO, others=1)))
    submit(lab, "b")
    assert leased(lab) == ["slot-1@one", "slot-1@two"]


def test_what_an_agent_saw_before_it_went_away_counts_no_more() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 1))
    gone = lab.connect("two", *slots("two", 1, replace(TWO, others=2)))
    submit(lab, "a")
    assert leased(lab) == []
    gone.lose(goodbye=True)
    assert leased(lab) == ["slot-1@one"]


def test_lease_of_an_agent_that_is_away_still_counts() -> None:
    lab = Lab()
    away = lab.connect("one", *slots("one", 2))
    submit(lab, "a", "b")
    away.lose()
    lab.connect("two", *slots("two", 2))
    submit(lab, "c")
    assert leased(lab) == ["slot-1@one", "slot-2@one"]


def test_lease_of_an_agent_that_is_away_still_counts_after_a_restart() -> None:
    lab = RestartingLab()
    lab.connect("one", *slots("one", 2))
    submit(lab, "a", "b")
    lab.restart()
    submit(lab, "c")
    lab.connect("two", *slots("two", 2))
    assert leased(lab) == ["slot-1@one", "slot-2@one"]


def test_account_of_which_nobody_has_told_since_a_restart_gives_no_slot_and_takes_none() -> None:
    lab = RestartingLab()
    lab.connect("one", *slots("one", 1))
    lab.restart()
    submit(lab, "a")
    assert leased(lab) == []
    lab.connect("one", *slots("one", 1))
    assert leased(lab) == ["slot-1@one"]


def test_plan_that_shrinks_ends_no_lease_and_gives_no_new_one() -> None:
    lab = Lab()
    agent = lab.connect("one", *slots("one", 2))
    submit(lab, "a", "b", "c")
    report(lab, agent, slots("one", 2, replace(TWO, sessions=1)))
    assert len(leased(lab)) == 2
    lease = agent.adopt("slot-1@one")
    agent.install(lease)
    agent.run(lease)
    assert leased(lab) == ["slot-2@one"]


def test_other_accounts_and_devices_of_the_lab_are_left_alone() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 1, replace(TWO, others=2)))
    lab.connect("two", *slots("two", 1, Account(name="another", sessions=1)), emulator("e1", "two"))
    submit(lab, "a")
    assert leased(lab) == ["slot-1@two"]
    assert states(lab)["e1@two"] == DeviceState.IDLE


def test_draining_slot_stays_draining_while_its_account_is_full() -> None:
    lab = Lab()
    agent = lab.connect("one", *slots("one", 2))
    lab.scheduler.ledger.fleet.agents[AgentId("one")] = replace(
        lab.scheduler.ledger.fleet.agents[AgentId("one")], is_draining=True
    )
    report(lab, agent, slots("one", 2, replace(TWO, others=2)))
    assert set(states(lab).values()) == {"draining"}


def test_why_names_the_account_and_who_uses_it() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 1, replace(TWO, others=2)))
    submit(lab, "a")
    lab.mono_us += SECOND_US
    found = explain(lab.scheduler.ledger, lab.job(1), lab.now)
    assert (found.why, found.device) == (Why.ACCOUNT_FULL, "slot-1@one")
    assert found.detail == "no session left: 0 of 2 are used by this lab, 2 by others (lab_user@cloud)"


def test_selector_of_model_and_version_fits_every_slot() -> None:
    lab = Lab()
    lab.connect("one", *slots("one", 1))
    lab.submit(spec("a", target=Target.BROWSERSTACK, selector=(("model", "*Galaxy*"), ("os_version", "13"))))
    lab.submit(spec("b", target=Target.BROWSERSTACK, selector=(("platform", "ios"),)))
    assert lab.jobs_of(lab.lease_on("slot-1@one")) == [1]


def test_slot_of_a_full_account_stays_its_agents_whoever_else_announces_it() -> None:
    lab = Lab()
    agents = {name: lab.connect(name, *slots(name, 2)) for name in ("one", "two")}
    submit(lab, "a", "b")
    devices = lab.scheduler.ledger.fleet.devices
    idle = next(one for one in devices.values() if one.state is DeviceState.OFFLINE)
    other = "two" if idle.agent == "one" else "one"
    report(lab, agents[other], (*slots(other, 2), idle.facts))
    assert devices[idle.id].agent == idle.agent
