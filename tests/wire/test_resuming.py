"""What is said on the wire of tests that are done."""

from __future__ import annotations

from agent import wire as agent_wire
from agent.core import model as am
from agent.core.events import AdoptLease
from agent.core.step import ReportResult
from coordinator import wire
from coordinator.core.events import AttemptFinished
from coordinator.core.model import (
    AgentId,
    AppKey,
    Attempt,
    AttemptId,
    DeviceId,
    Fence,
    Job,
    JobId,
    JobSpec,
    JobState,
    KeptTest,
    Lease,
    LeaseId,
    LeaseState,
    SessionId,
    SubmitSequence,
    Target,
)
from coordinator.core.step import LeasedJob, SendLease

SESSION = SessionId(1)


def test_agent_hears_which_tests_are_done() -> None:
    job = Job(
        id=JobId(1),
        sequence=SubmitSequence(1),
        spec=JobSpec(org_id="q", app_version_id="v", test="a.spec.ts"),
        state=JobState.ASSIGNED,
        create_us=1,
        kept=(KeptTest("a"), KeptTest("b", "it broke")),
    )
    lease = Lease(
        id=LeaseId(1),
        fence=Fence(1, 1),
        device=DeviceId("e1"),
        agent=AgentId("lab"),
        boot_id="b",
        app=AppKey(org_id="q", app_version_id="v"),
        target=Target.ANY,
        state=LeaseState.OFFERED,
        revision=1,
        grant_us=1,
    )
    attempt = Attempt(
        id=AttemptId(2),
        job=job.id,
        number=2,
        lease=lease.id,
        device=lease.device,
        agent=lease.agent,
        assign_us=1,
    )
    jobs = (LeasedJob(attempt=attempt, job=job),)
    command = agent_wire.command(
        wire.command(SendLease(session=SESSION, lease=lease, jobs=jobs, revoked=(), grace_us=1))
    )
    assert isinstance(command, AdoptLease)
    assert [leased.done for leased in command.lease.jobs] == [("a", "b")]


def test_coordinator_hears_that_a_run_can_be_resumed() -> None:
    result = am.AttemptResult(
        attempt_id=am.AttemptId(1),
        key=am.LeaseKey(lease_id=am.LeaseId(1), fence=am.Fence(epoch=1, number=1)),
        outcome=am.Outcome.PREEMPTED,
        failure=None,
        tests=(),
        log=am.LogSummary(),
        duration_us=1,
        build_digest="",
        is_resumable=True,
    )
    event = wire.agent_event(SESSION, agent_wire.fact(ReportResult(result=result)))
    assert isinstance(event, AttemptFinished)
    assert event.is_resumable
