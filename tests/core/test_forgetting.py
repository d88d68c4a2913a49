"""Operators forget an agent that never comes back: nothing of it is left but what it has done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.errors import InvalidTransition, NotFound
from coordinator.core.events import AgentForgetRequested, HoldRequested, ReadmitRequested, UploadClaim, UploadsClaimed
from coordinator.core.explain import Explanation, Why, explain
from coordinator.core.model import (
    AgentId,
    AttemptOutcome,
    Blame,
    Device,
    DeviceHold,
    DeviceId,
    DeviceState,
    Failure,
    JobId,
    JobState,
    UploadKey,
)
from coordinator.core.step import DropAgent, DropDevice, Step
from tests.core.lab import AgentOnPaper, Lab, closes, emulator, snapshots, spec
from tests.core.test_accounts import TWO, slots
from tests.core.test_contests import PHONE, phone
from tests.core.test_restart import RestartingLab

E1, E2 = "emulator-1@lab", "emulator-2@lab"
FORGET = AgentForgetRequested(agent=AgentId("lab"))
GONE = Failure(reason="DEVICE_LOST", message="the phone went away", blame=Blame.DEVICE)


def lab_with_two() -> tuple[RestartingLab, AgentOnPaper]:
    lab = RestartingLab()
    return lab, lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))


def device(lab: Lab, name: str = E1) -> Device:
    return lab.scheduler.ledger.fleet.devices[DeviceId(name)]


def why(lab: Lab, job: int) -> Explanation:
    return explain(lab.scheduler.ledger, lab.scheduler.ledger.jobs[JobId(job)], lab.now)


def refusal(lab: Lab) -> str:
    with pytest.raises(InvalidTransition) as refused:
        lab.handle(FORGET)
    assert lab.scheduler.ledger.take_step() == Step(), "a refusal has left writes behind"
    return str(refused.value)


# What is refused


def test_agent_that_nobody_knows_cannot_be_forgotten() -> None:
    with pytest.raises(NotFound, match="there is no agent lab"):
        Lab().handle(FORGET)


def test_connected_agent_is_to_be_stopped_first() -> None:
    lab, _agent = lab_with_two()
    assert refusal(lab) == "agent lab is connected from mac-mini; stop it, and then forget it"


def test_agent_that_may_still_run_tests_is_refused_until_its_leases_have_ended() -> None:
    lab, agent = lab_with_two()
    lab.submit(spec("a"), spec("b", app_version_id="other"))
    agent.start(agent.adopt(E1))
    lab.pass_time(3)
    agent.lose()
    lab.pass_time(2)
    assert "may still run tests on emulator-" in refusal(lab)
    assert "@lab and 1 more; the last of its leases ends in 25 s at most: try again then" in refusal(lab)


def test_device_that_is_fencing_is_refused_until_the_operator_says_that_its_host_is_gone() -> None:
    lab, agent = lab_with_two()
    lab.submit(spec("a"))
    agent.start(agent.adopt(E1))
    agent.lose()
    lab.pass_time(31)
    assert device(lab).state is DeviceState.FENCING
    assert refusal(lab) == (
        "agent lab has not confirmed that nothing runs any more on emulator-1@lab;"
        " if its host is gone for good: qgjob devices readmit emulator-1@lab --gone"
    )
    lab.handle(ReadmitRequested(device=DeviceId(E1), host_is_gone=True))
    lab.handle(FORGET)
    assert lab.scheduler.ledger.fleet.devices == {}


# What is gone


@pytest.mark.parametrize("goodbye", [True, False])
def test_agent_and_its_devices_are_gone_and_stay_so_after_a_restart(goodbye: bool) -> None:
    lab, agent = lab_with_two()
    lab.connect("other", emulator("emulator-1", "other"))
    agent.lose(goodbye=goodbye)
    step = lab.handle(FORGET)
    assert step == Step(writes=(DropDevice(DeviceId(E1)), DropDevice(DeviceId(E2)), DropAgent(AgentId("lab"))))
    for _ in range(2):
        fleet = lab.scheduler.ledger.fleet
        assert (list(fleet.agents), list(fleet.devices)) == (["other"], ["emulator-1@other"])
        assert fleet.devices_of(AgentId("lab")) == []
        lab.restart()
    with pytest.raises(NotFound):
        lab.handle(FORGET)


def test_ended_job_keeps_the_names_of_what_was_forgotten() -> None:
    lab, agent = lab_with_two()
    lab.submit(spec("a"))
    lease = agent.adopt(E1)
    agent.run(lease)
    agent.lose(goodbye=True)
    lab.handle(FORGET)
    (attempt,) = lab.records.attempts.values()
    assert (lab.job(1).state, lab.job(1).device) == (JobState.COMPLETED, E1)
    assert (attempt.agent, attempt.device) == ("lab", E1)
    assert lab.records.leases[lease.id].agent == "lab"


def test_job_that_waits_for_what_was_forgotten_waits_on_and_says_that_nothing_matches() -> None:
    lab, agent = lab_with_two()
    lab.connect("other", emulator("emulator-1", "other", model="Pixel 9"))
    agent.lose()
    lab.submit(spec("a", selector=(("model", "Pixel 8"),)), spec("b", selector=(("id", E1),)))
    assert [why(lab, job).why for job in (1, 2)] == [Why.OFFLINE, Why.OFFLINE]
    lab.handle(FORGET)
    found = [why(lab, job) for job in (1, 2)]
    assert [(one.why, one.device) for one in found] == [(Why.NOTHING_MATCHES, "emulator-1@other")] * 2
    assert [lab.job(job).state for job in (1, 2)] == [JobState.QUEUED] * 2
    lab.connect("new", emulator("emulator-1", "new"))
    assert lab.jobs_of(lab.lease_on("emulator-1@new")) == [1]


def test_job_waits_for_any_device_when_the_last_one_was_forgotten() -> None:
    lab, agent = lab_with_two()
    agent.lose()
    lab.handle(FORGET)
    lab.submit(spec("a"))
    assert why(lab, 1) == Explanation(why=Why.NOTHING_MATCHES)


def test_organisation_of_a_forgotten_agent_is_kept_no_more() -> None:
    lab = RestartingLab()
    lab.connect("lab", orgs=("acme",)).lose()
    lab.submit(spec("a", org_id="acme"))
    assert lab.scheduler.ledger.named_orgs == {"acme"}
    lab.handle(FORGET)
    assert lab.scheduler.ledger.named_orgs == frozenset()
    assert lab.scheduler.ledger.jobs[JobId(1)].kept_org == ""
    lab.connect("other", emulator("emulator-1", "other"))
    assert lab.jobs_of(lab.lease_on("emulator-1@other")) == [1]


def test_agent_that_has_another_name_now_keeps_the_devices_that_it_took_over() -> None:
    lab = RestartingLab()
    lab.connect("lab", phone(), emulator("emulator-1")).lose()
    lab.connect("new", phone())
    lab.handle(FORGET)
    assert {one.id: one.agent for one in lab.scheduler.ledger.fleet.devices.values()} == {PHONE: "new"}


def test_device_that_another_agent_claims_is_its_own_in_the_turn_in_which_the_first_is_forgotten() -> None:
    lab = RestartingLab()
    # Without a session left the slot is not in use, and no less its agent's.
    (slot,) = slots("cloud", 1, replace(TWO, others=2))
    one = lab.connect("lab", slot)
    lab.connect("two", slot)
    one.lose()
    assert (device(lab, slot.id).agent, lab.scheduler.ledger.contests.of_device(slot.id)) == ("lab", ("two",))
    lab.handle(FORGET)
    assert (device(lab, slot.id).agent, lab.records.devices[slot.id].agent) == ("two", "two")
    assert lab.scheduler.ledger.contests.of_agent(AgentId("two")) == ()


def test_upload_of_a_forgotten_agent_is_the_next_ones_at_once() -> None:
    lab = RestartingLab()
    key = UploadKey(TWO.name, "a" * 64)
    one, two = lab.connect("lab", *slots("lab", 2)), lab.connect("two", *slots("two", 2))
    for agent in (one, two):
        lab.handle(UploadsClaimed(session=agent.session, claims=(UploadClaim(key=key, turn=1),)))
    assert lab.scheduler.ledger.uploads.known[key].agent == "lab"
    one.lose()
    lab.handle(FORGET)
    assert lab.scheduler.ledger.uploads.known[key].agent == "two"
    assert lab.scheduler.ledger.fleet.accounts.of_agent(AgentId("lab")) == frozenset()


def test_what_a_forgotten_agent_said_of_an_account_is_forgotten() -> None:
    lab = RestartingLab()
    lab.connect("two", *slots("two", 2))
    lab.connect("lab", *slots("lab", 2, replace(TWO, sessions=1))).lose()
    lab.handle(FORGET)
    lab.connect("lab", emulator("emulator-1"), boot="boot-2")
    assert lab.scheduler.ledger.fleet.accounts.most(TWO.name) == 2


def test_account_is_gone_with_its_last_agent_and_comes_again_with_it() -> None:
    lab = RestartingLab()
    lab.connect("lab", *slots("lab", 2)).lose()
    lab.handle(FORGET)
    lab.connect("lab", *slots("lab", 2), boot="boot-2")
    assert lab.scheduler.ledger.fleet.accounts.most(TWO.name) == 2


def test_canary_of_a_forgotten_device_never_flies() -> None:
    lab = RestartingLab()
    agent = lab.connect()
    lab.submit(spec("a"))
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, GONE)
    lab.cancel(1)
    assert device(lab).hold is DeviceHold.SUSPICION
    assert lab.scheduler.next_deadline() is not None
    agent.lose()
    lab.handle(FORGET)
    assert lab.scheduler.next_deadline() is None, "nothing is due for it any more"
    lab.pass_time(60)
    lab.connect("lab", emulator("emulator-1"), boot="boot-2")
    assert device(lab).hold is None


@pytest.mark.parametrize("outcome", [AttemptOutcome.ERRORED, AttemptOutcome.PASSED])
def test_failure_on_a_forgotten_device_still_counts_as_evidence(outcome: AttemptOutcome) -> None:
    """What fails on a second device is at fault itself; what passes there tells nothing against one that is gone."""
    lab, agent = lab_with_two()
    first = AttemptOutcome.FAILED if outcome is AttemptOutcome.PASSED else outcome
    failure = None if outcome is AttemptOutcome.PASSED else Failure(reason="SESSION_FAILED", message="no session")
    lab.submit(spec("a", selector=(("id", E1),)))
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), first, failure)
    lab.cancel(1)
    agent.lose(goodbye=True)
    lab.handle(FORGET)
    other = lab.connect("other", emulator("emulator-1", "other"))
    lab.submit(spec("a"))
    lease = other.adopt("emulator-1@other")
    other.finish(lease, other.start(lease), outcome, failure)
    assert device(lab, "emulator-1@other").marks == ()


# One that comes back


def test_agent_that_comes_back_is_a_new_one_and_its_devices_are_held_no_more() -> None:
    lab, agent = lab_with_two()
    lab.handle(HoldRequested(device=DeviceId(E1), hold=DeviceHold.QUARANTINE, reason="its screen is broken"))
    agent.lose()
    lab.handle(FORGET)
    lab.submit(spec("a"))
    lab.connect("lab", emulator("emulator-1"))
    assert (device(lab).hold, device(lab).hold_reason) == (None, "")
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_device_that_comes_back_gets_fences_above_those_that_its_agent_knows() -> None:
    lab, agent = lab_with_two()
    lab.submit(spec("a", selector=(("id", E1),)))
    known = agent.adopt(E1)
    agent.run(known)
    agent.lose()
    lab.handle(FORGET)
    lab.submit(spec("b", selector=(("id", E1),)))
    lab.connect("lab", emulator("emulator-1"))
    assert lab.lease_on(E1).fence > known.fence


def test_lease_that_a_forgotten_agent_still_holds_is_closed_and_the_device_gets_another() -> None:
    lab, agent = lab_with_two()
    lab.submit(spec("a", selector=(("id", E1),)))
    held = agent.adopt(E1)
    agent.start(held)
    agent.lose()
    lab.pass_time(31)
    lab.handle(ReadmitRequested(device=DeviceId(E1), host_is_gone=True))
    lab.handle(FORGET)
    lab.sends.clear()
    lab.connect("lab", emulator("emulator-1"), leases=(agent.echo_of(held),))
    assert closes(lab.sends) == [held.id]
    (offered,) = snapshots(lab.sends)
    assert offered.lease.id != held.id
    assert offered.lease.fence > held.fence
