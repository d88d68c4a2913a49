"""The scheduler: facts in, steps out.

`handle` takes one fact, `expire` what has fallen due; both return a `Step`. After every fact the scheduler fills free
devices, tops up batches and makes room for urgent work, so a step is always complete. On refusal (`QgjobError`)
nothing has changed. Deadlines are kept in *lab time*: the monotonic clock less every pause of the coordinator itself,
so that a frozen machine or a long garbage collection never costs an agent its lease.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from coordinator.core.dispatch import Dispatcher
from coordinator.core.errors import (
    Conflict,
    InvalidTransition,
    NoMatchingDevice,
    NotFound,
    QueueFull,
    RequestIdReused,
)
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    AgentDrainRequested,
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    CancelRequested,
    DevicesReported,
    Event,
    HeartbeatReceived,
    HoldRequested,
    JobsSubmitted,
    LeaseAdopted,
    LeaseClosed,
    LeaseEcho,
    LeaseRejected,
    LeaseReleased,
    ReadmitRequested,
    RegistrationRequested,
    RetryRequested,
    TestReported,
)
from coordinator.core.families import FamilyKey, Signature, family_of
from coordinator.core.kept import kept_after
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    BUILD_REFUSED,
    BUILD_REJECTED,
    Agent,
    AgentId,
    AgentState,
    AppKey,
    Attempt,
    AttemptId,
    AttemptOutcome,
    Blame,
    Build,
    Counters,
    Crossing,
    Device,
    DeviceFacts,
    DeviceId,
    DeviceState,
    Expectation,
    Failure,
    Fence,
    Job,
    JobId,
    JobSpec,
    JobState,
    KeptTest,
    Lease,
    LeaseId,
    LeaseState,
    Now,
    Request,
    RevokeReason,
    SessionId,
    Settings,
    SubmitSequence,
    Trial,
    changed,
)
from coordinator.core.platforms import with_demands
from coordinator.core.pools import may_spill
from coordinator.core.step import (
    CloseSession,
    JobsAccepted,
    PutAgent,
    PutBuild,
    PutRequest,
    PutTest,
    SendClose,
    SendConflicts,
    SendHeartbeatAcknowledged,
    SendResultsAcknowledged,
    SendWelcome,
    Step,
)
from coordinator.core.suspicion import Suspicion
from coordinator.core.transitions import FREE_OUTCOMES, moved_job, moved_lease

_REVOKED_OUTCOME = {
    RevokeReason.CANCEL: AttemptOutcome.CANCELLED,
    RevokeReason.PREEMPT: AttemptOutcome.PREEMPTED,
    RevokeReason.RELEASE: AttemptOutcome.RELEASED,
}


class Scheduler:
    """The pure core of the coordinator."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._ledger = Ledger(settings, counters)
        self._dispatcher = Dispatcher(self._ledger)
        self._suspicion = Suspicion(self._ledger)
        self._last_turn: Now | None = None
        self._paused_us = 0

    @property
    def ledger(self) -> Ledger:
        """The state, for readers and for the invariants' check."""
        return self._ledger

    # Time

    def _advance(self, now: Now) -> int:
        """Return lab time. A gap that is longer than a heartbeat was a pause of ours and does not count."""
        if self._last_turn is not None:
            gap_us = now.mono_us - self._last_turn.mono_us
            self._paused_us += max(0, gap_us - self._settings.heartbeat_us)
        self._last_turn = now
        self._ledger.queues.advance(now.wall_us)
        return now.mono_us - self._paused_us

    def next_deadline(self) -> int | None:
        """Return the monotonic time of the next turn that must happen, None while no lease lives and no job ages."""
        if self._last_turn is None:
            return None
        aging_us = self._ledger.queues.heads.next_aging_us()
        due = [] if aging_us is None else [self._last_turn.mono_us + max(0, aging_us - self._last_turn.wall_us)]
        look_us = self._dispatcher.next_look_us()
        due += [] if look_us is None else [look_us]
        expiry = self._ledger.fleet.next_expiry()
        canary_us = self._suspicion.next_due_us()
        in_lab_time = [] if expiry is None else [expiry[0]]
        in_lab_time += [] if canary_us is None else [canary_us]
        if in_lab_time:
            due += [min(in_lab_time) + self._paused_us, self._last_turn.mono_us + self._settings.heartbeat_us // 2]
        return min(due, default=None)

    def expire(self, now: Now, behind_us: int = 0) -> Step:
        """End the leases whose deadline has passed.

        Args:
            now: Both clocks.
            behind_us: How long the oldest fact that was not handed in yet has waited. A heartbeat may be among those
                facts, so nothing expires that was alive when they came.
        """
        lab_us = self._advance(now)
        heard_us = lab_us - behind_us
        while (expiry := self._ledger.fleet.next_expiry()) is not None and expiry[0] <= heard_us:
            lease = self._ledger.fleet.leases[expiry[1]]
            self._ledger.close_lease(lease, LeaseState.EXPIRED, "the lease ran out without a heartbeat", now)
        self._decide(now, lab_us)
        return self._ledger.take_step()

    def _decide(self, now: Now, lab_us: int) -> None:
        deadline_us = lab_us + self._settings.lease_ttl_us
        self._settle_contests(now)
        self._ledger.look_at_accounts()
        self._suspicion.look(now, lab_us, deadline_us)
        self._dispatcher.dispatch(now, deadline_us)

    # Restore

    def restore(
        self,
        *,
        jobs: Iterable[Job],
        attempts: Iterable[Attempt],
        leases: Iterable[Lease],
        devices: Iterable[Device],
        agents: Iterable[Agent],
        builds: Iterable[Build],
        expectations: Iterable[Expectation] = (),
        trials: Iterable[Trial] = (),
        crossings: Iterable[Crossing] = (),
        now: Now,
    ) -> Step:
        """Take up what an earlier life left unfinished; called once, before any event.

        Every lease gets a full time to live from now, because its agent could not reach anybody.
        """
        ledger = self._ledger
        lab_us = self._advance(now)
        ledger.attempts.update((attempt.id, attempt) for attempt in attempts)
        ledger.builds.restore(builds)
        ledger.trials.restore(trials)
        ledger.crossings.restore(crossings)
        installed = (build.mean_install_us for build in ledger.builds.versions.values() if build.installs)
        ledger.durations.restore(expectations, installed)
        for agent in agents:
            is_gone = agent.state is AgentState.CONNECTED
            ledger.fleet.agents[agent.id] = agent
            if is_gone:
                self._put_agent(changed(agent, state=AgentState.DISCONNECTED))
        for device in devices:
            device = self._kept_for_lanes(device)
            ledger.fleet.put_device(device)
            if ledger.fleet.is_at_rest(device):
                ledger.put_device(changed(device, state=DeviceState.OFFLINE))
        for job in jobs:
            ledger.restore_job(job)
        for lease in leases:
            self._restore_lease(lease, lab_us)
        return ledger.take_step()

    def _kept_for_lanes(self, device: Device) -> Device:
        """Return a device of an earlier life, kept for the lanes of its agent, who alone is remembered with them."""
        return replace(device, facts=replace(device.facts, lanes=self._ledger.fleet.agents[device.agent].lanes))

    def _restore_lease(self, lease: Lease, lab_us: int) -> None:
        ledger = self._ledger
        held = [ledger.jobs[ledger.attempts[attempt].job] for attempt in lease.attempts]
        family = family_of(held[0]) if held else FamilyKey(lease.app, Signature(lease.target, (), ()))
        if not lease.is_canary:
            ledger.fleet.note_family(lease.id, family)
        for attempt, job in zip(lease.attempts, held, strict=True):
            ledger.hold_work(ledger.attempts[attempt], job)
        ledger.track_lease(lease)
        ledger.fleet.renew(lease.id, lab_us + self._settings.lease_ttl_us)
        ledger.put_lease(moved_lease(lease, LeaseState.DISCONNECTED))

    # Events

    def handle(self, event: Event, now: Now) -> Step:
        """Take in one fact.

        Raises:
            QgjobError: The fact is refused; nothing has changed.
        """
        lab_us = self._advance(now)
        reply: JobsAccepted | None = None
        match event:
            case JobsSubmitted():
                reply = self._submit(event, now)
            case RetryRequested():
                reply = self._retry(event, now)
            case CancelRequested():
                self._cancel(event.jobs, now)
            case HoldRequested():
                self._hold(event)
            case ReadmitRequested():
                self._readmit(event)
            case RegistrationRequested():
                self._register(event, now)
            case AgentDrainRequested():
                self._drain_agent(event)
            case AgentConnected():
                self._connect(event, now, lab_us)
            case AgentDisconnected():
                self._disconnect(event, now)
            case HeartbeatReceived():
                self._heartbeat(event, now, lab_us)
            case LeaseAdopted():
                self._adopt(event, now, lab_us)
            case LeaseClosed():
                self._closed(event)
            case DevicesReported():
                self._report_devices(event, now)
            case BuildInstalled():
                self._build_installed(event, now)
            case LeaseRejected():
                self._reject(event, now)
            case LeaseReleased():
                self._release(event, now)
            case AttemptStarted():
                self._attempt_started(event, now)
            case TestReported():
                self._test_reported(event, now)
            case AttemptFinished():
                self._attempt_finished(event, now)
        self._decide(now, lab_us)
        return self._ledger.take_step(reply)

    # Users

    def _submit(self, event: JobsSubmitted, now: Now) -> JobsAccepted:
        known = self._ledger.requests.get((event.org_id, event.key)) or event.known
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

    def _retry(self, event: RetryRequested, now: Now) -> JobsAccepted:
        old = event.job
        known = self._ledger.requests.get((old.spec.org_id, event.key)) or event.known
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
        seen = dict.fromkeys((spec.target, spec.selector, spec.lane, may_spill(spec, spill)) for spec in specs)
        return tuple(
            f"no known device matches target {target}" + "".join(f", {name}={pattern}" for name, pattern in selector)
            for target, selector, lane, spills in seen
            if not self._ledger.fleet.pools.has_match(Signature(target, selector, (), lane, spills))
        )

    def _signature(self, spec: JobSpec) -> Signature:
        return Signature(spec.target, spec.selector, (), None, may_spill(spec, self._settings.rules.spill))

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

    def _cancel(self, job_ids: tuple[JobId, ...], now: Now) -> None:
        ledger = self._ledger
        for job_id in job_ids:
            job = ledger.jobs.get(job_id)
            if job is None or job.is_cancel_requested:
                continue
            if job.state is JobState.QUEUED:
                ledger.put_job(replace(moved_job(job, JobState.CANCELLED), end_us=now.wall_us))
                continue
            ledger.put_job(replace(job, is_cancel_requested=True))
            assert job.attempt is not None
            lease = ledger.fleet.leases[ledger.attempts[job.attempt].lease]
            ledger.revoke(lease, [job.attempt], RevokeReason.CANCEL)

    def _register(self, event: RegistrationRequested, now: Now) -> None:
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

    def _hold(self, event: HoldRequested) -> None:
        device = self._known_device(event.device)
        held = replace(device, hold=event.hold, hold_reason=event.reason)
        if held != device:
            self._ledger.apply_hold(held)

    def _readmit(self, event: ReadmitRequested) -> None:
        """Lift the hold. Only an explicit word frees a FENCING device: the same call may come again much later."""
        device = self._known_device(event.device)
        readmitted = replace(device, hold=None, hold_reason="", marks=(), relapses=0)
        is_away = self._ledger.fleet.session_of(device.agent) is None
        if event.host_is_gone and is_away and device.state is DeviceState.FENCING:
            self._ledger.free_device(readmitted)
        elif readmitted != device:
            self._ledger.apply_hold(readmitted)

    def _drain_agent(self, event: AgentDrainRequested) -> None:
        agent = self._ledger.fleet.agents.get(event.agent)
        if agent is None:
            raise NotFound("agent", event.agent)
        if agent.is_draining is not event.is_draining:
            self._put_agent(changed(agent, is_draining=event.is_draining))
            for device in self._ledger.fleet.devices_of(agent.id):
                self._ledger.apply_hold(device)
        if event.is_interrupting:
            for lease in self._ledger.fleet.leases_of(agent.id):
                self._ledger.revoke(lease, list(lease.attempts), RevokeReason.RELEASE)

    def _known_device(self, device_id: DeviceId) -> Device:
        device = self._ledger.fleet.devices.get(device_id)
        if device is None:
            raise NotFound("device", device_id)
        return device

    # Agents

    def _connect(self, event: AgentConnected, now: Now, lab_us: int) -> None:
        ledger = self._ledger
        self._refuse_second_agent(event, lab_us)
        replaced = ledger.fleet.open_session(event.agent, event.session, lab_us, answers_close=event.answers_close)
        if replaced is not None:
            ledger.send(CloseSession(session=replaced, why="the agent opened a new session"))
        known = ledger.fleet.agents.get(event.agent)
        self._put_agent(
            Agent(
                id=event.agent,
                state=AgentState.CONNECTED,
                boot_id=event.boot_id,
                version=event.version,
                host=event.host,
                seen_us=now.wall_us,
                connect_us=now.wall_us,
                is_draining=known is not None and known.is_draining,
                # What a process says of itself once holds for its life: leases are counted by it.
                lanes=known.lanes if known is not None and known.boot_id == event.boot_id else event.lanes,
            )
        )
        ledger.send(SendWelcome(session=event.session))
        for result in event.results:
            self._attempt_finished(result, now)
        for lease in ledger.fleet.leases_of(event.agent):
            if event.is_stranger or lease.boot_id != event.boot_id:
                ledger.close_lease(lease, LeaseState.EXPIRED, "the agent was started again", now)
        self._sync(event.session, event.agent, event.leases, now, lab_us)
        ledger.contests.leave(event.agent)
        self._update_devices(event.agent, event.devices, event.leases, now)

    def _refuse_second_agent(self, event: AgentConnected, lab_us: int) -> None:
        agent = self._ledger.fleet.agents.get(event.agent)
        heard_us = self._ledger.fleet.heard_us(event.agent)
        if agent is None or agent.boot_id == event.boot_id or heard_us is None:
            return
        if lab_us - heard_us < 2 * self._settings.heartbeat_us:
            raise Conflict(
                f"an agent named {agent.id} is connected from {agent.host}; stop it or give this one another --name",
                id=agent.id,
            )

    def _disconnect(self, event: AgentDisconnected, now: Now) -> None:
        ledger = self._ledger
        agent_id = ledger.fleet.close_session(event.session)
        if agent_id is None:
            return
        ledger.contests.leave(agent_id)
        state = AgentState.STOPPED if event.is_goodbye else AgentState.DISCONNECTED
        self._put_agent(changed(ledger.fleet.agents[agent_id], state=state, seen_us=now.wall_us))
        for lease in ledger.fleet.leases_of(agent_id):
            if event.is_goodbye:
                ledger.close_lease(lease, LeaseState.RELEASED, "the agent said goodbye", now)
            else:
                ledger.put_lease(moved_lease(lease, LeaseState.DISCONNECTED))
        if event.is_goodbye:
            self._confirm_stopped(agent_id, ())
        for device in ledger.fleet.devices_of(agent_id):
            if ledger.fleet.is_at_rest(device):
                ledger.put_device(changed(device, state=DeviceState.OFFLINE))

    def _heartbeat(self, event: HeartbeatReceived, now: Now, lab_us: int) -> None:
        agent_id = self._ledger.fleet.agent_of(event.session)
        if agent_id is None:
            return
        self._ledger.fleet.agents[agent_id] = changed(self._ledger.fleet.agents[agent_id], seen_us=now.wall_us)
        self._ledger.fleet.hear(agent_id, lab_us)
        self._ledger.send(SendHeartbeatAcknowledged(session=event.session, sequence=event.sequence))
        self._sync(event.session, agent_id, event.leases, now, lab_us)
        if self._ledger.fleet.answers_close(agent_id):
            self._ask_to_close(event.session, agent_id, event.leases)
        else:
            # An agent of an older release: nothing better will come of it.
            self._confirm_stopped(agent_id, event.leases)

    def _sync(
        self, session: SessionId, agent_id: AgentId, echoes: tuple[LeaseEcho, ...], now: Now, lab_us: int
    ) -> None:
        """Bring both sides to agree on every lease of an agent."""
        ledger = self._ledger
        echoed: dict[LeaseId, None] = {}
        for echo in echoes:
            lease = ledger.live_lease(echo.lease, echo.fence)
            if lease is None or lease.agent != agent_id:
                self._send_spent(session, echo.lease, echo.fence)
                continue
            echoed[lease.id] = None
            self._apply_echo(lease, echo, now, lab_us)
        for lease in ledger.fleet.leases_of(agent_id):
            if lease.id not in echoed:
                ledger.send_lease(lease)

    def _apply_echo(self, lease: Lease, echo: LeaseEcho, now: Now, lab_us: int) -> None:
        ledger = self._ledger
        ledger.fleet.renew(lease.id, lab_us + self._settings.lease_ttl_us)
        device = ledger.fleet.devices[lease.device]
        if device.state is DeviceState.RESERVED:
            ledger.put_device(replace(device, state=DeviceState.LEASED))
        settled = LeaseState.REVOKING if lease.revoked else LeaseState.ACTIVE
        if lease.state is not settled:
            ledger.put_lease(moved_lease(lease, settled))
        for attempt_id in echo.started:
            attempt = ledger.attempts.get(attempt_id)
            if attempt is not None and attempt.lease == lease.id and attempt_id not in echo.finished:
                self._start(attempt, now)
        if echo.revision < lease.revision:
            ledger.send_lease(ledger.fleet.leases[lease.id])
            return
        begun = {*echo.started, *echo.finished}
        for attempt_id, reason in lease.revoked:
            if attempt_id not in begun:
                outcome = AttemptOutcome.CANCELLED if reason is RevokeReason.CANCEL else AttemptOutcome.RELEASED
                ledger.end_attempt(ledger.attempts[attempt_id], outcome, None, now)
        self._dispatcher.settle(lease.id, now)

    def _adopt(self, event: LeaseAdopted, now: Now, lab_us: int) -> None:
        lease = self._held_lease(event.session, event.echo.lease, event.echo.fence)
        if lease is not None:
            self._apply_echo(lease, event.echo, now, lab_us)

    def _report_devices(self, event: DevicesReported, now: Now) -> None:
        agent_id = self._ledger.fleet.agent_of(event.session)
        if agent_id is None:
            return
        self._update_devices(agent_id, event.devices, None, now)

    def _update_devices(
        self, agent_id: AgentId, facts: tuple[DeviceFacts, ...], echoes: tuple[LeaseEcho, ...] | None, now: Now
    ) -> None:
        facts = self._ledger.contests.sift(agent_id, facts)
        for one in facts:
            self._announce(agent_id, one, now)
        announced = {one.id for one in facts}
        for device in self._ledger.fleet.devices_of(agent_id):
            if device.id not in announced:
                self._unplug(device)
        if echoes is not None:
            self._confirm_stopped(agent_id, echoes)

    def _announce(self, agent_id: AgentId, told: DeviceFacts, now: Now) -> None:
        """Take in what an agent says of a device that it may have."""
        ledger = self._ledger
        one = replace(told, lanes=ledger.fleet.agents[agent_id].lanes)
        known = ledger.fleet.devices.get(one.id)
        if known is None:
            ledger.free_device(Device(facts=one, agent=agent_id, state=DeviceState.OFFLINE, seen_us=now.wall_us))
            return
        # The facts that are known already keep the device where it stands among the idle ones.
        facts = known.facts if known.facts == one else one
        ledger.apply_hold(changed(known, facts=facts, agent=agent_id, seen_us=now.wall_us))

    def _settle_contests(self, now: Now) -> None:
        """Give devices that have become free to those who announced them meanwhile, and tell what they do not get."""
        for agent_id, facts in self._ledger.contests.take_freed():
            self._announce(agent_id, facts, now)
        for agent_id, conflicts in self._ledger.contests.take_news():
            session = self._ledger.fleet.session_of(agent_id)
            if session is not None:
                self._ledger.send(SendConflicts(session=session, agent=agent_id, conflicts=conflicts))

    def _unplug(self, device: Device) -> None:
        gone = replace(device.facts, is_usable=False, reason=device.facts.reason or "its agent does not see it")
        state = DeviceState.OFFLINE if self._ledger.fleet.is_at_rest(device) else device.state
        unplugged = replace(device, facts=gone, state=state)
        if unplugged != device:
            self._ledger.put_device(unplugged)

    def _confirm_stopped(self, agent_id: AgentId, echoes: tuple[LeaseEcho, ...]) -> None:
        """Free the FENCING devices whose expired lease the agent does not hold, and cannot take up any more.

        Hello says so: what was offered before it went to a stream that the agent has given up. A heartbeat does not: it
        may have left before an offer arrived that was on its way.
        """
        held = {echo.lease for echo in echoes}
        for device in self._ledger.fleet.fencing_of(agent_id):
            if device.lease not in held:
                self._ledger.free_device(device)

    def _ask_to_close(self, session: SessionId, agent_id: AgentId, echoes: tuple[LeaseEcho, ...]) -> None:
        """Ask again for the answers that FENCING devices wait for; those whose lease is echoed were just asked for."""
        held = {echo.lease for echo in echoes}
        for device in self._ledger.fleet.fencing_of(agent_id):
            if device.lease not in held:
                self._ledger.ask_to_close(session, device)

    def _closed(self, event: LeaseClosed) -> None:
        """Free a FENCING device by its agent's word on the very lease that it waits for."""
        device = self._ledger.fleet.devices.get(event.device)
        if device is None or device.agent != self._ledger.fleet.sender_of(event.session):
            return
        if device.state is DeviceState.FENCING and device.lease == event.lease:
            self._ledger.free_device(device)

    def _send_spent(self, session: SessionId, lease: LeaseId, fence: Fence) -> None:
        agent = self._ledger.fleet.sender_of(session)
        fenced = self._ledger.fleet.fencing_of(agent) if agent is not None else ()
        device = next((device.id for device in fenced if device.lease == lease), None)
        self._ledger.send(SendClose(session=session, lease=lease, fence=fence, why="the lease is over", device=device))

    def _put_agent(self, agent: Agent) -> None:
        self._ledger.fleet.agents[agent.id] = agent
        self._ledger.write(PutAgent(agent))

    # Leases

    def _build_installed(self, event: BuildInstalled, now: Now) -> None:
        lease = self._held_lease(event.session, event.lease, event.fence)
        if lease is None:
            return
        if lease.is_canary:
            self._suspicion.canary_passed(lease, now)
            return
        if event.was_installed:
            self._suspicion.build_installed(lease)
        self._ledger.note_install(lease, event.digest, event.install_us, event.was_installed, now)

    def _reject(self, event: LeaseRejected, now: Now) -> None:
        lease = self._held_lease(event.session, event.lease, event.fence)
        if lease is None:
            return
        if lease.is_canary:
            self._suspicion.canary_failed(lease, event.failure, now)
            return
        failure = self._judge_refusal(lease, event.failure, now)
        outcome = AttemptOutcome.FAILED if failure.is_fatal else AttemptOutcome.REJECTED
        for attempt_id in lease.attempts:
            self._ledger.end_attempt(self._ledger.attempts[attempt_id], outcome, failure, now)
        device = self._ledger.fleet.devices[lease.device]
        self._ledger.put_device(replace(device, app=None, app_digest=""))
        self._ledger.close_lease(
            self._ledger.fleet.leases[lease.id], LeaseState.RELEASED, "the agent could not run the batch", now
        )
        self._suspicion.lease_rejected(lease, failure, now)
        if failure.reason == BUILD_REJECTED:
            self._ledger.end_waiting(lease.app, failure, now)

    def _judge_refusal(self, lease: Lease, failure: Failure, now: Now) -> Failure:
        """Return why a batch ends: a build that several devices refuse is broken itself, and no device is to blame."""
        if failure.reason != BUILD_REFUSED:
            return failure
        trial = self._ledger.trials.refused(lease.app, lease.device, now.wall_us)
        if not trial.is_broken:
            return failure
        refusing = " and ".join(sorted(set(trial.refused_by)))
        message = f"the build is broken, for {refusing} refused it: {failure.message}; build it again, and register it"
        return Failure(reason=BUILD_REJECTED, message=message, blame=Blame.BUILD)

    def _release(self, event: LeaseReleased, now: Now) -> None:
        lease = self._held_lease(event.session, event.lease, event.fence)
        if lease is not None:
            self._ledger.close_lease(lease, LeaseState.RELEASED, "the agent gave the lease back", now)

    def _held_lease(self, session: SessionId, lease_id: LeaseId, fence: Fence) -> Lease | None:
        """Return the live lease that the sender holds, else tell the sender that it is over.

        The sender is the agent behind the session, one that was replaced included: what it says over its last stream
        counts as much as over the next.
        """
        lease = self._ledger.live_lease(lease_id, fence)
        if lease is not None and lease.agent == self._ledger.fleet.sender_of(session):
            return lease
        self._send_spent(session, lease_id, fence)
        return None

    def _start(self, attempt: Attempt, now: Now) -> None:
        """Note that an attempt's test runs; a second test on one device waits for the end of the first.

        The end of the first may still be on its way, and the echo of the next heartbeat says again what runs. An agent
        that really ran two at once would never be believed.
        """
        others = self._ledger.fleet.leases[attempt.lease].attempts
        if not any(self._ledger.attempts[other].start_us is not None for other in others if other != attempt.id):
            self._ledger.start_attempt(attempt, now)

    def _attempt_started(self, event: AttemptStarted, now: Now) -> None:
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is not None:
            self._start(attempt, now)

    def _test_reported(self, event: TestReported, now: Now) -> None:
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is not None:
            self._start(attempt, now)
            self._ledger.write(PutTest(attempt, event.test))
            if event.is_resumable:
                self._ledger.note_boundary(attempt, now)

    def _governed(self, session: SessionId, lease_id: LeaseId, fence: Fence, attempt_id: AttemptId) -> Attempt | None:
        """Return the open attempt of a lease that the sender holds, else tell the sender that the lease is over."""
        if self._held_lease(session, lease_id, fence) is None:
            return None
        attempt = self._ledger.attempts.get(attempt_id)
        return attempt if attempt is not None and attempt.lease == lease_id else None

    def _attempt_finished(self, event: AttemptFinished, now: Now) -> None:
        ledger = self._ledger
        ledger.send(SendResultsAcknowledged(session=event.session, attempts=(event.attempt,)))
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is None:
            return
        if event.outcome not in (AttemptOutcome.REJECTED, AttemptOutcome.RELEASED):
            ledger.start_attempt(attempt, now)
        attempt = replace(
            ledger.attempts[attempt.id],
            log_size=event.log_size,
            log_sha256=event.log_sha256,
            build_digest=event.build_digest,
        )
        for test in event.tests:
            ledger.write(PutTest(attempt, test))
        outcome, job = self._true_outcome(attempt, event.outcome), ledger.jobs[attempt.job]
        ledger.end_attempt(attempt, outcome, event.failure, now, self._kept(attempt, outcome, event))
        self._suspicion.attempt_ended(attempt, job, outcome, event.failure, now)
        self._dispatcher.settle(event.lease, now)

    def _kept(self, attempt: Attempt, outcome: AttemptOutcome, event: AttemptFinished) -> tuple[KeptTest, ...]:
        """Return what the job keeps; where a run that was ended early cannot be resumed, the whole spec runs again."""
        is_early = outcome in FREE_OUTCOMES
        if is_early and not event.is_resumable:
            return ()
        return kept_after(self._ledger.jobs[attempt.job].kept, event.tests, is_resumable=is_early)

    def _true_outcome(self, attempt: Attempt, reported: AttemptOutcome) -> AttemptOutcome:
        """Return why a stopped attempt was stopped: the lease knows better than the agent that obeyed."""
        if reported not in (AttemptOutcome.CANCELLED, AttemptOutcome.PREEMPTED):
            return reported
        for attempt_id, reason in self._ledger.fleet.leases[attempt.lease].revoked:
            if attempt_id == attempt.id:
                return _REVOKED_OUTCOME[reason]
        return AttemptOutcome.RELEASED


def _replayed(known: Request, payload_sha256: str) -> JobsAccepted:
    if known.payload_sha256 != payload_sha256:
        raise RequestIdReused(known.key)
    return JobsAccepted(jobs=(), job_ids=known.jobs, is_replayed=True)


def _waiting(unserved: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{one}; the job waits for one" for one in unserved)
