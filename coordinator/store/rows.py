"""Records become rows, rows become records."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from coordinator.core.logfile import LogEnd, LogPart, LogState
from coordinator.core.model import (
    NOTHING,
    Account,
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
    Crossing,
    Device,
    DeviceFacts,
    DeviceHold,
    DeviceId,
    DeviceKind,
    DeviceState,
    Expectation,
    Failure,
    Fence,
    Job,
    JobId,
    JobSpec,
    JobState,
    KeptTest,
    Lane,
    Lease,
    LeaseId,
    LeaseState,
    Mark,
    Request,
    RevokeReason,
    SubmitSequence,
    Target,
    TestKey,
    TestResult,
    TestState,
    Trial,
    Upload,
    Vitals,
)

Values = dict[str, Any]
KNOWN_MAPPINGS = 1_024
_TARGETS = {target.value: target for target in Target}
_JOB_STATES = {state.value: state for state in JobState}

_encode = json.JSONEncoder(separators=(",", ":")).encode


def _mapping_text(mapping: Mapping[str, str]) -> str:
    return _encode(dict(mapping)) if mapping else "{}"


def _mapping(text: str) -> Mapping[str, str]:
    return json.loads(text) if text != "{}" else NOTHING


@functools.lru_cache(KNOWN_MAPPINGS)
def _shared_mapping(text: str) -> Mapping[str, str]:
    """Return what jobs of one submit mostly have alike. Not for secrets, which would stay in memory."""
    return _mapping(text)


def _list_text(items: Iterable[Any]) -> str:
    listed = list(items)
    return _encode(listed) if listed else "[]"


def _list(text: str) -> list[Any]:
    return json.loads(text) if text != "[]" else []


def _failure_values(failure: Failure | None) -> Values:
    if failure is None:
        return {"failure_reason": None, "failure_message": None, "failure_blame": None}
    return {
        "failure_reason": failure.reason,
        "failure_message": failure.message,
        "failure_blame": failure.blame and failure.blame.value,
    }


def _failure(reason: str | None, message: str, blame: str | None) -> Failure | None:
    if reason is None:
        return None
    return Failure(reason=reason, message=message, blame=None if blame is None else Blame(blame))


def accepted_values(job: Job) -> Values:
    """Return what never changes of a job after it was accepted."""
    spec = job.spec
    return {
        "id": job.id,
        "sequence": job.sequence,
        "org_id": spec.org_id,
        "app_version_id": spec.app_version_id,
        "test": spec.test,
        "priority": spec.priority,
        "target": spec.target.value,
        "selector": _list_text(spec.selector),
        "env": _mapping_text(spec.env),
        "secrets": _mapping_text(spec.secrets),
        "labels": _mapping_text(spec.labels),
        "retries": spec.retries,
        "timeout_us": spec.timeout_us,
        "run": spec.run,
        "bundle_digest": spec.bundle_digest,
        "create_us": job.create_us,
        "retry_of": job.retry_of,
        "build_digest": job.build_digest,
        "can_spill": job.can_spill,
    }


def progress_values(job: Job) -> Values:
    """Return what changes of a job as it goes its way."""
    return {
        "state": job.state.value,
        "start_us": job.start_us,
        "end_us": job.end_us,
        "attempt": job.attempt,
        "attempt_count": job.attempt_count,
        "device": job.device,
        "agent": job.agent,
        "flaky": job.flaky,
        "is_cancel_requested": job.is_cancel_requested,
        "retries_used": job.retries_used,
        "lab_failures": job.lab_failures,
        "avoid": _list_text(job.avoid),
        "preemptions": job.preemptions,
        "kept": _list_text((test.id, test.error) for test in job.kept),
        **_failure_values(job.failure),
    }


def job(row: Row[Any]) -> Job:
    """Return the job of a row that begins with all columns of the table, in their order.

    A coordinator takes up a million of them when it starts, and by their names the values would take three times as
    long to be had.
    """
    (
        job_id,
        sequence,
        org_id,
        app_version_id,
        test,
        priority,
        target,
        selector,
        env,
        secrets,
        labels,
        retries,
        timeout_us,
        run,
        state,
        create_us,
        start_us,
        end_us,
        attempt,
        attempt_count,
        device,
        agent,
        failure_reason,
        failure_message,
        failure_blame,
        flaky,
        is_cancel_requested,
        retries_used,
        lab_failures,
        avoid,
        preemptions,
        kept,
        retry_of,
        build_digest,
        bundle_digest,
        can_spill,
        *_others,
    ) = tuple[Any, ...](row)
    return Job(
        id=JobId(job_id),
        sequence=SubmitSequence(sequence),
        spec=JobSpec(
            # One string, or mapping, for the many jobs that have it.
            org_id=sys.intern(org_id),
            app_version_id=sys.intern(app_version_id),
            test=test,
            priority=priority,
            target=_TARGETS[target],
            selector=tuple((attribute, pattern) for attribute, pattern in _list(selector)) if selector != "[]" else (),
            env=_shared_mapping(env),
            secrets=_mapping(secrets),
            labels=_shared_mapping(labels),
            retries=retries,
            timeout_us=timeout_us,
            run=sys.intern(run),
            bundle_digest=sys.intern(bundle_digest),
        ),
        state=_JOB_STATES[state],
        create_us=create_us,
        start_us=start_us,
        end_us=end_us,
        attempt=attempt,
        attempt_count=attempt_count,
        device=device,
        agent=agent,
        failure=_failure(failure_reason, failure_message, failure_blame),
        flaky=flaky,
        is_cancel_requested=is_cancel_requested,
        retries_used=retries_used,
        lab_failures=lab_failures,
        avoid=tuple(DeviceId(one) for one in _list(avoid)) if avoid != "[]" else (),
        preemptions=preemptions,
        kept=tuple(KeptTest(test_id, error) for test_id, error in _list(kept)) if kept != "[]" else (),
        retry_of=retry_of,
        build_digest=sys.intern(build_digest),
        can_spill=can_spill,
    )


def label_values(job: Job) -> list[Values]:
    """Return the rows by which a job is found by its labels."""
    return [{"name": name, "value": value, "job": job.id} for name, value in job.spec.labels.items()]


def attempt_values(attempt: Attempt) -> Values:
    """Return the row of an attempt."""
    return {
        "id": attempt.id,
        "job": attempt.job,
        "number": attempt.number,
        "lease": attempt.lease,
        "device": attempt.device,
        "agent": attempt.agent,
        "assign_us": attempt.assign_us,
        "start_us": attempt.start_us,
        "end_us": attempt.end_us,
        "outcome": attempt.outcome and attempt.outcome.value,
        "build_digest": attempt.build_digest,
        "log_size": attempt.log_size,
        "log_sha256": attempt.log_sha256,
        "install_end_us": attempt.install_end_us,
        "install_us": attempt.install_us,
        **_failure_values(attempt.failure),
    }


def attempt(row: Row[Any]) -> Attempt:
    """Return the attempt of a row."""
    return Attempt(
        id=AttemptId(row.id),
        job=JobId(row.job),
        number=row.number,
        lease=LeaseId(row.lease),
        device=DeviceId(row.device),
        agent=AgentId(row.agent),
        assign_us=row.assign_us,
        start_us=row.start_us,
        end_us=row.end_us,
        outcome=None if row.outcome is None else AttemptOutcome(row.outcome),
        failure=_failure(row.failure_reason, row.failure_message, row.failure_blame),
        build_digest=row.build_digest,
        log_size=row.log_size,
        log_sha256=row.log_sha256,
        install_end_us=row.install_end_us,
        install_us=row.install_us,
    )


def test_values(attempt: Attempt, test: TestResult) -> Values:
    """Return the row of a test, as an attempt saw it."""
    return {
        "job": attempt.job,
        "id": test.id,
        "attempt_number": attempt.number,
        "title": test.title,
        "state": test.state.value,
        "duration_us": test.duration_us,
        "error": test.error,
        "begin_us": test.begin_us,
    }


def test(row: Row[Any]) -> TestResult:
    """Return the test result of a row."""
    return TestResult(
        id=row.id,
        title=row.title,
        state=TestState(row.state),
        duration_us=row.duration_us,
        error=row.error,
        begin_us=row.begin_us,
    )


def lease_values(lease: Lease) -> Values:
    """Return the row of a lease."""
    tally = lease.tally
    return {
        "id": lease.id,
        "fence_epoch": lease.fence.epoch,
        "fence_number": lease.fence.number,
        "device": lease.device,
        "agent": lease.agent,
        "boot_id": lease.boot_id,
        "org_id": lease.app.org_id,
        "app_version_id": lease.app.app_version_id,
        "build_digest": lease.app.digest,
        "target": lease.target.value,
        "state": lease.state.value,
        "revision": lease.revision,
        "grant_us": lease.grant_us,
        "end_us": lease.end_us,
        "attempts": _list_text(lease.attempts),
        "revoked": _list_text((attempt, reason.value) for attempt, reason in lease.revoked),
        "started": tally.started,
        "passed": tally.passed,
        "failed": tally.failed,
        "other": tally.other,
        "installs": tally.installs,
        "install_us": tally.install_us,
        "install_end_us": lease.install_end_us,
        "is_canary": lease.is_canary,
    }


def lease(row: Row[Any]) -> Lease:
    """Return the lease of a row."""
    return Lease(
        id=LeaseId(row.id),
        fence=Fence(row.fence_epoch, row.fence_number),
        device=DeviceId(row.device),
        agent=AgentId(row.agent),
        boot_id=row.boot_id,
        app=AppKey(org_id=row.org_id, app_version_id=row.app_version_id, digest=row.build_digest),
        target=Target(row.target),
        state=LeaseState(row.state),
        revision=row.revision,
        grant_us=row.grant_us,
        end_us=row.end_us,
        attempts=tuple(AttemptId(attempt) for attempt in _list(row.attempts)),
        revoked=tuple((AttemptId(attempt), RevokeReason(reason)) for attempt, reason in _list(row.revoked)),
        tally=BatchTally(
            started=row.started,
            passed=row.passed,
            failed=row.failed,
            other=row.other,
            installs=row.installs,
            install_us=row.install_us,
        ),
        install_end_us=row.install_end_us,
        is_canary=row.is_canary,
    )


def _vitals_text(vitals: Vitals) -> str:
    return _encode({name: value for name, value in asdict(vitals).items() if value is not None})


def device_values(device: Device) -> Values:
    """Return the row of a device."""
    facts = device.facts
    return {
        "id": facts.id,
        "kind": facts.kind.value,
        "platform": facts.platform,
        "model": facts.model,
        "os_version": facts.os_version,
        "udid": facts.udid,
        "labels": _mapping_text(facts.labels),
        "is_usable": facts.is_usable,
        "reason": facts.reason,
        "agent": device.agent,
        "state": device.state.value,
        "fence_number": device.fence_number,
        "lease": device.lease,
        "app_org_id": device.app and device.app.org_id,
        "app_version_id": device.app and device.app.app_version_id,
        "app_digest": device.app_digest,
        "app_is_registered": device.app is not None and bool(device.app.digest),
        "is_forgotten": False,
        "busy_us": device.busy_us,
        "free_us": device.free_us,
        "seen_us": device.seen_us,
        "hold": device.hold and device.hold.value,
        "hold_reason": device.hold_reason,
        "vitals": _vitals_text(facts.vitals),
        "account": facts.account.name if facts.account is not None else "",
        "marks": _list_text((mark.subject, mark.reason, mark.age) for mark in device.marks),
        "relapses": device.relapses,
    }


def _held_app(row: Row[Any]) -> AppKey | None:
    if row.app_org_id is None:
        return None
    digest = row.app_digest if row.app_is_registered else ""
    return AppKey(org_id=row.app_org_id, app_version_id=row.app_version_id, digest=digest)


def device(row: Row[Any]) -> Device:
    """Return the device of a row."""
    return Device(
        facts=DeviceFacts(
            id=DeviceId(row.id),
            kind=DeviceKind(row.kind),
            platform=row.platform,
            model=row.model,
            os_version=row.os_version,
            udid=row.udid,
            labels=_mapping(row.labels),
            is_usable=row.is_usable,
            reason=row.reason,
            vitals=Vitals(**json.loads(row.vitals)),
            account=Account(name=row.account) if row.account else None,
        ),
        agent=AgentId(row.agent),
        state=DeviceState(row.state),
        fence_number=row.fence_number,
        lease=row.lease,
        app=_held_app(row),
        app_digest=row.app_digest,
        busy_us=row.busy_us,
        free_us=row.free_us,
        seen_us=row.seen_us,
        hold=None if row.hold is None else DeviceHold(row.hold),
        hold_reason=row.hold_reason,
        marks=tuple(Mark(subject=subject, reason=reason, age=age) for subject, reason, age in _list(row.marks)),
        relapses=row.relapses,
    )


def agent_values(agent: Agent) -> Values:
    """Return the row of an agent."""
    return {
        "id": agent.id,
        "state": agent.state.value,
        "boot_id": agent.boot_id,
        "version": agent.version,
        "host": agent.host,
        "seen_us": agent.seen_us,
        "connect_us": agent.connect_us,
        "is_draining": agent.is_draining,
        "lanes": ",".join(agent.lanes),
        "orgs": _list_text(agent.orgs),
    }


def agent(row: Row[Any]) -> Agent:
    """Return the agent of a row."""
    return Agent(
        id=AgentId(row.id),
        state=AgentState(row.state),
        boot_id=row.boot_id,
        version=row.version,
        host=row.host,
        seen_us=row.seen_us,
        connect_us=row.connect_us,
        is_draining=row.is_draining,
        lanes=tuple(Lane(lane) for lane in row.lanes.split(",")),
        orgs=tuple(_list(row.orgs)),
    )


def build_values(build: Build) -> Values:
    """Return the row of a build."""
    return {
        "org_id": build.app.org_id,
        "app_version_id": build.app.app_version_id,
        "digest": build.digest,
        "create_us": build.create_us,
        "install_us": build.install_us,
        "installs": build.installs,
        "mean_install_us": build.mean_install_us,
        "size": build.size,
        "file_name": build.file_name,
        "register_us": build.register_us,
        "platform": build.platform,
        "device_kind": build.kind or "",
    }


def build(row: Row[Any]) -> Build:
    """Return the build of a row."""
    return Build(
        app=AppKey(org_id=row.org_id, app_version_id=row.app_version_id),
        digest=row.digest,
        create_us=row.create_us,
        install_us=row.install_us,
        installs=row.installs,
        mean_install_us=row.mean_install_us,
        size=row.size,
        file_name=row.file_name,
        register_us=row.register_us,
        platform=row.platform,
        kind=DeviceKind(row.device_kind) if row.device_kind else None,
    )


def trial_values(trial: Trial) -> Values:
    """Return the row of what devices did with a build."""
    return {
        **trial_key(trial),
        "refused_by": _list_text(trial.refused_by),
        "is_taken": trial.is_taken,
        "note_us": trial.note_us,
    }


def trial_key(trial: Trial) -> Values:
    """Return what its row is found by."""
    return {"org_id": trial.app.org_id, "app_version_id": trial.app.unregistered, "digest": trial.app.digest}


def trial(row: Row[Any]) -> Trial:
    """Return what devices did with a build, from its row."""
    return Trial(
        app=AppKey(org_id=row.org_id, app_version_id=row.app_version_id, digest=row.digest),
        refused_by=tuple(DeviceId(device) for device in _list(row.refused_by)),
        is_taken=row.is_taken,
        note_us=row.note_us,
    )


def crossing_values(crossing: Crossing) -> Values:
    """Return the row of where something failed."""
    return {"subject": crossing.subject, "places": _list_text(crossing.places), "note_us": crossing.note_us}


def crossing(row: Row[Any]) -> Crossing:
    """Return where something failed, from its row."""
    places = tuple((DeviceId(device), is_verdict) for device, is_verdict in _list(row.places))
    return Crossing(subject=row.subject, places=places, note_us=row.note_us)


def upload_values(upload: Upload) -> Values:
    """Return the row of a build at an account."""
    return {
        **upload.key._asdict(),
        "agent": upload.agent,
        "begin_us": upload.begin_us,
        "end_us": upload.end_us,
        "url": upload.url,
    }


def upload(row: Row[Any]) -> Upload:
    """Return the build at an account of a row."""
    return Upload(
        account=row.account,
        digest=row.digest,
        agent=AgentId(row.agent),
        begin_us=row.begin_us,
        end_us=row.end_us,
        url=row.url,
    )


def expectation_values(expectation: Expectation) -> Values:
    """Return the row of what is expected of a test."""
    return {
        "org_id": expectation.key.org_id,
        "test": expectation.key.test,
        "kind": expectation.key.kind.value,
        "count": expectation.count,
        "mean": expectation.mean,
        "deviation": expectation.deviation,
    }


def expectation(row: Row[Any]) -> Expectation:
    """Return what is expected of a test, from its row."""
    columns = row._mapping  # a row has a method `count` of its own
    return Expectation(
        key=TestKey(row.org_id, row.test, DeviceKind(row.kind)),
        count=columns["count"],
        mean=row.mean,
        deviation=row.deviation,
    )


def request_values(request: Request) -> Values:
    """Return the row of a request."""
    return {
        "org_id": request.org_id,
        "key": request.key,
        "payload_sha256": request.payload_sha256,
        "jobs": _list_text(request.jobs),
    }


def request(row: Row[Any]) -> Request:
    """Return the request of a row."""
    jobs = tuple(JobId(job) for job in _list(row.jobs))
    return Request(org_id=row.org_id, key=row.key, payload_sha256=row.payload_sha256, jobs=jobs)


def counters_values(counters: Counters) -> Values:
    """Return the row of the counters."""
    return {
        "epoch": counters.epoch,
        "next_job": counters.next_job,
        "next_attempt": counters.next_attempt,
        "next_lease": counters.next_lease,
        "next_sequence": counters.next_sequence,
        "installs_avoided": counters.installs_avoided,
        "saved_us": counters.saved_us,
    }


def counters(row: Row[Any]) -> Counters:
    """Return the counters of their row."""
    return Counters(
        epoch=row.epoch,
        next_job=row.next_job,
        next_attempt=row.next_attempt,
        next_lease=row.next_lease,
        next_sequence=row.next_sequence,
        installs_avoided=row.installs_avoided,
        saved_us=row.saved_us,
    )


def log_part_values(part: LogPart) -> Values:
    """Return a part of a log as a row."""
    return {"attempt": part.attempt, "epoch": part.epoch, "start": part.start, "size": part.size}


def log_part(row: Row[Any]) -> LogPart:
    """Return a row as a part of a log."""
    return LogPart(attempt=AttemptId(row.attempt), epoch=row.epoch, start=row.start, size=row.size)


def log_end_values(end: LogEnd) -> Values:
    """Return the end of a log as a row."""
    return {"attempt": end.attempt, "state": end.state.value, "size": end.size}


def log_end(row: Row[Any]) -> LogEnd:
    """Return a row as the end of a log."""
    return LogEnd(attempt=AttemptId(row.attempt), state=LogState(row.state), size=row.size)
