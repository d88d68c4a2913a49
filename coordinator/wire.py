"""Protobuf <-> core: the only translator, and the place where outside data is validated, once.

The table of refusals (reason -> gRPC code and HTTP status) lives here too.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core import events as ev
from coordinator.core import model as m
from coordinator.core import step as st
from coordinator.core.errors import InvalidRequest, QgjobError
from coordinator.environment import MAX_ENTRIES, environment, secrets
from qgjob.v1 import (
    agent_pb2,
    agent_service_pb2,
    build_pb2,
    build_service_pb2,
    device_pb2,
    job_pb2,
    job_service_pb2,
    lease_pb2,
    queue_pb2,
)

PROTOCOL: Final = 1
"""Number of the agent protocol that this release speaks."""

MAX_JOBS_PER_CALL: Final = 10_000
MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100
MAX_NAME: Final = 128
MAX_PATH_BYTES: Final = 1_024
MAX_SELECTOR: Final = 16
MAX_STATES: Final = 64
MAX_VALUE: Final = 1_024
MAX_DEVICE_ID: Final = 256
MAX_MESSAGE_BYTES: Final = 4 * 1_024 * 1_024
MAX_LISTED_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1_024
"""What the jobs of an answer may take: labels can make a job a hundred times as large as another."""
MAX_FRAMING_BYTES: Final = 8
MAX_ANSWER_BYTES_PER_JOB: Final = 96
"""What an accepted job has in the answer besides what was sent."""

MAX_RETRIES: Final = 10
MAX_TIMEOUT_US: Final = 24 * 3600 * m.SECOND_US
MAX_DEVICES_PER_AGENT: Final = 1_000
MAX_ERROR_TEXT: Final = 16 * 1_024
MAX_TESTS: Final = 5_000
MAX_RESULTS: Final = 10_000
"""In one Hello; agents bring the newest of theirs, far fewer."""
MAX_ECHOES: Final = 2 * MAX_DEVICES_PER_AGENT
MAX_ECHOED_ATTEMPTS: Final = 100_000
MAX_TOLD_BYTES: Final = 800
"""A gRPC status travels in HTTP/2 trailers, for which 8 KiB are allowed."""
MAX_TOLD_FIELD_BYTES: Final = 200
MAX_SPAN_US: Final = 366 * 24 * 3600 * m.SECOND_US
"""Longer spans are garbage; without a bound they would overflow the database's integers."""


class Code(NamedTuple):
    """What a refusal is called on the wire."""

    grpc: grpc.StatusCode
    http: int


CODES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "INVALID_REQUEST": Code(grpc.StatusCode.INVALID_ARGUMENT, 400),
        "NOT_FOUND": Code(grpc.StatusCode.NOT_FOUND, 404),
        "REQUEST_ID_REUSED": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "INVALID_TRANSITION": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "LEASE_FENCED": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "QUEUE_FULL": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "TOO_MANY_FOLLOWERS": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        "BLOB_TOO_LARGE": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
        "BUILD_REGISTERED": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "DIGEST_MISMATCH": Code(grpc.StatusCode.DATA_LOSS, 400),
        "UPLOAD_BROKEN": Code(grpc.StatusCode.UNAVAILABLE, 409),
        "STORAGE_FULL": Code(grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        "UNAUTHENTICATED": Code(grpc.StatusCode.UNAUTHENTICATED, 401),
        "PERMISSION_DENIED": Code(grpc.StatusCode.PERMISSION_DENIED, 403),
        "CONFLICT": Code(grpc.StatusCode.ALREADY_EXISTS, 409),
        "VERSION_UNSUPPORTED": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
        "SHUTTING_DOWN": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "NOT_LEADER": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "DATABASE_UNAVAILABLE": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "STORAGE_UNAVAILABLE": Code(grpc.StatusCode.UNAVAILABLE, 503),
        "NO_MATCHING_DEVICE": Code(grpc.StatusCode.FAILED_PRECONDITION, 409),
    }
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
"""Escape stays: a test's error may be coloured, and who shows it on a terminal strips that. PostgreSQL refuses NUL."""
_DIGEST = re.compile(r"[0-9a-f]{64}")

