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


def duration(span_us: int) -> Duration:
    """Return a span in microseconds as a Duration."""
    return Duration(seconds=span_us // m.MICROSECONDS, nanos=span_us % m.MICROSECONDS * 1_000)


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
        case _:
            return None


# Facts


def artifact_kind_out(kind: m.ArtifactKind) -> artifact_pb2.ArtifactKind.ValueType:
    """Translate what a file is."""
    return _ARTIFACTS[kind]


def key_out(key: m.LeaseKey) -> lease_pb2.LeaseKey:
    """Translate the name of a lease."""
    return lease_pb2.LeaseKey(
        lease_id=key.lease_id, fence=lease_pb2.Fence(epoch=key.fence.epoch, number=key.fence.number)
    )


def _echo(echo: m.LeaseEcho) -> lease_pb2.LeaseEcho:
    return lease_pb2.LeaseEcho(
        key=key_out(echo.key),
        revision=echo.revision,
        started_attempt_ids=echo.started,
        finished_attempt_ids=echo.finished,
    )


def _failure(failure: m.Failure | None) -> job_pb2.Failure | None:
    if failure is None:
        return None
    return job_pb2.Failure(reason=failure.reason, message=failure.message, blame=_BLAMES[failure.blame])


def _test(test: m.TestResult) -> job_pb2.TestResult:
    return job_pb2.TestResult(
        start_offset=None if test.begin_us is None else duration(test.begin_us),
        id=test.id,
        title=test.title,
        state=_TESTS[test.state],
        duration=duration(test.duration_us),
        error=test.error,
        attempt=test.attempt,
    )


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


def _result(result: m.AttemptResult) -> lease_pb2.AttemptResult:
    return lease_pb2.AttemptResult(
        attempt_id=result.attempt_id,
        key=key_out(result.key),
        outcome=_OUTCOMES[result.outcome],
        failure=_failure(result.failure),
        tests=[_test(test) for test in result.tests],
        log_size=result.log.size,
        log_sha256=result.log.sha256,
        duration=duration(result.duration_us),
        build_digest=result.build_digest,
        resumable=result.is_resumable,
    )


def fact(send: st.Send) -> agent_service_pb2.ConnectRequest:
    """Translate what the machine says."""
    request = agent_service_pb2.ConnectRequest
    match send:
        case st.Hello():
            return request(hello=_hello(send))
        case st.Heartbeat():
            leases = [_echo(echo) for echo in send.leases]
            return request(heartbeat=agent_service_pb2.Heartbeat(sequence=send.sequence, leases=leases))
        case st.ReportDevices():
            devices = [_facts(facts) for facts in send.devices]
            return request(devices_reported=agent_service_pb2.DevicesReported(devices=devices))
        case st.EchoLease():
            return request(lease_adopted=agent_service_pb2.LeaseAdopted(echo=_echo(send.echo)))
        case st.ReportInstallation():
            installed = agent_service_pb2.BuildInstalled(
                key=key_out(send.key),
                digest=send.installation.digest,
                duration=duration(send.installation.duration_us),
                installed=send.installation.is_new,
            )
            return request(build_installed=installed)
        case st.RejectLease():
            rejected = agent_service_pb2.LeaseRejected(key=key_out(send.key), failure=_failure(send.failure))
            return request(lease_rejected=rejected)
        case st.ReleaseLease():
            return request(lease_released=agent_service_pb2.LeaseReleased(key=key_out(send.key)))
        case st.ReportClosed():
            closed = agent_service_pb2.LeaseClosed(key=key_out(send.key), device_id=send.device_id)
            return request(lease_closed=closed)
        case st.ReportStart():
            started = agent_service_pb2.AttemptStarted(key=key_out(send.key), attempt_id=send.attempt_id)
            return request(attempt_started=started)
        case st.ReportTest():
            reported = agent_service_pb2.TestReported(
                key=key_out(send.key),
                attempt_id=send.attempt_id,
                test=_test(send.test),
                resumable=send.is_resumable,
            )
            return request(test_reported=reported)
        case st.ReportResult():
            return request(attempt_finished=agent_service_pb2.AttemptFinished(result=_result(send.result)))
        case st.Goodbye():
            return request(goodbye=agent_service_pb2.Goodbye(reason=send.reason))


def _hello(hello: st.Hello) -> agent_service_pb2.Hello:
    return agent_service_pb2.Hello(
        agent_id=hello.identity.agent_id,
        boot_id=hello.identity.boot_id,
        version=hello.identity.version,
        protocol=PROTOCOL,
        host=hello.identity.host,
        devices=[_facts(facts) for facts in hello.devices],
        leases=[_echo(echo) for echo in hello.leases],
        results=[_result(result) for result in hello.results],
        cluster_id=hello.cluster_id,
        epoch=hello.epoch,
        answers_close=True,
        lanes=[_LANES[lane] for lane in hello.identity.lanes],
        orgs=hello.identity.orgs,
    )
