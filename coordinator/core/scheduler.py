"""The scheduler: facts in, steps out.

`handle` takes one fact, `expire` what has fallen due; both return a `Step`. After every fact the scheduler fills free
devices, tops up batches and makes room for urgent work, so a step is always complete. On refusal (`QgjobError`)
nothing has changed. Deadlines are kept in *lab time*: the monotonic clock less every pause of the coordinator itself,
so that a frozen machine or a long garbage collection never costs an agent its lease.

`requests` takes in what users and operators want, `sessions` what agents say of themselves, `reports` what comes of
their leases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from coordinator.core.dispatch import Dispatcher
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    AgentDrainRequested,
    AgentForgetRequested,
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
    LeaseRejected,
    LeaseReleased,
    ReadmitRequested,
    RegistrationRequested,
    RetryRequested,
    TestReported,
    UploadsClaimed,
)
from coordinator.core.families import FamilyKey, Signature, family_of
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    Agent,
    AgentState,
    Attempt,
    Build,
    Counters,
    Crossing,
    Device,
    DeviceState,
    Expectation,
    Job,
    Lease,
    LeaseState,
    Now,
    Settings,
    Trial,
    Upload,
    changed,
)
from coordinator.core.reports import Reports
from coordinator.core.requests import Requests
from coordinator.core.sessions import Sessions
from coordinator.core.step import (
    JobsAccepted,
    Step,
)
from coordinator.core.suspicion import Suspicion
from coordinator.core.transitions import moved_lease


class Scheduler:
    """The pure core of the coordinator."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._ledger = Ledger(settings, counters)
        self._dispatcher = Dispatcher(self._ledger)
        self._suspicion = Suspicion(self._ledger)
        self._requests = Requests(self._ledger)
        self._reports = Reports(self._ledger, self._dispatcher, self._suspicion)
        self._sessions = Sessions(self._ledger, self._dispatcher, self._reports)
        self._last_turn: Now | None = None
        self._decided: Now | None = None
        """When everything was decided last."""
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
        """Return the monotonic time of the next turn that must happen, None while nothing lives that has an end."""
        last, ledger = self._last_turn, self._ledger
        if last is None:
            return None
        aging_us = ledger.queues.heads.next_aging_us()
        rise_us = None if aging_us is None else last.mono_us + max(0, aging_us - last.wall_us)
        due_us = _first(rise_us, self._dispatcher.next_look_us(), ledger.uploads.next_turn_us())
        expiry = ledger.fleet.next_expiry()
        expiry_us = None if expiry is None else expiry[0]
        lab_us = _first(expiry_us, self._suspicion.next_due_us(), ledger.uploads.next_expiry_us())
        if lab_us is None:
            return due_us
        return _first(due_us, lab_us + self._paused_us, last.mono_us + self._settings.heartbeat_us // 2)

    def expire(self, now: Now, behind_us: int = 0) -> Step:
        """End the leases whose deadline has passed.

        Args:
            now: Both clocks.
            behind_us: How long the oldest fact that was not handed in yet has waited. A heartbeat may be among those
                facts, so nothing expires that was alive when they came.
        """
        self._ledger.queues.heads.begin_turn()
        lab_us = self._advance(now)
        heard_us = lab_us - behind_us
        has_expired = False
        while (expiry := self._ledger.fleet.next_expiry()) is not None and expiry[0] <= heard_us:
            lease = self._ledger.fleet.leases[expiry[1]]
            self._ledger.close_lease(lease, LeaseState.EXPIRED, "the lease ran out without a heartbeat", now)
            has_expired = True
        has_risen = bool(self._ledger.queues.heads.touched)  # this turn's share of heads, beside that of its facts
        is_decided = now is self._decided or now == self._decided
        if has_expired or has_risen or not is_decided:  # else the last fact has left nothing to decide
            self._decide(now, lab_us)
        return self._ledger.take_step()

    def _decide(self, now: Now, lab_us: int) -> None:
        deadline_us = lab_us + self._settings.lease_ttl_us
        self._sessions.settle_contests(now)
        self._ledger.look_at_accounts()
        self._sessions.settle_uploads(now, lab_us)
        self._suspicion.look(now, lab_us, deadline_us)
        self._dispatcher.dispatch(now, deadline_us)
        self._decided = now

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
        uploads: Iterable[Upload] = (),
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
        ledger.uploads.restore(uploads, lab_us + self._settings.lease_ttl_us)
        installed = (build.mean_install_us for build in ledger.builds.versions.values() if build.installs)
        ledger.durations.restore(expectations, installed)
        for agent in agents:
            is_gone = agent.state is AgentState.CONNECTED
            ledger.fleet.agents[agent.id] = agent
            if is_gone:
                self._ledger.put_agent(changed(agent, state=AgentState.DISCONNECTED))
        ledger.name_orgs()
        for device in devices:
            device = self._kept(device)
            ledger.fleet.put_device(device)
            if ledger.fleet.is_at_rest(device):
                ledger.put_device(changed(device, state=DeviceState.OFFLINE))
        for job in jobs:
            ledger.restore_job(job)
        for lease in leases:
            self._restore_lease(lease, lab_us)
        return ledger.take_step()

    def _kept(self, device: Device) -> Device:
        """Return a device of an earlier life, kept for what its agent is, who alone is remembered with that."""
        agent = self._ledger.fleet.agents[device.agent]
        return replace(device, facts=replace(device.facts, lanes=agent.lanes, orgs=agent.orgs))

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
        match event:  # what comes most often first: each case looks at the event's class
            case AttemptFinished():
                self._reports.attempt_finished(event, now)
            case AttemptStarted():
                self._reports.attempt_started(event, now)
            case TestReported():
                self._reports.test_reported(event, now)
            case HeartbeatReceived():
                self._sessions.heartbeat(event, now, lab_us)
            case BuildInstalled():
                self._reports.build_installed(event, now)
            case LeaseAdopted():
                self._sessions.adopt(event, now, lab_us)
            case JobsSubmitted():
                reply = self._requests.submit(event, now)
            case RetryRequested():
                reply = self._requests.retry(event, now)
            case CancelRequested():
                self._requests.cancel(event.jobs, now)
            case HoldRequested():
                self._requests.hold(event)
            case ReadmitRequested():
                self._requests.readmit(event)
            case RegistrationRequested():
                self._requests.register(event, now)
            case AgentDrainRequested():
                self._requests.drain_agent(event)
            case AgentForgetRequested():
                self._requests.forget_agent(event, now, lab_us)
            case AgentConnected():
                self._sessions.connect(event, now, lab_us)
            case AgentDisconnected():
                self._sessions.disconnect(event, now, lab_us)
            case LeaseClosed():
                self._sessions.closed(event)
            case DevicesReported():
                self._sessions.report_devices(event, now)
            case UploadsClaimed():
                self._sessions.claim_uploads(event, now)
            case LeaseRejected():
                self._reports.reject(event, now)
            case LeaseReleased():
                self._reports.release(event, now)
        self._decide(now, lab_us)
        return self._ledger.take_step(reply)


def _first(*times_us: int | None) -> int | None:
    """Return the earliest of times that may be unknown."""
    first_us: int | None = None
    for time_us in times_us:
        if time_us is not None and (first_us is None or time_us < first_us):
            first_us = time_us
    return first_us