_TARGETS_OUT: Final = {target: job_pb2.Target.Value(f"TARGET_{target.name}") for target in m.Target}
_TARGETS: Final[dict[int, m.Target]] = {
    job_pb2.TARGET_UNSPECIFIED: m.Target.ANY,
    **{number: target for target, number in _TARGETS_OUT.items()},
}
_JOB_STATES_OUT: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in m.JobState}
_JOB_STATES: Final[dict[int, m.JobState]] = {number: state for state, number in _JOB_STATES_OUT.items()}
_OUTCOMES_OUT: Final = {
    outcome: job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}") for outcome in m.AttemptOutcome
}
_OUTCOMES: Final = {number: outcome for outcome, number in _OUTCOMES_OUT.items()}
_LANES_OUT: Final = {lane: job_pb2.Lane.Value(f"LANE_{lane.name}") for lane in m.Lane}
_LANES: Final = {number: lane for lane, number in _LANES_OUT.items()}
_BLAMES_OUT: Final = {blame: job_pb2.Blame.Value(f"BLAME_{blame.name}") for blame in m.Blame}
_BLAMES: Final = {number: blame for blame, number in _BLAMES_OUT.items()}
_TESTS_OUT: Final = {state: job_pb2.TestState.Value(f"TEST_STATE_{state.name}") for state in m.TestState}
_TESTS: Final = {number: state for state, number in _TESTS_OUT.items()}
_KINDS_OUT: Final = {kind: device_pb2.DeviceKind.Value(f"DEVICE_KIND_{kind.name}") for kind in m.DeviceKind}
_KINDS: Final = {number: kind for kind, number in _KINDS_OUT.items()}
_DEVICE_STATES_OUT: Final = {
    state: device_pb2.DeviceState.Value(f"DEVICE_STATE_{state.name}") for state in m.DeviceState
}
_HOLDS_OUT: Final = {hold: device_pb2.DeviceHold.Value(f"DEVICE_HOLD_{hold.name}") for hold in m.DeviceHold}
_AGENT_STATES_OUT: Final = {state: agent_pb2.AgentState.Value(f"AGENT_STATE_{state.name}") for state in m.AgentState}
_REVOKES_OUT: Final = {
    reason: lease_pb2.RevokeReason.Value(f"REVOKE_REASON_{reason.name}") for reason in m.RevokeReason
}


def code_of(error: QgjobError) -> Code:
    """Return the codes of a refusal."""
    return CODES[error.reason]


def told(error: QgjobError) -> tuple[str, dict[str, str]]:
    """Return the sentence and the fields of a refusal, bounded: what a caller sent must not come back whole."""
    fields = {name: _shortened(str(value), MAX_TOLD_FIELD_BYTES) for name, value in error.fields.items()}
    return _shortened(str(error), MAX_TOLD_BYTES), fields


