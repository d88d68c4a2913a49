from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.errors import Conflict, NoMatchingDevice, QueueFull, RequestIdReused
from coordinator.core.events import AgentConnected, DevicesReported, JobsSubmitted
from coordinator.core.model import (
    AgentId,
    AttemptOutcome,
    Counters,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    DeviceState,
    Failure,
    Job,
    JobId,
    JobState,
    Lane,
    LeaseState,
    RevokeReason,
    SessionId,
    Settings,
    SubmitSequence,
    Target,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import (
    CloseSession,
    JobsAccepted,
    PutCounters,
    PutJob,
    PutRequest,
    SendHeartbeatAcknowledged,
    SendResultsAcknowledged,
    SendWelcome,
    Step,
)
from tests.core.lab import Lab, closes, emulator, snapshots, spec

E1 = "emulator-1@lab"
E2 = "emulator-2@lab"
TEST_FAILED = Failure(reason="TEST_FAILED", message="expected 3, saw 2")
DEVICE_LOST = Failure(reason="DEVICE_LOST", message="the phone went away")


def two_phones() -> tuple[DeviceFacts, DeviceFacts]:
    return emulator("emulator-1"), emulator("emulator-2")


def test_submit_writes_counters_job_and_request_before_it_replies() -> None:
    lab = Lab()
    job = Job(id=JobId(1), sequence=SubmitSequence(1), spec=spec(), state=JobState.QUEUED, create_us=lab.now.wall_us)
    reply = lab.submit(spec(), key="k")
    assert reply == JobsAccepted(
        jobs=(job,), job_ids=(JobId(1),), warnings=("no known device matches target any; the job waits for one",)
    )


def test_submit_step_holds_exactly_what_must_be_durable() -> None:
    lab = Lab()
    lab.connect("lab", emulator("emulator-1"))
    lab.submit(spec(priority=5))
    step = lab.handle(JobsSubmitted(org_id="qualgent", key="k2", payload_sha256="p", specs=(spec(priority=1),)))
    kinds = [type(write) for write in step.writes]
    assert kinds == [PutCounters, PutJob, PutRequest]
    assert step.sends == ()


def test_same_key_and_payload_give_the_same_jobs_back() -> None:
    lab = Lab()
    first = lab.submit(spec(), key="k")
    again = lab.submit(spec(), key="k")
    assert (again.is_replayed, again.job_ids) == (True, first.job_ids)
    assert len(lab.jobs) == 1


def test_same_key_with_another_payload_is_refused_and_changes_nothing() -> None:
    lab = Lab()
    lab.submit(spec(), key="k", payload="one")
    with pytest.raises(RequestIdReused):
        lab.submit(spec(), key="k", payload="two")
    assert len(lab.jobs) == 1


def test_strict_submit_without_a_matching_device_is_refused() -> None:
    lab = Lab()
    lab.connect("lab", emulator("emulator-1"))
    with pytest.raises(NoMatchingDevice, match="target device"):
        lab.submit(spec(target=Target.DEVICE), strict=True)
    assert not lab.jobs


def test_queue_limit_of_an_organisation_is_named_in_the_refusal() -> None:
    lab = Lab(Settings(max_queued_per_org=2))
    lab.submit(spec(), spec())
    with pytest.raises(QueueFull, match="may have 2"):
        lab.submit(spec())
    assert lab.submit(spec(org_id="other")).job_ids == (3,)


def test_jobs_of_one_build_share_a_batch_higher_priority_first() -> None:
    lab = Lab()
    lab.submit(spec("login"), spec("signup"))
    lab.submit(spec("checkout", priority=4))
    lab.connect("lab", *two_phones())
    lease = lab.lease_on(E1)
    assert lab.jobs_of(lease) == [3, 1, 2]
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E2)].state is DeviceState.IDLE


def test_another_build_takes_the_second_device() -> None:
    lab = Lab()
    lab.submit(spec("login"))
    lab.submit(spec("broken", app_version_id="other"))
    lab.connect("lab", *two_phones())
    assert lab.jobs_of(lab.lease_on(E1)) == [1]
    assert lab.jobs_of(lab.lease_on(E2)) == [2]


def test_job_of_the_same_build_joins_the_running_batch() -> None:
    lab = Lab()
    lab.submit(spec("login"))
    agent = lab.connect("lab", *two_phones())
    agent.adopt(E1)
    lab.submit(spec("signup"))
    lease = lab.lease_on(E1)
    assert (lab.jobs_of(lease), lease.revision) == ([1, 2], 2)


