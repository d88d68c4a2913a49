"""Protobuf <-> core of the agent."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration

from agent.core import events as ev
from agent.core import model as m
from agent.core import step as st
from qgjob.v1 import agent_service_pb2, artifact_pb2, device_pb2, job_pb2, lease_pb2

PROTOCOL: Final = 1
"""Number of the agent protocol that this release speaks."""

_OUTCOMES: Final = {outcome: job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{outcome.name}") for outcome in m.Outcome}
_BLAMES: Final = {
    blame: job_pb2.Blame.Value("BLAME_UNSPECIFIED" if blame is m.Blame.NOBODY else f"BLAME_{blame.name}")
    for blame in m.Blame
}
_TESTS: Final = {state: job_pb2.TestState.Value(f"TEST_STATE_{state.name}") for state in m.TestState}
_KINDS: Final = {kind: device_pb2.DeviceKind.Value(f"DEVICE_KIND_{kind.name}") for kind in m.DeviceKind}
_ARTIFACTS: Final = {kind: artifact_pb2.ArtifactKind.Value(f"ARTIFACT_KIND_{kind.name}") for kind in m.ArtifactKind}
_LANES: Final = {lane: job_pb2.Lane.Value(f"LANE_{lane.name}") for lane in m.Lane}
_REVOKES: Final[dict[int, m.RevokeReason]] = {
    lease_pb2.REVOKE_REASON_CANCEL: m.RevokeReason.CANCEL,
    lease_pb2.REVOKE_REASON_PREEMPT: m.RevokeReason.PREEMPT,
    lease_pb2.REVOKE_REASON_RELEASE: m.RevokeReason.RELEASE,
}


def _span_us(message: Duration) -> int:
    return max(0, message.seconds * m.MICROSECONDS + message.nanos // 1_000)


# Commands


def _key(message: lease_pb2.LeaseKey) -> m.LeaseKey:
    fence = m.Fence(epoch=message.fence.epoch, number=message.fence.number)
    return m.LeaseKey(lease_id=m.LeaseId(message.lease_id), fence=fence)


def _lease(message: lease_pb2.LeaseSpec) -> m.LeaseSpec:
    return m.LeaseSpec(
        key=_key(message.key),
        revision=message.revision,
        device_id=m.DeviceId(message.device_id),
        org_id=message.org_id,
        app_version_id=message.app_version_id,
        jobs=tuple(
            m.LeasedJob(
                attempt_id=m.AttemptId(job.attempt_id),
                job_id=m.JobId(job.job_id),
                attempt_number=job.attempt_number,
                test=job.test,
                env=tuple(sorted(job.env.items())),
                secrets=tuple(sorted(job.secrets.items())),
                timeout_us=_span_us(job.timeout),
                priority=job.priority,
                done=tuple(job.done_test_ids),
                bundle_digest=job.bundle_digest,
                selector=tuple(sorted(job.selector.items())),
            )
            for job in message.jobs
        ),
        revoked=tuple(
            m.Revocation(
                attempt_id=m.AttemptId(one.attempt_id),
                # A reason of a later release is obeyed like a cancel: the attempt must not run on.
                reason=_REVOKES.get(one.reason, m.RevokeReason.CANCEL),
            )
            for one in message.revoked
        ),
        grace_us=_span_us(message.grace),
        is_canary=message.canary,
        build_digest=message.build_digest,
    )


def command(message: agent_service_pb2.ConnectResponse) -> ev.Command | None:
    """Translate a command; None for one that this release does not know."""
    match message.WhichOneof("command"):
        case "welcome":
            welcome = message.welcome
            return ev.Welcome(
                cluster_id=welcome.cluster_id,
                epoch=welcome.epoch,
                pace=m.Pace(
                    heartbeat_us=_span_us(welcome.heartbeat_interval),
                    lease_ttl_us=_span_us(welcome.lease_ttl),
                    orphan_limit_us=_span_us(welcome.orphan_limit),
                    signal_grace_us=_span_us(welcome.signal_grace),
                ),
                version=welcome.version,
                shares_uploads=welcome.shares_uploads,
            )
        case "adopt_lease":
            return ev.AdoptLease(lease=_lease(message.adopt_lease.lease))
        case "close_lease":
            close = message.close_lease
            device = m.DeviceId(close.device_id) if close.device_id else None
            return ev.CloseLease(key=_key(close.key), reason=close.reason, device_id=device)
        case "acknowledge_results":
            ids = tuple(m.AttemptId(attempt) for attempt in message.acknowledge_results.attempt_ids)
            return ev.AcknowledgeResults(attempt_ids=ids)
        case "acknowledge_heartbeat":
            return ev.AcknowledgeHeartbeat(sequence=message.acknowledge_heartbeat.sequence)
        case "tell_conflicts":
            conflicts = message.tell_conflicts.conflicts
            return ev.TellConflicts(owners=tuple((m.DeviceId(one.device_id), one.owner) for one in conflicts))
        case "tell_uploads":
            told = message.tell_uploads
            return ev.TellUploads(
                statuses=tuple(_upload_status(one) for one in told.uploads),
                sharers=tuple((one.account, one.agents) for one in told.accounts),
            )
        case _:
            return None


def _upload_status(message: agent_service_pb2.UploadStatus) -> m.UploadStatus:
    return m.UploadStatus(
        account=message.account,
        digest=message.digest,
        number=message.number,
        holder=message.holder,
        turn=message.turn,
        upload_age_us=_span_us(message.upload_age) if message.HasField("upload_age") else None,
        url=message.url,
        url_age_us=_span_us(message.url_age),
    )


# Facts


def artifact_kind_out(kind: m.ArtifactKind) -> artifact_pb2.ArtifactKind.ValueType:
    """Translate what a file is."""
    return _ARTIFACTS[kind]


def key_out(key: m.LeaseKey) -> lease_pb2.LeaseKey:
    """Translate the name of a lease."""
    return lease_pb2.LeaseKey(
        lease_id=key.lease_id, fence=lease_pb2.Fence(epoch=key.fence.epoch, number=key.fence.number)
    )


# What is said all the time is written into the message: to make its parts first and copy them takes twice as long.


def _put_key(message: lease_pb2.LeaseKey, key: m.LeaseKey) -> None:
    message.lease_id = key.lease_id
    fence = message.fence
    fence.epoch, fence.number = key.fence.epoch, key.fence.number


def _put_span(message: Duration, span_us: int) -> None:
    message.seconds, message.nanos = span_us // m.MICROSECONDS, span_us % m.MICROSECONDS * 1_000


def _put_echo(message: lease_pb2.LeaseEcho, echo: m.LeaseEcho) -> None:
    _put_key(message.key, echo.key)
    message.revision = echo.revision
    message.started_attempt_ids.extend(echo.started)
    message.finished_attempt_ids.extend(echo.finished)


def _put_test(message: job_pb2.TestResult, test: m.TestResult) -> None:
    message.id, message.title, message.error = test.id, test.title, test.error
    message.state, message.attempt = _TESTS[test.state], test.attempt
    _put_span(message.duration, test.duration_us)
    if test.begin_us is not None:
        _put_span(message.start_offset, test.begin_us)


def _failure(failure: m.Failure | None) -> job_pb2.Failure | None:
    if failure is None:
        return None
    return job_pb2.Failure(reason=failure.reason, message=failure.message, blame=_BLAMES[failure.blame])


def _facts(facts: m.DeviceFacts) -> device_pb2.DeviceFacts:
    return device_pb2.DeviceFacts(
        id=facts.id,
        kind=_KINDS[facts.kind],
        platform=facts.platform,
        model=facts.model,
        os_version=facts.os_version,
        udid=facts.udid,
        labels=dict(facts.labels),
        usable=facts.usable,
        reason=facts.reason,
        vitals=device_pb2.DeviceVitals(
            api_level=facts.vitals.api_level,
            battery_percent=facts.vitals.battery_percent,
            temperature_decidegrees=facts.vitals.temperature_decidegrees,
            free_bytes=facts.vitals.free_bytes,
        ),
        account=_account(facts.account) if facts.account is not None else None,
    )


def _account(account: m.Account) -> device_pb2.CloudAccount:
    return device_pb2.CloudAccount(name=account.name, sessions=account.sessions, others=account.others)


def _put_result(message: lease_pb2.AttemptResult, result: m.AttemptResult) -> None:
    message.attempt_id, message.outcome = result.attempt_id, _OUTCOMES[result.outcome]
    _put_key(message.key, result.key)
    if (failure := _failure(result.failure)) is not None:
        message.failure.CopyFrom(failure)
    for test in result.tests:
        _put_test(message.tests.add(), test)
    message.log_size, message.log_sha256 = result.log.size, result.log.sha256
    _put_span(message.duration, result.duration_us)
    message.build_digest, message.resumable = result.build_digest, result.is_resumable


def fact(send: st.Send) -> agent_service_pb2.ConnectRequest:
    """Translate what the machine says."""
    request = agent_service_pb2.ConnectRequest()
    match send:
        case st.Heartbeat():
            request.heartbeat.sequence = send.sequence
            for echo in send.leases:
                _put_echo(request.heartbeat.leases.add(), echo)
        case st.ReportTest():
            reported = request.test_reported
            _put_key(reported.key, send.key)
            reported.attempt_id, reported.resumable = send.attempt_id, send.is_resumable
            _put_test(reported.test, send.test)
        case st.EchoLease():
            _put_echo(request.lease_adopted.echo, send.echo)
        case st.ReportStart():
            _put_key(request.attempt_started.key, send.key)
            request.attempt_started.attempt_id = send.attempt_id
        case st.ReportResult():
            _put_result(request.attempt_finished.result, send.result)
        case st.ReportInstallation():
            installed = request.build_installed
            _put_key(installed.key, send.key)
            installed.digest, installed.installed = send.installation.digest, send.installation.is_new
            _put_span(installed.duration, send.installation.duration_us)
        case st.RejectLease():
            _put_key(request.lease_rejected.key, send.key)
            if (failure := _failure(send.failure)) is not None:
                request.lease_rejected.failure.CopyFrom(failure)
        case st.ReleaseLease():
            _put_key(request.lease_released.key, send.key)
        case st.ReportClosed():
            _put_key(request.lease_closed.key, send.key)
            request.lease_closed.device_id = send.device_id
        case st.ReportDevices():
            request.devices_reported.SetInParent()
            request.devices_reported.devices.extend(_facts(facts) for facts in send.devices)
        case st.ClaimUploads():
            request.uploads_claimed.SetInParent()
            request.uploads_claimed.claims.extend(_upload_claim(claim) for claim in send.claims)
        case st.Goodbye():
            request.goodbye.reason = send.reason
        case st.Hello():
            request.hello.CopyFrom(_hello(send))
    return request


def _upload_claim(claim: m.UploadClaim) -> agent_service_pb2.UploadClaim:
    return agent_service_pb2.UploadClaim(
        account=claim.account,
        digest=claim.digest,
        number=claim.number,
        turn=claim.turn,
        device_ids=claim.devices,
        url=claim.url,
    )


def _hello(hello: st.Hello) -> agent_service_pb2.Hello:
    message = agent_service_pb2.Hello(
        agent_id=hello.identity.agent_id,
        boot_id=hello.identity.boot_id,
        version=hello.identity.version,
        protocol=PROTOCOL,
        host=hello.identity.host,
        devices=[_facts(facts) for facts in hello.devices],
        cluster_id=hello.cluster_id,
        epoch=hello.epoch,
        answers_close=True,
        lanes=[_LANES[lane] for lane in hello.identity.lanes],
        orgs=hello.identity.orgs,
    )
    for echo in hello.leases:
        _put_echo(message.leases.add(), echo)
    for result in hello.results:
        _put_result(message.results.add(), result)
    return message
