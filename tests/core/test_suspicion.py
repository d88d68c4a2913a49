"""Failures are put down to what the history says: devices at fault leave the pool, and come back by their canary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.events import AgentDrainRequested, DevicesReported, HoldRequested, LeaseEcho, ReadmitRequested
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptOutcome,
    Blame,
    Device,
    DeviceHold,
    DeviceId,
    DeviceState,
    Failure,
    JobState,
    Lease,
    Settings,
    Vitals,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import Step
from tests.core.lab import AgentOnPaper, Lab, emulator, snapshots, spec
from tests.core.records import Records

E1, E2, E3 = (f"emulator-{number}@lab" for number in (1, 2, 3))
GONE = Failure(reason="DEVICE_LOST", message="the phone went away", blame=Blame.DEVICE)
FULL = Failure(reason="INSTALL_FAILED_INSUFFICIENT_STORAGE", message="no space", blame=Blame.DEVICE)
NO_SESSION = Failure(reason="SESSION_FAILED", message="no session", blame=Blame.HOST)
INSTALL_FAILED = Failure(reason="INSTALL_FAILED", message="who knows", blame=Blame.DEVICE)
BAD_BUILD = Failure(reason="BUILD_REJECTED", message="it cannot be parsed", blame=Blame.BUILD)
WAIT_S = 5


def device(lab: Lab, name: str = E1) -> Device:
    return lab.scheduler.ledger.fleet.devices[DeviceId(name)]


def lab_of(devices: int) -> tuple[Lab, AgentOnPaper]:
    lab = Lab()
    return lab, lab.connect("lab", *(emulator(f"emulator-{number + 1}") for number in range(devices)))


def run_on(
    lab: Lab,
    agent: AgentOnPaper,
    name: str,
    test: str,
    outcome: AttemptOutcome = AttemptOutcome.ERRORED,
    failure: Failure | None = NO_SESSION,
) -> None:
    """Run a test on one device, where it ends as told, and cancel what would run again."""
    (job,) = lab.submit(spec(test, selector=(("id", name),))).job_ids
    lease = agent.adopt(name)
    agent.finish(lease, agent.start(lease), outcome, failure)
    if lab.job(job).state is not JobState.COMPLETED and not lab.job(job).is_terminal:
        lab.cancel(job)
        give_back(lab, agent, name)


def give_back(lab: Lab, agent: AgentOnPaper, name: str) -> None:
    if device(lab, name).lease is not None:
        agent.release(lab.lease_on(name))


def canary(lab: Lab, name: str = E1) -> Lease:
    lease = lab.lease_on(name)
    assert lease.is_canary
    return lease


def lose(lab: Lab, agent: AgentOnPaper, name: str = E1) -> None:
    run_on(lab, agent, name, "tests/any.spec.ts", failure=GONE)


# What is at fault


def test_device_that_goes_away_under_a_test_is_quarantined_with_the_reason() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    assert (device(lab).state, device(lab).hold) == (DeviceState.QUARANTINED, DeviceHold.SUSPICION)
    assert device(lab).hold_reason == "the phone went away"


def test_only_the_attempt_on_the_lost_device_is_lost_and_its_job_runs_elsewhere_without_a_retry() -> None:
    lab, agent = lab_of(2)
    lab.submit(spec("a", selector=(("id", E1),)), spec("b", selector=(("id", E2),)))
    first, second = agent.adopt(E1), agent.adopt(E2)
    agent.start(second)
    lab.submit(spec("c"))
    agent.finish(first, agent.start(first), AttemptOutcome.ERRORED, GONE)
    assert [lab.job(one).state for one in (1, 2, 3)] == [JobState.QUEUED, JobState.RUNNING, JobState.QUEUED]
    assert (lab.job(1).retries_used, lab.job(1).lab_failures) == (0, 1)
    agent.finish(second, second.attempts[0])
    assert lab.jobs_of(lab.lease_on(E2)) == [3]


def test_device_whose_storage_is_full_is_quarantined_at_its_first_install() -> None:
    lab, agent = lab_of(1)
    lab.submit(spec())
    agent.reject(agent.adopt(E1), FULL)
    assert device(lab).state is DeviceState.QUARANTINED


def test_three_different_tests_that_fail_by_the_labs_fault_make_a_device_suspect() -> None:
    lab, agent = lab_of(1)
    run_on(lab, agent, E1, "a")
    run_on(lab, agent, E1, "b")
    assert device(lab).state is DeviceState.IDLE
    run_on(lab, agent, E1, "c")
    assert device(lab).state is DeviceState.QUARANTINED
    assert "3 different tests" in device(lab).hold_reason
    assert "SESSION_FAILED" in device(lab).hold_reason


def test_host_is_named_where_its_devices_fail_alike() -> None:
    lab, agent = lab_of(3)
    run_on(lab, agent, E2, "x")
    for test in ("a", "b", "c"):
        run_on(lab, agent, E1, test)
    assert device(lab).hold_reason.endswith(f"so it is on {E2}: look at the host of lab")
    assert device(lab, E2).state is DeviceState.IDLE


def test_one_test_that_fails_again_and_again_tells_nothing_more_against_its_device() -> None:
    lab, agent = lab_of(1)
    for _ in range(4):
        run_on(lab, agent, E1, "a")
    assert device(lab).state is DeviceState.IDLE


def test_test_that_fails_on_two_devices_is_held_against_neither() -> None:
    lab, agent = lab_of(2)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E1, test)
        run_on(lab, agent, E2, test)
    assert [device(lab, name).state for name in (E1, E2)] == [DeviceState.IDLE, DeviceState.IDLE]
    assert device(lab, E1).marks == device(lab, E2).marks == ()


def test_tests_that_pass_elsewhere_are_held_against_the_device_on_which_they_failed() -> None:
    lab, agent = lab_of(2)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E1, test, AttemptOutcome.FAILED, None)
    assert device(lab).marks == (), "nothing is known against the device yet"
    for test in ("a", "b", "c"):
        run_on(lab, agent, E2, test, AttemptOutcome.PASSED, None)
    assert device(lab).state is DeviceState.QUARANTINED
    assert device(lab, E2).state is DeviceState.IDLE


def test_test_that_passes_and_fails_on_one_device_is_held_against_no_device() -> None:
    lab, agent = lab_of(1)
    for test in ("a", "b", "c", "d"):
        run_on(lab, agent, E1, test, AttemptOutcome.FAILED, None)
        run_on(lab, agent, E1, test, AttemptOutcome.PASSED, None)
    assert device(lab).marks == ()


def test_marks_fade_while_other_tests_pass() -> None:
    lab, agent = lab_of(1)
    run_on(lab, agent, E1, "a")
    run_on(lab, agent, E1, "b")
    for number in range(10):
        run_on(lab, agent, E1, f"good {number}", AttemptOutcome.PASSED, None)
    run_on(lab, agent, E1, "c")
    assert [mark.subject.rpartition(" ")[2] for mark in device(lab).marks] == ["c"]


def test_build_that_fails_on_every_device_quarantines_none() -> None:
    lab, agent = lab_of(3)
    for app in ("v1", "v2", "v3", "v4"):
        lab.submit(spec(app_version_id=app))
        for name in (E1, E2, E3):
            if device(lab, name).lease is not None:
                agent.reject(agent.adopt(name), BAD_BUILD)
                break
    assert all(device(lab, name).state is not DeviceState.QUARANTINED for name in (E1, E2, E3))


def test_install_that_fails_on_two_devices_for_no_known_reason_is_held_against_neither() -> None:
    lab, agent = lab_of(2)
    for app in ("v1", "v2", "v3"):
        for name in (E1, E2):
            (job,) = lab.submit(spec(app_version_id=app, selector=(("id", name),))).job_ids
            agent.reject(agent.adopt(name), INSTALL_FAILED)
            lab.cancel(job)
            give_back(lab, agent, name)
    assert [device(lab, name).marks for name in (E1, E2)] == [(), ()]


def test_device_that_takes_none_of_three_builds_is_suspect() -> None:
    lab, agent = lab_of(1)
    for app in ("v1", "v2", "v3"):
        (job,) = lab.submit(spec(app_version_id=app)).job_ids
        agent.reject(agent.adopt(E1), INSTALL_FAILED)
        lab.cancel(job)
        give_back(lab, agent, E1)
    assert device(lab).state is DeviceState.QUARANTINED


def test_lost_agent_is_not_held_against_its_devices() -> None:
    lab, agent = lab_of(1)
    lost = Failure(reason="AGENT_LOST", message="the agent ended", blame=Blame.HOST)
    for test in ("a", "b", "c", "d"):
        run_on(lab, agent, E1, test, AttemptOutcome.LOST, lost)
    assert device(lab).marks == ()


FETCHES = ("BUILD_CHANGED", "BUILD_FETCH_FAILED", "BUILD_SOURCE_FAILED", "BUNDLE_FETCH_FAILED", "PACKAGES_FAILED")


@pytest.mark.parametrize("reason", FETCHES)
def test_what_could_not_be_fetched_is_not_held_against_the_device_that_waited_for_it(reason: str) -> None:
    lab, agent = lab_of(1)
    away = Failure(reason=reason, message="nobody serves it", blame=Blame.HOST)
    for test in ("a", "b", "c", "d"):
        run_on(lab, agent, E1, test, failure=away)
    assert device(lab).marks == ()


@pytest.mark.parametrize("reason", FETCHES)
def test_canary_whose_build_cannot_be_fetched_is_tried_again_after_the_same_wait(reason: str) -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    before = device(lab).relapses
    lab.pass_time(WAIT_S)
    first = canary(lab)
    agent.reject(first, Failure(reason=reason, message="nobody serves it", blame=Blame.HOST))
    assert (device(lab).state, device(lab).relapses) == (DeviceState.QUARANTINED, before)
    lab.pass_time(WAIT_S)
    assert canary(lab).id != first.id


def test_suspect_device_gives_the_rest_of_its_batch_back() -> None:
    lab, agent = lab_of(1)
    lab.submit(*(spec(test) for test in ("a", "b", "c")))
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, GONE)
    agent.adopt(E1)
    assert [lab.job(one).state for one in (1, 2, 3)] == [JobState.QUEUED] * 3
    assert device(lab).state is DeviceState.QUARANTINED


# How it comes back


def test_canary_is_offered_after_the_wait_and_not_before() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.submit(spec("next"))
    lab.pass_time(WAIT_S - 1)
    assert device(lab).lease is None
    lab.pass_time(2)
    assert canary(lab).attempts == ()
    assert device(lab).state is DeviceState.QUARANTINED
    assert snapshots(lab.sends)[-1].lease.is_canary


def test_device_whose_canary_passes_takes_the_work_that_waits() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.submit(spec("next"))
    lab.pass_time(WAIT_S)
    agent.adopt(E1)
    agent.install(canary(lab), seconds=0, installed=False)
    assert lab.lease_on(E1).attempts
    assert (device(lab).hold, device(lab).hold_reason) == (None, "")


def test_canary_that_fails_waits_twice_as_long_for_the_next() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    agent.reject(canary(lab), replace(GONE, message="it is still away"))
    assert device(lab).hold_reason == "it is still away"
    lab.pass_time(2 * WAIT_S - 1)
    assert device(lab).lease is None
    lab.pass_time(1)
    assert canary(lab).is_canary


def test_waits_are_bounded() -> None:
    lab = Lab(Settings(canary_most_us=20 * SECOND_US))
    agent = lab.connect()
    lose(lab, agent)
    for _ in range(20):
        lab.pass_time(20)
        agent.reject(canary(lab), GONE)


def test_canary_that_only_finds_the_build_at_fault_passes() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    agent.reject(canary(lab), BAD_BUILD)
    assert device(lab).state is DeviceState.IDLE


def test_canary_tries_the_build_that_the_device_held_last() -> None:
    lab, agent = lab_of(1)
    lab.submit(spec("a"))
    lease = agent.adopt(E1)
    agent.install(lease)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, GONE)
    lab.cancel(1)
    lab.pass_time(WAIT_S)
    assert canary(lab).app.app_version_id == "xyz123"


def test_canary_of_a_device_that_never_held_a_build_installs_nothing() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    assert canary(lab).app.app_version_id == ""


def test_canary_whose_answer_is_lost_is_followed_by_another() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    agent.release(agent.adopt(E1))
    assert device(lab).state is DeviceState.QUARANTINED
    lab.pass_time(WAIT_S)
    assert canary(lab).is_canary


def test_heartbeats_leave_a_canary_alone() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    lease = agent.adopt(E1)
    agent.beat(agent.echo_of(lease))
    assert canary(lab).id == lease.id


def test_canary_that_nobody_echoes_expires_and_its_device_waits_for_its_agent() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    lease = canary(lab)
    lab.pass_time(31)
    assert device(lab).state is DeviceState.FENCING
    agent.close(lease)
    assert device(lab).state is DeviceState.QUARANTINED


def test_device_that_is_away_gets_its_canary_when_it_is_back() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    agent.lose()
    lab.pass_time(60)
    assert device(lab).state is DeviceState.OFFLINE
    lab.connect()
    assert canary(lab).is_canary


def test_reconnecting_agent_does_not_put_the_canary_off() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    for _ in range(2):
        lab.pass_time(WAIT_S / 2)
        agent.lose()
        agent = lab.connect()
    assert canary(lab).is_canary


def test_canary_waits_while_its_agent_is_drained() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.handle(AgentDrainRequested(agent=AgentId("lab"), is_draining=True))
    lab.pass_time(60)
    assert device(lab).lease is None
    lab.handle(AgentDrainRequested(agent=AgentId("lab"), is_draining=False))
    assert canary(lab).is_canary


# Operators have the last word


@pytest.mark.parametrize("hold", [DeviceHold.QUARANTINE, DeviceHold.DRAIN])
def test_canary_never_lifts_an_operators_hold(hold: DeviceHold) -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    lease = canary(lab)
    lab.handle(HoldRequested(device=DeviceId(E1), hold=hold, reason="mine"))
    agent.install(lease, seconds=0, installed=False)
    assert (device(lab).hold, device(lab).hold_reason) == (hold, "mine")
    assert device(lab).state in (DeviceState.QUARANTINED, DeviceState.DRAINING)


def test_device_in_an_operators_quarantine_gets_no_canary() -> None:
    lab, _ = lab_of(1)
    lab.handle(HoldRequested(device=DeviceId(E1), hold=DeviceHold.QUARANTINE))
    lab.pass_time(3_600)
    assert device(lab).lease is None


def test_suspect_device_is_readmitted_by_hand_with_a_clean_record() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.handle(ReadmitRequested(device=DeviceId(E1)))
    assert (device(lab).state, device(lab).relapses, device(lab).marks) == (DeviceState.IDLE, 0, ())


def test_device_that_is_readmitted_during_its_canary_is_free_when_the_canary_ends() -> None:
    lab, agent = lab_of(1)
    lose(lab, agent)
    lab.pass_time(WAIT_S)
    lease = canary(lab)
    lab.handle(ReadmitRequested(device=DeviceId(E1)))
    assert device(lab).state is DeviceState.LEASED
    agent.release(lease)
    assert device(lab).state is DeviceState.IDLE


# Restarts


class Recorded(Lab):
    """A lab whose steps are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.records = Records()

    def _note(self, step: Step) -> None:
        super()._note(step)
        self.records.apply(step.writes)

    def restart(self) -> None:
        self.scheduler = Scheduler(self.settings, self.records.counters)
        self.records.apply(self.records.restore_into(self.scheduler, self.now).writes)


