"""What a new life of the coordinator takes up from the old one's records."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.events import Event
from coordinator.core.model import (
    AttemptId,
    AttemptOutcome,
    DeviceId,
    DeviceState,
    JobState,
    LeaseState,
    RevokeReason,
    Settings,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import Step
from tests.core.lab import Lab, closes, emulator, snapshots, spec
from tests.core.records import Records

E1 = "emulator-1@lab"


class RestartingLab(Lab):
    """A lab that keeps its records."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self.records = Records()

    def handle(self, event: Event) -> Step:
        step = super().handle(event)
        self.records.apply(step.writes)
        return step

    def expire(self) -> Step:
        step = super().expire()
        self.records.apply(step.writes)
        return step

    def restart(self) -> None:
        self.records.counters = replace(self.records.counters, epoch=self.records.counters.epoch + 1)
        self.scheduler = Scheduler(self.settings, self.records.counters)
        step = self.records.restore_into(self.scheduler, self.now)
        self.records.apply(step.writes)
        self._note(step)
        self.sends.clear()


def state_of(lab: Lab, device: str = E1) -> DeviceState:
    return lab.scheduler.ledger.fleet.devices[DeviceId(device)].state


def test_agent_that_never_comes_back_loses_its_lease_after_one_time_to_live() -> None:
    lab = RestartingLab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.start(lease)
    lab.pass_time(29)
    lab.restart()
    lab.pass_time(29)
    assert lab.lease_on(E1).state is LeaseState.DISCONNECTED
    lab.pass_time(2)
    assert [lab.job(job).state for job in (1, 2)] == [JobState.QUEUED] * 2
    assert (lab.job(1).lab_failures, lab.job(2).lab_failures) == (1, 0)
    assert state_of(lab) is DeviceState.FENCING


def test_fenced_device_stays_fenced_over_a_restart_until_its_agent_confirms() -> None:
    lab = RestartingLab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.start(lease)
    agent.lose()
    lab.pass_time(31)
    lab.restart()
    assert state_of(lab) is DeviceState.FENCING
    back = lab.connect(leases=(agent.echo_of(lease),))
    assert closes(lab.sends) == [lease.id]
    assert state_of(lab) is DeviceState.FENCING
    back.beat()
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_cancel_that_was_asked_for_is_repeated_to_the_agent_that_comes_back() -> None:
    lab = RestartingLab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.cancel(1)
    lab.restart()
    assert lab.job(1).is_cancel_requested
    back = lab.connect(leases=(agent.echo_of(lease, started=(running,)),))
    told = snapshots(lab.sends)[-1]
    assert told.revoked == ((AttemptId(running), RevokeReason.CANCEL),)
    assert lab.lease_on(E1).state is LeaseState.REVOKING
    back.finish(told.lease, running, AttemptOutcome.CANCELLED)
    assert lab.job(1).state is JobState.CANCELLED


def test_cancelled_job_whose_agent_never_comes_back_ends_cancelled() -> None:
    lab = RestartingLab()
    lab.submit(spec())
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    lab.cancel(1)
    lab.restart()
    lab.pass_time(31)
    assert lab.job(1).state is JobState.CANCELLED


def test_batch_that_was_making_room_makes_it_after_the_restart() -> None:
    lab = RestartingLab()
    lab.submit(spec("slow", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    lab.restart()
    back = lab.connect(leases=(agent.echo_of(lab.lease_on(E1), started=(running,)),))
    assert lab.lease_on(E1).state is LeaseState.REVOKING
    back.finish(lease, running, AttemptOutcome.PREEMPTED)
    assert lab.jobs_of(lab.lease_on(E1)) == [2]
    assert (lab.job(1).state, lab.job(1).preemptions) == (JobState.QUEUED, 1)


def test_device_of_an_agent_that_is_away_is_offline_and_its_queue_waits() -> None:
    lab = RestartingLab()
    lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.restart()
    assert {state_of(lab), state_of(lab, "emulator-2@lab")} == {DeviceState.OFFLINE}
    lab.submit(spec())
    assert lab.job(1).state is JobState.QUEUED


def test_offer_that_was_never_heard_is_made_again_after_the_restart() -> None:
    lab = RestartingLab()
    lab.submit(spec())
    lab.connect()
    lease = lab.lease_on(E1)
    lab.restart()
    lab.connect()
    assert [send.lease.id for send in snapshots(lab.sends)] == [lease.id]
    assert (lab.lease_on(E1).fence, lab.job(1).state) == (lease.fence, JobState.ASSIGNED)
