"""What users and operators ask for: jobs, builds, and holds on devices and agents.

All is checked before anything changes: on refusal (`QgjobError`) nothing has.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.errors import (
    InvalidTransition,
    NoMatchingDevice,
    NotFound,
    QueueFull,
    RequestIdReused,
)
from coordinator.core.events import (
    AgentDrainRequested,
    AgentForgetRequested,
    HoldRequested,
    JobsSubmitted,
    ReadmitRequested,
    RegistrationRequested,
    RetryRequested,
)
from coordinator.core.families import Signature
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    SECOND_US,
    Agent,
    AppKey,
    Build,
    Device,
    DeviceId,
    DeviceState,
    Job,
    JobId,
    JobSpec,
    JobState,
    Now,
    Request,
    RevokeReason,
    SubmitSequence,
    changed,
)
from coordinator.core.platforms import with_demands
from coordinator.core.pools import may_spill
from coordinator.core.step import (
    JobsAccepted,
    PutBuild,
    PutRequest,
)
from coordinator.core.transitions import moved_job


class Requests:
    """Takes requests in; what follows from them is decided afterwards."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the state."""
        self._ledger = ledger
        self._settings = ledger.settings

    def submit(self, event: JobsSubmitted, now: Now) -> JobsAccepted:
        """Accept jobs, or say again which a request was accepted as."""
        known = self._earlier(event.org_id, event)
        if known is not None:
            return _replayed(known, event.payload_sha256)
        specs = with_demands(event.specs, self._ledger.builds)
        self._refuse_overflow(event.org_id, specs)
        unserved = self._unserved(specs)
        if unserved and event.is_strict:
            raise NoMatchingDevice(unserved[0])
        digests = self._digests(specs)
        jobs = self._accept(event.org_id, event.key, event.payload_sha256, specs, digests, None, now)
        return JobsAccepted(jobs=jobs, job_ids=tuple(job.id for job in jobs), warnings=_waiting(unserved))

    def retry(self, event: RetryRequested, now: Now) -> JobsAccepted:
        """Accept a job that has ended once more."""
        old = event.job
        known = self._earlier(old.spec.org_id, event)
        if known is not None:
            return _replayed(known, event.payload_sha256)
        if not old.is_terminal or old.id in self._ledger.jobs:
            raise InvalidTransition(
                f"job {old.id} is {old.state}; only a job that has ended can be retried", id=old.id, state=old.state
            )
        self._refuse_overflow(old.spec.org_id, (old.spec,))
        # The same test again is one against the same binary.
        digests = (old.build_digest,) if old.build_digest else self._digests((old.spec,))
        jobs = self._accept(old.spec.org_id, event.key, event.payload_sha256, (old.spec,), digests, old.id, now)
        return JobsAccepted(jobs=jobs, job_ids=(jobs[0].id,), warnings=_waiting(self._unserved((old.spec,))))

    def _earlier(self, org_id: str, event: JobsSubmitted | RetryRequested) -> Request | None:
        """Return what was accepted under a key before. The time of a key is over when nothing of that is left."""
        known = self._ledger.requests.get((org_id, event.key)) or event.known
        return None if known is not None and known.jobs == event.spent else known

    def _refuse_overflow(self, org_id: str, specs: tuple[JobSpec, ...]) -> None:
        """Keep both the queue and what each decision has to look at bounded."""
        queues = self._ledger.queues
        queued, limit = queues.queued_of(org_id), self._settings.max_queued_per_org
        if queued + len(specs) > limit:
            raise QueueFull(
                f"organisation {org_id} has {queued} jobs in the queue and may have {limit}; wait or cancel some",
                limit=limit,
            )
        signatures = {self._signature(spec) for spec in specs}
        mine, everybodys = queues.pools_with(org_id, signatures)
        for pools, limit, whose in (
            (mine, self._settings.max_pools_per_org, f"organisation {org_id}"),
            (everybodys, self._settings.max_pools, "the lab"),
        ):
            if pools > limit:
                raise QueueFull(
                    f"{whose} would have {pools} different combinations of target and selector in the queue, and"
                    f" {limit} is the limit; use fewer selectors or wait",
                    limit=limit,
                )

    def _unserved(self, specs: tuple[JobSpec, ...]) -> tuple[str, ...]:
        """Return one line for each kind of request that no known device could serve."""
        spill = self._settings.rules.spill
        seen = dict.fromkeys(
            (spec.target, spec.selector, spec.lane, may_spill(spec, spill), self._ledger.kept_org(spec.org_id))
            for spec in specs
        )
        return tuple(
            f"no known device matches target {target}" + "".join(f", {name}={pattern}" for name, pattern in selector)
            for target, selector, lane, spills, org in seen
            if not self._ledger.fleet.pools.has_match(Signature(target, selector, (), lane, spills, org))
        )

    def _signature(self, spec: JobSpec) -> Signature:
        spills = may_spill(spec, self._settings.rules.spill)
        return Signature(spec.target, spec.selector, (), None, spills, self._ledger.kept_org(spec.org_id))

    def _digests(self, specs: tuple[JobSpec, ...]) -> tuple[str, ...]:
        """Return the builds that are registered for what was asked for, empty where none is."""
        builds = self._ledger.builds
        return tuple(builds.app_of(spec.org_id, spec.app_version_id).digest for spec in specs)

    def _accept(
        self,
        org_id: str,
        key: str,
        payload_sha256: str,
        specs: tuple[JobSpec, ...],
        digests: tuple[str, ...],
        retry_of: JobId | None,
        now: Now,
    ) -> tuple[Job, ...]:
        ledger = self._ledger
        counters = ledger.counters
        jobs = tuple(
            Job(
                id=JobId(counters.next_job + index),
                sequence=SubmitSequence(counters.next_sequence + index),
                spec=spec,
                state=JobState.QUEUED,
                create_us=now.wall_us,
                retry_of=retry_of,
                build_digest=digest,
                can_spill=may_spill(spec, self._settings.rules.spill),
                kept_org=self._ledger.kept_org(spec.org_id),
            )
            for index, (spec, digest) in enumerate(zip(specs, digests, strict=True))
        )
        ledger.put_counters(
            replace(
                counters,
                next_job=counters.next_job + len(jobs),
                next_sequence=counters.next_sequence + len(jobs),
            )
        )
        for job in jobs:
            ledger.put_job(job)
        request = Request(org_id=org_id, key=key, payload_sha256=payload_sha256, jobs=tuple(job.id for job in jobs))
        ledger.remember_request(request)
        ledger.write(PutRequest(request))
        return jobs

    def cancel(self, job_ids: tuple[JobId, ...], now: Now) -> None:
        """End jobs that wait, and ask for the end of those that run."""
        ledger = self._ledger
        for job_id in job_ids:
            job = ledger.jobs.get(job_id)
            if job is None or job.is_cancel_requested:
                continue
            if job.state is JobState.QUEUED:
                ledger.put_job(moved_job(job, JobState.CANCELLED, end_us=now.wall_us))
                continue
            ledger.put_job(replace(job, is_cancel_requested=True))
            assert job.attempt is not None
            lease = ledger.fleet.leases[ledger.attempts[job.attempt].lease]
            ledger.revoke(lease, [job.attempt], RevokeReason.CANCEL)

    def register(self, event: RegistrationRequested, now: Now) -> None:
        """Note which build an app version is from now on."""
        new = Build(
            app=AppKey(org_id=event.org_id, app_version_id=event.app_version_id),
            digest=event.digest,
            create_us=now.wall_us,
            size=event.size,
            file_name=event.file_name,
            register_us=now.wall_us,
            platform=event.platform,
            kind=event.kind,
        )
        changed = self._ledger.builds.register(new, is_replacing=event.is_replacing)
        if changed is not None:
            self._ledger.write(PutBuild(changed))

    # Operators

    def hold(self, event: HoldRequested) -> None:
        """Keep new work off a device."""
        device = self._known_device(event.device)
        held = replace(device, hold=event.hold, hold_reason=event.reason)
        if held != device:
            self._ledger.apply_hold(held)

    def readmit(self, event: ReadmitRequested) -> None:
        """Lift the hold. Only an explicit word frees a FENCING device: the same call may come again much later."""
        device = self._known_device(event.device)
        readmitted = replace(device, hold=None, hold_reason="", marks=(), relapses=0)
        is_away = self._ledger.fleet.session_of(device.agent) is None
        if event.host_is_gone and is_away and device.state is DeviceState.FENCING:
            self._ledger.free_device(readmitted)
        elif readmitted != device:
            self._ledger.apply_hold(readmitted)

    def drain_agent(self, event: AgentDrainRequested) -> None:
        """Keep new work off an agent, or no more."""
        agent = self._ledger.fleet.agents.get(event.agent)
        if agent is None:
            raise NotFound("agent", event.agent)
        if agent.is_draining is not event.is_draining:
            self._ledger.put_agent(changed(agent, is_draining=event.is_draining))
            for device in self._ledger.fleet.devices_of(agent.id):
                self._ledger.apply_hold(device)
        if event.is_interrupting:
            for lease in self._ledger.fleet.leases_of(agent.id):
                self._ledger.revoke(lease, list(lease.attempts), RevokeReason.RELEASE)

    def forget_agent(self, event: AgentForgetRequested, now: Now, lab_us: int) -> None:
        """Forget an agent that will not come back, and its devices. What it has done is kept under its name."""
        agent = self._ledger.fleet.agents.get(event.agent)
        if agent is None:
            raise NotFound("agent", event.agent)
        self._refuse_at_work(agent, lab_us)
        self._ledger.uploads.leave(agent.id, None, now)
        self._ledger.drop_agent(agent)

    def _refuse_at_work(self, agent: Agent, lab_us: int) -> None:
        """Refuse to forget an agent that is there, or that may work on something without being heard."""
        fleet = self._ledger.fleet
        if fleet.session_of(agent.id) is not None:
            raise InvalidTransition(
                f"agent {agent.id} is connected from {agent.host}; stop it, and then forget it", id=agent.id
            )
        leases = fleet.leases_of(agent.id)
        if leases:
            last = max(leases, key=lambda lease: fleet.expiry_us(lease.id))
            left_s = -(-max(0, fleet.expiry_us(last.id) - lab_us) // SECOND_US)
            raise InvalidTransition(
                f"agent {agent.id} is away and may still run tests on {_several(last.device, len(leases))}; the last"
                f" of its leases ends in {left_s} s at most: try again then",
                id=agent.id,
                device=last.device,
            )
        fencing = fleet.fencing_of(agent.id)
        if fencing:
            first = fencing[0].id
            raise InvalidTransition(
                f"agent {agent.id} has not confirmed that nothing runs any more on {_several(first, len(fencing))};"
                f" if its host is gone for good: qgjob devices readmit {first} --gone",
                id=agent.id,
                device=first,
            )

    def _known_device(self, device_id: DeviceId) -> Device:
        device = self._ledger.fleet.devices.get(device_id)
        if device is None:
            raise NotFound("device", device_id)
        return device


def _several(first: DeviceId, count: int) -> str:
    """Return the words for so many devices, of which one is named."""
    return first if count == 1 else f"{first} and {count - 1} more"


def _replayed(known: Request, payload_sha256: str) -> JobsAccepted:
    if known.payload_sha256 != payload_sha256:
        raise RequestIdReused(known.key, known.jobs)
    return JobsAccepted(jobs=(), job_ids=known.jobs, is_replayed=True)


def _waiting(unserved: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{one}; the job waits for one" for one in unserved)
