"""Facts of agents -> events of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coordinator.core import events as ev
from coordinator.core import model as m
from coordinator.core.artifacts import ArtifactKind
from coordinator.core.errors import InvalidRequest
from coordinator.environment import MAX_ENTRIES
from coordinator.wire.enums import ARTIFACTS, BLAMES, KINDS, LANES, LANES_OUT, OUTCOMES, TESTS
from coordinator.wire.fields import CONTROL_BUT_LINES, clean, entries, span_us, text
from coordinator.wire.limits import (
    MAX_DEVICE_ID,
    MAX_DEVICES_PER_AGENT,
    MAX_ECHOED_ATTEMPTS,
    MAX_ECHOES,
    MAX_ERROR_TEXT,
    MAX_NAME,
    MAX_ORGS,
    MAX_RESULTS,
    MAX_TESTS,
    MAX_UPLOAD_TURN,
    MAX_UPLOADS,
    MAX_VALUE,
)
from qgjob.v1 import (
    agent_service_pb2,
    device_pb2,
    job_pb2,
    lease_pb2,
)


def _fence(key: lease_pb2.LeaseKey) -> m.Fence:
    fence = key.fence
    return m.Fence(fence.epoch, fence.number)


def failure(message: job_pb2.Failure) -> m.Failure:
    """Translate a failure, cut to size."""
    return m.Failure(
        reason=clean(message.reason, MAX_NAME).strip() or "UNKNOWN",
        message=clean(message.message, MAX_ERROR_TEXT),
        blame=BLAMES.get(message.blame),
    )


def artifact_kind(number: int) -> ArtifactKind:
    """Return what a file is; one that a newer agent knows is something else here."""
    return ARTIFACTS.get(number, ArtifactKind.OTHER)


def _test(message: job_pb2.TestResult) -> m.TestResult:
    return m.TestResult(
        id=clean(message.id, MAX_NAME),
        title=clean(message.title, MAX_VALUE),
        state=TESTS.get(message.state, m.TestState.INTERRUPTED),
        duration_us=span_us(message.duration),
        error=CONTROL_BUT_LINES.sub(" ", message.error[:MAX_ERROR_TEXT]),
        begin_us=span_us(message.start_offset) if message.HasField("start_offset") else None,
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
    outcome = OUTCOMES.get(message.outcome)
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
        log_sha256=clean(message.log_sha256, 64),
        build_digest=clean(message.build_digest, 64),
    )


def _facts(messages: Sequence[device_pb2.DeviceFacts]) -> tuple[m.DeviceFacts, ...]:
    if len(messages) > MAX_DEVICES_PER_AGENT:
        raise InvalidRequest("devices", f"{len(messages)} devices, and {MAX_DEVICES_PER_AGENT} is the limit")
    facts = tuple(_device_facts(message) for message in messages)
    if len({one.id for one in facts}) < len(facts):
        raise InvalidRequest("devices", "a device is announced twice")
    return facts


def _device_facts(message: device_pb2.DeviceFacts) -> m.DeviceFacts:
    if message.kind not in KINDS:
        raise InvalidRequest("kind", f"device kind {message.kind} is unknown")
    return m.DeviceFacts(
        id=m.DeviceId(text("device id", message.id, MAX_DEVICE_ID)),
        kind=KINDS[message.kind],
        platform=clean(message.platform, MAX_NAME),
        model=clean(message.model, MAX_NAME),
        os_version=clean(message.os_version, MAX_NAME),
        udid=clean(message.udid, MAX_VALUE),
        labels=entries("labels", message.labels, MAX_ENTRIES),
        is_usable=message.usable,
        reason=clean(message.reason, MAX_VALUE),
        vitals=_vitals(message.vitals) if message.HasField("vitals") else m.NO_VITALS,
        account=_account(message.account) if message.HasField("account") else None,
    )


def _account(message: device_pb2.CloudAccount) -> m.Account:
    return m.Account(
        name=text("account", message.name, MAX_NAME),
        sessions=max(0, message.sessions),
        others=max(0, message.others),
    )


def _upload_claims(messages: Sequence[agent_service_pb2.UploadClaim]) -> tuple[ev.UploadClaim, ...]:
    if len(messages) > MAX_UPLOADS:
        raise InvalidRequest("claims", f"{len(messages)} uploads are claimed, and {MAX_UPLOADS} is the limit")
    claims = tuple(_upload_claim(message) for message in messages)
    if len({claim.key for claim in claims}) < len(claims):
        raise InvalidRequest("claims", "the upload of a build to an account is claimed twice")
    return claims


def _upload_claim(message: agent_service_pb2.UploadClaim) -> ev.UploadClaim:
    if len(message.device_ids) > MAX_DEVICES_PER_AGENT:
        raise InvalidRequest("device_ids", f"{len(message.device_ids)}, and {MAX_DEVICES_PER_AGENT} is the limit")
    if not 0 <= message.turn <= MAX_UPLOAD_TURN:
        raise InvalidRequest("turn", f"{message.turn} is not between 0 and {MAX_UPLOAD_TURN}")
    return ev.UploadClaim(
        key=m.UploadKey(text("account", message.account, MAX_NAME), text("digest", message.digest, MAX_NAME)),
        turn=message.turn,
        devices=tuple(m.DeviceId(text("device_ids", device, MAX_DEVICE_ID)) for device in message.device_ids),
        url=text("url", message.url, MAX_VALUE) if message.url else "",
        number=message.number,
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
        agent=m.AgentId(text("agent_id", hello.agent_id, MAX_NAME)),
        boot_id=text("boot_id", hello.boot_id, MAX_NAME),
        version=clean(hello.version, MAX_NAME),
        host=clean(hello.host, MAX_NAME),
        devices=_facts(hello.devices),
        leases=_echoes(hello.leases) if is_ours else (),
        results=tuple(_result(session, result) for result in hello.results) if is_ours else (),
        is_stranger=not is_ours,
        lanes=_lanes(hello.lanes),
        orgs=_orgs(hello.orgs),
        answers_close=hello.answers_close,
    )


def _lanes(numbers: Sequence[int]) -> tuple[m.Lane, ...]:
    """Return the lanes that an agent serves, all where it names none."""
    for number in numbers:
        if number not in LANES:
            raise InvalidRequest("lanes", f"lane {number} is unknown")
    return tuple(lane for lane in m.Lane if LANES_OUT[lane] in numbers) or m.ALL_LANES


def _orgs(names: Sequence[str]) -> tuple[str, ...]:
    """Return the organisations that an agent serves, none for all."""
    if len(names) > MAX_ORGS:
        raise InvalidRequest("orgs", f"{len(names)} organisations, and {MAX_ORGS} is the limit")
    return tuple(sorted({text("orgs", name, MAX_NAME) for name in names}))


def agent_event(session: m.SessionId, message: agent_service_pb2.ConnectRequest) -> ev.Event:
    """Translate one fact of an open session.

    Raises:
        InvalidRequest: The message is empty, a second Hello, or malformed.
    """
    match message.WhichOneof("event"):
        case "heartbeat":
            beat = message.heartbeat
            return ev.HeartbeatReceived(session=session, sequence=beat.sequence, leases=_echoes(beat.leases))
        case "uploads_claimed":
            return ev.UploadsClaimed(session=session, claims=_upload_claims(message.uploads_claimed.claims))
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
                digest=clean(install.digest, 64),
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
