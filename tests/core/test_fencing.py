"""A device whose lease has expired: only its agent's own word on that lease frees it."""

from __future__ import annotations

from coordinator.core.model import DeviceId, DeviceState, Lease
from coordinator.core.step import SendClose
from tests.core.lab import AgentOnPaper, Lab, closes, emulator, spec
from tests.core.test_restart import RestartingLab

E1 = "emulator-1@lab"


def state_of(lab: Lab) -> DeviceState:
    return lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state


def expired(lab: Lab, *, answers: bool = True) -> tuple[AgentOnPaper, Lease]:
    """Let an offer expire that its connected agent was never heard to hold."""
    lab.submit(spec())
    agent = lab.connect(answers_close=answers)
    lease = lab.lease_on(E1)
    lab.pass_time(31)
    assert state_of(lab) is DeviceState.FENCING
    return agent, lease


def test_heartbeat_that_came_late_frees_no_fenced_device_and_asks_for_the_answer_again() -> None:
    lab = Lab()
    agent, lease = expired(lab)
    lab.sends.clear()
    agent.beat()
    assert state_of(lab) is DeviceState.FENCING
    asked = [send for send in lab.sends if isinstance(send, SendClose)]
    assert asked == [
        SendClose(
            session=agent.session, lease=lease.id, fence=lease.fence, why="the lease ran out", device=lease.device
        )
    ]


def test_expired_lease_asks_its_agent_for_an_answer_at_once() -> None:
    lab = Lab()
    agent, lease = expired(lab)
    asked = [send for send in lab.sends if isinstance(send, SendClose)]
    assert [(send.session, send.lease, send.device) for send in asked] == [(agent.session, lease.id, lease.device)]


def test_answer_of_its_agent_frees_a_fenced_device() -> None:
    lab = Lab()
    agent, lease = expired(lab)
    agent.close(lease)
    assert lab.lease_on(E1).id != lease.id
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_answer_about_an_earlier_lease_frees_nothing() -> None:
    lab = Lab()
    agent, first = expired(lab)
    agent.close(first)
    lab.pass_time(31)
    assert state_of(lab) is DeviceState.FENCING
    agent.close(first)
    assert state_of(lab) is DeviceState.FENCING


def test_answer_of_another_agent_frees_nothing() -> None:
    lab = Lab()
    _, lease = expired(lab)
    lab.connect("stranger", emulator("emulator-1", "stranger", is_usable=False)).close(lease)
    assert state_of(lab) is DeviceState.FENCING


def test_answer_about_a_lease_that_lives_changes_nothing() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect(answers_close=True)
    lease = agent.adopt(E1)
    assert agent.close(lease).writes == ()
    assert lab.lease_on(E1).id == lease.id


def test_lease_that_is_still_held_is_closed_again_with_each_heartbeat() -> None:
    lab = Lab()
    agent, lease = expired(lab)
    lab.sends.clear()
    agent.beat(agent.echo_of(lease))
    assert closes(lab.sends) == [lease.id]
    assert state_of(lab) is DeviceState.FENCING
    agent.close(lease)
    assert state_of(lab) is not DeviceState.FENCING


def test_hello_that_does_not_hold_the_lease_frees_a_fenced_device() -> None:
    lab = Lab()
    expired(lab)
    lab.connect(answers_close=True)
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_agent_of_a_release_that_does_not_answer_frees_a_fenced_device_by_its_heartbeat() -> None:
    lab = Lab()
    agent, lease = expired(lab, answers=False)
    agent.beat(agent.echo_of(lease))
    assert state_of(lab) is DeviceState.FENCING
    agent.beat()
    assert lab.lease_on(E1).id != lease.id


def test_agent_that_was_put_back_to_a_release_that_does_not_answer_is_not_asked() -> None:
    lab = Lab()
    agent, lease = expired(lab)
    back = lab.connect(leases=(agent.echo_of(lease),), answers_close=False)
    assert state_of(lab) is DeviceState.FENCING
    back.beat()
    assert state_of(lab) is not DeviceState.FENCING


def test_coordinator_that_starts_anew_asks_under_a_fence_between_the_old_lease_and_the_next() -> None:
    lab = RestartingLab()
    agent, lease = expired(lab)
    lab.restart()
    back = lab.connect(leases=(agent.echo_of(lease),), answers_close=True)
    lab.sends.clear()
    back.beat()
    asked = [send for send in lab.sends if isinstance(send, SendClose)]
    assert [(send.lease, send.device) for send in asked] == [(lease.id, lease.device)]
    back.close(lease)
    assert lease.fence < asked[0].fence < lab.lease_on(E1).fence
