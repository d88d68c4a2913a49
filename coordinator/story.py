"""Tells the operator, in the diagnostics, what has happened: made from what was committed."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from coordinator.core.errors import QgjobError
from coordinator.core.events import Event
from coordinator.core.ledger import Ledger, avoided_installs
from coordinator.core.model import (
    SECOND_US,
    Agent,
    AgentId,
    AgentState,
    AppKey,
    Attempt,
    AttemptOutcome,
    Build,
    Device,
    DeviceHold,
    DeviceId,
    Job,
    JobId,
    Lease,
    LeaseId,
    LeaseState,
)
from coordinator.core.step import (
    DropAgent,
    DropDevice,
    Preemption,
    PutAgent,
    PutAttempt,
    PutBuild,
    PutDevice,
    PutJob,
    PutLease,
    PutUpload,
    SendConflicts,
    Write,
)
from coordinator.upload_story import UploadStory


def span(span_us: int) -> str:
    """Return a span as people read it: 0.4s, 12s, 3m 10s, 2h 5m."""
    if span_us < 10 * SECOND_US:
        return f"{span_us / SECOND_US:.1f}s".replace(".0s", "s")
    seconds = round(span_us / SECOND_US)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m {seconds}s"
    return f"{minutes // 60}h {minutes % 60}m"


class Story:
    """Follows batches and jobs through the commits."""

    def __init__(self) -> None:
        self._out = structlog.get_logger("coordinator")
        self._lease_states: dict[LeaseId, LeaseState] = {}
        self._lease_jobs: dict[LeaseId, list[JobId]] = {}
        self._waiting_for: dict[LeaseId, dict[JobId, JobId]] = {}
        """For whom jobs make room, by their lease; not what an earlier life had begun."""
        self._builds: dict[AppKey, Build] = {}
        self._agents: dict[AgentId, Agent] = {}
        self._holds: dict[DeviceId, DeviceHold] = {}
        self._relapses: dict[DeviceId, int] = {}
        self._uploads = UploadStory()

    def tell_asleep(self) -> None:
        """Tell that nothing can be written."""
        self._out.error("disk_full", story="Serving reads alone until there is space again; then it goes on by itself")

    def tell_writable(self) -> None:
        """Tell that the disk takes writes again."""
        self._out.info("disk_has_space", story="Writing again, and taking up the work")

    def tell_restored(self, ledger: Ledger) -> None:
        """Tell what an earlier life left."""
        self._builds.update(ledger.builds.versions)
        self._agents.update(ledger.fleet.agents)
        self._holds.update((device.id, device.hold) for device in ledger.fleet.devices.values() if device.hold)
        self._relapses.update((device.id, device.relapses) for device in ledger.fleet.devices.values())
        for lease in ledger.fleet.leases.values():
            self._lease_states[lease.id] = lease.state
        self._uploads.tell_restored(ledger.uploads.known.values())
        if ledger.jobs:
            self._out.info(
                "jobs_taken_up",
                story=f"Took up {len(ledger.jobs)} unfinished jobs of an earlier life",
                waiting=len(ledger.queues),
                leases=len(ledger.fleet.leases),
                epoch=ledger.counters.epoch,
            )

    def tell_refused(self, event: Event, refusal: QgjobError) -> None:
        """Tell that a fact was refused."""
        self._out.warning("refused", event_kind=type(event).__name__, reason=refusal.reason, story=str(refusal))

    def tell_conflicts(self, send: SendConflicts) -> None:
        """Tell which devices of an agent other agents have."""
        if not send.conflicts:
            self._out.info("device_conflicts_over", agent=send.agent)
        for conflict in send.conflicts:
            story = (
                f"DEVICE_CONFLICT: {send.agent} announces {conflict.device}, which {conflict.owner} has;"
                f" it stays with {conflict.owner} until that lets it go"
            )
            self._out.warning("device_conflict", story=story, device=conflict.device, agent=send.agent)

    def tell(self, writes: Sequence[Write], preemptions: Sequence[Preemption] = ()) -> None:
        """Tell what one commit has changed, and for whom devices are taken back."""
        for preemption in preemptions:
            self._tell_preemption(preemption)
        for write in writes:
            match write:
                case PutAttempt(attempt):
                    self._tell_attempt(attempt)
                case PutLease(lease):
                    self._tell_lease(lease)
                case PutBuild(build):
                    self._builds[build.app] = build
                case PutAgent(agent):
                    self._tell_agent(agent)
                case PutDevice(device):
                    self._tell_hold(device)
                case DropAgent(agent_id):
                    self._tell_forgotten(agent_id)
                case DropDevice(device_id):
                    self._holds.pop(device_id, None)
                    self._relapses.pop(device_id, None)
                case PutJob(job):
                    self._tell_job(job)
                case PutUpload(upload):
                    self._uploads.tell(upload)
                case _:
                    pass
        for write in writes:
            if isinstance(write, PutLease) and not write.lease.is_live:
                self._waiting_for.pop(write.lease.id, None)

    def _tell_preemption(self, preemption: Preemption) -> None:
        waiting = self._waiting_for.setdefault(preemption.lease, {})
        waiting.update(dict.fromkeys(preemption.victims, preemption.waiting))
        plural = "s" if len(preemption.victims) > 1 else ""
        listed = ", ".join(map(str, preemption.victims))
        self._out.info(
            "preemption_begun",
            story=(
                f"Taking {preemption.device} back from job{plural} {listed} for job {preemption.waiting};"
                " what has not ended is queued again"
            ),
            device=preemption.device,
            jobs=list(preemption.victims),
            waiting=preemption.waiting,
        )

    def _tell_preempted(self, attempt: Attempt) -> None:
        waiting = self._waiting_for.get(attempt.lease, {}).get(attempt.job)
        for_whom = f" for job {waiting}" if waiting is not None else ""
        self._out.info(
            "job_preempted",
            story=f"Preempted job {attempt.job} on {attempt.device}{for_whom}; it is queued again",
            job=attempt.job,
            device=attempt.device,
            waiting=waiting,
        )

    def _tell_agent(self, agent: Agent) -> None:
        before = self._agents.get(agent.id)
        self._agents[agent.id] = agent
        if before is not None and before.is_draining is not agent.is_draining:
            self._out.info("agent_draining" if agent.is_draining else "agent_resumed", agent=agent.id)
            return
        word = {AgentState.CONNECTED: "connected", AgentState.DISCONNECTED: "lost"}.get(agent.state, "left")
        self._out.info(f"agent_{word}", agent=agent.id, host=agent.host)

    def _tell_forgotten(self, agent: AgentId) -> None:
        self._agents.pop(agent, None)
        self._out.info("agent_forgotten", agent=agent)

    def _tell_hold(self, device: Device) -> None:
        if device.hold is DeviceHold.SUSPICION and device.relapses > self._relapses.get(device.id, 0):
            story = f"Quarantined {device.id}: {device.hold_reason}; a canary will try it"
            self._out.warning("device_suspected", story=story, device=device.id, relapses=device.relapses)
        self._relapses[device.id] = device.relapses
        if self._holds.get(device.id) is device.hold:
            return
        if device.hold is None:
            del self._holds[device.id]
            self._out.info("device_readmitted", device=device.id)
            return
        self._holds[device.id] = device.hold
        if device.hold is not DeviceHold.SUSPICION:
            self._out.info("device_held", device=device.id, hold=str(device.hold), reason=device.hold_reason or None)

    def _tell_job(self, job: Job) -> None:
        if job.is_terminal:
            reason = job.failure.reason if job.failure is not None else None
            self._out.info("job_ended", job=job.id, state=str(job.state), device=job.device, reason=reason)

    def _tell_attempt(self, attempt: Attempt) -> None:
        if attempt.outcome is None:
            if attempt.start_us is None:
                self._lease_jobs.setdefault(attempt.lease, []).append(attempt.job)
            else:
                self._out.info("job_started", job=attempt.job, attempt=attempt.number, device=attempt.device)
        elif attempt.outcome is AttemptOutcome.PREEMPTED:
            self._tell_preempted(attempt)

    def _tell_lease(self, lease: Lease) -> None:
        before = self._lease_states.get(lease.id)
        if lease.is_canary:
            self._tell_canary(lease, before)
            return
        if not lease.is_live:
            if before is not None:
                self._tell_done(lease)
            self._lease_states.pop(lease.id, None)
            self._lease_jobs.pop(lease.id, None)
            return
        self._lease_states[lease.id] = lease.state
        jobs = self._lease_jobs.pop(lease.id, [])
        if jobs:
            word = "Claimed batch of" if before is None else "Batch grew by"
            self._out.info(
                "batch_claimed" if before is None else "batch_grew",
                story=f"{word} {len(jobs)} job{'s' if len(jobs) > 1 else ''}: {list(jobs)}",
                app_version=lease.app.app_version_id,
                target=str(lease.target),
                device=lease.device,
                lease=lease.id,
            )

    def _tell_canary(self, lease: Lease, before: LeaseState | None) -> None:
        """Tell that a suspected device is tried; `device_readmitted` or another reason tells what came of it."""
        if before is None and lease.is_live:
            self._out.info("canary_sent", device=lease.device, app_version=lease.app.app_version_id or None)
        self._lease_states[lease.id] = lease.state
        if not lease.is_live:
            del self._lease_states[lease.id]

    def _tell_done(self, lease: Lease) -> None:
        tally = lease.tally
        total = tally.passed + tally.failed + tally.other
        took_us = (lease.end_us or lease.grant_us) - lease.grant_us
        self._out.info(
            "batch_done",
            story=(
                f"Batch done: {total} total, {tally.passed} successful, {tally.failed} failed"
                f" on {lease.device} in {span(took_us)}"
            ),
            state=str(lease.state),
            lease=lease.id,
            installs=tally.installs,
        )
        avoided = avoided_installs(tally)
        build = self._builds.get(lease.app.version)
        if avoided and build is not None and build.installs:
            saved = span(avoided * build.mean_install_us)
            plural = "s" if avoided > 1 else ""
            self._out.info("time_saved", story=f"Time saved: {saved} (avoided {avoided} app installation{plural})")
