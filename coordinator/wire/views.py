"""Records of the core -> what users are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from coordinator.core import model as m
from coordinator.core.artifacts import Artifact
from coordinator.wire.enums import (
    AGENT_STATES_OUT,
    ARTIFACTS_OUT,
    BLAMES_OUT,
    DEVICE_STATES_OUT,
    HOLDS_OUT,
    JOB_STATES_OUT,
    KINDS_OUT,
    LANES_OUT,
    OUTCOMES_OUT,
    TARGETS_OUT,
    TESTS_OUT,
)
from coordinator.wire.fields import duration, timestamp
from coordinator.wire.limits import MAX_FRAMING_BYTES, MAX_LISTED_BYTES
from qgjob.v1 import (
    agent_pb2,
    artifact_pb2,
    build_pb2,
    device_pb2,
    job_pb2,
    queue_pb2,
)

SHORT_ERROR = 256
"""Characters of an error that are told of a test where there is no room for all."""


def fitting(jobs: Iterable[job_pb2.Job], most_bytes: int = MAX_LISTED_BYTES) -> list[job_pb2.Job]:
    """Return the first jobs that an answer has room for: at least one, for each is far smaller than that."""
    listed: list[job_pb2.Job] = []
    left = most_bytes
    for job in jobs:
        left -= job.ByteSize() + MAX_FRAMING_BYTES
        if left < 0 and listed:
            break
        listed.append(job)
    return listed


def within_bounds(job: job_pb2.Job, most_bytes: int = MAX_LISTED_BYTES) -> job_pb2.Job:
    """Cut what was looked up for a job until an answer has room for it, in place.

    Earlier failures go first, the oldest before the others; then the errors of tests are shortened.
    """
    excess = job.ByteSize() + MAX_FRAMING_BYTES - most_bytes
    gone = 0
    for earlier in job.earlier_failures:
        if excess <= 0:
            break
        excess -= earlier.ByteSize()
        gone += 1
    del job.earlier_failures[:gone]
    for test in job.tests:
        if excess <= 0:
            break
        before = test.ByteSize()
        test.error = test.error[:SHORT_ERROR]
        excess -= before - test.ByteSize()
    return job


def job_state_out(state: m.JobState) -> job_pb2.JobState.ValueType:
    """Translate where a job stands."""
    return JOB_STATES_OUT[state]


def failure_out(record: m.Failure | None) -> job_pb2.Failure | None:
    """Translate a failure."""
    if record is None:
        return None
    blame = BLAMES_OUT[record.blame] if record.blame is not None else job_pb2.BLAME_UNSPECIFIED
    return job_pb2.Failure(reason=record.reason, message=record.message, blame=blame)


def job_spec_out(spec: m.JobSpec) -> job_pb2.JobSpec:
    """Translate what was asked for. Of environment and secrets only the names: values are shown nowhere."""
    return job_spec_told(spec, dict.fromkeys(spec.env, ""), dict.fromkeys(spec.secrets, ""))


def job_spec_told(spec: m.JobSpec, env: Mapping[str, str], secrets: Mapping[str, str]) -> job_pb2.JobSpec:
    """Translate what was asked for, with these of environment and secrets."""
    message = job_pb2.JobSpec(
        org_id=spec.org_id,
        app_version_id=spec.app_version_id,
        test=spec.test,
        priority=spec.priority,
        target=TARGETS_OUT[spec.target],
        retries=spec.retries,
        timeout=duration(spec.timeout_us),
        run=spec.run,
        bundle_digest=spec.bundle_digest,
    )
    # Most have none of these, and protobuf takes its time even for those that are empty.
    if spec.selector:
        message.selector.update(spec.selector)
    if env:
        message.env.update(env)
    if secrets:
        message.secrets.update(secrets)
    if spec.labels:
        message.labels.update(spec.labels)
    return message


def test_out(test: m.TestResult, attempt_number: int) -> job_pb2.TestResult:
    """Translate the result of one test."""
    return job_pb2.TestResult(
        id=test.id,
        title=test.title,
        state=TESTS_OUT[test.state],
        duration=duration(test.duration_us),
        error=test.error,
        attempt=attempt_number,
        start_offset=None if test.begin_us is None else duration(test.begin_us),
    )


def attempt_out(attempt: m.Attempt, log_state: str | None) -> job_pb2.Attempt:
    """Translate an attempt. `log_state` is open, complete or truncated, None where no log was begun."""
    message = job_pb2.Attempt(
        id=attempt.id,
        job_id=attempt.job,
        number=attempt.number,
        lease_id=attempt.lease,
        device=attempt.device,
        agent=attempt.agent,
        outcome=OUTCOMES_OUT[attempt.outcome] if attempt.outcome is not None else job_pb2.ATTEMPT_OUTCOME_UNSPECIFIED,
        failure=failure_out(attempt.failure),
        assign_time=timestamp(attempt.assign_us),
        build_digest=attempt.build_digest,
        log_state=job_pb2.LogState.Value(f"LOG_STATE_{(log_state or 'unspecified').upper()}"),
        log_size=attempt.log_size,
    )
    if attempt.start_us is not None:
        message.start_time.CopyFrom(timestamp(attempt.start_us))
    if attempt.end_us is not None:
        message.end_time.CopyFrom(timestamp(attempt.end_us))
    if attempt.install_end_us is not None:
        message.install_time.CopyFrom(timestamp(attempt.install_end_us))
        message.install_duration.CopyFrom(duration(attempt.install_us or 0))
    return message


def job_out(
    job: m.Job,
    *,
    position: int = 0,
    expected_start_us: int | None = None,
    tests: Iterable[tuple[m.TestResult, int]] = (),
    earlier_failures: Iterable[tuple[m.TestResult, int]] = (),
    attempts: Iterable[job_pb2.Attempt] = (),
) -> job_pb2.Job:
    """Translate a job with the parts that were looked up for it."""
    message = job_pb2.Job(
        id=job.id,
        spec=job_spec_out(job.spec),
        state=JOB_STATES_OUT[job.state],
        lane=LANES_OUT[job.spec.lane],
        create_time=timestamp(job.create_us),
        device=job.device or "",
        agent=job.agent or "",
        attempt=job.attempt_count,
        attempts=attempts,
        failure=failure_out(job.failure),
        queue_position=position,
        tests=[test_out(test, number) for test, number in tests],
        earlier_failures=[test_out(test, number) for test, number in earlier_failures],
        flaky=job.flaky,
        cancel_requested=job.is_cancel_requested,
        retry_of=job.retry_of or 0,
        preemptions=job.preemptions,
        build_digest=job.build_digest,
    )
    if job.start_us is not None:
        message.start_time.CopyFrom(timestamp(job.start_us))
    if job.end_us is not None:
        message.end_time.CopyFrom(timestamp(job.end_us))
    if expected_start_us is not None:
        message.expected_start_time.CopyFrom(timestamp(expected_start_us))
    return message


def device_facts_out(facts: m.DeviceFacts) -> device_pb2.DeviceFacts:
    """Translate what an agent knows about a device."""
    return device_pb2.DeviceFacts(
        id=facts.id,
        kind=KINDS_OUT[facts.kind],
        platform=facts.platform,
        model=facts.model,
        os_version=facts.os_version,
        udid=facts.udid,
        labels=facts.labels,
        usable=facts.is_usable,
        reason=facts.reason,
        vitals=device_pb2.DeviceVitals(
            api_level=facts.vitals.api_level,
            battery_percent=facts.vitals.battery_percent,
            temperature_decidegrees=facts.vitals.temperature_decidegrees,
            free_bytes=facts.vitals.free_bytes,
        ),
        account=_account_out(facts.account) if facts.account is not None else None,
    )


def _account_out(account: m.Account) -> device_pb2.CloudAccount:
    return device_pb2.CloudAccount(name=account.name, sessions=account.sessions, others=account.others)


def device_out(
    device: m.Device, *, job: m.JobId | None, utilisation_ppm: int, contested_by: Sequence[m.AgentId] = ()
) -> device_pb2.Device:
    """Translate a device. `utilisation_ppm` is the leased share of the last hour in millionths."""
    message = device_pb2.Device(
        facts=device_facts_out(device.facts),
        agent=device.agent,
        state=DEVICE_STATES_OUT[device.state],
        job_id=job or 0,
        lease_id=device.lease or 0,
        utilisation=utilisation_ppm / 1_000_000,
        seen_time=timestamp(device.seen_us),
        hold=HOLDS_OUT[device.hold] if device.hold is not None else device_pb2.DEVICE_HOLD_UNSPECIFIED,
        hold_reason=device.hold_reason,
        contested_by=contested_by,
    )
    if device.app is not None:
        message.builds.add(org_id=device.app.org_id, app_version_id=device.app.app_version_id, digest=device.app_digest)
    return message


def agent_out(
    agent: m.Agent, *, devices: int, leases: int, conflicts: Sequence[m.DeviceConflict] = ()
) -> agent_pb2.Agent:
    """Translate an agent."""
    return agent_pb2.Agent(
        id=agent.id,
        state=AGENT_STATES_OUT[agent.state],
        version=agent.version,
        host=agent.host,
        devices=devices,
        leases=leases,
        seen_time=timestamp(agent.seen_us),
        connect_time=timestamp(agent.connect_us),
        draining=agent.is_draining,
        lanes=[LANES_OUT[lane] for lane in agent.lanes],
        orgs=agent.orgs,
        conflicting_device_ids=[conflict.device for conflict in conflicts],
    )


def build_out(build: m.Build) -> build_pb2.Build:
    """Translate a build."""
    message = build_pb2.Build(
        org_id=build.app.org_id,
        app_version_id=build.app.app_version_id,
        digest=build.digest,
        create_time=timestamp(build.create_us),
        installs=build.installs,
        size=build.size,
        file_name=build.file_name,
        platform=build.platform,
        device_kind=KINDS_OUT[build.kind] if build.kind is not None else device_pb2.DEVICE_KIND_UNSPECIFIED,
    )
    if build.install_us:
        message.install_time.CopyFrom(timestamp(build.install_us))
    if build.register_us:
        message.register_time.CopyFrom(timestamp(build.register_us))
    return message


def artifact_out(artifact: Artifact) -> artifact_pb2.Artifact:
    """Translate an artifact."""
    return artifact_pb2.Artifact(
        attempt_number=artifact.attempt_number,
        name=artifact.name,
        kind=ARTIFACTS_OUT[artifact.kind],
        content_type=artifact.content_type,
        size=artifact.size,
        digest=artifact.digest,
        create_time=timestamp(artifact.create_us),
        url=artifact.url,
    )


def batch_out(lease: m.Lease, running: m.JobId | None) -> queue_pb2.BatchStatus:
    """Translate a batch that is at work."""
    tally = lease.tally
    return queue_pb2.BatchStatus(
        device=lease.device,
        org_id=lease.app.org_id,
        app_version_id=lease.app.app_version_id,
        job_id=running or 0,
        jobs_left=len(lease.attempts),
        jobs_done=tally.passed + tally.failed + tally.other,
        grant_time=timestamp(lease.grant_us),
    )


def queue_status_out(
    *,
    queued: Mapping[m.Lane, int],
    running: Mapping[m.Lane, int],
    running_jobs: Iterable[job_pb2.Job],
    waiting_jobs: Iterable[job_pb2.Job],
    counters: m.Counters,
    drain_us: int | None,
    batches: Iterable[queue_pb2.BatchStatus] = (),
    devices: Mapping[m.DeviceState, int],
) -> queue_pb2.QueueStatus:
    """Translate the queue at a glance."""
    message = queue_pb2.QueueStatus(
        lanes=[
            queue_pb2.LaneStatus(lane=LANES_OUT[lane], queued=queued[lane], running=running[lane]) for lane in m.Lane
        ],
        running=running_jobs,
        waiting=waiting_jobs,
        installs_avoided=counters.installs_avoided,
        time_saved=duration(counters.saved_us),
        batches=batches,
        devices=[
            queue_pb2.DeviceCount(state=DEVICE_STATES_OUT[state], count=devices[state])
            for state in m.DeviceState
            if devices.get(state)
        ],
    )
    if drain_us is not None:
        message.expected_drain_time.CopyFrom(timestamp(drain_us))
    return message
