"""The scheduler's state and the few functions that change it. Each change is kept as a write of the current step."""

from __future__ import annotations

from collections import OrderedDict

from coordinator.core.builds import Builds
from coordinator.core.contests import Contests
from coordinator.core.crossings import Crossings
from coordinator.core.durations import Durations
from coordinator.core.endings import Endings
from coordinator.core.families import FamilyKey, Signature, signature_of
from coordinator.core.fleet import Fleet, busy_after
from coordinator.core.lanes import Queues
from coordinator.core.model import (
    Agent,
    AgentState,
    AppKey,
    Attempt,
    AttemptId,
    AttemptOutcome,
    BatchTally,
    Counters,
    Device,
    DeviceHold,
    DeviceId,
    DeviceState,
    Failure,
    Fence,
    Job,
    JobId,
    JobState,
    KeptTest,
    Lane,
    Lease,
    LeaseId,
    LeaseState,
    Now,
    Request,
    RevokeReason,
    SessionId,
    Settings,
    Target,
    changed,
)
from coordinator.core.records import changer
from coordinator.core.shares import Shares
from coordinator.core.step import (
    NOTHING,
    DropAgent,
    DropDevice,
    JobsAccepted,
    LeasedJob,
    Preemption,
    PutAgent,
    PutAttempt,
    PutBuild,
    PutCounters,
    PutCrossing,
    PutDevice,
    PutExpectation,
    PutJob,
    PutLease,
    PutTrial,
    PutUpload,
    Send,
    SendClose,
    SendLease,
    Step,
    Write,
)
from coordinator.core.transitions import (
    DEVICE_TRANSITIONS,
    LAB_FAULTS,
    assigned_job,
    ended_attempt,
    moved_job,
    moved_lease,
    settle,
)
from coordinator.core.trials import Trials
from coordinator.core.uploads import Uploads
from coordinator.core.victims import Victims, cost_of

QUARANTINES = frozenset({DeviceHold.QUARANTINE, DeviceHold.SUSPICION})
WORKING = frozenset({LeaseState.OFFERED, LeaseState.ACTIVE})
"""States of a lease whose device takes more work of its family."""
VERDICTS = frozenset({AttemptOutcome.PASSED, AttemptOutcome.FAILED})
"""Outcomes that say how long a test takes."""
REMEMBERED_REQUESTS = 10_000

_reserved = changer(Device, "state", "lease", "fence_number")
_after_attempt = changer(Lease, "attempts", "revoked", "tally")
_extended = changer(Lease, "revision", "attempts")
_with_pass = changer(BatchTally, "passed")
_freed = changer(Device, "state", "lease", "busy_us", "free_us")
_after_lease = changer(Counters, "next_lease")
_after_attempts = changer(Counters, "next_attempt")