def test_selector_and_target_decide_who_serves() -> None:
    lab = Lab()
    lab.submit(spec(target=Target.DEVICE, selector=(("model", "Galaxy*"),)))
    phone = emulator("R58", id=DeviceId("R58"), kind=DeviceKind.DEVICE, model="Galaxy S23")
    lab.connect("lab", emulator("emulator-1"), emulator("P8", id=DeviceId("P8"), kind=DeviceKind.DEVICE), phone)
    assert lab.jobs_of(lab.lease_on("R58")) == [1]


def test_any_never_takes_a_paid_slot() -> None:
    lab = Lab()
    lab.submit(spec())
    lab.connect("lab", emulator("bs-1", kind=DeviceKind.BROWSERSTACK))
    assert lab.job(1).state is JobState.QUEUED


def test_warm_device_is_taken_again() -> None:
    lab = Lab()
    lab.submit(spec("login"))
    agent = lab.connect("lab", *two_phones())
    lease = agent.adopt(E1)
    agent.install(lease)
    agent.run(lease)
    lab.submit(spec("signup"))
    assert lab.jobs_of(lab.lease_on(E1)) == [2]


def test_finished_batch_counts_the_installs_that_it_avoided() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"), spec("c"))
    agent = lab.connect("lab", emulator("emulator-1"))
    lease = agent.adopt(E1)
    agent.install(lease, seconds=5)
    for _ in range(3):
        agent.run(lease)
    counters = lab.scheduler.ledger.counters
    assert (counters.installs_avoided, counters.saved_us) == (2, 10_000_000)
    assert [lab.job(job).state for job in (1, 2, 3)] == [JobState.COMPLETED] * 3
    assert closes(lab.sends) == [lease.id]


def test_failed_test_is_tried_again_while_retries_are_left_and_is_then_flaky() -> None:
    lab = Lab()
    lab.submit(spec(retries=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.FAILED, TEST_FAILED)
    assert lab.job(1).attempt_count == 2
    agent.run(agent.adopt(E1))
    assert (lab.job(1).state, lab.job(1).flaky) == (JobState.COMPLETED, True)


def test_failed_test_without_retries_keeps_its_reason() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.FAILED, TEST_FAILED)
    assert (lab.job(1).state, lab.job(1).failure) == (JobState.FAILED, TEST_FAILED)


def test_lab_fault_is_tried_on_another_device_and_costs_no_retry() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect("lab", *two_phones())
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, DEVICE_LOST)
    assert lab.jobs_of(lab.lease_on(E2)) == [1]
    assert lab.job(1).retries_used == 0


def test_lab_budget_ends_a_job_errored_after_three_faults() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    for _ in range(3):
        lease = agent.adopt(E1)
        agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, DEVICE_LOST)
    assert (lab.job(1).state, lab.job(1).failure) == (JobState.ERRORED, DEVICE_LOST)


@pytest.mark.parametrize("reason", ["SPEC_NOT_FOUND", "BUILD_NOT_FOUND", "BUILD_INVALID", "PROJECT_INVALID"])
def test_failure_that_nothing_can_mend_ends_the_job_at_once(reason: str) -> None:
    lab = Lab()
    lab.submit(spec(retries=5))
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, Failure(reason=reason, message="no"))
    assert lab.job(1).state is JobState.FAILED


def test_rejected_batch_with_a_broken_build_fails_all_its_jobs() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    agent.reject(agent.adopt(E1), Failure(reason="BUILD_INVALID", message="not an APK"))
    assert [lab.job(job).state for job in (1, 2)] == [JobState.FAILED] * 2
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.IDLE


def test_queued_job_is_cancelled_at_once() -> None:
    lab = Lab()
    lab.submit(spec())
    lab.cancel(1)
    assert lab.job(1).state is JobState.CANCELLED
    assert lab.scheduler.ledger.queued == {Lane.HIGH: 0, Lane.NORMAL: 0, Lane.LOW: 0}


def test_assigned_job_is_cancelled_only_when_the_agent_echoes_that_it_has_not_started() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.cancel(2)
    assert lab.job(2).state is JobState.ASSIGNED
    stale = agent.echo_of(lease, started=(running,))
    agent.beat(stale)
    assert lab.job(2).state is JobState.ASSIGNED
    agent.adopt(E1, started=(running,))
    assert lab.job(2).state is JobState.CANCELLED
    agent.finish(lease, running)
    assert lab.job(1).state is JobState.COMPLETED


def test_pass_that_was_faster_than_the_cancel_is_a_pass() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.cancel(1)
    agent.finish(lease, running, AttemptOutcome.PASSED)
    assert lab.job(1).state is JobState.COMPLETED


