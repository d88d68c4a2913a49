"""Makes records with what a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.core.model import (
    NOTHING,
    Agent,
    AgentId,
    AgentState,
    AppKey,
    Attempt,
    AttemptId,
    AttemptOutcome,
    Build,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    DeviceState,
    Fence,
    Job,
    JobId,
    JobSpec,
    JobState,
    Lane,
    Lease,
    LeaseId,
    LeaseState,
    SubmitSequence,
    Target,
    TestResult,
    TestState,
)

APP = AppKey(org_id="acme", app_version_id="1.2.0")


def a_job(
    number: int = 1,
    *,
    state: JobState = JobState.QUEUED,
    org_id: str = "acme",
    app_version_id: str = "1.2.0",
    priority: int = 3,
    target: Target = Target.ANY,
    labels: Mapping[str, str] = NOTHING,
    run: str = "",
) -> Job:
    spec = JobSpec(
        org_id=org_id,
        app_version_id=app_version_id,
        test=f"tests/spec{number}.ts",
        priority=priority,
        target=target,
        labels=labels,
        run=run,
    )
    return Job(id=JobId(number), sequence=SubmitSequence(number), spec=spec, state=state, create_us=number)


def a_device(name: str = "pixel") -> Device:
    facts = DeviceFacts(id=DeviceId(name), kind=DeviceKind.EMULATOR, labels={"rack": "a"})
    return Device(facts=facts, agent=AgentId("host"), state=DeviceState.IDLE)


def a_lease(
    number: int = 1, *, state: LeaseState = LeaseState.OFFERED, device: str = "pixel", fence_number: int | None = None
) -> Lease:
    return Lease(
        id=LeaseId(number),
        fence=Fence(1, number if fence_number is None else fence_number),
        device=DeviceId(device),
        agent=AgentId("host"),
        boot_id="boot",
        app=APP,
        target=Target.ANY,
        state=state,
        revision=1,
        grant_us=5,
    )


def an_attempt(
    number: int = 1, *, job: int = 1, of_job: int | None = None, lease: int = 1, outcome: AttemptOutcome | None = None
) -> Attempt:
    """Make attempt `number`; it is the job's `of_job`th, by default the `number`th."""
    return Attempt(
        id=AttemptId(number),
        job=JobId(job),
        number=number if of_job is None else of_job,
        lease=LeaseId(lease),
        device=DeviceId("pixel"),
        agent=AgentId("host"),
        assign_us=7,
        outcome=outcome,
    )


def an_agent() -> Agent:
    return Agent(
        id=AgentId("host"),
        state=AgentState.CONNECTED,
        boot_id="boot",
        version="1",
        host="mac-01",
        seen_us=8,
        connect_us=9,
        lanes=(Lane.HIGH, Lane.NORMAL),
        orgs=("acme", "globex, inc."),
    )


def a_build(digest: str = "d" * 64) -> Build:
    return Build(app=APP, digest=digest, create_us=1, install_us=2, installs=3, mean_install_us=4)


def a_test(name: str = "t1", state: TestState = TestState.PASSED) -> TestResult:
    return TestResult(id=name, title=f"login > {name}", state=state, duration_us=10)
