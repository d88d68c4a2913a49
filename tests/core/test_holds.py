"""Operators hold devices and drain agents: nothing new comes, what runs ends, the rest runs elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.errors import NotFound
from coordinator.core.events import AgentDrainRequested, CancelRequested, Event, HoldRequested, ReadmitRequested
from coordinator.core.model import (
    AgentId,
    AttemptOutcome,
    Device,
    DeviceHold,
    DeviceId,
    DeviceState,
    JobId,
    JobState,
    RevokeReason,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import Step
from tests.core.lab import Lab, emulator, spec
from tests.core.records import Records

E1, E2 = "emulator-1@lab", "emulator-2@lab"
QUARANTINE = HoldRequested(device=DeviceId(E1), hold=DeviceHold.QUARANTINE, reason="its screen is broken")
DRAIN = HoldRequested(device=DeviceId(E1), hold=DeviceHold.DRAIN)
DRAIN_AGENT = AgentDrainRequested(agent=AgentId("lab"), is_draining=True)
RESUME_AGENT = AgentDrainRequested(agent=AgentId("lab"), is_draining=False)
READMIT = ReadmitRequested(device=DeviceId(E1))
GONE = ReadmitRequested(device=DeviceId(E1), host_is_gone=True)

HOLDS = [
    (QUARANTINE, DeviceState.QUARANTINED, READMIT),
    (DRAIN, DeviceState.DRAINING, READMIT),
    (DRAIN_AGENT, DeviceState.DRAINING, RESUME_AGENT),
]


def device(lab: Lab, name: str = E1) -> Device:
    return lab.scheduler.ledger.fleet.devices[DeviceId(name)]


@pytest.mark.parametrize(("hold", "state", "lift"), HOLDS)
def test_held_device_gets_no_work_until_the_hold_is_lifted(hold: Event, state: DeviceState, lift: Event) -> None:
    lab = Lab()
    lab.connect()
    lab.handle(hold)
    lab.submit(spec())
    assert device(lab).state is state
    assert lab.job(1).state is JobState.QUEUED
    lab.handle(lift)
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


@pytest.mark.parametrize(("hold", "state", "lift"), HOLDS)
def test_held_device_ends_what_runs_and_gives_the_rest_back(hold: Event, state: DeviceState, lift: Event) -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.handle(hold)
    assert device(lab).state is DeviceState.DRAINING
    agent.adopt(E1, started=(running,))
    assert [lab.job(job).state for job in (1, 2)] == [JobState.RUNNING, JobState.QUEUED]
    lab.submit(spec("c"))
    agent.finish(lease, running)
    assert lab.job(1).state is JobState.COMPLETED
    assert (device(lab).state, device(lab).lease) == (state, None)
    assert (lab.job(2).preemptions, lab.job(2).lab_failures) == (0, 0)
    lab.handle(lift)
    assert lab.jobs_of(lab.lease_on(E1)) == [2, 3]


def test_hold_that_is_lifted_while_a_test_runs_lets_more_come() -> None:
    lab = Lab()
    lab.submit(spec("a"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.handle(DRAIN)
    lab.submit(spec("b"))
    assert lab.job(2).state is JobState.QUEUED
    lab.handle(READMIT)
    assert device(lab).state is DeviceState.LEASED
    assert lab.jobs_of(lab.lease_on(E1)) == [1, 2]
    agent.finish(lease, running)


@pytest.mark.parametrize(("hold", "state", "lift"), HOLDS)
def test_hold_outlives_agent_and_coordinator(hold: Event, state: DeviceState, lift: Event) -> None:
    lab = Lab()
    records = Records()
    agent = lab.connect()
    lab.handle(hold)
    agent.lose()
    ledger = lab.scheduler.ledger
    records.devices.update(ledger.fleet.devices)
    records.agents.update(ledger.fleet.agents)
    assert device(lab).state is DeviceState.OFFLINE
    lab.scheduler = Scheduler(lab.settings, lab.scheduler.ledger.counters)
    records.restore_into(lab.scheduler, lab.now)
    lab.connect(boot="boot-2")
    assert device(lab).state is state
    lab.submit(spec())
    assert lab.job(1).state is JobState.QUEUED
    lab.handle(lift)
    assert lab.job(1).state is JobState.ASSIGNED


def test_reason_of_a_quarantine_is_kept_and_goes_with_it() -> None:
    lab = Lab()
    lab.connect()
    lab.handle(QUARANTINE)
    assert (device(lab).hold, device(lab).hold_reason) == (DeviceHold.QUARANTINE, "its screen is broken")
    lab.handle(DRAIN)
    assert (device(lab).hold, device(lab).hold_reason) == (DeviceHold.DRAIN, "")
    lab.handle(QUARANTINE)
    lab.handle(READMIT)
    assert (device(lab).hold, device(lab).hold_reason) == (None, "")


@pytest.mark.parametrize("event", [QUARANTINE, DRAIN, DRAIN_AGENT, RESUME_AGENT, READMIT])
def test_repeating_an_operators_request_changes_nothing(event: Event) -> None:
    lab = Lab()
    lab.connect()
    lab.handle(event)
    assert lab.handle(event) == Step()


def test_drain_that_interrupts_ends_what_runs_which_then_runs_elsewhere_at_no_cost() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.handle(DRAIN_AGENT)
    lab.handle(replace(DRAIN_AGENT, is_interrupting=True))
    assert (running, RevokeReason.RELEASE) in lab.lease_on(E1).revoked
    agent.adopt(E1, started=(running,))
    agent.finish(lease, running, AttemptOutcome.CANCELLED)
    lab.connect("other", emulator("emulator-1", "other"))
    assert lab.jobs_of(lab.lease_on("emulator-1@other")) == [1, 2]
    assert (lab.job(1).preemptions, lab.job(1).lab_failures, lab.job(1).retries_used) == (0, 0, 0)


def test_cancel_beats_an_interrupting_drain_and_never_the_reverse() -> None:
    lab = Lab()
    lab.submit(spec("a"))
    agent = lab.connect()
    running = agent.start(agent.adopt(E1))
    lab.handle(CancelRequested(jobs=(JobId(1),)))
    lab.handle(replace(DRAIN_AGENT, is_interrupting=True))
    assert lab.lease_on(E1).revoked == ((running, RevokeReason.CANCEL),)


def test_resumed_agent_keeps_its_quarantined_devices_out() -> None:
    lab = Lab()
    lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.handle(QUARANTINE)
    lab.handle(DRAIN_AGENT)
    assert [device(lab, name).state for name in (E1, E2)] == [DeviceState.QUARANTINED, DeviceState.DRAINING]
    lab.handle(RESUME_AGENT)
    assert [device(lab, name).state for name in (E1, E2)] == [DeviceState.QUARANTINED, DeviceState.IDLE]


def test_device_that_comes_to_a_draining_agent_is_held_at_once() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.handle(DRAIN_AGENT)
    agent.lose()
    lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    assert device(lab, E2).state is DeviceState.DRAINING


def test_held_device_is_never_asked_to_make_room() -> None:
    lab = Lab()
    lab.submit(spec("slow", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.handle(DRAIN)
    lab.submit(spec("urgent", priority=5, app_version_id="other"))
    assert lab.lease_on(E1).revoked == ()
    agent.finish(lease, running, AttemptOutcome.PASSED)
    assert lab.job(1).state is JobState.COMPLETED


def test_job_that_failed_on_the_last_free_device_does_not_wait_for_a_held_one() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.handle(HoldRequested(device=DeviceId(E2), hold=DeviceHold.DRAIN))
    lease = agent.adopt(E1)
    agent.run(lease, AttemptOutcome.ERRORED)
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_fenced_device_of_an_agent_that_never_returns_can_be_readmitted_elsewhere() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    agent.lose()
    lab.pass_time(31)
    assert device(lab).state is DeviceState.FENCING
    lab.handle(READMIT)
    assert device(lab).state is DeviceState.FENCING, "a repeated call must not say more than was meant"
    lab.handle(GONE)
    assert (device(lab).state, device(lab).lease) == (DeviceState.OFFLINE, None)
    lab.connect("other", emulator("emulator-1"))
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_fenced_device_of_a_connected_agent_is_freed_by_the_agent_alone() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.lose()
    lab.pass_time(31)
    back = lab.connect(leases=(agent.echo_of(lease),))
    lab.handle(GONE)
    assert device(lab).state is DeviceState.FENCING
    lab.handle(QUARANTINE)
    back.beat()
    assert device(lab).state is DeviceState.QUARANTINED


@pytest.mark.parametrize(
    "event",
    [
        HoldRequested(device=DeviceId("nowhere"), hold=DeviceHold.DRAIN),
        ReadmitRequested(device=DeviceId("nowhere")),
        AgentDrainRequested(agent=AgentId("nobody"), is_draining=True),
    ],
)
def test_what_is_not_known_cannot_be_held(event: Event) -> None:
    lab = Lab()
    lab.connect()
    with pytest.raises(NotFound, match="there is no"):
        lab.handle(event)