def test_running_job_is_cancelled_when_its_agent_has_stopped_it() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.cancel(1)
    assert snapshots(lab.sends)[-1].revoked == ((running, RevokeReason.CANCEL),)
    agent.finish(lease, running, AttemptOutcome.CANCELLED)
    assert lab.job(1).state is JobState.CANCELLED


def test_urgent_job_preempts_the_lowest_priority_and_the_victim_returns_to_the_head_of_its_family() -> None:
    lab = Lab()
    lab.submit(spec("slow", priority=1), spec("later", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    assert {reason for _, reason in lab.lease_on(E1).revoked} == {RevokeReason.PREEMPT}
    agent.adopt(E1, started=(running,))
    assert lab.job(2).state is JobState.QUEUED
    agent.finish(lease, running, AttemptOutcome.PREEMPTED)
    assert lab.jobs_of(lab.lease_on(E1)) == [3]
    assert (lab.job(1).state, lab.job(1).preemptions) == (JobState.QUEUED, 1)
    urgent = agent.adopt(E1)
    agent.run(urgent)
    assert lab.jobs_of(lab.lease_on(E1)) == [1, 2]


def test_job_that_was_preempted_twice_is_left_alone() -> None:
    lab = Lab()
    lab.submit(spec("slow", priority=1))
    agent = lab.connect()
    for _ in range(2):
        lease = agent.adopt(E1)
        running = agent.start(lease)
        lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
        agent.finish(lease, running, AttemptOutcome.PREEMPTED)
        agent.run(agent.adopt(E1))
    lease = agent.adopt(E1)
    agent.start(lease)
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    assert lab.lease_on(E1).revoked == ()


def test_normal_priority_is_never_preempted() -> None:
    lab = Lab()
    lab.submit(spec("slow", priority=3))
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    assert lab.lease_on(E1).revoked == ()


def test_higher_priority_that_waits_takes_the_unstarted_tail_at_the_job_boundary() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"), spec("c"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    first = agent.start(lease)
    lab.submit(spec("sooner", priority=4, app_version_id="other"))
    agent.finish(lease, first)
    agent.adopt(E1)
    assert lab.jobs_of(lab.lease_on(E1)) == [4]
    assert [lab.job(job).state for job in (2, 3)] == [JobState.QUEUED] * 2


def test_expired_lease_loses_what_ran_requeues_the_rest_and_fences_the_device() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    agent.lose()
    lab.pass_time(29)
    assert lab.job(1).state is JobState.RUNNING
    lab.pass_time(2)
    assert [lab.job(job).state for job in (1, 2)] == [JobState.QUEUED] * 2
    assert (lab.job(1).lab_failures, lab.job(2).lab_failures) == (1, 0)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.FENCING
    late = agent.finish(lease, running)
    assert not any(isinstance(write, PutJob) for write in late.writes)


def test_fenced_device_is_free_again_when_its_agent_no_longer_holds_the_lease() -> None:
    lab = Lab()
    lab.submit(spec("a", target=Target.EMULATOR))
    agent = lab.connect()
    lease = agent.adopt(E1)
    agent.start(lease)
    agent.lose()
    lab.pass_time(31)
    back = lab.connect(leases=(agent.echo_of(lease),))
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.FENCING
    assert lease.id in closes(lab.sends)
    back.beat()
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_heartbeats_keep_a_lease_alive() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    for _ in range(10):
        lab.pass_time(20)
        step = agent.beat(agent.echo_of(lease))
        assert step.sends == (SendHeartbeatAcknowledged(session=agent.session, sequence=1),)
    assert lab.lease_on(E1).id == lease.id


def test_pause_of_the_coordinator_itself_costs_no_lease() -> None:
    lab = Lab()
    lab.submit(spec())
    lease = lab.connect().adopt(E1)
    lab.mono_us += 3_600_000_000
    lab.expire()
    assert lab.lease_on(E1).id == lease.id


def test_same_boot_resumes_its_lease_and_the_attempt_goes_on() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    agent.lose()
    assert lab.lease_on(E1).state is LeaseState.DISCONNECTED
    back = lab.connect(leases=(agent.echo_of(lease, started=(running,)),))
    assert lab.lease_on(E1).state is LeaseState.ACTIVE
    back.finish(lease, running)
    assert (lab.job(1).state, lab.job(1).attempt_count) == (JobState.COMPLETED, 1)


def test_results_in_hello_count_before_the_leases_of_an_older_boot_are_closed() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    agent.lose()
    result = replace(agent.result(lease, running), session=SessionId(2))
    lab.connect(boot="boot-2", results=(result,))
    assert lab.job(1).state is JobState.COMPLETED
    assert SendResultsAcknowledged(session=SessionId(2), attempts=(lease.attempts[0],)) in lab.sends
    assert lab.jobs_of(lab.lease_on(E1)) == [2]


def test_new_boot_loses_what_ran_and_runs_it_again() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    agent.lose()
    lab.connect(boot="boot-2")
    assert (lab.job(1).attempt_count, lab.job(1).lab_failures) == (2, 1)


def test_agent_of_another_database_has_nothing_of_this_one_whatever_its_boot() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    agent.lose()
    lab.connect(is_stranger=True)
    assert (lab.job(1).attempt_count, lab.job(1).lab_failures) == (2, 1)
    assert lab.job(2).lab_failures == 0


def test_new_stream_of_the_same_boot_replaces_the_old_and_its_late_end_is_ignored() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.connect()
    assert CloseSession(session=agent.session, why="the agent opened a new session") in lab.sends
    assert agent.lose() == Step()


def test_second_agent_of_the_same_name_is_refused_while_the_first_is_alive() -> None:
    lab = Lab()
    lab.connect()
    with pytest.raises(Conflict, match="another --name"):
        lab.connect(boot="boot-2")
    lab.pass_time(11)
    lab.connect(boot="boot-2")


def test_lost_offer_is_sent_again_with_the_next_heartbeat() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    lab.sends.clear()
    agent.beat()
    assert [send.lease.id for send in snapshots(lab.sends)] == [lab.lease_on(E1).id]


def test_released_lease_gives_its_jobs_back_without_cost() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect("lab", *two_phones())
    agent.release(agent.adopt(E1))
    assert lab.job(1).lab_failures == 0
    assert lab.job(1).attempt_count == 2


def test_device_that_becomes_unusable_in_a_test_gives_back_only_what_has_not_started() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    unusable = emulator("emulator-1", is_usable=False, reason="its agent is stopping")
    lab.handle(DevicesReported(session=agent.session, devices=(unusable,)))
    agent.adopt(E1, started=(running,))
    assert [lab.job(job).state for job in (1, 2)] == [JobState.RUNNING, JobState.QUEUED]
    agent.finish(lease, running)
    assert lab.job(1).state is JobState.COMPLETED
    assert (lab.job(2).preemptions, lab.job(2).lab_failures) == (0, 0)


def test_device_that_becomes_unusable_before_the_first_test_keeps_its_lease() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect()
    agent.adopt(E1)
    lease = lab.lease_on(E1)
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("emulator-1", is_usable=False),)))
    assert lab.lease_on(E1) == lease