def _shortened(text: str, most_bytes: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= most_bytes else encoded[: most_bytes - 3].decode(errors="ignore") + "..."


# Time


def timestamp(wall_us: int) -> Timestamp:
    """Return microseconds since the epoch as a Timestamp."""
    return Timestamp(seconds=wall_us // m.SECOND_US, nanos=wall_us % m.SECOND_US * 1_000)


def duration(span_us: int) -> Duration:
    """Return a span in microseconds as a Duration."""
    return Duration(seconds=span_us // m.SECOND_US, nanos=span_us % m.SECOND_US * 1_000)


def span_us(message: Duration) -> int:
    """Return a Duration in microseconds; a negative one counts as 0, an absurd one as `MAX_SPAN_US`."""
    return min(MAX_SPAN_US, max(0, message.seconds * m.SECOND_US + message.nanos // 1_000))


# Requests of users


def _text(field: str, value: str, most: int, *, is_required: bool = True) -> str:
    if is_required and not value.strip():
        raise InvalidRequest(field, f"{field} is empty")
    if len(value) > most:
        raise InvalidRequest(field, f"{field} has {len(value)} characters, and {most} is the limit")
    if _CONTROL.search(value):
        raise InvalidRequest(field, f"{field} holds control characters")
    return value


def optional_text(field: str, value: str) -> str:
    """Return a name that may be empty.

    Raises:
        InvalidRequest: It is too long or holds control characters.
    """
    return _text(field, value, MAX_NAME, is_required=False)


def _path(value: str) -> str:
    size = len(value.encode())
    if size > MAX_PATH_BYTES:
        raise InvalidRequest("test", f"test has {size} bytes, and {MAX_PATH_BYTES} is the limit")
    _text("test", value, MAX_PATH_BYTES)
    parts = value.replace("\\", "/").split("/")
    if value.startswith(("/", "\\", "-")) or ".." in parts:
        raise InvalidRequest("test", f"test {value!r} must be a path inside the project, such as tests/login.spec.ts")
    return value


def entries(field: str, mapping: Mapping[str, str], most: int) -> Mapping[str, str]:
    """Return a mapping sorted by name.

    Raises:
        InvalidRequest: It has too many entries, or one is too long or unprintable.
    """
    if len(mapping) > most:
        raise InvalidRequest(field, f"{field} has {len(mapping)} entries, and {most} is the limit")
    for name, value in mapping.items():
        if not name.strip() or len(name) > MAX_NAME or _CONTROL.search(name):
            raise InvalidRequest(field, f"{field} has a name that is empty, over {MAX_NAME} characters or unprintable")
        size = len(value.encode())
        if size > MAX_VALUE:
            raise InvalidRequest(field, f"{field} {name} has {size} bytes, and {MAX_VALUE} is the limit")
        if _CONTROL.search(value):
            raise InvalidRequest(field, f"{field} {name} holds control characters")
    return MappingProxyType(dict(sorted(mapping.items())))


def digest(field: str, value: str) -> str:
    """Return a SHA-256 in hexadecimal.

    Raises:
        InvalidRequest: It is none.
    """
    if _DIGEST.fullmatch(value) is None:
        raise InvalidRequest(field, f"{field} is no SHA-256 in lower-case hexadecimal")
    return value


def job_spec(spec: job_pb2.JobSpec) -> m.JobSpec:
    """Validate what a user asks for and fill in the defaults.

    Raises:
        InvalidRequest: A field is missing, malformed or out of its range.
    """
    priority = spec.priority or m.DEFAULT_PRIORITY
    if not m.MIN_PRIORITY <= priority <= m.MAX_PRIORITY:
        raise InvalidRequest("priority", f"priority {priority} is out of range; use 1 (when idle) to 5 (now)")
    if spec.target not in _TARGETS:
        raise InvalidRequest("target", f"target {spec.target} is unknown; use {', '.join(m.Target)}")
    if not 0 <= spec.retries <= MAX_RETRIES:
        raise InvalidRequest("retries", f"retries {spec.retries} is out of range; use 0 to {MAX_RETRIES}")
    timeout_us = span_us(spec.timeout) if spec.HasField("timeout") else m.DEFAULT_TIMEOUT_US
    if not m.SECOND_US <= timeout_us <= MAX_TIMEOUT_US:
        raise InvalidRequest("timeout", "timeout is out of range; use 1s to 24h")
    selector = entries("selector", spec.selector, MAX_SELECTOR)
    env = environment(spec.env)
    return m.JobSpec(
        org_id=_text("org_id", spec.org_id, MAX_NAME),
        app_version_id=_text("app_version_id", spec.app_version_id, MAX_NAME),
        test=_path(spec.test),
        priority=priority,
        target=_TARGETS[spec.target],
        selector=tuple(selector.items()),
        env=env,
        secrets=secrets(spec.secrets, env),
        labels=entries("labels", spec.labels, MAX_ENTRIES),
        retries=spec.retries,
        timeout_us=timeout_us,
        run=_text("run", spec.run, MAX_NAME, is_required=False),
        bundle_digest=sys.intern(digest("bundle_digest", spec.bundle_digest)) if spec.bundle_digest else "",
    )


def job_specs(request: job_service_pb2.SubmitJobsRequest) -> tuple[m.JobSpec, ...]:
    """Validate all jobs of a submit.

    Raises:
        InvalidRequest: There are none or too many, they belong to several organisations, or one is malformed.
    """
    if not request.jobs:
        raise InvalidRequest("jobs", "there is no job in the request")
    if len(request.jobs) > MAX_JOBS_PER_CALL:
        raise InvalidRequest("jobs", f"{len(request.jobs)} jobs in one call, and {MAX_JOBS_PER_CALL} is the limit")
    optional_text("request_id", request.request_id)
    answer = request.ByteSize() + MAX_ANSWER_BYTES_PER_JOB * len(request.jobs)
    if answer > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            "jobs", f"the answer would have about {answer} bytes, and {MAX_MESSAGE_BYTES} is the limit; use two calls"
        )
    specs = tuple(_nth_spec(request.jobs, index) for index in range(len(request.jobs)))
    if len({spec.org_id for spec in specs}) > 1:
        raise InvalidRequest("org_id", "the jobs of one call must belong to one organisation")
    return specs


def _nth_spec(specs: Sequence[job_pb2.JobSpec], index: int) -> m.JobSpec:
    """Validate one of many: the refusal says which."""
    try:
        return job_spec(specs[index])
    except InvalidRequest as refusal:
        if len(specs) == 1:
            raise
        field = f"jobs[{index}].{refusal.fields['field']}"
        raise InvalidRequest(field, f"job {index + 1} of {len(specs)}: {refusal}") from refusal


def payload_sha256(specs: Iterable[m.JobSpec], retry_of: m.JobId | None = None) -> str:
    """Return the SHA-256 of what was asked for, defaults filled in: equal requests hash alike."""
    hashed = hashlib.sha256()
    for spec in specs:
        message = job_spec_out(spec)
        message.env.update(spec.env)
        message.secrets.update(spec.secrets)
        hashed.update(message.SerializeToString(deterministic=True))
        hashed.update(b"\n")
    if retry_of is not None:
        hashed.update(b"retry of %d\n" % retry_of)
    return hashed.hexdigest()


def job_states(states: Sequence[int]) -> tuple[m.JobState, ...]:
    """Translate the states of a filter.

    Raises:
        InvalidRequest: There are too many, or a number is no state.
    """
    if len(states) > MAX_STATES:
        raise InvalidRequest("filter.states", f"{len(states)} states, and {MAX_STATES} is the limit")
    for state in states:
        if state and state not in _JOB_STATES:
            raise InvalidRequest("filter.states", f"job state {state} is unknown")
    return tuple(_JOB_STATES[state] for state in states if state)


def target_filter(target: int) -> m.Target | None:
    """Translate the target of a filter; None filters nothing.

    Raises:
        InvalidRequest: The number is no target.
    """
    if target and target not in _TARGETS:
        raise InvalidRequest("filter.target", f"target {target} is unknown")
    return _TARGETS[target] if target else None


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


def page_size(asked: int, default: int = DEFAULT_PAGE) -> int:
    """Return the size of a page.

    Raises:
        InvalidRequest: It is negative or too large.
    """
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidRequest("page_size", f"page_size {asked} is out of range; use 1 to {MAX_PAGE}")
    return asked or default


def hold_requested(device_id: str, hold: m.DeviceHold, reason: str = "") -> ev.HoldRequested:
    """Translate a request to keep new work off a device.

    Raises:
        InvalidRequest: The reason is too long or holds control characters.
    """
    return ev.HoldRequested(
        device=m.DeviceId(device_id), hold=hold, reason=_text("reason", reason, MAX_VALUE, is_required=False)
    )


def registration_requested(
    request: build_service_pb2.RegisterBuildRequest, digest: str, size: int
) -> ev.RegistrationRequested:
    """Translate a request to register a build that was uploaded.

    Raises:
        InvalidRequest: A name is missing, too long or unprintable.
    """
    return ev.RegistrationRequested(
        org_id=_text("org_id", request.org_id, MAX_NAME),
        app_version_id=_text("app_version_id", request.app_version_id, MAX_NAME),
        digest=digest,
        size=size,
        file_name=_clean(request.file_name, MAX_NAME),
        is_replacing=request.replace,
    )


# Facts of agents


def _fence(key: lease_pb2.LeaseKey) -> m.Fence:
    return m.Fence(key.fence.epoch, key.fence.number)


def _clean(value: str, most: int) -> str:
    """Return one line of an agent's, cut to size, without control characters."""
    return _CONTROL.sub(" ", value[:most])


def failure(message: job_pb2.Failure) -> m.Failure:
    """Translate a failure, cut to size."""
    return m.Failure(
        reason=_clean(message.reason, MAX_NAME).strip() or "UNKNOWN",
        message=_clean(message.message, MAX_ERROR_TEXT),
        blame=_BLAMES.get(message.blame),
    )


def _test(message: job_pb2.TestResult) -> m.TestResult:
    return m.TestResult(
        id=_clean(message.id, MAX_NAME),
        title=_clean(message.title, MAX_VALUE),
        state=_TESTS.get(message.state, m.TestState.INTERRUPTED),
        duration_us=span_us(message.duration),
        error=_CONTROL_BUT_LINES.sub(" ", message.error[:MAX_ERROR_TEXT]),
    )


def _echoes(messages: Sequence[lease_pb2.LeaseEcho]) -> tuple[ev.LeaseEcho, ...]:
    if len(messages) > MAX_ECHOES:
        raise InvalidRequest("leases", f"{len(messages)} leases, and {MAX_ECHOES} is the limit")
    return tuple(_echo(message) for message in messages)


def _echo(message: lease_pb2.LeaseEcho) -> ev.LeaseEcho:
    if len(message.started_attempt_ids) + len(message.finished_attempt_ids) > MAX_ECHOED_ATTEMPTS:
        raise InvalidRequest("leases", f"a lease with over {MAX_ECHOED_ATTEMPTS} attempts")
    return ev.LeaseEcho(
        lease=m.LeaseId(message.key.lease_id),
        fence=_fence(message.key),
        revision=message.revision,
        started=tuple(m.AttemptId(attempt) for attempt in message.started_attempt_ids),
        finished=tuple(m.AttemptId(attempt) for attempt in message.finished_attempt_ids),
    )


def _result(session: m.SessionId, message: lease_pb2.AttemptResult) -> ev.AttemptFinished:
    outcome = _OUTCOMES.get(message.outcome)
    if outcome is None:
        raise InvalidRequest("outcome", f"attempt outcome {message.outcome} is unknown")
    return ev.AttemptFinished(
        session=session,
        lease=m.LeaseId(message.key.lease_id),
        fence=_fence(message.key),
        attempt=m.AttemptId(message.attempt_id),
        outcome=outcome,
        failure=failure(message.failure) if message.HasField("failure") else None,
        tests=tuple(_test(test) for test in message.tests[:MAX_TESTS]),
        is_resumable=message.resumable,
        log_size=max(0, message.log_size),
        log_sha256=_clean(message.log_sha256, 64),
        build_digest=_clean(message.build_digest, 64),
    )


def _facts(messages: Sequence[device_pb2.DeviceFacts]) -> tuple[m.DeviceFacts, ...]:
    if len(messages) > MAX_DEVICES_PER_AGENT:
        raise InvalidRequest("devices", f"{len(messages)} devices, and {MAX_DEVICES_PER_AGENT} is the limit")
    facts = tuple(_device_facts(message) for message in messages)
    if len({one.id for one in facts}) < len(facts):
        raise InvalidRequest("devices", "a device is announced twice")
    return facts


def _device_facts(message: device_pb2.DeviceFacts) -> m.DeviceFacts:
    if message.kind not in _KINDS:
        raise InvalidRequest("kind", f"device kind {message.kind} is unknown")
    return m.DeviceFacts(
        id=m.DeviceId(_text("device id", message.id, MAX_DEVICE_ID)),
        kind=_KINDS[message.kind],
        platform=_clean(message.platform, MAX_NAME),
        model=_clean(message.model, MAX_NAME),
        os_version=_clean(message.os_version, MAX_NAME),
        udid=_clean(message.udid, MAX_VALUE),
        labels=entries("labels", message.labels, MAX_ENTRIES),
        is_usable=message.usable,
        reason=_clean(message.reason, MAX_VALUE),
        vitals=_vitals(message.vitals) if message.HasField("vitals") else m.NO_VITALS,
    )


def _vitals(message: device_pb2.DeviceVitals) -> m.Vitals:
    def told(name: Literal["api_level", "battery_percent", "temperature_decidegrees", "free_bytes"]) -> int | None:
        return getattr(message, name) if message.HasField(name) else None

    return m.Vitals(
        api_level=told("api_level"),
        battery_percent=told("battery_percent"),
        temperature_decidegrees=told("temperature_decidegrees"),
        free_bytes=told("free_bytes"),
    )


def agent_connected(session: m.SessionId, hello: agent_service_pb2.Hello, cluster_id: str) -> ev.AgentConnected:
    """Translate Hello.

    What an agent holds of another database's is left out: its ids mean other things here.

    Raises:
        InvalidRequest: A field is missing or malformed.
    """
    if len(hello.results) > MAX_RESULTS:
        raise InvalidRequest("results", f"{len(hello.results)} results, and {MAX_RESULTS} is the limit")
    is_ours = hello.cluster_id in ("", cluster_id)
    return ev.AgentConnected(
        session=session,
        agent=m.AgentId(_text("agent_id", hello.agent_id, MAX_NAME)),
        boot_id=_text("boot_id", hello.boot_id, MAX_NAME),
        version=_clean(hello.version, MAX_NAME),
        host=_clean(hello.host, MAX_NAME),
        devices=_facts(hello.devices),
        leases=_echoes(hello.leases) if is_ours else (),
        results=tuple(_result(session, result) for result in hello.results) if is_ours else (),
        is_stranger=not is_ours,
        lanes=_lanes(hello.lanes),
        answers_close=hello.answers_close,
    )


def _lanes(numbers: Sequence[int]) -> tuple[m.Lane, ...]:
    """Return the lanes that an agent serves, all where it names none."""
    for number in numbers:
        if number not in _LANES:
            raise InvalidRequest("lanes", f"lane {number} is unknown")
    return tuple(lane for lane in m.Lane if _LANES_OUT[lane] in numbers) or m.ALL_LANES


def agent_event(session: m.SessionId, message: agent_service_pb2.ConnectRequest) -> ev.Event:
    """Translate one fact of an open session.

    Raises:
        InvalidRequest: The message is empty, a second Hello, or malformed.
    """
    match message.WhichOneof("event"):
        case "heartbeat":
            beat = message.heartbeat
            return ev.HeartbeatReceived(session=session, sequence=beat.sequence, leases=_echoes(beat.leases))
        case "lease_adopted":
            return ev.LeaseAdopted(session=session, echo=_echo(message.lease_adopted.echo))
        case "lease_closed":
            closed = message.lease_closed
            return ev.LeaseClosed(
                session=session, lease=m.LeaseId(closed.key.lease_id), device=m.DeviceId(closed.device_id)
            )
        case "devices_reported":
            return ev.DevicesReported(session=session, devices=_facts(message.devices_reported.devices))
        case "build_installed":
            install = message.build_installed
            return ev.BuildInstalled(
                session=session,
                lease=m.LeaseId(install.key.lease_id),
                fence=_fence(install.key),
                digest=_clean(install.digest, 64),
                install_us=span_us(install.duration),
                was_installed=install.installed,
            )
        case "lease_rejected":
            rejected = message.lease_rejected
            return ev.LeaseRejected(
                session=session,
                lease=m.LeaseId(rejected.key.lease_id),
                fence=_fence(rejected.key),
                failure=failure(rejected.failure),
            )
        case "lease_released":
            key = message.lease_released.key
            return ev.LeaseReleased(session=session, lease=m.LeaseId(key.lease_id), fence=_fence(key))
        case "attempt_started":
            started = message.attempt_started
            return ev.AttemptStarted(
                session=session,
                lease=m.LeaseId(started.key.lease_id),
                fence=_fence(started.key),
                attempt=m.AttemptId(started.attempt_id),
            )
        case "test_reported":
            reported = message.test_reported
            return ev.TestReported(
                session=session,
                lease=m.LeaseId(reported.key.lease_id),
                fence=_fence(reported.key),
                attempt=m.AttemptId(reported.attempt_id),
                test=_test(reported.test),
                is_resumable=reported.resumable,
            )
        case "attempt_finished":
            return _result(session, message.attempt_finished.result)
        case other:
            raise InvalidRequest("event", f"{other or 'an empty message'} is not expected here")


# Commands for agents


def _key(lease: m.LeaseId, fence: m.Fence) -> lease_pb2.LeaseKey:
    return lease_pb2.LeaseKey(lease_id=lease, fence=lease_pb2.Fence(epoch=fence.epoch, number=fence.number))


def welcome(cluster_id: str, epoch: int, settings: m.Settings, version: str) -> agent_service_pb2.ConnectResponse:
    """Return the answer to Hello."""
    return agent_service_pb2.ConnectResponse(
        welcome=agent_service_pb2.Welcome(
            cluster_id=cluster_id,
            epoch=epoch,
            heartbeat_interval=duration(settings.heartbeat_us),
            lease_ttl=duration(settings.lease_ttl_us),
            orphan_limit=duration(settings.orphan_limit_us),
            signal_grace=duration(settings.signal_grace_us),
            version=version,
        )
    )


def command(send: st.Send) -> agent_service_pb2.ConnectResponse:
    """Translate a send of an open session; Welcome and the end of a session are not among them."""
    match send:
        case st.SendLease():
            return agent_service_pb2.ConnectResponse(adopt_lease=agent_service_pb2.AdoptLease(lease=_lease_spec(send)))
        case st.SendClose():
            return agent_service_pb2.ConnectResponse(
                close_lease=agent_service_pb2.CloseLease(
                    key=_key(send.lease, send.fence), reason=send.why, device_id=send.device or ""
                )
            )
        case st.SendResultsAcknowledged():
            return agent_service_pb2.ConnectResponse(
                acknowledge_results=agent_service_pb2.AcknowledgeResults(attempt_ids=send.attempts)
            )
        case st.SendHeartbeatAcknowledged():
            return agent_service_pb2.ConnectResponse(
                acknowledge_heartbeat=agent_service_pb2.AcknowledgeHeartbeat(sequence=send.sequence)
            )
        case st.SendWelcome() | st.CloseSession():
            raise AssertionError(f"{send} is not a command of an open session")


def _lease_spec(send: st.SendLease) -> lease_pb2.LeaseSpec:
    lease = send.lease
    return lease_pb2.LeaseSpec(
        key=_key(lease.id, lease.fence),
        revision=lease.revision,
        device_id=lease.device,
        org_id=lease.app.org_id,
        app_version_id=lease.app.app_version_id,
        jobs=[
            lease_pb2.LeasedJob(
                attempt_id=leased.attempt.id,
                job_id=leased.job.id,
                attempt_number=leased.attempt.number,
                test=leased.job.spec.test,
                env=leased.job.spec.env,
                secrets=leased.job.spec.secrets,
                timeout=duration(leased.job.spec.timeout_us),
                priority=leased.job.spec.priority,
                done_test_ids=[test.id for test in leased.job.kept],
                bundle_digest=leased.job.spec.bundle_digest,
            )
            for leased in send.jobs
        ],
        revoked=[
            lease_pb2.RevokedAttempt(attempt_id=attempt, reason=_REVOKES_OUT[reason])
            for attempt, reason in send.revoked
        ],
        grace=duration(send.grace_us),
        canary=lease.is_canary,
        build_digest=lease.app.digest,
    )


# Records for users


def job_state_out(state: m.JobState) -> job_pb2.JobState.ValueType:
    """Translate where a job stands."""
    return _JOB_STATES_OUT[state]


def failure_out(record: m.Failure | None) -> job_pb2.Failure | None:
    """Translate a failure."""
    if record is None:
        return None
    blame = _BLAMES_OUT[record.blame] if record.blame is not None else job_pb2.BLAME_UNSPECIFIED
    return job_pb2.Failure(reason=record.reason, message=record.message, blame=blame)


def job_spec_out(spec: m.JobSpec) -> job_pb2.JobSpec:
    """Translate what was asked for. Of environment and secrets only the names: values are shown nowhere."""
    return job_pb2.JobSpec(
        org_id=spec.org_id,
        app_version_id=spec.app_version_id,
        test=spec.test,
        priority=spec.priority,
        target=_TARGETS_OUT[spec.target],
        selector=dict(spec.selector),
        env=dict.fromkeys(spec.env, ""),
        secrets=dict.fromkeys(spec.secrets, ""),
        labels=spec.labels,
        retries=spec.retries,
        timeout=duration(spec.timeout_us),
        run=spec.run,
        bundle_digest=spec.bundle_digest,
    )


def test_out(test: m.TestResult, attempt_number: int) -> job_pb2.TestResult:
    """Translate the result of one test."""
    return job_pb2.TestResult(
        id=test.id,
        title=test.title,
        state=_TESTS_OUT[test.state],
        duration=duration(test.duration_us),
        error=test.error,
        attempt=attempt_number,
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
        outcome=_OUTCOMES_OUT[attempt.outcome] if attempt.outcome is not None else job_pb2.ATTEMPT_OUTCOME_UNSPECIFIED,
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
    return message


def job_out(
    job: m.Job,
    *,
    position: int = 0,
    expected_start_us: int | None = None,
    tests: Iterable[tuple[m.TestResult, int]] = (),
    attempts: Iterable[job_pb2.Attempt] = (),
) -> job_pb2.Job:
    """Translate a job with the parts that were looked up for it."""
    message = job_pb2.Job(
        id=job.id,
        spec=job_spec_out(job.spec),
        state=_JOB_STATES_OUT[job.state],
        lane=_LANES_OUT[job.spec.lane],
        create_time=timestamp(job.create_us),
        device=job.device or "",
        agent=job.agent or "",
        attempt=job.attempt_count,
        attempts=attempts,
        failure=failure_out(job.failure),
        queue_position=position,
        tests=[test_out(test, number) for test, number in tests],
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
        kind=_KINDS_OUT[facts.kind],
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
    )


def device_out(device: m.Device, *, job: m.JobId | None, utilisation_ppm: int) -> device_pb2.Device:
    """Translate a device. `utilisation_ppm` is the leased share of the last hour in millionths."""
    message = device_pb2.Device(
        facts=device_facts_out(device.facts),
        agent=device.agent,
        state=_DEVICE_STATES_OUT[device.state],
        job_id=job or 0,
        lease_id=device.lease or 0,
        utilisation=utilisation_ppm / 1_000_000,
        seen_time=timestamp(device.seen_us),
        hold=_HOLDS_OUT[device.hold] if device.hold is not None else device_pb2.DEVICE_HOLD_UNSPECIFIED,
        hold_reason=device.hold_reason,
    )
    if device.app is not None:
        message.builds.add(org_id=device.app.org_id, app_version_id=device.app.app_version_id, digest=device.app_digest)
    return message


def agent_out(agent: m.Agent, *, devices: int, leases: int) -> agent_pb2.Agent:
    """Translate an agent."""
    return agent_pb2.Agent(
        id=agent.id,
        state=_AGENT_STATES_OUT[agent.state],
        version=agent.version,
        host=agent.host,
        devices=devices,
        leases=leases,
        seen_time=timestamp(agent.seen_us),
        connect_time=timestamp(agent.connect_us),
        draining=agent.is_draining,
        lanes=[_LANES_OUT[lane] for lane in agent.lanes],
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
    )
    if build.install_us:
        message.install_time.CopyFrom(timestamp(build.install_us))
    if build.register_us:
        message.register_time.CopyFrom(timestamp(build.register_us))
    return message


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
            queue_pb2.LaneStatus(lane=_LANES_OUT[lane], queued=queued[lane], running=running[lane]) for lane in m.Lane
        ],
        running=running_jobs,
        waiting=waiting_jobs,
        installs_avoided=counters.installs_avoided,
        time_saved=duration(counters.saved_us),
        batches=batches,
        devices=[
            queue_pb2.DeviceCount(state=_DEVICE_STATES_OUT[state], count=devices[state])
            for state in m.DeviceState
            if devices.get(state)
        ],
    )
    if drain_us is not None:
        message.expected_drain_time.CopyFrom(timestamp(drain_us))
    return message
