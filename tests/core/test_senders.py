"""Who may say what: a fact counts only from the agent that holds the lease, and only as far as it can be true."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordinator.core.errors import QueueFull
from coordinator.core.events import AgentConnected, AttemptStarted, LeaseAdopted, RetryRequested
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptId,
    AttemptOutcome,
    DeviceId,
    DeviceState,
    Failure,
    JobState,
    Lease,
    LeaseState,
    Now,
    RevokeReason,
    SessionId,
    Settings,
)
from coordinator.core.step import PutDevice, SendClose
from tests.core.lab import START_WALL_US, AgentOnPaper, Lab, closes, emulator, spec
from tests.core.records import projection

E1 = "emulator-1@lab"

FACTS: dict[str, Callable[[AgentOnPaper, Lease], object]] = {
    "echo": lambda agent, lease: agent.lab.handle(LeaseAdopted(session=agent.session, echo=agent.echo_of(lease))),
    "install": lambda agent, lease: agent.install(lease),
    "reject": lambda agent, lease: agent.reject(lease, Failure(reason="BUILD_INVALID", message="no")),
    "release": lambda agent, lease: agent.release(lease),
    "start": lambda agent, lease: agent.start(lease),
    "finish": lambda agent, lease: agent.finish(lease, lease.attempts[0]),
}


@pytest.mark.parametrize("fact", FACTS)
def test_fact_about_the_lease_of_another_agent_changes_nothing(fact: str) -> None:
    lab = Lab()
    lab.submit(spec())
    owner = lab.connect()
    stranger = lab.connect("stranger", emulator("emulator-1", "stranger", is_usable=False))
    lease = owner.adopt(E1)
    before = projection(lab.scheduler.ledger)
    deadline = lab.scheduler.ledger.fleet.next_expiry()
    lab.pass_time(1)
    FACTS[fact](stranger, lease)
    assert projection(lab.scheduler.ledger) == before
    assert lab.scheduler.ledger.fleet.next_expiry() == deadline
    told = [send for send in lab.sends if isinstance(send, SendClose)]
    assert [(send.session, send.lease) for send in told] == [(stranger.session, lease.id)]


def test_fact_over_a_stream_that_was_replaced_still_counts() -> None:
    lab = Lab()
    lab.submit(spec())
    old = lab.connect()
    lease = old.adopt(E1)
    lab.connect(leases=(old.echo_of(lease),))
    old.finish(lease, old.start(lease))
    assert lab.job(1).state is JobState.COMPLETED


def test_second_test_on_a_device_waits_for_the_end_of_the_first() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    first, second = lease.attempts
    agent.start(lease, first)
    agent.start(lease, second)
    agent.beat(agent.echo_of(lease, started=(first, second)))
    assert [lab.job(job).state for job in (1, 2)] == [JobState.RUNNING, JobState.ASSIGNED]
    agent.finish(lease, first)
    agent.beat(agent.echo_of(lease, started=(first, second)))
    assert [lab.job(job).state for job in (1, 2)] == [JobState.COMPLETED, JobState.RUNNING]


def test_cancel_does_not_wait_for_the_grace_of_a_preemption() -> None:
    lab = Lab()
    lab.submit(spec("slow", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    assert dict(lab.lease_on(E1).revoked) == {AttemptId(running): RevokeReason.PREEMPT}
    lab.cancel(1)
    assert dict(lab.lease_on(E1).revoked) == {AttemptId(running): RevokeReason.CANCEL}
    agent.finish(lease, running, AttemptOutcome.CANCELLED)
    assert lab.job(1).state is JobState.CANCELLED


def test_goodbye_confirms_that_a_fenced_device_has_stopped() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.lose()
    lab.pass_time(31)
    back = lab.connect(leases=(agent.echo_of(lease),))
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.FENCING
    back.lose(goodbye=True)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.OFFLINE


def test_device_stays_fenced_while_its_agent_is_away_and_is_freed_by_its_next_life() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.start(lease)
    agent.lose()
    lab.pass_time(3_600)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.FENCING
    lab.connect("other", emulator("emulator-1"))
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].agent == "lab"
    lab.connect(boot="boot-2")
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_nothing_expires_whose_heartbeat_may_still_wait_its_turn() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.lose()
    lab.pass_time(29)
    late = Now(mono_us=lab.mono_us + 3_000_000, wall_us=lab.now.wall_us + 3_000_000)
    assert lab.scheduler.expire(late, behind_us=2_500_000).writes == ()
    lab.mono_us = late.mono_us
    lab.expire()
    assert lease.id not in lab.scheduler.ledger.fleet.leases


def test_device_that_stays_away_is_not_written_again_with_every_report() -> None:
    lab = Lab()
    lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.connect("lab", emulator("emulator-1"))
    writes = lab.connect("lab", emulator("emulator-1")).beat().writes
    gone = lab.scheduler.ledger.fleet.devices[DeviceId("emulator-2@lab")]
    assert (gone.state, gone.facts.reason) == (DeviceState.OFFLINE, "its agent does not see it")
    assert not [write for write in writes if isinstance(write, PutDevice)]


def test_jump_of_the_wall_clock_refuses_no_agent() -> None:
    lab = Lab()
    lab.connect(boot="boot-1")
    lab.pass_time(11)
    event = AgentConnected(
        session=SessionId(99), agent=AgentId("lab"), boot_id="boot-2", version="1", host="h", devices=()
    )
    lab.scheduler.handle(event, Now(mono_us=lab.mono_us, wall_us=START_WALL_US - 3_600 * SECOND_US))
    assert lab.scheduler.ledger.fleet.agents[AgentId("lab")].boot_id == "boot-2"


def test_retry_is_refused_when_the_queue_is_full() -> None:
    lab = Lab(Settings(max_queued_per_org=1))
    lab.submit(spec())
    lab.cancel(1)
    old = lab.job(1)
    lab.submit(spec())
    with pytest.raises(QueueFull):
        lab.handle(RetryRequested(job=old, key="k", payload_sha256="r"))


def test_kinds_of_requests_for_devices_are_limited_per_organisation() -> None:
    lab = Lab(Settings(max_pools_per_org=2, max_pools=3))
    lab.submit(spec(selector=(("model", "a"),)), spec(selector=(("model", "b"),)))
    lab.submit(spec(selector=(("model", "a"),)))
    with pytest.raises(QueueFull, match="organisation qualgent would have 3 different"):
        lab.submit(spec(selector=(("model", "c"),)))
    lab.submit(spec(org_id="other", selector=(("model", "a"),)), spec(org_id="other", selector=(("model", "c"),)))
    with pytest.raises(QueueFull, match="the lab would have 4 different"):
        lab.submit(spec(org_id="third", selector=(("model", "d"),)))
    lab.cancel(2)
    lab.submit(spec(selector=(("model", "c"),)))


def test_message_for_an_attempt_that_never_was_is_ignored() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    for attempt in (0, -1, 999, 2**63 - 1):
        lab.handle(AttemptStarted(session=agent.session, lease=lease.id, fence=lease.fence, attempt=AttemptId(attempt)))
        agent.finish(lease, attempt)
    assert lab.job(1).state is JobState.ASSIGNED
    assert lab.lease_on(E1).state is LeaseState.ACTIVE
    assert closes(lab.sends) == []
