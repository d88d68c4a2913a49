"""Sends of the core -> commands for agents."""

from __future__ import annotations

from coordinator.core import model as m
from coordinator.core import step as st
from coordinator.wire.enums import REVOKES_OUT
from coordinator.wire.fields import duration
from qgjob.v1 import (
    agent_service_pb2,
    lease_pb2,
)


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
            shares_uploads=True,
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
            response = agent_service_pb2.ConnectResponse()
            response.acknowledge_heartbeat.sequence = send.sequence
            return response
        case st.SendConflicts():
            conflicts = [
                agent_service_pb2.DeviceConflict(device_id=one.device, owner=one.owner) for one in send.conflicts
            ]
            return agent_service_pb2.ConnectResponse(
                tell_conflicts=agent_service_pb2.TellConflicts(conflicts=conflicts)
            )
        case st.SendUploads():
            return agent_service_pb2.ConnectResponse(tell_uploads=_uploads(send))
        case st.SendWelcome() | st.CloseSession():
            raise AssertionError(f"{send} is not a command of an open session")


def _uploads(send: st.SendUploads) -> agent_service_pb2.TellUploads:
    return agent_service_pb2.TellUploads(
        uploads=[_upload_status(status, send.told_us) for status in send.statuses],
        accounts=[agent_service_pb2.SharedAccount(account=name, agents=agents) for name, agents in send.sharers],
    )


def _upload_status(status: m.UploadStatus, told_us: int) -> agent_service_pb2.UploadStatus:
    message = agent_service_pb2.UploadStatus(
        account=status.key.account,
        digest=status.key.digest,
        number=status.number,
        holder=status.holder or "",
        turn=status.turn,
    )
    upload = status.upload
    if upload is not None and upload.end_us is None:
        message.upload_age.CopyFrom(duration(max(0, told_us - upload.begin_us)))
    elif upload is not None and upload.end_us is not None:
        message.url = upload.url
        message.url_age.CopyFrom(duration(max(0, told_us - upload.end_us)))
    return message


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
                selector=dict(leased.job.spec.selector),
            )
            for leased in send.jobs
        ],
        revoked=[
            lease_pb2.RevokedAttempt(attempt_id=attempt, reason=REVOKES_OUT[reason]) for attempt, reason in send.revoked
        ],
        grace=duration(send.grace_us),
        canary=lease.is_canary,
        build_digest=lease.app.digest,
    )
