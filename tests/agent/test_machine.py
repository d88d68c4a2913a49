"""The agent's machine on paper."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.events import (
    AcknowledgeHeartbeat,
    AcknowledgeResults,
    AdoptLease,
    AttemptEnded,
    CloseLease,
    Command,
    DevicePrepared,
    DevicesObserved,
    DrainRequested,
    Event,
    LogsFlushed,
    PrepareFailed,
    Received,
    SessionLost,
    SessionOpened,
    Started,
    TellUploads,
    TestObserved,
    UploadsWanted,
    Welcome,
)
from agent.core.machine import Machine
from agent.core.model import (
    AgentId,
    AttemptId,
    AttemptResult,
    BegunAttempt,
    Blame,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Failure,
    Fence,
    Identity,
    Installation,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    LeaseSpec,
    LogSummary,
    Memory,
    Now,
    Outcome,
    Pace,
    Revocation,
    RevokeReason,
    TestResult,
    TestState,
    UploadClaim,
    UploadStatus,
)
from agent.core.step import (
    ClaimUploads,
    CloseSession,
    EchoLease,
    EndLease,
    Exit,
    FlushLogs,
    ForgetCluster,
    ForgetResults,
    Goodbye,
    Heartbeat,
    Hello,
    KeepResult,
    OpenSession,
    PrepareDevice,
    RejectLease,
    ReleaseLease,
    ReportClosed,
    ReportDevices,
    ReportInstallation,
    ReportResult,
    ReportStart,
    ReportTest,
    ShareUploads,
    StartAttempt,
    Step,
    StopAttempt,
    StopPreparing,
    TakeUploads,
)

PHONE = DeviceId("emulator-1@lab")
PACE = Pace(heartbeat_us=1_000_000, lease_ttl_us=5_000_000, orphan_limit_us=60_000_000, signal_grace_us=2_000_000)
INSTALLED = Installation(digest="d" * 64, is_new=True, duration_us=5)
KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))
NEWER = LeaseKey(lease_id=LeaseId(2), fence=Fence(epoch=1, number=2))


def job(attempt: int) -> LeasedJob:
    return LeasedJob(
        attempt_id=AttemptId(attempt), job_id=JobId(attempt), attempt_number=1, test="a.spec.ts", timeout_us=1
    )


def lease(*attempts: int, key: LeaseKey = KEY, revision: int = 1, revoked: tuple[Revocation, ...] = ()) -> LeaseSpec:
    return LeaseSpec(
        key=key,
        revision=revision,
        device_id=PHONE,
        org_id="q",
        app_version_id="v",
        jobs=tuple(job(attempt) for attempt in attempts),
        revoked=revoked,
        grace_us=3_000_000,
    )


def revoked(attempt: int, reason: RevokeReason = RevokeReason.CANCEL) -> Revocation:
    return Revocation(attempt_id=AttemptId(attempt), reason=reason)


class Desk:
    """A machine with its session up."""

    def __init__(
        self, memory: Memory | None = None, *, is_connected: bool = True, kind: DeviceKind = DeviceKind.EMULATOR
    ) -> None:
        identity = Identity(agent_id=AgentId("lab"), boot_id="b", version="0", host="h")
        self.machine = Machine(identity, memory or Memory())
        self.us = 0
        self.handle(DevicesObserved(devices=(DeviceFacts(id=PHONE, kind=kind),)))
        self.handle(Started())
        if is_connected:
            self.welcome()

    def handle(self, event: Event) -> Step:
        return self.machine.handle(event, Now(mono_us=self.us, wall_us=0))

    def expire_at(self, us: int) -> Step:
        self.us = us
        return self.machine.expire(Now(mono_us=us, wall_us=0))

    def welcome(self, session: int = 1, *, cluster: str = "c", epoch: int = 1, shares_uploads: bool = False) -> Step:
        self.handle(SessionOpened(session=session))
        welcome = Welcome(cluster_id=cluster, epoch=epoch, pace=PACE, shares_uploads=shares_uploads)
        return self.receive(welcome, session)

    def receive(self, command: Command, session: int = 1) -> Step:
        return self.handle(Received(session=session, command=command))

    def prepared(self, key: LeaseKey = KEY) -> Step:
        return self.handle(DevicePrepared(device_id=PHONE, key=key, installation=INSTALLED))

    def ended(self, attempt: int, outcome: Outcome | None = Outcome.PASSED, key: LeaseKey = KEY) -> Step:
        return self.handle(
            AttemptEnded(
                device_id=PHONE,
                key=key,
                attempt_id=AttemptId(attempt),
                outcome=outcome,
                failure=None,
                log=LogSummary(),
            )
        )


def started(step: Step) -> list[int]:
    return [action.job.attempt_id for action in step.actions if isinstance(action, StartAttempt)]


def results(step: Step) -> list[tuple[int, Outcome]]:
    return [(send.result.attempt_id, send.result.outcome) for send in step.sends if isinstance(send, ReportResult)]


def test_lease_is_prepared_once_and_its_jobs_run_in_order() -> None:
    desk = Desk()
    step = desk.receive(AdoptLease(lease=lease(1, 2)))
    assert step.actions == (PrepareDevice(lease=lease(1, 2)),)
    assert [type(send) for send in step.sends] == [EchoLease]
    step = desk.prepared()
    assert step.sends[0] == ReportInstallation(key=KEY, installation=INSTALLED)
    assert step.sends[1] == ReportStart(key=KEY, attempt_id=AttemptId(1))
    assert started(step) == [1]
    step = desk.ended(1)
    assert results(step) == [(1, Outcome.PASSED)]
    assert isinstance(step.writes[0], KeepResult)
    assert started(step) == [2]
    assert started(desk.ended(2)) == []


def test_result_is_kept_until_it_is_acknowledged_and_goes_with_hello() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    step = desk.ended(1)
    assert step.sends == ()
    desk.expire_at(20_000_000)
    hello = desk.handle(SessionOpened(session=2)).sends[0]
    assert isinstance(hello, Hello)
    assert [result.attempt_id for result in hello.results] == [1]
    desk.receive(Welcome(cluster_id="c", epoch=1, pace=PACE), 2)
    step = desk.receive(AcknowledgeResults(attempt_ids=(AttemptId(1),)), 2)
    assert step.writes == (ForgetResults(attempt_ids=(AttemptId(1),)),)


def test_claims_to_uploads_are_stated_whole_and_again_on_every_session() -> None:
    desk = Desk(is_connected=False)
    desk.welcome(shares_uploads=True)
    claims = (UploadClaim(account="a", digest="d", number=1),)
    assert desk.handle(UploadsWanted(claims=claims)).sends == (ClaimUploads(claims=claims),)
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    assert desk.handle(UploadsWanted(claims=())).sends == ()
    desk.expire_at(20_000_000)
    step = desk.welcome(session=2, shares_uploads=True)
    assert ClaimUploads(claims=()) in step.sends, "the claim that was stated before has ended"


def test_coordinator_that_knows_of_no_claims_is_told_of_none_and_its_successor_of_all() -> None:
    desk = Desk()
    claims = (UploadClaim(account="a", digest="d", number=1),)
    assert desk.handle(UploadsWanted(claims=claims)).sends == (), "it would end the session over a word it cannot read"
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(20_000_000)
    assert ClaimUploads(claims=claims) not in desk.welcome(session=2).sends
    desk.handle(SessionLost(session=2, reason="", jitter=0))
    desk.expire_at(40_000_000)
    assert ClaimUploads(claims=claims) in desk.welcome(session=3, shares_uploads=True).sends


def test_answer_to_claims_is_acted_on_and_so_is_a_coordinator_that_gives_none() -> None:
    desk = Desk()
    status = UploadStatus(account="a", digest="d", number=1, holder="lab", turn=0)
    told = TellUploads(statuses=(status,), sharers=(("a", 2),))
    assert desk.receive(told).actions == (TakeUploads(statuses=(status,), sharers=(("a", 2),)),)
    assert desk.receive(told, session=7).actions == (), "it came late, on another stream"
    welcome = Welcome(cluster_id="c", epoch=1, pace=PACE, shares_uploads=True)
    assert desk.receive(welcome).actions == (ShareUploads(is_shared=True),)
    assert desk.receive(welcome).actions == ()
    assert desk.receive(replace(welcome, shares_uploads=False)).actions == (ShareUploads(is_shared=False),)


def test_run_that_an_earlier_life_began_and_did_not_end_is_lost() -> None:
    log = LogSummary(size=3, sha256="x")
    identity = Identity(agent_id=AgentId("lab"), boot_id="b", version="0", host="h")
    memory = Memory(begun=(BegunAttempt(attempt_id=AttemptId(7), key=KEY, log=log),))
    (kept,) = Machine(identity, memory).handle(Started(), Now(mono_us=0, wall_us=0)).writes
    desk = Desk(memory, is_connected=False)
    (hello,) = desk.handle(SessionOpened(session=1)).sends
    assert isinstance(hello, Hello)
    (lost,) = hello.results
    assert kept == KeepResult(result=lost)
    assert (lost.attempt_id, lost.key, lost.outcome, lost.log) == (7, KEY, Outcome.LOST, log)
    desk.receive(Welcome(cluster_id="c", epoch=1, pace=PACE))
    step = desk.receive(AcknowledgeResults(attempt_ids=(AttemptId(7),)))
    assert step.writes == (ForgetResults(attempt_ids=(AttemptId(7),)),)


def test_what_comes_about_between_hello_and_welcome_is_said_after_it() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(1)
    desk.handle(SessionOpened(session=2))
    desk.ended(1)
    other = DeviceFacts(id=DeviceId("emulator-2@lab"), kind=DeviceKind.EMULATOR)
    desk.handle(DevicesObserved(devices=(DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR), other)))
    step = desk.receive(Welcome(cluster_id="c", epoch=1, pace=PACE), 2)
    assert [type(send) for send in step.sends] == [ReportDevices, ReportResult]
    assert results(step) == [(1, Outcome.PASSED)]


def test_great_many_failures_never_make_a_result_too_long_to_send() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    for number in range(300):
        failed = TestResult(id=f"t{number}", title="t", state=TestState.FAILED, error="\u20ac" * 16_384)
        desk.handle(TestObserved(device_id=PHONE, key=KEY, attempt_id=AttemptId(1), test=failed))
    (report,) = [send for send in desk.ended(1).sends if isinstance(send, ReportResult)]
    assert len(report.result.tests) == 300
    assert sum(len(test.error.encode()) for test in report.result.tests) < 256 * 1_024


def test_hello_takes_the_newest_results_and_the_rest_follow_its_welcome() -> None:
    test = TestResult(id="t", title="t", state=TestState.FAILED, error="x" * 200_000)
    kept = tuple(
        AttemptResult(
            attempt_id=AttemptId(number),
            key=KEY,
            outcome=Outcome.FAILED,
            failure=None,
            tests=(test,),
            log=LogSummary(),
            duration_us=1,
            build_digest="",
        )
        for number in range(1, 31)
    )
    desk = Desk(Memory(cluster_id="c", epoch=1, results=kept), is_connected=False)
    (hello,) = desk.handle(SessionOpened(session=1)).sends
    assert isinstance(hello, Hello)
    assert [result.attempt_id for result in hello.results] == list(range(21, 31))
    step = desk.receive(Welcome(cluster_id="c", epoch=1, pace=PACE))
    assert [attempt for attempt, _ in results(step)] == list(range(1, 21))


def test_revoked_attempt_that_has_not_started_never_starts() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    step = desk.receive(AdoptLease(lease=lease(1, revision=2, revoked=(revoked(2),))))
    (echo,) = step.sends
    assert isinstance(echo, EchoLease)
    assert (echo.echo.revision, echo.echo.started) == (2, (1,))
    assert started(desk.ended(1)) == []


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(RevokeReason.CANCEL, Outcome.CANCELLED), (RevokeReason.RELEASE, Outcome.RELEASED)],
)
def test_attempt_that_was_cancelled_or_given_back_is_stopped_at_once(reason: RevokeReason, outcome: Outcome) -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    step = desk.receive(AdoptLease(lease=lease(revision=2, revoked=(revoked(1, reason),))))
    stop = StopAttempt(device_id=PHONE, key=KEY, attempt_id=AttemptId(1), grace_us=PACE.signal_grace_us)
    assert step.actions == (stop,)
    assert results(desk.ended(1, None)) == [(1, outcome)]


def observed(title: str, state: TestState) -> TestObserved:
    test = TestResult(id=title, title=title, state=state)
    return TestObserved(device_id=PHONE, key=KEY, attempt_id=AttemptId(1), test=test)


def test_begin_of_each_test_is_counted_from_that_of_its_attempt_and_stays() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.us = 1_000_000
    desk.prepared()
    begins = []
    for us, title, state, duration_us in (
        (1_200_000, "first", TestState.RUNNING, 0),
        (1_700_000, "first", TestState.PASSED, 450_000),
        # Its beginning was never told, as that of a test that is skipped.
        (1_800_000, "second", TestState.SKIPPED, 50_000),
        (1_800_000, "third", TestState.FAILED, 9_000_000),
    ):
        desk.us = us
        event = observed(title, state)
        (report,) = desk.handle(replace(event, test=replace(event.test, duration_us=duration_us))).sends
        assert isinstance(report, ReportTest)
        begins.append((title, report.test.begin_us))
    assert begins == [("first", 200_000), ("first", 200_000), ("second", 750_000), ("third", 0)]


def preempt(desk: Desk) -> None:
    desk.receive(AdoptLease(lease=lease(revision=2, revoked=(revoked(1, RevokeReason.PREEMPT),))))


def drain(desk: Desk) -> None:
    desk.handle(DrainRequested(grace_us=60_000_000))


@pytest.mark.parametrize("stopping", [preempt, drain])
def test_spec_whose_tests_have_all_ended_keeps_its_verdict(stopping: Callable[[Desk], None]) -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(observed("only", TestState.RUNNING))
    stopping(desk)
    assert desk.handle(observed("only", TestState.PASSED)).actions == ()
    assert results(desk.ended(1, Outcome.PASSED)) == [(1, Outcome.PASSED)]


def test_draining_agent_lets_a_spec_go_on_to_its_next_test() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(DrainRequested(grace_us=60_000_000))
    assert desk.handle(observed("first", TestState.PASSED)).actions == ()
    assert desk.handle(observed("second", TestState.RUNNING)).actions == ()


def test_preempted_attempt_is_stopped_between_two_tests() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(observed("first", TestState.RUNNING))
    step = desk.receive(AdoptLease(lease=lease(revision=2, revoked=(revoked(1, RevokeReason.PREEMPT),))))
    assert step.actions == ()
    assert desk.handle(observed("first", TestState.PASSED)).actions == ()
    (stop,) = desk.handle(observed("second", TestState.RUNNING)).actions
    assert isinstance(stop, StopAttempt)
    assert results(desk.ended(1, None)) == [(1, Outcome.PREEMPTED)]


@pytest.mark.parametrize(("outcome", "is_kept"), [(None, True), (Outcome.PASSED, False)])
def test_only_a_run_without_a_verdict_of_its_own_is_called_resumable(outcome: Outcome | None, is_kept: bool) -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    preempt(desk)
    end = AttemptEnded(
        device_id=PHONE,
        key=KEY,
        attempt_id=AttemptId(1),
        outcome=outcome,
        failure=None,
        log=LogSummary(),
        is_resumable=True,
    )
    (report,) = [send for send in desk.handle(end).sends if isinstance(send, ReportResult)]
    assert report.result.is_resumable is is_kept


def test_preempted_attempt_is_stopped_when_its_grace_is_over() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.receive(AdoptLease(lease=lease(revision=2, revoked=(revoked(1, RevokeReason.PREEMPT),))))
    assert desk.machine.next_deadline() is not None
    assert not [action for action in desk.expire_at(2_999_999).actions if isinstance(action, StopAttempt)]
    assert [action for action in desk.expire_at(3_000_000).actions if isinstance(action, StopAttempt)]


def test_older_revision_and_older_fence_change_nothing() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, key=NEWER, revision=3)))
    assert desk.receive(AdoptLease(lease=lease(1, 2, key=KEY, revision=9))) == Step()
    step = desk.receive(AdoptLease(lease=lease(5, key=NEWER, revision=2)))
    assert step.actions == ()
    assert started(desk.prepared(NEWER)) == [1]


def test_newer_lease_waits_until_the_older_one_has_stopped() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    step = desk.receive(AdoptLease(lease=lease(9, key=NEWER)))
    assert [type(action) for action in step.actions] == [StopAttempt]
    step = desk.ended(1, None)
    assert [type(action) for action in step.actions] == [EndLease, PrepareDevice]


def test_closed_lease_is_forgotten_when_nothing_of_it_runs() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    assert [type(action) for action in desk.receive(CloseLease(key=KEY)).actions] == [StopAttempt]
    assert [type(action) for action in desk.ended(1, None).actions] == [EndLease]
    beat = desk.expire_at(1_000_000).sends[0]
    assert beat == Heartbeat(sequence=1, leases=())


def cloud_at_work() -> Desk:
    """A slot of a cloud that runs a test; its lease lives for 5 s, and is given up at two thirds of that."""
    desk = Desk(kind=DeviceKind.BROWSERSTACK)
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    return desk


def stops(step: Step) -> int:
    return len([action for action in step.actions if isinstance(action, StopAttempt)])


def test_slot_of_a_cloud_is_given_up_before_its_lease_can_expire() -> None:
    desk = cloud_at_work()
    desk.handle(SessionLost(session=1, reason="", jitter=65_535))
    assert stops(desk.expire_at(3_333_333)) == 0
    assert desk.machine.next_deadline() == 3_333_334
    assert stops(desk.expire_at(3_333_334)) == 1
    step = desk.ended(1, None)
    assert [type(action) for action in step.actions] == [EndLease], "nothing more of the lease starts"


def test_slot_of_a_cloud_is_given_up_when_heartbeats_are_not_answered() -> None:
    desk = cloud_at_work()
    desk.expire_at(1_000_000)
    desk.receive(AcknowledgeHeartbeat(sequence=1))
    desk.expire_at(2_000_000)
    desk.expire_at(4_333_333)
    assert stops(desk.expire_at(4_333_334)) == 1


def test_slot_of_a_cloud_works_on_while_heartbeats_are_answered() -> None:
    desk = cloud_at_work()
    for sequence in range(1, 10):
        assert stops(desk.expire_at(sequence * 1_000_000)) == 0
        desk.receive(AcknowledgeHeartbeat(sequence=sequence))


def test_answer_counts_from_when_its_heartbeat_left() -> None:
    desk = cloud_at_work()
    desk.expire_at(1_000_000)
    desk.expire_at(2_000_000)
    desk.expire_at(3_000_000)
    desk.receive(AcknowledgeHeartbeat(sequence=1))
    assert stops(desk.expire_at(4_333_334)) == 1


def test_phone_of_the_lab_works_on_past_its_lease() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=65_535))
    assert stops(desk.expire_at(30_000_000)) == 0


CLOSE = CloseLease(key=KEY, device_id=PHONE)
CLOSED = ReportClosed(key=KEY, device_id=PHONE)


def test_agent_that_never_had_a_closed_lease_says_so_and_refuses_an_offer_that_comes_late() -> None:
    desk = Desk()
    assert desk.receive(CLOSE).sends == (CLOSED,)
    assert desk.receive(AdoptLease(lease=lease(1))).actions == ()
    assert [type(action) for action in desk.receive(AdoptLease(lease=lease(2, key=NEWER))).actions] == [PrepareDevice]


def test_closed_lease_is_answered_when_nothing_of_it_runs_any_more() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    for _ in range(2):
        assert desk.receive(CLOSE).sends == ()
    assert [send for send in desk.ended(1, None).sends if isinstance(send, ReportClosed)] == [CLOSED]


def test_answer_waits_for_what_still_runs_under_an_older_lease() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.receive(AdoptLease(lease=lease(9, key=NEWER)))
    assert desk.receive(CloseLease(key=NEWER, device_id=PHONE)).sends == ()
    step = desk.ended(1, None)
    assert ReportClosed(key=NEWER, device_id=PHONE) in step.sends
    assert [type(action) for action in step.actions] == [EndLease]


def test_close_of_an_older_lease_leaves_the_newer_one_alone() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(9, key=NEWER)))
    step = desk.receive(CLOSE)
    assert (step.sends, step.actions) == ((CLOSED,), ())


def test_close_without_a_device_is_not_answered() -> None:
    desk = Desk()
    assert desk.receive(CloseLease(key=KEY)).sends == ()


def test_offer_that_comes_late_is_refused_after_its_device_was_away() -> None:
    desk = Desk()
    phone = DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR)
    desk.handle(DevicesObserved(devices=()))
    assert desk.receive(CLOSE).sends == (CLOSED,)
    desk.handle(DevicesObserved(devices=(phone,)))
    assert desk.receive(AdoptLease(lease=lease(1))).actions == ()


def test_offer_that_was_refused_or_given_back_is_given_back_again() -> None:
    desk = Desk()
    phone = DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR)
    desk.handle(DevicesObserved(devices=()))
    assert [type(send) for send in desk.receive(AdoptLease(lease=lease(1))).sends] == [RejectLease]
    desk.handle(DevicesObserved(devices=(phone,)))
    step = desk.receive(AdoptLease(lease=lease(1)))
    assert (step.sends, step.actions) == ((ReleaseLease(key=KEY),), ())


def test_failed_preparation_rejects_the_lease_and_says_so_again_after_a_lost_link() -> None:
    failure = Failure(reason="BUILD_INVALID", message="no APK", blame=Blame.BUILD)
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    step = desk.handle(PrepareFailed(device_id=PHONE, key=KEY, failure=failure))
    assert step.sends == (RejectLease(key=KEY, failure=failure),)
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(1)
    assert RejectLease(key=KEY, failure=failure) in desk.welcome(2).sends


def test_result_that_nobody_acknowledges_is_said_again_with_each_heartbeat() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.ended(1)
    assert results(desk.expire_at(1_000_000)) == [(1, Outcome.PASSED)]
    assert results(desk.expire_at(2_000_000)) == [(1, Outcome.PASSED)]
    desk.receive(AcknowledgeResults(attempt_ids=(AttemptId(1),)))
    assert results(desk.expire_at(3_000_000)) == []


def test_rejection_is_said_again_with_each_heartbeat_until_the_lease_is_closed() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    failure = Failure(reason="INSTALL_FAILED", message="no space", blame=Blame.DEVICE)
    desk.handle(PrepareFailed(device_id=PHONE, key=KEY, failure=failure))
    assert RejectLease(key=KEY, failure=failure) in desk.expire_at(1_000_000).sends
    desk.receive(CloseLease(key=KEY))
    assert [type(send) for send in desk.expire_at(2_000_000).sends] == [Heartbeat]


def test_reconnect_waits_inside_a_growing_window_of_at_most_ten_seconds() -> None:
    desk = Desk(is_connected=False)
    waits = []
    for session in range(1, 9):
        desk.handle(SessionLost(session=session, reason="", jitter=65_535))
        deadline = desk.machine.next_deadline()
        assert deadline is not None
        waits.append(deadline - desk.us)
        assert desk.expire_at(deadline).actions == (OpenSession(session=session + 1),)
    assert waits == sorted(waits)
    assert waits[-1] <= 10_000_000


def test_reconnect_waits_no_longer_than_a_third_of_a_lease() -> None:
    desk = Desk()
    for session in range(1, 9):
        desk.handle(SessionLost(session=session, reason="", jitter=65_535))
        deadline = desk.machine.next_deadline()
        assert deadline is not None
        assert deadline - desk.us <= PACE.lease_ttl_us // 3
        desk.expire_at(deadline)


def test_refused_agent_waits_in_the_widest_window_at_once() -> None:
    desk = Desk(is_connected=False)
    desk.handle(SessionLost(session=1, reason="", jitter=32_768, is_refused=True))
    deadline = desk.machine.next_deadline()
    assert deadline is not None
    assert deadline - desk.us == 5_000_000


def test_coordinator_that_is_silent_for_half_a_lease_is_given_up() -> None:
    desk = Desk()
    assert desk.expire_at(2_500_000).actions == ()
    step = desk.expire_at(2_500_001)
    assert CloseSession(session=1, reason="the coordinator is silent") in step.actions


def test_coordinator_of_an_older_epoch_is_refused() -> None:
    desk = Desk(Memory(cluster_id="c", epoch=7), is_connected=False)
    step = desk.welcome(epoch=6)
    assert [type(action) for action in step.actions] == [CloseSession]


def test_other_database_makes_the_agent_forget_and_adopt() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(1)
    step = desk.welcome(2, cluster="other")
    assert ForgetCluster(cluster_id="c") in step.writes
    assert [type(action) for action in step.actions] == [StopAttempt]


def test_what_ran_for_another_database_is_never_told_to_the_next_one() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(1)
    desk.welcome(2, cluster="other")
    # The new database counts from the start: its first lease has the very names of the one that still runs.
    desk.receive(AdoptLease(lease=lease(1)), 2)
    assert desk.expire_at(1_000_001).sends == (Heartbeat(sequence=1, leases=()),)
    step = desk.ended(1, None)
    assert step.writes == ()
    assert results(step) == []
    assert [type(action) for action in step.actions] == [EndLease, PrepareDevice]


def test_coordinator_that_never_answers_hello_is_given_up() -> None:
    desk = Desk(is_connected=False)
    desk.handle(SessionOpened(session=1))
    deadline = desk.machine.next_deadline()
    assert deadline is not None
    assert desk.expire_at(deadline).actions == (CloseSession(session=1, reason="the coordinator is silent"),)


def test_cut_off_agent_starts_nothing_more_after_the_orphan_limit() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    desk.expire_at(60_000_000)
    step = desk.ended(1, None)
    assert started(step) == []
    assert [type(action) for action in step.actions] == [EndLease]


def test_preparation_is_stopped_at_the_orphan_limit() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    assert StopPreparing(device_id=PHONE, key=KEY) in desk.expire_at(60_000_000).actions


def test_draining_agent_offers_no_device() -> None:
    desk = Desk()
    step = desk.handle(DrainRequested(grace_us=9_000_000))
    (report,) = [send for send in step.sends if isinstance(send, ReportDevices)]
    assert [(one.usable, one.reason) for one in report.devices] == [(False, "its agent is stopping")]


UNUSABLE = DevicesObserved(
    devices=(DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR, usable=False, reason="something lives on it"),)
)


def test_nothing_more_starts_on_a_device_that_became_unusable_in_a_run() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    assert ReleaseLease(key=KEY) not in desk.handle(UNUSABLE).sends
    step = desk.ended(1)
    assert started(step) == []
    assert results(step) == [(1, Outcome.PASSED)]
    assert step.sends[-1] == ReleaseLease(key=KEY)
    assert step.actions == (EndLease(device_id=PHONE, key=KEY),)


def test_batch_is_given_back_when_its_device_becomes_unusable_before_a_run() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.handle(UNUSABLE)
    step = desk.prepared()
    assert started(step) == []
    assert step.sends[-1] == ReleaseLease(key=KEY)


def test_batch_that_waits_for_more_is_given_back_when_its_device_becomes_unusable() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.ended(1)
    assert ReleaseLease(key=KEY) in desk.handle(UNUSABLE).sends


def test_batch_for_an_unusable_device_is_given_back() -> None:
    desk = Desk()
    desk.handle(UNUSABLE)
    step = desk.receive(AdoptLease(lease=lease(1)))
    assert (step.sends, step.actions) == ((ReleaseLease(key=KEY),), ())


def test_cut_off_agent_finishes_its_batch_and_gives_up_after_the_orphan_limit() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    desk.handle(SessionLost(session=1, reason="", jitter=0))
    assert started(desk.ended(1)) == [2]
    assert [type(action) for action in desk.expire_at(60_000_000).actions][-1] is StopAttempt


def test_drain_lets_the_running_test_end_gives_the_rest_back_and_says_goodbye() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1, 2)))
    desk.prepared()
    step = desk.handle(DrainRequested(grace_us=9_000_000))
    assert (step.actions, [type(send) for send in step.sends]) == ((), [ReportDevices])
    step = desk.ended(1)
    assert ReleaseLease(key=KEY) in step.sends
    assert started(step) == []
    step = desk.receive(AcknowledgeResults(attempt_ids=(AttemptId(1),)))
    assert step.actions == (FlushLogs(),)
    step = desk.handle(LogsFlushed())
    assert step == Step(sends=(Goodbye(reason="the agent was told to stop"),), actions=(Exit(),))


def test_second_signal_stops_the_running_test_at_once() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=lease(1)))
    desk.prepared()
    desk.handle(DrainRequested(grace_us=9_000_000))
    assert [type(action) for action in desk.handle(DrainRequested(grace_us=0)).actions] == [StopAttempt]


class Host:
    """A host that runs what it is told, and checks that it never runs two things on one device."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.desk = Desk()
        self.busy: tuple[str, LeaseKey, int] | None = None
        self.started: set[int] = set()
        self.results: list[AttemptResult] = []
        self.revision = 0
        self.number = 0
        self.attempts = 0
        self.forbidden: set[int] = set()
        self.spec = lease()
        self.session = 1
        self.is_up = True

    def follow(self, step: Step) -> None:
        for write in step.writes:
            if isinstance(write, KeepResult):
                self.results.append(write.result)
        for action in step.actions:
            match action:
                case PrepareDevice():
                    assert self.busy is None, "two things on one device"
                    self.busy = ("prepare", action.lease.key, 0)
                case StartAttempt():
                    assert self.busy is None, "two things on one device"
                    assert action.job.attempt_id not in self.forbidden, "a revoked attempt was started"
                    assert action.job.attempt_id not in self.started, "an attempt was started twice"
                    self.started.add(action.job.attempt_id)
                    self.busy = ("run", action.key, action.job.attempt_id)
                case OpenSession():
                    self.session = action.session
                case _:
                    pass

    def act(self) -> None:
        choice = self.random.choice(
            ("grant", "extend", "revoke", "close", "host", "host", "host", "lose", "time", "stale")
        )
        match choice:
            case "grant":
                self.number += 1
                self.revision = 1
                key = LeaseKey(lease_id=LeaseId(self.number), fence=Fence(epoch=1, number=self.number))
                self.spec = lease(*self.more(2), key=key)
                self.send(AdoptLease(lease=self.spec))
            case "extend" if self.number:
                self.change(tuple(one.attempt_id for one in self.spec.jobs) + tuple(self.more(1)), self.spec.revoked)
            case "revoke" if self.number and self.spec.jobs:
                victim = self.random.choice(self.spec.jobs).attempt_id
                reason = self.random.choice(list(RevokeReason))
                kept = tuple(one.attempt_id for one in self.spec.jobs if one.attempt_id != victim)
                self.change(kept, (*self.spec.revoked, revoked(victim, reason)))
                if self.is_up and victim not in self.started:
                    self.forbidden.add(victim)
            case "close" if self.number:
                self.send(CloseLease(key=self.spec.key, device_id=self.random.choice((PHONE, None))))
            case "stale":
                old = LeaseKey(lease_id=LeaseId(0), fence=Fence(epoch=0, number=0))
                before = (self.busy, len(self.started))
                self.send(AdoptLease(lease=lease(*self.more(1), key=old)))
                assert before == (self.busy, len(self.started))
            case "host":
                self.work()
            case "lose" if self.is_up:
                self.is_up = False
                self.follow(self.desk.handle(SessionLost(session=self.session, reason="", jitter=9)))
            case "time":
                self.pass_time()
            case _:
                pass

    def more(self, count: int) -> list[int]:
        self.attempts += count
        return list(range(self.attempts - count + 1, self.attempts + 1))

    def change(self, attempts: tuple[int, ...], revocations: tuple[Revocation, ...]) -> None:
        self.revision += 1
        self.spec = lease(*attempts, key=self.spec.key, revision=self.revision, revoked=revocations)
        self.send(AdoptLease(lease=self.spec))

    def send(self, command: Command) -> None:
        if self.is_up:
            self.follow(self.desk.receive(command, self.session))

    def work(self) -> None:
        if self.busy is None:
            return
        (kind, key, attempt), self.busy = self.busy, None
        if kind == "prepare":
            self.follow(self.desk.prepared(key))
        else:
            self.follow(self.desk.ended(attempt, self.random.choice([Outcome.PASSED, None]), key))

    def pass_time(self) -> None:
        deadline = self.desk.machine.next_deadline()
        if deadline is None or deadline > self.desk.us + 50_000_000:
            return
        self.follow(self.desk.expire_at(max(deadline, self.desk.us)))
        if not self.is_up:
            self.is_up = True
            self.follow(self.desk.welcome(self.session))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_no_device_runs_two_tests_and_every_attempt_ends_once_whatever_happens(seed: int) -> None:
    host = Host(seed)
    for _ in range(60):
        host.act()
    while host.busy is not None:
        host.work()
    ended = [result.attempt_id for result in host.results]
    assert len(ended) == len(set(ended))
    assert set(ended) == host.started