def test_quarantine_outlives_the_coordinator_and_its_wait_begins_anew() -> None:
    lab = Recorded()
    lose(lab, lab.connect())
    lab.restart()
    assert (device(lab).hold, device(lab).relapses, device(lab).state) == (
        DeviceHold.SUSPICION,
        1,
        DeviceState.OFFLINE,
    )
    lab.connect()
    lab.pass_time(WAIT_S - 1)
    assert device(lab).lease is None
    lab.pass_time(1)
    assert canary(lab).is_canary


def test_canary_that_flies_outlives_the_coordinator() -> None:
    lab = Recorded()
    lose(lab, lab.connect())
    lab.pass_time(WAIT_S)
    lease = canary(lab)
    lab.restart()
    agent = lab.connect(leases=(lab_echo(lease),))
    agent.install(lease, seconds=0, installed=False)
    assert device(lab).state is DeviceState.IDLE


def lab_echo(lease: Lease) -> LeaseEcho:
    return LeaseEcho(lease=lease.id, fence=lease.fence, revision=lease.revision)


# Vitals


def test_device_that_tells_of_its_battery_keeps_its_place_among_the_free() -> None:
    lab, agent = lab_of(2)
    first, second = (device(lab, name).facts for name in (E1, E2))
    drained = replace(first, vitals=Vitals(battery_percent=40))
    lab.handle(DevicesReported(session=agent.session, devices=(drained, second)))
    assert device(lab).facts.vitals.battery_percent == 40
    lab.submit(spec(priority=4))
    assert device(lab).state is DeviceState.RESERVED, "of two that were used as little, the one that is free longer"
