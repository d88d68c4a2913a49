"""Wire -> the JSON shapes that users' scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from qgjob.v1.agent_pb2 import Agent
    from qgjob.v1.artifact_pb2 import Artifact
    from qgjob.v1.artifact_service_pb2 import ListArtifactsResponse
    from qgjob.v1.build_pb2 import Build
    from qgjob.v1.device_pb2 import Device, DeviceVitals
    from qgjob.v1.job_pb2 import Attempt, Explanation, Failure, Job, TestResult
    from qgjob.v1.queue_pb2 import BatchStatus, QueueStatus

Resource = dict[str, Any]
WAITING = frozenset({"queued", "assigned"})
"""States of a job that has not begun."""


def word(enum: Any, value: int) -> str:  # noqa: ANN401 - any generated enum
    """Return the word of an enum's value: JOB_STATE_TIMED_OUT is timed_out."""
    if value not in enum.values():
        return "unknown"  # a newer coordinator has words that this client does not
    name: str = enum.Name(value)
    prefix = "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in enum.DESCRIPTOR.name)
    return name.removeprefix(prefix.lstrip("_").upper() + "_").lower()


def instant(stamp: Timestamp) -> str:
    """Return a Timestamp in RFC 3339, UTC, with milliseconds."""
    when = datetime.fromtimestamp(stamp.seconds, UTC) + timedelta(microseconds=stamp.nanos // 1_000)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1_000:03d}Z"


def seconds(span: Duration) -> float:
    """Return a Duration in seconds."""
    return round(span.seconds + span.nanos / 1e9, 3)


def _maybe(message: Any, field: str) -> str | None:  # noqa: ANN401 - any message with the field
    return instant(getattr(message, field)) if message.HasField(field) else None


def failure(message: Failure) -> Resource:
    """Return a failure."""
    from qgjob.v1.job_pb2 import Blame

    blame = word(Blame, message.blame) if message.blame else None
    return {"reason": message.reason, "message": message.message, "blame": blame}


def test(message: TestResult, attempt_start: Timestamp | None) -> Resource:
    """Return the result of one test, whose attempt started then."""
    from google.protobuf.timestamp_pb2 import Timestamp

    from qgjob.v1.job_pb2 import TestState

    start = None
    if attempt_start is not None and message.HasField("start_offset"):
        start = Timestamp()
        start.FromNanoseconds(attempt_start.ToNanoseconds() + message.start_offset.ToNanoseconds())

    return {
        "id": message.id,
        "title": message.title,
        "status": word(TestState, message.state),
        "start_time": instant(start) if start is not None else None,
        "seconds": seconds(message.duration),
        "error": message.error or None,
        "attempt": message.attempt,
    }


def attempt(message: Attempt) -> Resource:
    """Return one try of a job."""
    from qgjob.v1.job_pb2 import AttemptOutcome, LogState

    return {
        "number": message.number,
        "outcome": word(AttemptOutcome, message.outcome) if message.outcome else None,
        "device": message.device,
        "agent": message.agent,
        "assign_time": _maybe(message, "assign_time"),
        "install_time": _maybe(message, "install_time"),
        "install_seconds": seconds(message.install_duration) if message.HasField("install_duration") else None,
        "start_time": _maybe(message, "start_time"),
        "end_time": _maybe(message, "end_time"),
        "failure_reason": failure(message.failure) if message.HasField("failure") else None,
        "build_digest": message.build_digest or None,
        "log": word(LogState, message.log_state) if message.log_state else None,
        "log_size": message.log_size,
    }


def job(message: Job) -> Resource:
    """Return a job."""
    from qgjob.v1.job_pb2 import JobState, Lane, Target

    spec = message.spec
    starts = {one.number: one.start_time for one in message.attempts if one.HasField("start_time")}
    return {
        "id": message.id,
        "org_id": spec.org_id,
        "app_version_id": spec.app_version_id,
        "test": spec.test,
        "priority": spec.priority,
        "target": word(Target, spec.target),
        "status": word(JobState, message.state),
        "lane": word(Lane, message.lane),
        "create_time": _maybe(message, "create_time"),
        "start_time": _maybe(message, "start_time"),
        "end_time": _maybe(message, "end_time"),
        "device": message.device or None,
        "agent": message.agent or None,
        "attempt": message.attempt,
        "attempts": [attempt(one) for one in message.attempts],
        "labels": dict(sorted(spec.labels.items())),
        "selector": dict(sorted(spec.selector.items())),
        "run": spec.run or None,
        "retries": spec.retries,
        "timeout_seconds": seconds(spec.timeout),
        "failure_reason": failure(message.failure) if message.HasField("failure") else None,
        "flaky": message.flaky,
        "cancel_requested": message.cancel_requested,
        "retry_of": message.retry_of or None,
        "preemptions": message.preemptions,
        "build_digest": message.build_digest or None,
        "bundle_digest": spec.bundle_digest or None,
        "queue_position": message.queue_position or None,
        "expected_start_time": _maybe(message, "expected_start_time"),
        "tests": [test(one, starts.get(one.attempt)) for one in message.tests],
        "earlier_failures": [test(one, starts.get(one.attempt)) for one in message.earlier_failures],
    }


def is_waiting(message: Job) -> bool:
    """Whether a job has not begun, so that people ask why."""
    from qgjob.v1.job_pb2 import JobState

    return word(JobState, message.state) in WAITING


def job_with_why(message: Job, explained: Explanation) -> Resource:
    """Return a job with what keeps it from running; as it is if it has begun since it was read."""
    told = explanation(explained)
    return {**job(message), "why": told["message"]} if told["status"] in WAITING else job(message)


def explanation(message: Explanation) -> Resource:
    """Return why a job waits, what it does, or how it ended."""
    from qgjob.v1.job_pb2 import JobState, WhyReason

    return {
        "id": message.job_id,
        "status": word(JobState, message.state),
        "reason": word(WhyReason, message.reason),
        "message": message.message,
        "queue_position": message.queue_position or None,
        "expected_start_time": _maybe(message, "expected_start_time"),
        "matching_devices": message.matching_devices,
        "usable_devices": message.usable_devices,
        "device": message.device or None,
        "blocking_job": message.blocking_job_id or None,
        "device_free_time": _maybe(message, "device_free_time"),
    }


def jobs(messages: Iterable[Job]) -> list[Resource]:
    """Return jobs."""
    return [job(message) for message in messages]


def device(message: Device) -> Resource:
    """Return a device."""
    from qgjob.v1.device_pb2 import DeviceKind, DeviceState

    facts = message.facts
    return {
        "id": facts.id,
        "kind": word(DeviceKind, facts.kind),
        "platform": facts.platform,
        "model": facts.model,
        "os_version": facts.os_version,
        "state": word(DeviceState, message.state),
        "agent": message.agent,
        "job": message.job_id or None,
        "builds": [
            {"org_id": build.org_id, "app_version_id": build.app_version_id, "digest": build.digest}
            for build in message.builds
        ],
        "utilisation": round(message.utilisation, 4),
        "labels": dict(sorted(facts.labels.items())),
        "reason": "; ".join(filter(None, (facts.reason, message.hold_reason, _conflict(message)))) or None,
        "contested_by": list(message.contested_by),
        **_vitals(facts.vitals),
    }


def _conflict(message: Device) -> str:
    """Say which other agents announce a device, an empty string where none does."""
    if not message.contested_by:
        return ""
    others = " and ".join(message.contested_by)
    verb = "announces" if len(message.contested_by) == 1 else "announce"
    return f"DEVICE_CONFLICT: {others} {verb} it too; it is {message.agent}'s until it is unplugged there"


def _vitals(vitals: DeviceVitals) -> Resource:
    """Return how a device is: its battery in percent, its temperature in degrees, its free storage in bytes."""

    def told(name: Literal["api_level", "battery_percent", "temperature_decidegrees", "free_bytes"]) -> int | None:
        return getattr(vitals, name) if vitals.HasField(name) else None

    decidegrees = told("temperature_decidegrees")
    return {
        "api_level": told("api_level"),
        "battery": told("battery_percent"),
        "temperature": None if decidegrees is None else decidegrees / 10,
        "storage_free": told("free_bytes"),
    }


def agent(message: Agent) -> Resource:
    """Return an agent."""
    from qgjob.v1.agent_pb2 import AgentState
    from qgjob.v1.job_pb2 import Lane

    return {
        "name": message.id,
        "state": word(AgentState, message.state),
        "host": message.host,
        "version": message.version,
        "draining": message.draining,
        "lanes": [word(Lane, lane) for lane in message.lanes],
        "orgs": list(message.orgs),
        "devices": message.devices,
        "conflicting_devices": list(message.conflicting_device_ids),
        "batches": message.leases,
        "seen_time": _maybe(message, "seen_time"),
        "connect_time": _maybe(message, "connect_time"),
    }


def build(message: Build) -> Resource:
    """Return a build."""
    from qgjob.v1.device_pb2 import DeviceKind

    return {
        "org_id": message.org_id,
        "app_version_id": message.app_version_id,
        "digest": message.digest,
        "registered": message.HasField("register_time"),
        "size": message.size or None,
        "file_name": message.file_name or None,
        "platform": message.platform or None,
        "device_kind": word(DeviceKind, message.device_kind) if message.device_kind else None,
        "installs": message.installs,
        "create_time": _maybe(message, "create_time"),
        "register_time": _maybe(message, "register_time"),
        "install_time": _maybe(message, "install_time"),
    }


def artifact(message: Artifact) -> Resource:
    """Return what an attempt left behind."""
    from qgjob.v1.artifact_pb2 import ArtifactKind

    return {
        "attempt": message.attempt_number,
        "name": message.name,
        "kind": word(ArtifactKind, message.kind),
        "content_type": message.content_type,
        "size": message.size,
        "sha256": message.digest,
        "create_time": _maybe(message, "create_time"),
        "url": message.url or None,
    }


def kept_seconds(message: ListArtifactsResponse) -> float | None:
    """Return how long artifacts are kept after they were stored; None for as long as their job."""
    return seconds(message.retention) if message.HasField("retention") else None


def batch(message: BatchStatus) -> Resource:
    """Return a batch that is at work."""
    return {
        "device": message.device,
        "org_id": message.org_id,
        "app_version_id": message.app_version_id,
        "job": message.job_id or None,
        "jobs_left": message.jobs_left,
        "jobs_done": message.jobs_done,
        "grant_time": _maybe(message, "grant_time"),
    }


def queue_status(message: QueueStatus) -> Resource:
    """Return the queue at a glance."""
    from qgjob.v1.device_pb2 import DeviceState
    from qgjob.v1.job_pb2 import Lane

    return {
        "lanes": [
            {
                "lane": word(Lane, lane.lane),
                "active": lane.queued + lane.running,
                "queued": lane.queued,
                "running": lane.running,
            }
            for lane in message.lanes
        ],
        "running": jobs(message.running),
        "waiting": jobs(message.waiting),
        "installs_avoided": message.installs_avoided,
        "seconds_saved": seconds(message.time_saved),
        "expected_drain_time": _maybe(message, "expected_drain_time"),
        "batches": [batch(one) for one in message.batches],
        "devices": {word(DeviceState, one.state): one.count for one in message.devices},
    }