class Ledger:
    """Everything that is not finished, and the step that is being made."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self.settings = settings
        self.counters = counters
        self.shares = Shares(settings.rules.weights, settings.rules.quotas, settings.rules.default_quota)
        self.queues = Queues(settings.rules, self.shares)
        self.fleet = Fleet()
        self.contests = Contests(self.fleet)
        self.named_orgs: frozenset[str] = frozenset()
        """Organisations that agents are kept for."""
        self.durations = Durations()
        self.victims = Victims()
        self.endings = Endings()
        self.hurried: dict[LeaseId, int] = {}
        """Grace of leases that make room for jobs which have waited for another device before."""
        self.suspects: dict[DeviceId, None] = {}
        """Devices under suspicion that were put, and devices that were forgotten, since they were looked at."""
        self.turned: dict[LeaseId, None] = {}
        """Leases that began or ceased to make room since they were looked at."""
        self.guaranteed: dict[JobId, None] = {}
        """Leased jobs that had their turn because they had waited for so long: they make no room for others."""
        self._boundaries: dict[AttemptId, int] = {}
        """Wall time of the last boundary between two tests of each run that could be resumed there."""
        self._held_us: dict[AttemptId, int] = {}
        """What leased jobs were expected to take when they were given out."""
        self.jobs: dict[JobId, Job] = {}
        self.attempts: dict[AttemptId, Attempt] = {}
        self.builds = Builds()
        self.trials = Trials(lambda trial: self.write(PutTrial(trial)))
        self.crossings = Crossings(lambda crossing: self.write(PutCrossing(crossing)))
        self.uploads = Uploads(lambda upload: self.write(PutUpload(upload)))
        self.requests: OrderedDict[tuple[str, str], Request] = OrderedDict()
        self.running: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self.queued: dict[Lane, int] = dict.fromkeys(Lane, 0)
        self._writes: list[Write] = []
        self._sends: list[Send] = []
        self._preemptions: list[Preemption] = []

    def take_step(self, reply: JobsAccepted | None = None) -> Step:
        """Return what has changed since the last step."""
        if reply is None and not (self._writes or self._sends):
            return NOTHING
        step = Step(
            writes=tuple(self._writes),
            sends=tuple(self._sends),
            reply=reply,
            preemptions=tuple(self._preemptions),
        )
        self._writes, self._sends, self._preemptions = [], [], []
        return step

    def write(self, write: Write) -> None:
        """Add a write to the step."""
        self._writes.append(write)

    def send(self, send: Send) -> None:
        """Add a send to the step."""
        self._sends.append(send)

    # Records

    def put_job(self, job: Job) -> None:
        """Replace a job, keep its queue and the counts in step; forget it when it is terminal."""
        before = self.jobs.get(job.id)
        if before is not None:
            self._count(before, -1)
            if before.state is JobState.QUEUED and before.id in self.queues:
                self.queues.remove(before)
                self.match_pool(signature_of(before))
        else:
            self.shares.enter(job.spec.org_id)
        if job.is_terminal:
            self.jobs.pop(job.id, None)
            self.shares.leave(job.spec.org_id)
        else:
            self.jobs[job.id] = job
            self._count(job, 1)
            if job.state is JobState.QUEUED:
                self.queues.push(job, self.durations.expected_us(job.spec), self.install_us(job.app))
                self.match_pool(signature_of(job))
        self._writes.append(PutJob(job))

    def restore_job(self, job: Job) -> None:
        """Take up a job of an earlier life."""
        kept_org = self.kept_org(job.spec.org_id)
        self.put_job(changed(job, kept_org=kept_org) if job.kept_org != kept_org else job)
        self._writes.pop()

    def name_orgs(self) -> None:
        """Look for which organisations agents are kept, and let the jobs of these wait in pools of their own.

        Batches that are at work end as what they are: they take no more jobs of an organisation that was named since.
        """
        named = frozenset(org for agent in self.fleet.agents.values() for org in agent.orgs)
        changed_orgs, self.named_orgs = self.named_orgs ^ named, named
        if changed_orgs:
            for job in [one for one in self.jobs.values() if one.spec.org_id in changed_orgs]:
                self.restore_job(job)

    def kept_org(self, org_id: str) -> str:
        """Return an organisation if agents are kept for it, else nothing."""
        return org_id if org_id in self.named_orgs else ""

    def match_pool(self, signature: Signature) -> None:
        """Let the fleet know whether jobs wait in a pool."""
        if self.queues.is_live(signature):
            self.queues.note_devices(signature, self.fleet.pools.open(signature))
        else:
            self.fleet.pools.close(signature)

    def _count(self, job: Job, change: int) -> None:
        (self.queued if job.state is JobState.QUEUED else self.running)[job.spec.lane] += change

    def put_attempt(self, attempt: Attempt) -> None:
        """Replace an attempt; forget it when it has ended."""
        if attempt.outcome is None:
            self.attempts[attempt.id] = attempt
        else:
            self.attempts.pop(attempt.id, None)
        self._writes.append(PutAttempt(attempt))

    def put_lease(self, lease: Lease) -> None:
        """Replace a lease; forget it when it is terminal."""
        self.track_lease(lease)
        self._writes.append(PutLease(lease))

    def track_lease(self, lease: Lease) -> None:
        """Keep what decisions look at in step with a lease."""
        if lease.is_canary:  # nobody's work
            self.fleet.put_lease(lease)
            return
        before = self.fleet.leases.get(lease.id)
        if before is not None and before.state is lease.state:  # what it holds has changed, and nothing else
            self.fleet.put_lease(lease)
            self._price(lease)
            return
        family = self.fleet.family_of(lease.id)
        self.fleet.put_lease(lease)
        if before is None:
            self.shares.hold(lease.app.org_id, 1)
        lanes = self.fleet.devices[lease.device].facts.lanes
        was_working = before is not None and before.state in WORKING
        is_working = lease.state in WORKING
        if is_working and not was_working:
            self.queues.join(family, self.install_us(lease.app), lanes)
        elif was_working and not is_working:
            self.queues.part(family, lanes)
        if lease.state is LeaseState.ACTIVE and (before is None or before.state is not LeaseState.ACTIVE):
            self.queues.look_again(family)
        if not lease.is_live:
            self.shares.hold(lease.app.org_id, -1)
            self.queues.unpark(lease.app.org_id)
        was_revoking = before is not None and before.state is LeaseState.REVOKING
        if was_revoking is not (lease.state is LeaseState.REVOKING):
            self.turned[lease.id] = None
        self._price(lease)

    def _price(self, lease: Lease) -> None:
        """Note what it costs to take a lease's device back."""
        cost = cost_of(lease, self.jobs, self.attempts, self.guaranteed, self._boundaries)
        self.victims.put(lease.id, self.fleet.pools.sort_of(lease.device), cost)

    def put_device(self, device: Device) -> None:
        """Replace a device; its state must be one that the table allows."""
        before = self.fleet.devices.get(device.id)
        if before is not None and before.state is not device.state:
            assert device.state in DEVICE_TRANSITIONS[before.state], f"{device.id}: {before.state} -> {device.state}"
        self.fleet.put_device(device)
        self._note_crews()
        if device.hold is DeviceHold.SUSPICION:
            self.suspects[device.id] = None
        self.contests.note_put(device.id)
        self._writes.append(PutDevice(device))

    def _note_crews(self) -> None:
        """Let the queues know of pools that have gained or lost devices."""
        if not self.fleet.pools.manned:
            return
        manned, self.fleet.pools.manned = self.fleet.pools.manned, {}
        for signature, devices in manned.items():
            self.queues.note_devices(signature, devices)

    def put_agent(self, agent: Agent) -> None:
        """Insert or replace an agent."""
        self.fleet.agents[agent.id] = agent
        self.write(PutAgent(agent))

    def drop_agent(self, agent: Agent) -> None:
        """Forget an agent that holds nothing, and all of its devices; one of those may be claimed by another agent."""
        for device in self.fleet.devices_of(agent.id):
            self.fleet.drop_device(device)
            self.suspects[device.id] = None
            self.contests.note_put(device.id)
            self.write(DropDevice(device.id))
        self._note_crews()
        self.fleet.drop_agent(agent.id)
        self.write(DropAgent(agent.id))
        self.name_orgs()

    def put_counters(self, counters: Counters) -> None:
        """Replace the counters."""
        self.counters = counters
        self.write(PutCounters(counters))

    def remember_request(self, request: Request) -> None:
        """Keep a request in memory until its row can be found by the next caller."""
        self.requests[(request.org_id, request.key)] = request
        self.requests.move_to_end((request.org_id, request.key))
        if len(self.requests) > REMEMBERED_REQUESTS:
            self.requests.popitem(last=False)

    # Leases

    def live_lease(self, lease_id: LeaseId, fence: Fence) -> Lease | None:
        """Return the lease if it still governs its device under this fence."""
        lease = self.fleet.leases.get(lease_id)
        return lease if lease is not None and lease.fence == fence else None

    def grant(self, device: Device, family: FamilyKey, jobs: list[Job], now: Now, deadline_us: int) -> None:
        """Offer a batch of jobs of one family to a device's agent."""
        lease = self._offered(device, jobs[0].app, jobs[0].spec.target, now)
        self.put_device(_reserved(device, DeviceState.RESERVED, lease.id, device.fence_number + 1))
        self.fleet.note_family(lease.id, family)
        self.fleet.renew(lease.id, deadline_us)
        self.extend(lease, jobs, now)
        self.look_at_accounts()

    def grant_canary(self, device: Device, app: AppKey, now: Now, deadline_us: int) -> None:
        """Offer a suspected device's agent the canary."""
        lease = changed(self._offered(device, app, Target(device.facts.kind.value), now), is_canary=True)
        self.put_counters(self.counters)
        self.put_device(changed(device, lease=lease.id, fence_number=device.fence_number + 1))
        self.fleet.renew(lease.id, deadline_us)
        self.revise(lease)

    def _offered(self, device: Device, app: AppKey, target: Target, now: Now) -> Lease:
        """Return a new lease; whoever grants it writes the counters."""
        agent = self.fleet.agents[device.agent]
        counters = self.counters
        self.counters = _after_lease(counters, counters.next_lease + 1)
        return Lease(
            id=LeaseId(counters.next_lease),
            fence=Fence(counters.epoch, device.fence_number + 1),
            device=device.id,
            agent=agent.id,
            boot_id=agent.boot_id,
            app=app,
            target=target,
            state=LeaseState.OFFERED,
            revision=0,
            grant_us=now.wall_us,
        )

    def extend(self, lease: Lease, jobs: list[Job], now: Now) -> None:
        """Add waiting jobs to a lease, before those of lower priority that have not begun, and tell its agent."""
        first = self.counters.next_attempt
        self.counters = _after_attempts(self.counters, first + len(jobs))
        added = [self._assign(job, AttemptId(number), lease, now).id for number, job in enumerate(jobs, first)]
        self.put_counters(self.counters)
        if lease.attempts:
            tail = self.tail_of(lease)
            begun = [attempt for attempt in lease.attempts if attempt not in tail]
            tail = sorted([*tail, *added], key=lambda attempt: -self.jobs[self.attempts[attempt].job].spec.priority)
            added = [*begun, *tail]
        lease = _extended(lease, lease.revision + 1, tuple(added))
        self.put_lease(lease)
        self.send_lease(lease)

    def _assign(self, job: Job, attempt_id: AttemptId, lease: Lease, now: Now) -> Attempt:
        attempt = Attempt(
            id=attempt_id,
            job=job.id,
            number=job.attempt_count + 1,
            lease=lease.id,
            device=lease.device,
            agent=lease.agent,
            assign_us=now.wall_us,
        )
        self.put_attempt(attempt)
        self.hold_work(attempt, job)
        self.put_job(assigned_job(job, attempt))
        return attempt

    def hold_work(self, attempt: Attempt, job: Job) -> None:
        """Count the work of a leased job to its family, and charge it to its organisation."""
        expected_us = self._held_us[attempt.id] = self.durations.expected_us(job.spec)
        self.queues.hold(self.fleet.family_of(attempt.lease), job.spec.priority, expected_us)
        self.shares.charge(job.spec.org_id, expected_us)
        if attempt.start_us is not None:
            self._expect_end(attempt, attempt.start_us)

    def _expect_end(self, attempt: Attempt, start_us: int) -> None:
        """Note when an attempt that runs is expected to end."""
        sort = self.fleet.pools.sort_of(attempt.device)
        self.endings.put(attempt.lease, sort, start_us + self._held_us[attempt.id])

    def _release_work(self, attempt: Attempt, outcome: AttemptOutcome, job: Job, now: Now) -> None:
        """Charge what an attempt really took, and learn from it if it ran the whole spec."""
        expected_us = self._held_us.pop(attempt.id)
        self.queues.hold(self.fleet.family_of(attempt.lease), job.spec.priority, -expected_us)
        taken_us = max(0, now.wall_us - attempt.start_us) if attempt.start_us is not None else 0
        self.shares.charge(job.spec.org_id, taken_us - expected_us)
        if outcome in VERDICTS and attempt.start_us is not None and not job.kept:
            kind = self.fleet.devices[attempt.device].facts.kind
            self.write(PutExpectation(self.durations.note_test(job.spec, kind, taken_us)))

    def work_of(self, attempt: AttemptId) -> int:
        """Return how long a leased job was expected to take when it was given out."""
        return self._held_us[attempt]

    def revise(self, lease: Lease, **changes: object) -> None:
        """Change a lease and raise its revision, so that its agent adopts what has changed."""
        lease = changed(lease, revision=lease.revision + 1, **changes)
        self.put_lease(lease)
        self.send_lease(lease)

    def send_lease(self, lease: Lease) -> None:
        """Tell the lease's agent what it is, if it is connected."""
        session = self.fleet.session_of(lease.agent)
        if session is None:
            return
        taken_back = dict(lease.revoked)
        left = [self.attempts[attempt] for attempt in lease.attempts if attempt not in taken_back]
        jobs = tuple([LeasedJob(attempt=attempt, job=self.jobs[attempt.job]) for attempt in left])
        grace_us = self.settings.signal_grace_us
        if RevokeReason.PREEMPT in taken_back.values():
            grace_us = self.hurried.get(lease.id, self.settings.preempt_grace_us)
        self.send(SendLease(session=session, lease=lease, jobs=jobs, revoked=lease.revoked, grace_us=grace_us))

    def revoke(self, lease: Lease, attempts: list[AttemptId], reason: RevokeReason) -> None:
        """Take attempts back; they stay assigned until the agent echoes, or the lease closes.

        What ends a test sooner replaces what lets it go on for its grace; nothing replaces a cancel.
        """
        revoked = dict(lease.revoked)
        for attempt in attempts:
            before = revoked.get(attempt)
            if before is None or _REVOKE_ORDER.index(before) < _REVOKE_ORDER.index(reason):
                revoked[attempt] = reason
        if revoked != dict(lease.revoked):
            self.revise(moved_lease(lease, LeaseState.REVOKING), revoked=tuple(revoked.items()))

    def preempt(self, lease: Lease, attempts: list[AttemptId], waiting: JobId) -> None:
        """Take attempts back for a job that waits."""
        before = dict(lease.revoked)
        victims = tuple(self.attempts[attempt].job for attempt in attempts if attempt not in before)
        self.revoke(lease, attempts, RevokeReason.PREEMPT)
        if victims:
            self._preemptions.append(Preemption(lease=lease.id, device=lease.device, victims=victims, waiting=waiting))

    def start_attempt(self, attempt: Attempt, now: Now) -> None:
        """Note that an attempt's test runs."""
        if attempt.start_us is not None:
            return
        lease = self.fleet.leases[attempt.lease]
        attempt = changed(attempt, start_us=now.wall_us)
        if lease.install_end_us is not None and lease.install_end_us >= attempt.assign_us:
            attempt = changed(attempt, install_end_us=lease.install_end_us, install_us=lease.tally.install_us)
        self.put_attempt(attempt)
        self._expect_end(attempt, now.wall_us)
        job = self.jobs[attempt.job]
        self.put_job(moved_job(job, JobState.RUNNING, start_us=job.start_us or now.wall_us))
        self.put_lease(changed(lease, tally=changed(lease.tally, started=lease.tally.started + 1)))

    def note_boundary(self, attempt: Attempt, now: Now) -> None:
        """Note that a run which could be resumed is between two tests: stopped now, it loses nothing."""
        if attempt.id in self.attempts:
            self._boundaries[attempt.id] = now.wall_us
            self._price(self.fleet.leases[attempt.lease])

    def end_attempt(
        self,
        attempt: Attempt,
        outcome: AttemptOutcome,
        failure: Failure | None,
        now: Now,
        kept: tuple[KeptTest, ...] | None = None,
        *,
        log_size: int = 0,
        log_sha256: str = "",
        build_digest: str = "",
    ) -> Attempt:
        """End an attempt and settle its job, which then keeps these tests. The lease keeps the rest.

        A lease without any is not written before it takes more, or is closed, which happens in the same step.
        Returns the attempt as it ended, with what was told of its log and of the build that it ran with.
        """
        self.guaranteed.pop(attempt.job, None)
        self._boundaries.pop(attempt.id, None)
        if attempt.start_us is not None:
            self.endings.drop(attempt.lease)
        self._release_work(attempt, outcome, self.jobs[attempt.job], now)
        ended = ended_attempt(
            attempt,
            outcome,
            failure,
            now.wall_us,
            log_size=log_size,
            log_sha256=log_sha256,
            build_digest=build_digest,
        )
        self.put_attempt(ended)
        job = self.jobs[attempt.job]
        if kept is not None and kept != job.kept:
            job = changed(job, kept=kept)
        self.put_job(settle(job, outcome, failure, attempt.device, now.wall_us))
        lease = self.fleet.leases[attempt.lease]
        rest = tuple([other for other in lease.attempts if other != attempt.id])
        revoked = tuple([entry for entry in lease.revoked if entry[0] != attempt.id])
        lease = _after_attempt(lease, rest, revoked, _tallied(lease.tally, outcome))
        if rest:
            self.put_lease(lease)
        else:
            self.fleet.put_lease(lease)
        return ended

    def close_lease(self, lease: Lease, state: LeaseState, why: str, now: Now) -> None:
        """End a lease: what has started under it is lost, what has not is released, its device falls free.

        An expired lease leaves its device FENCING: only the agent knows when the work on it has stopped, and that it
        will not take up an offer which is still on its way.
        """
        for attempt_id in lease.attempts:
            self._abandon(self.attempts[attempt_id], now)
        lease = self.fleet.leases[lease.id]
        self._save_avoided_installs(lease)
        self.hurried.pop(lease.id, None)
        self.put_lease(moved_lease(lease, state, end_us=now.wall_us))
        device = self.fleet.devices[lease.device]
        busy_us = busy_after(device, lease.grant_us, now.wall_us)
        fenced = device.id if state is LeaseState.EXPIRED else None
        session = self.fleet.session_of(lease.agent)
        if session is not None:
            self.send(SendClose(session=session, lease=lease.id, fence=lease.fence, why=why, device=fenced))
        if fenced is not None:
            self.put_device(changed(device, state=DeviceState.FENCING, busy_us=busy_us, free_us=now.wall_us))
        else:
            self.put_device(_freed(device, self._resting_state(device), None, busy_us, now.wall_us))

    def ask_to_close(self, session: SessionId, device: Device) -> None:
        """Ask an agent once more to say that nothing of the expired lease of a FENCING device is left.

        The lease itself is forgotten, with the epoch that it was granted in; this fence is at least as high, and below
        the device's next.
        """
        assert device.lease is not None
        fence = Fence(self.counters.epoch, device.fence_number)
        why = "the lease ran out"
        self.send(SendClose(session=session, lease=device.lease, fence=fence, why=why, device=device.id))

    def _abandon(self, attempt: Attempt, now: Now) -> None:
        if attempt.start_us is None:
            self.end_attempt(attempt, AttemptOutcome.RELEASED, None, now)
            return
        failure = Failure(
            reason="AGENT_LOST", message=f"agent {attempt.agent} was lost while the test ran on {attempt.device}"
        )
        self.end_attempt(attempt, AttemptOutcome.LOST, failure, now)

    def free_device(self, device: Device) -> None:
        """Take the lease off a device and let it be what its agent and the operator say it is."""
        self.put_device(changed(device, state=self._resting_state(device), lease=None))

    def is_held(self, device: Device) -> bool:
        """Whether new work is kept off a device, or off its agent."""
        return device.hold is not None or self.fleet.agents[device.agent].is_draining

    def _resting_state(self, device: Device) -> DeviceState:
        if not device.facts.is_usable or self.fleet.agents[device.agent].state is not AgentState.CONNECTED:
            return DeviceState.OFFLINE
        if device.hold in QUARANTINES:
            return DeviceState.QUARANTINED
        if self.is_held(device):
            return DeviceState.DRAINING
        return DeviceState.OFFLINE if self.fleet.accounts.is_full(device) else DeviceState.IDLE

    def look_at_accounts(self) -> None:
        """Take slots out of use whose account has no session left, and let them back where it has."""
        for device_id in self.fleet.accounts.turned():
            device = self.fleet.devices[device_id]
            if device.lease is None and device.state is not self._resting_state(device):
                self.free_device(device)

    def _state_under_canary(self, device: Device) -> DeviceState:
        if device.hold in QUARANTINES:
            return DeviceState.QUARANTINED
        return DeviceState.DRAINING if self.is_held(device) else DeviceState.LEASED

    def apply_hold(self, device: Device) -> None:
        """Put a device whose hold, or whose agent's, may have changed; a lease that it has gives its tail back.

        So does the lease of a device that its agent calls unusable while a test runs, as an agent that stops does.
        """
        lease = self.fleet.leases.get(device.lease) if device.lease is not None else None
        if device.state is DeviceState.FENCING:
            self.put_device(device)
        elif lease is None:
            self.free_device(device)
        elif lease.is_canary:
            self.put_device(changed(device, state=self._state_under_canary(device)))
        elif self.is_held(device):
            self.put_device(changed(device, state=DeviceState.DRAINING))
            self.turned[lease.id] = None
            self.revoke(lease, self.tail_of(lease), RevokeReason.PREEMPT)
        else:
            state = DeviceState.LEASED if device.state is DeviceState.DRAINING else device.state
            self.put_device(changed(device, state=state))
            self.queues.look_again(self.fleet.family_of(lease.id))
            tail = self.tail_of(lease)
            # Before its first test a lease ends by the agent's word, which says whose fault it is.
            if not device.facts.is_usable and len(tail) < len(lease.attempts):
                self.revoke(lease, tail, RevokeReason.PREEMPT)

    def tail_of(self, lease: Lease) -> list[AttemptId]:
        """Return the attempts of a lease that have not started."""
        return [attempt for attempt in lease.attempts if self.attempts[attempt].start_us is None]

    # Builds

    def install_us(self, app: AppKey) -> int:
        """Return how long an install of a build is expected to take."""
        return self.builds.install_us(app) or self.durations.install_us()

    def note_install(self, lease: Lease, digest: str, install_us: int, was_installed: bool, now: Now) -> None:
        """Remember what a lease's device holds and how long the install took."""
        device = self.fleet.devices[lease.device]
        # A device that holds something else than the lease names is warm for nothing.
        app = lease.app if lease.app.digest in ("", digest) else None
        self.put_device(changed(device, app=app, app_digest=digest))
        self.trials.took(lease.app, now.wall_us)
        if not was_installed:
            return
        self.durations.note_install(install_us)
        self.shares.charge(lease.app.org_id, install_us)
        build = self.builds.note_install(lease.app, digest, install_us, now.wall_us)
        self.queues.note_install(lease.app, build.mean_install_us)
        self.write(PutBuild(build))
        tally = changed(lease.tally, installs=lease.tally.installs + 1, install_us=lease.tally.install_us + install_us)
        self.put_lease(changed(self.fleet.leases[lease.id], tally=tally, install_end_us=now.wall_us))

    def end_waiting(self, app: AppKey, failure: Failure, now: Now) -> None:
        """End all jobs that wait for a device to test a build."""
        for job_id in self.queues.waiting_for(app):
            self.put_job(moved_job(self.jobs[job_id], JobState.FAILED, failure=failure, end_us=now.wall_us))

    def _save_avoided_installs(self, lease: Lease) -> None:
        avoided = avoided_installs(lease.tally)
        if not avoided:
            return
        each_us = self.install_us(lease.app)
        self.put_counters(
            changed(
                self.counters,
                installs_avoided=self.counters.installs_avoided + avoided,
                saved_us=self.counters.saved_us + avoided * each_us,
            )
        )


_REVOKE_ORDER = (RevokeReason.PREEMPT, RevokeReason.RELEASE, RevokeReason.CANCEL)


def avoided_installs(tally: BatchTally) -> int:
    """Return how many installs a batch has made unnecessary: one a test run, less those that it made."""
    return max(0, tally.started - tally.installs)


def _tallied(tally: BatchTally, outcome: AttemptOutcome) -> BatchTally:
    if outcome is AttemptOutcome.PASSED:
        return _with_pass(tally, tally.passed + 1)
    if outcome in LAB_FAULTS or outcome in (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT):
        return changed(tally, failed=tally.failed + 1)
    return changed(tally, other=tally.other + 1)