@pytest.mark.parametrize("seed", range(3))
def test_same_seed_gives_the_same_story(seed: int) -> None:
    stories = []
    for _ in range(2):
        host = Host(seed)
        for _ in range(60):
            host.act()
        stories.append([result.attempt_id for result in host.results])
    assert stories[0] == stories[1]


# Canaries

CANARY = replace(lease(), is_canary=True)


def test_canary_is_given_back_when_its_device_was_found_sound() -> None:
    desk = Desk()
    assert [type(action) for action in desk.receive(AdoptLease(lease=CANARY)).actions] == [PrepareDevice]
    step = desk.prepared()
    assert step.sends == (ReportInstallation(key=KEY, installation=INSTALLED), ReleaseLease(key=KEY))
    assert [type(action) for action in step.actions] == [EndLease]


def test_canary_whose_word_was_lost_is_given_back_again() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=CANARY))
    desk.prepared()
    assert desk.receive(AdoptLease(lease=CANARY)).sends == (ReleaseLease(key=KEY),)


def test_canary_that_fails_is_rejected_with_the_reason() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=CANARY))
    failure = Failure(reason="DEVICE_LOCKED", message="unlock it", blame=Blame.DEVICE)
    step = desk.handle(PrepareFailed(device_id=PHONE, key=KEY, failure=failure))
    assert step.sends == (RejectLease(key=KEY, failure=failure),)


def test_device_takes_work_after_its_canary() -> None:
    desk = Desk()
    desk.receive(AdoptLease(lease=CANARY))
    desk.prepared()
    desk.receive(AdoptLease(lease=lease(1, key=NEWER)))
    assert started(desk.prepared(NEWER)) == [1]