def test_goodbye_leaves_devices_offline_and_requeues() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    agent.adopt(E1)
    agent.lose(goodbye=True)
    assert lab.job(1).state is JobState.QUEUED
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.OFFLINE


def test_welcome_comes_before_any_lease() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    mine = [send for send in lab.sends if getattr(send, "session", None) == agent.session]
    assert isinstance(mine[0], SendWelcome)
    assert len(snapshots(mine)) == 1


def test_restored_scheduler_gives_every_lease_a_full_time_to_live_and_keeps_the_queue() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b", app_version_id="other"))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    ledger = lab.scheduler.ledger
    reborn = Lab()
    reborn.mono_us = 777
    reborn.scheduler = Scheduler(reborn.settings, replace(ledger.counters, epoch=2))
    reborn.scheduler.restore(
        jobs=list(ledger.jobs.values()),
        attempts=list(ledger.attempts.values()),
        leases=list(ledger.fleet.leases.values()),
        devices=list(ledger.fleet.devices.values()),
        agents=list(ledger.fleet.agents.values()),
        builds=(),
        now=reborn.now,
    )
    reborn.jobs.update(ledger.jobs)
    reborn.pass_time(29)
    back = reborn.connect(leases=(agent.echo_of(lease, started=(running,)),))
    back.finish(lease, running)
    assert reborn.job(1).state is JobState.COMPLETED
    granted = reborn.lease_on(E1)
    assert (granted.fence.epoch, granted.fence.number, reborn.jobs_of(granted)) == (2, 2, [2])


def test_refused_event_changes_nothing() -> None:
    lab = Lab()
    lab.connect()
    before = lab.scheduler.ledger.counters
    with pytest.raises(Conflict):
        lab.handle(
            AgentConnected(session=SessionId(9), agent=AgentId("lab"), boot_id="x", version="", host="", devices=())
        )
    assert lab.scheduler.ledger.counters == before
    assert lab.scheduler.ledger.take_step() == Step()


def test_counters_are_written_with_what_uses_them() -> None:
    lab = Lab()
    lab.connect()
    lab.submit(spec())
    assert lab.scheduler.ledger.counters == Counters(epoch=1, next_job=2, next_attempt=2, next_lease=2, next_sequence=2)
