"""Rows <-> records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from coordinator.core.model import (
    Agent,
    AgentId,
    AgentState,
    AppKey,
    Attempt,
    AttemptId,
    AttemptOutcome,
    BatchTally,
    Blame,
    Build,
    Counters,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    DeviceState,
    Failure,
    Fence,
    Job,
    JobId,
    JobSpec,
    JobState,
    Lease,
    LeaseId,
    LeaseState,
    Request,
    RevokeReason,
    SubmitSequence,
    Target,
    TestResult,
    TestState,
)

Row = dict[str, Any]


def _pack(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _pack_map(entries: Mapping[str, str]) -> str:
    return _pack(dict(entries)) if entries else "{}"


def _map(text: str) -> Mapping[str, str]:
    return MappingProxyType(json.loads(text))


def _pack_failure(failure: Failure | None) -> str | None:
    return _pack([failure.reason, failure.message, failure.blame]) if failure is not None else None


def _failure(text: str | None) -> Failure | None:
    if text is None:
        return None
    reason, message, blame = json.loads(text)
    return Failure(reason=reason, message=message, blame=Blame(blame) if blame else None)


def job_row(job: Job) -> Row:
    """Return the row of a job."""
    spec = job.spec
    return {
        "id": job.id,
        "sequence": job.sequence,
        "org_id": spec.org_id,
        "app_version_id": spec.app_version_id,
        "test": spec.test,
        "priority": spec.priority,
        "target": spec.target.value,
        "selector": _pack(spec.selector),
        "env": _pack_map(spec.env),
        "labels": _pack_map(spec.labels),
        "retries": spec.retries,
        "timeout_us": spec.timeout_us,
        "run": spec.run,
        "state": job.state.value,
        "create_us": job.create_us,
        "start_us": job.start_us,
        "end_us": job.end_us,
        "attempt": job.attempt,
        "attempt_count": job.attempt_count,
        "device": job.device,
        "agent": job.agent,
        "failure": _pack_failure(job.failure),
        "flaky": job.flaky,
        "is_cancel_requested": job.is_cancel_requested,
        "retries_used": job.retries_used,
        "lab_failures": job.lab_failures,
        "avoid": _pack(job.avoid),
        "preemptions": job.preemptions,
        "retry_of": job.retry_of,
    }


def job_record(row: Any) -> Job:  # noqa: ANN401 - a row has the columns of its table
    """Return the job of a row."""
    spec = JobSpec(
        org_id=row.org_id,
        app_version_id=row.app_version_id,
        test=row.test,
        priority=row.priority,
        target=Target(row.target),
        selector=tuple((name, pattern) for name, pattern in json.loads(row.selector)),
        env=_map(row.env),
        labels=_map(row.labels),
        retries=row.retries,
        timeout_us=row.timeout_us,
        run=row.run,
    )
    return Job(
        id=JobId(row.id),
        sequence=SubmitSequence(row.sequence),
        spec=spec,
        state=JobState(row.state),
        create_us=row.create_us,
        start_us=row.start_us,
        end_us=row.end_us,
        attempt=AttemptId(row.attempt) if row.attempt is not None else None,
        attempt_count=row.attempt_count,
        device=DeviceId(row.device) if row.device is not None else None,
        agent=AgentId(row.agent) if row.agent is not None else None,
        failure=_failure(row.failure),
        flaky=bool(row.flaky),
        is_cancel_requested=bool(row.is_cancel_requested),
        retries_used=row.retries_used,
        lab_failures=row.lab_failures,
        avoid=tuple(DeviceId(device) for device in json.loads(row.avoid)),
        preemptions=row.preemptions,
        retry_of=JobId(row.retry_of) if row.retry_of is not None else None,
    )


def attempt_row(attempt: Attempt) -> Row:
    """Return the row of an attempt."""
    return {
        "id": attempt.id,
        "job_id": attempt.job,
        "number": attempt.number,
        "lease_id": attempt.lease,
        "device": attempt.device,
        "agent": attempt.agent,
        "assign_us": attempt.assign_us,
        "start_us": attempt.start_us,
        "end_us": attempt.end_us,
        "outcome": attempt.outcome.value if attempt.outcome is not None else None,
        "failure": _pack_failure(attempt.failure),
        "build_digest": attempt.build_digest,
        "log_size": attempt.log_size,
        "log_sha256": attempt.log_sha256,
    }


def attempt_record(row: Any) -> Attempt:  # noqa: ANN401
    """Return the attempt of a row."""
    return Attempt(
        id=AttemptId(row.id),
        job=JobId(row.job_id),
        number=row.number,
        lease=LeaseId(row.lease_id),
        device=DeviceId(row.device),
        agent=AgentId(row.agent),
        assign_us=row.assign_us,
        start_us=row.start_us,
        end_us=row.end_us,
        outcome=AttemptOutcome(row.outcome) if row.outcome is not None else None,
        failure=_failure(row.failure),
        build_digest=row.build_digest,
        log_size=row.log_size,
        log_sha256=row.log_sha256,
    )


def test_row(attempt: Attempt, test: TestResult) -> Row:
    """Return the row of one test of a job."""
    return {
        "job_id": attempt.job,
        "test_id": test.id,
        "attempt_number": attempt.number,
        "title": test.title,
        "state": test.state.value,
        "duration_us": test.duration_us,
        "error": test.error,
    }


def test_record(row: Any) -> tuple[TestResult, int]:  # noqa: ANN401
    """Return the result of one test with the number of the attempt that it came from."""
    result = TestResult(
        id=row.test_id,
        title=row.title,
        state=TestState(row.state),
        duration_us=row.duration_us,
        error=row.error,
    )
    return result, row.attempt_number


def lease_row(lease: Lease) -> Row:
    """Return the row of a lease."""
    return {
        "id": lease.id,
        "epoch": lease.fence.epoch,
        "fence_number": lease.fence.number,
        "device": lease.device,
        "agent": lease.agent,
        "boot_id": lease.boot_id,
        "org_id": lease.app.org_id,
        "app_version_id": lease.app.app_version_id,
        "target": lease.target.value,
        "state": lease.state.value,
        "revision": lease.revision,
        "grant_us": lease.grant_us,
        "end_us": lease.end_us,
        "attempts": _pack(lease.attempts),
        "revoked": _pack(lease.revoked),
        "tally": _pack(asdict(lease.tally)),
    }


def lease_record(row: Any) -> Lease:  # noqa: ANN401
    """Return the lease of a row."""
    return Lease(
        id=LeaseId(row.id),
        fence=Fence(row.epoch, row.fence_number),
        device=DeviceId(row.device),
        agent=AgentId(row.agent),
        boot_id=row.boot_id,
        app=AppKey(org_id=row.org_id, app_version_id=row.app_version_id),
        target=Target(row.target),
        state=LeaseState(row.state),
        revision=row.revision,
        grant_us=row.grant_us,
        end_us=row.end_us,
        attempts=tuple(AttemptId(attempt) for attempt in json.loads(row.attempts)),
        revoked=tuple((AttemptId(attempt), RevokeReason(reason)) for attempt, reason in json.loads(row.revoked)),
        tally=BatchTally(**json.loads(row.tally)),
    )


def device_row(device: Device) -> Row:
    """Return the row of a device."""
    facts = device.facts
    packed = {
        "kind": facts.kind,
        "platform": facts.platform,
        "model": facts.model,
        "os_version": facts.os_version,
        "udid": facts.udid,
        "labels": dict(facts.labels),
        "is_usable": facts.is_usable,
        "reason": facts.reason,
    }
    return {
        "id": device.id,
        "agent": device.agent,
        "state": device.state.value,
        "facts": _pack(packed),
        "fence_number": device.fence_number,
        "lease": device.lease,
        "app": _pack([device.app.org_id, device.app.app_version_id]) if device.app is not None else None,
        "app_digest": device.app_digest,
        "busy_us": device.busy_us,
        "free_us": device.free_us,
        "seen_us": device.seen_us,
    }


def device_record(row: Any) -> Device:  # noqa: ANN401
    """Return the device of a row."""
    facts = json.loads(row.facts)
    facts["kind"] = DeviceKind(facts["kind"])
    facts["labels"] = MappingProxyType(facts["labels"])
    app: AppKey | None = None
    if row.app is not None:
        org_id, app_version_id = json.loads(row.app)
        app = AppKey(org_id=org_id, app_version_id=app_version_id)
    return Device(
        facts=DeviceFacts(id=DeviceId(row.id), **facts),
        agent=AgentId(row.agent),
        state=DeviceState(row.state),
        fence_number=row.fence_number,
        lease=LeaseId(row.lease) if row.lease is not None else None,
        app=app,
        app_digest=row.app_digest,
        busy_us=row.busy_us,
        free_us=row.free_us,
        seen_us=row.seen_us,
    )


def agent_row(agent: Agent) -> Row:
    """Return the row of an agent."""
    return {**asdict(agent), "state": agent.state.value}


def agent_record(row: Any) -> Agent:  # noqa: ANN401
    """Return the agent of a row."""
    return Agent(
        id=AgentId(row.id),
        state=AgentState(row.state),
        boot_id=row.boot_id,
        version=row.version,
        host=row.host,
        seen_us=row.seen_us,
        connect_us=row.connect_us,
    )


def build_row(build: Build) -> Row:
    """Return the row of a build."""
    return {
        "org_id": build.app.org_id,
        "app_version_id": build.app.app_version_id,
        "digest": build.digest,
        "create_us": build.create_us,
        "install_us": build.install_us,
        "installs": build.installs,
        "mean_install_us": build.mean_install_us,
    }


def build_record(row: Any) -> Build:  # noqa: ANN401
    """Return the build of a row."""
    return Build(
        app=AppKey(org_id=row.org_id, app_version_id=row.app_version_id),
        digest=row.digest,
        create_us=row.create_us,
        install_us=row.install_us,
        installs=row.installs,
        mean_install_us=row.mean_install_us,
    )


def request_row(request: Request) -> Row:
    """Return the row of an accepted submit."""
    return {
        "org_id": request.org_id,
        "key": request.key,
        "payload_sha256": request.payload_sha256,
        "jobs": _pack(request.jobs),
    }


def request_record(row: Any) -> Request:  # noqa: ANN401
    """Return the accepted submit of a row."""
    jobs = tuple(JobId(job) for job in json.loads(row.jobs))
    return Request(org_id=row.org_id, key=row.key, payload_sha256=row.payload_sha256, jobs=jobs)


def counters_row(counters: Counters) -> Row:
    """Return the one row of the counters."""
    return asdict(counters)


def counters_record(row: Any) -> Counters:  # noqa: ANN401
    """Return the counters."""
    values = dict(row._mapping)
    del values["id"]
    return Counters(**values)
