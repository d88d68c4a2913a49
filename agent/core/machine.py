r"""The agent's machine: one slot a device, facts in, steps out.

Theory of operation
-------------------
The coordinator never sends deltas. It says what a lease *is* (`LeaseSpec`, a snapshot with a revision), and the machine
echoes what it has adopted, started and finished. Only a higher revision of the lease at hand changes anything, and only
a higher fence replaces it, so commands may be lost, doubled or reordered.

A slot goes through these phases, always for one lease:

    EMPTY -> PREPARING -> READY <-> RUNNING -> (EMPTY)
                      \-> REJECTED ----------> (EMPTY)

- PREPARING and RUNNING mean that something of this lease is alive on the host. Such a slot is never given to another
  lease before the host has confirmed that it stopped: no device ever runs two tests.
- A revoked attempt that has not started is never started. One that runs is stopped: at once when it is cancelled, at
  the start of its next test or after the grace when it is preempted.
- Every started attempt ends in exactly one result. Results are kept until the coordinator acknowledges them, and go
  with Hello after a lost link and after each heartbeat; so does the rejection of a lease until the lease is closed.
- What an earlier life began and did not end is LOST: the coordinator may not have heard that it ever started.
- Cut off, the machine goes on with the leases that it holds, starts nothing else, and gives up after the orphan limit.
  A slot of a cloud is given up before its lease can expire: it is no phone that waits for its agent, and the session in
  it would count against the account beside the one that the job gets elsewhere.

Heartbeats, back-off and graces are deadlines of the machine; the tasks outside only carry bytes.
"""

from dataclasses import replace

from agent.core.events import (
    AcknowledgeHeartbeat,
    AcknowledgeResults,
    AdoptLease,
    AttemptEnded,
    CloseLease,
    DevicePrepared,
    DevicesObserved,
    DrainRequested,
    Event,
    LogsFlushed,
    PrepareFailed,
    PrepareStopped,
    Received,
    SessionLost,
    SessionOpened,
    Started,
    TellConflicts,
    TellUploads,
    TestObserved,
    UploadsWanted,
    Welcome,
)
from agent.core.model import (
    MICROSECONDS,
    NO_FENCE,
    AttemptId,
    AttemptResult,
    Blame,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Failure,
    Fence,
    Identity,
    LeasedJob,
    LeaseEcho,
    LeaseKey,
    LeaseSpec,
    Memory,
    Now,
    Pace,
    RevokeReason,
    TestState,
    UploadClaim,
)
from agent.core.results import bounded, ended_test, lost, newest, stopped_outcome
from agent.core.slots import Phase, Slot, reason_of
from agent.core.step import (
    NOTHING,
    Action,
    ClaimUploads,
    CloseSession,
    EchoLease,
    EndLease,
    Exit,
    FlushLogs,
    ForgetCluster,
    ForgetResults,
    Goodbye,
    Heartbeat,
    Hello,
    KeepResult,
    OpenSession,
    PrepareDevice,
    RejectLease,
    ReleaseLease,
    RememberCluster,
    ReportClosed,
    ReportDevices,
    ReportInstallation,
    ReportResult,
    ReportStart,
    ReportTest,
    Send,
    ShareUploads,
    StartAttempt,
    Step,
    StopAttempt,
    StopPreparing,
    TakeUploads,
    Write,
)

FIRST_WINDOW_US = MICROSECONDS // 2
LAST_WINDOW_US = 10 * MICROSECONDS
JITTER_RANGE = 65_536
CLOUD_MARGIN_US = 10 * MICROSECONDS
"""How long before the expiry of its lease a slot of a cloud is given up; a third of a short time to live."""


class Machine:
    """The pure core of the agent."""

    def __init__(self, identity: Identity, memory: Memory) -> None:
        self._identity = identity
        self._cluster_id = memory.cluster_id
        self._epoch = memory.epoch
        self._results = {result.attempt_id: result for result in memory.results}
        self._lost = tuple(lost(begun) for begun in memory.begun)
        self._slots: dict[DeviceId, Slot] = {}
        self._fences: dict[DeviceId, Fence] = {}
        """The highest that was heard of each device, also of one that has gone: an offer below it comes too late."""
        self._pace = Pace()
        self._session = 0
        self._opened_us = 0
        self._is_open = False
        """The stream is up; whether anybody answers on it is another question."""
        self._is_connected = False
        self._hello: Hello | None = None
        self._window_us = FIRST_WINDOW_US
        self._reconnect_us: int | None = None
        self._beat_us: int | None = None
        self._sequence = 0
        self._heard_us = 0
        self._beats: dict[int, int] = {}
        """When each heartbeat left that was not answered yet."""
        self._renewed_us = 0
        """When the last Hello or heartbeat left that was answered: the leases live from then at least."""
        self._cut_off_us: int | None = None
        self._claims: tuple[UploadClaim, ...] | None = None
        """To uploads; None while nothing was ever uploaded."""
        self._shares_uploads = False
        self._is_draining = False
        self._drain_end_us: int | None = None
        self._is_flushing = False
        self._writes: list[Write] = []
        self._sends: list[Send] = []
        self._actions: list[Action] = []

    # Turning

    def handle(self, event: Event, now: Now) -> Step:
        """Take in one fact or command."""
        match event:
            case Started():
                self._keep_lost()
                self._open_session()
            case SessionOpened():
                self._session_opened(event, now)
            case SessionLost():
                self._session_lost(event, now)
            case Received():
                self._received(event, now)
            case DevicesObserved():
                self._devices_observed(event, now)
            case UploadsWanted(claims=claims):
                self._claims = claims
                if self._shares_uploads:  # a coordinator that knows of no claims would end the session over one
                    self._send(ClaimUploads(claims=claims))
            case DevicePrepared():
                self._prepared(event, now)
            case PrepareFailed():
                self._prepare_failed(event, now)
            case PrepareStopped():
                self._prepare_stopped(event, now)
            case TestObserved():
                self._test_observed(event, now)
            case AttemptEnded():
                self._attempt_ended(event, now)
            case DrainRequested():
                self._drain(event, now)
            case LogsFlushed():
                self._sends.append(Goodbye(reason="the agent was told to stop"))
                self._actions.append(Exit())
        self._finish_drain()
        return self._take_step()

    def expire(self, now: Now) -> Step:
        """Do what has fallen due."""
        if _is_due(self._reconnect_us, now):
            self._reconnect_us = None
            self._open_session()
        if self._is_connected and _is_due(self._beat_us, now):
            self._beat(now)
        if self._is_open and now.mono_us - self._heard_us > self._silence_us:
            self._heard_us = now.mono_us
            self._actions.append(CloseSession(session=self._session, reason="the coordinator is silent"))
        if _is_due(self._orphan_end_us(), now):
            self._cut_off_us = None
            self._give_up(now)
        if self._cloud_end_us <= now.mono_us:
            self._give_up_clouds(now)
        for slot in self._slots.values():
            if _is_due(slot.stop_at_us, now):
                self._stop(slot, self._pace.signal_grace_us)
        if _is_due(self._drain_end_us, now) and not self._is_flushing:
            self._is_flushing = True
            self._actions.append(FlushLogs())
        return self._take_step()

    def next_deadline(self) -> int | None:
        """Return the monotonic time, in microseconds, at which `expire` has something to do."""
        deadlines = [self._heard_us + self._silence_us + 1] if self._is_open else []
        if self._reconnect_us is not None:
            deadlines.append(self._reconnect_us)
        if self._is_connected and self._beat_us is not None:
            deadlines.append(self._beat_us)
        if (orphan_end_us := self._orphan_end_us()) is not None:
            deadlines.append(orphan_end_us)
        if self._drain_end_us is not None and not self._is_flushing:
            deadlines.append(self._drain_end_us)
        for slot in self._slots.values():
            if slot.stop_at_us is not None:
                deadlines.append(slot.stop_at_us)
            if slot.lease is not None and _is_leased_cloud(slot):
                deadlines.append(self._cloud_end_us)
        return min(deadlines, default=None)

    @property
    def _silence_us(self) -> int:
        """How long a coordinator may be silent that should answer heartbeats: then half a lease is left to come back.

        Keepalive sees dead links; this sees a dead coordinator behind a proxy that lives.
        """
        return self._pace.lease_ttl_us // 2

    def _take_step(self) -> Step:
        if not (self._writes or self._sends or self._actions):
            return NOTHING
        step = Step(writes=tuple(self._writes), sends=tuple(self._sends), actions=tuple(self._actions))
        self._writes, self._sends, self._actions = [], [], []
        return step

    def _keep_lost(self) -> None:
        """Keep what an earlier life could not: by the next one the log that tells the length may be handed in."""
        for result in self._lost:
            self._results[result.attempt_id] = result
            self._writes.append(KeepResult(result=result))

    # Session

    def _open_session(self) -> None:
        self._session += 1
        self._actions.append(OpenSession(session=self._session))

    def _session_opened(self, event: SessionOpened, now: Now) -> None:
        if event.session != self._session:
            return
        self._heard_us = self._opened_us = now.mono_us
        self._is_open = True
        self._hello = Hello(
            identity=self._identity,
            devices=self._facts(),
            leases=self._echoes(),
            results=newest(tuple(self._results.values())),
            cluster_id=self._cluster_id,
            epoch=self._epoch,
        )
        self._sends.append(self._hello)

    def _session_lost(self, event: SessionLost, now: Now) -> None:
        if event.session != self._session:
            return
        if self._is_connected:
            self._cut_off_us = now.mono_us
        self._is_open = self._is_connected = False
        if self._is_flushing:
            self._actions.append(Exit())
            return
        if event.is_refused:
            self._window_us = LAST_WINDOW_US
        # A whole window with jitter in it, not a fixed step: thousands of agents must not come back at once.
        self._reconnect_us = now.mono_us + self._window_us * event.jitter // JITTER_RANGE
        # Within a third of a lease, so that one lost try does not cost it.
        widest_us = min(LAST_WINDOW_US, max(FIRST_WINDOW_US, self._pace.lease_ttl_us // 3))
        self._window_us = min(widest_us, self._window_us * 2)

    def _received(self, event: Received, now: Now) -> None:
        if event.session != self._session:
            return
        self._heard_us = now.mono_us
        match event.command:
            case Welcome() as welcome:
                self._welcomed(welcome, now)
            case AdoptLease(lease=lease):
                self._adopt(lease, now)
            case CloseLease() as close:
                self._close(close, now)
            case AcknowledgeResults(attempt_ids=attempts):
                self._acknowledged(attempts)
            case AcknowledgeHeartbeat(sequence=sequence):
                self._renewed(sequence)
            case TellConflicts():
                pass  # for people: no lease comes for these devices, and a late one would be as good as any
            case TellUploads() as told:
                self._actions.append(TakeUploads(statuses=told.statuses, sharers=told.sharers))

    def _welcomed(self, welcome: Welcome, now: Now) -> None:
        if welcome.cluster_id == self._cluster_id and welcome.epoch < self._epoch:
            reason = f"epoch {welcome.epoch} is older than {self._epoch}: it was replaced, or restored from a backup"
            self._actions.append(CloseSession(session=self._session, reason=reason))
            return
        if self._cluster_id and welcome.cluster_id != self._cluster_id:
            self._forget_everything(now)
        if (welcome.cluster_id, welcome.epoch) != (self._cluster_id, self._epoch):
            self._cluster_id, self._epoch = welcome.cluster_id, welcome.epoch
            self._writes.append(RememberCluster(cluster_id=welcome.cluster_id, epoch=welcome.epoch))
        self._pace = welcome.pace
        self._beats.clear()
        self._renewed_us = self._opened_us
        self._is_connected = True
        self._cut_off_us = None
        self._window_us = FIRST_WINDOW_US
        self._beat_us = now.mono_us + self._pace.heartbeat_us
        if welcome.shares_uploads is not self._shares_uploads:
            self._shares_uploads = welcome.shares_uploads
            self._actions.append(ShareUploads(is_shared=welcome.shares_uploads))
        self._catch_up()

    def _catch_up(self) -> None:
        """Say what came about between Hello and Welcome, when nothing could be sent, and what Hello has no room for."""
        assert self._hello is not None
        if self._facts() != self._hello.devices:
            self._sends.append(ReportDevices(devices=self._facts()))
        for result in self._results.values():
            if result not in self._hello.results:
                self._sends.append(ReportResult(result=result))
        if self._claims is not None and self._shares_uploads:
            self._sends.append(ClaimUploads(claims=self._claims))
        self._repeat_rejections()

    def _repeat_rejections(self) -> None:
        for slot in self._slots.values():
            if slot.lease is not None and slot.failure is not None and not slot.is_foreign:
                self._sends.append(RejectLease(key=slot.lease.key, failure=slot.failure))

    def _forget_everything(self, now: Now) -> None:
        """Another database answers: its ids are not the ones that were worked for."""
        self._writes.append(ForgetCluster(cluster_id=self._cluster_id))
        self._results.clear()
        self._fences.clear()
        for slot in self._slots.values():
            slot.awaited = None
            slot.next_lease = None
            if slot.lease is not None:
                slot.is_foreign = True
                self._end_lease(slot, now)

    def _beat(self, now: Now) -> None:
        self._sequence += 1
        self._beats[self._sequence] = now.mono_us
        self._sends.append(Heartbeat(sequence=self._sequence, leases=self._echoes()))
        # What nobody has acknowledged by now may have been lost, and no echo stands for it.
        self._sends.extend(ReportResult(result=result) for result in self._results.values())
        self._repeat_rejections()
        self._beat_us = now.mono_us + self._pace.heartbeat_us

    def _renewed(self, sequence: int) -> None:
        left_us = self._beats.pop(sequence, None)
        if left_us is not None:
            self._renewed_us = max(self._renewed_us, left_us)
        for older in [number for number in self._beats if number < sequence]:
            del self._beats[older]

    def _acknowledged(self, attempts: tuple[AttemptId, ...]) -> None:
        known = tuple(attempt for attempt in attempts if self._results.pop(attempt, None) is not None)
        if known:
            self._writes.append(ForgetResults(attempt_ids=known))

    def _facts(self) -> tuple[DeviceFacts, ...]:
        facts = (slot.facts for slot in self._slots.values())
        if self._is_draining:
            # Else the coordinator would grant what is given back, again and again.
            return tuple(replace(one, usable=False, reason="its agent is stopping") for one in facts)
        return tuple(facts)

    def _echoes(self) -> tuple[LeaseEcho, ...]:
        return tuple(echo for slot in self._slots.values() if (echo := slot.echo()) is not None)

    def _send(self, send: Send) -> None:
        """Send if the session is up; what is lost is repeated by echoes and by Hello."""
        if self._is_connected:
            self._sends.append(send)

    # Devices

    def _devices_observed(self, event: DevicesObserved, now: Now) -> None:
        before = self._facts()
        observed = {facts.id: facts for facts in event.devices}
        for facts in observed.values():
            slot = self._slots.get(facts.id)
            if slot is None:
                self._slots[facts.id] = Slot(facts)
            else:
                slot.facts = facts
        for device_id, slot in list(self._slots.items()):
            if device_id in observed:
                continue
            if slot.phase is Phase.EMPTY:
                del self._slots[device_id]
            else:
                slot.facts = replace(slot.facts, usable=False, reason="the host does not see it any more")
        if self._facts() != before:
            self._send(ReportDevices(devices=self._facts()))
        for slot in list(self._slots.values()):
            # What was prepared or waits for more jobs; what runs there comes to its own end.
            if slot.phase is Phase.READY and not slot.facts.usable:
                self._give_back(slot, now)

    # Leases

    def _adopt(self, lease: LeaseSpec, now: Now) -> None:
        slot = self._slots.get(lease.device_id)
        is_newer = self._raise_fence(lease.device_id, lease.key.fence)
        if slot is None:
            self._send(RejectLease(key=lease.key, failure=_device_gone(lease.device_id)))
            return
        if slot.lease is not None and slot.lease.key == lease.key and not slot.is_foreign:
            if not slot.is_over:
                self._revise(slot, lease, now)
        elif slot.next_lease is not None and slot.next_lease.key == lease.key:
            if lease.revision > slot.next_lease.revision:
                slot.next_lease = lease
        elif is_newer:
            self._accept(slot, lease, now)
        elif lease.key.fence == self._fences.get(lease.device_id):
            # It was given back or refused before, and the word of that was lost.
            self._send(ReleaseLease(key=lease.key))

    def _accept(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        if self._is_draining or not slot.facts.usable:
            self._send(ReleaseLease(key=lease.key))
        elif slot.lease is None:
            self._take(slot, lease)
        else:
            slot.next_lease = lease
            self._end_lease(slot, now)

    def _take(self, slot: Slot, lease: LeaseSpec) -> None:
        slot.lease = lease
        slot.phase = Phase.PREPARING
        self._actions.append(PrepareDevice(lease=lease))
        self._echo(slot)

    def _revise(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        assert slot.lease is not None
        if lease.revision > slot.lease.revision:
            slot.lease = lease
            self._obey_revocations(slot, lease, now)
            self._start_next(slot, now)
        self._echo(slot)

    def _echo(self, slot: Slot) -> None:
        echo = slot.echo()
        assert echo is not None
        self._send(EchoLease(echo=echo))

    def _obey_revocations(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        if slot.running is None:
            return
        reason = reason_of(lease, slot.running.attempt_id)
        if reason in (RevokeReason.CANCEL, RevokeReason.RELEASE):
            self._stop(slot, self._pace.signal_grace_us)
        elif reason is RevokeReason.PREEMPT and not slot.is_stopping and slot.stop_at_us is None:
            slot.stop_at_us = now.mono_us + lease.grace_us

    def _give_up(self, now: Now) -> None:
        """Nobody was heard for too long: end every lease, so that its next job does not start either."""
        for slot in self._slots.values():
            slot.next_lease = None
            if slot.lease is not None:
                self._end_lease(slot, now)

    def _raise_fence(self, device_id: DeviceId, fence: Fence) -> bool:
        """Note a fence that was heard of. Returns whether it is higher than all before."""
        is_higher = fence > self._fences.get(device_id, NO_FENCE)
        if is_higher:
            self._fences[device_id] = fence
        return is_higher

    @property
    def _cloud_end_us(self) -> int:
        """When the leases of clouds that go on are given up, if there are any."""
        margin_us = min(CLOUD_MARGIN_US, self._pace.lease_ttl_us // 3)
        return self._renewed_us + self._pace.lease_ttl_us - margin_us

    def _give_up_clouds(self, now: Now) -> None:
        for slot in [slot for slot in self._slots.values() if _is_leased_cloud(slot)]:
            slot.next_lease = None
            self._end_lease(slot, now)

    def _close(self, close: CloseLease, now: Now) -> None:
        if close.device_id is not None:
            self._close_device(close.device_id, close.key, now)
            return
        for slot in list(self._slots.values()):
            if slot.next_lease is not None and slot.next_lease.key == close.key:
                slot.next_lease = None
            if slot.lease is not None and slot.lease.key == close.key:
                self._end_lease(slot, now)

    def _close_device(self, device_id: DeviceId, key: LeaseKey, now: Now) -> None:
        """End all that a device has up to a fence, also what it may yet be offered; answer when it has ended."""
        self._raise_fence(device_id, key.fence)
        slot = self._slots.get(device_id)
        if slot is not None and slot.next_lease is not None and slot.next_lease.key.fence <= key.fence:
            slot.next_lease = None
        if slot is None or slot.lease is None or slot.lease.key.fence > key.fence:
            self._send(ReportClosed(key=key, device_id=device_id))
            return
        slot.awaited = key
        self._end_lease(slot, now)

    def _end_lease(self, slot: Slot, now: Now) -> None:
        """Forget the lease of a slot as soon as nothing of it runs."""
        assert slot.lease is not None
        slot.is_over = True
        if slot.phase is Phase.PREPARING:
            if not slot.is_stopping:
                slot.is_stopping = True
                self._actions.append(StopPreparing(device_id=slot.facts.id, key=slot.lease.key))
            return
        if slot.phase is Phase.RUNNING:
            self._stop(slot, self._pace.signal_grace_us)
            return
        self._actions.append(EndLease(device_id=slot.facts.id, key=slot.lease.key))
        next_lease = slot.next_lease
        if slot.awaited is not None:
            self._send(ReportClosed(key=slot.awaited, device_id=slot.facts.id))
        self._slots[slot.facts.id] = fresh = Slot(slot.facts)
        if next_lease is not None:
            self._accept(fresh, next_lease, now)

    def _start_next(self, slot: Slot, now: Now) -> None:
        """Start the next job of a slot's lease, if it may."""
        if slot.phase is not Phase.READY or slot.is_over or self._is_draining:
            return
        assert slot.lease is not None
        assert slot.installation is not None
        job = next((job for job in slot.lease.jobs if self._may_start(slot, slot.lease, job)), None)
        if job is None:
            return
        slot.phase = Phase.RUNNING
        slot.running = job
        slot.start_us = now.mono_us
        slot.tests = {}
        slot.started[job.attempt_id] = None
        self._send(ReportStart(key=slot.lease.key, attempt_id=job.attempt_id))
        self._actions.append(
            StartAttempt(device_id=slot.facts.id, key=slot.lease.key, job=job, installation=slot.installation)
        )

    def _may_start(self, slot: Slot, lease: LeaseSpec, job: LeasedJob) -> bool:
        return job.attempt_id not in slot.started and reason_of(lease, job.attempt_id) is None

    def _stop(self, slot: Slot, grace_us: int) -> None:
        """End what a slot runs; the host confirms with AttemptEnded."""
        slot.stop_at_us = None
        if slot.running is None or slot.is_stopping:
            return
        assert slot.lease is not None
        slot.is_stopping = True
        self._actions.append(
            StopAttempt(
                device_id=slot.facts.id,
                key=slot.lease.key,
                attempt_id=slot.running.attempt_id,
                grace_us=grace_us,
            )
        )

    # What the host says

    def _busy_slot(self, device_id: DeviceId, key: LeaseKey) -> Slot:
        slot = self._slots[device_id]
        assert slot.lease is not None, f"{device_id} has no lease, and the host speaks of {key}"
        assert slot.lease.key == key, f"{device_id} has {slot.lease.key}, and the host speaks of {key}"
        return slot

    def _prepared(self, event: DevicePrepared, now: Now) -> None:
        slot = self._busy_slot(event.device_id, event.key)
        slot.phase = Phase.READY
        slot.is_stopping = False
        slot.installation = event.installation
        if not slot.is_foreign:
            self._send(ReportInstallation(key=event.key, installation=event.installation))
        self._go_on(slot, now)

    def _prepare_failed(self, event: PrepareFailed, now: Now) -> None:
        slot = self._busy_slot(event.device_id, event.key)
        slot.phase = Phase.REJECTED
        slot.is_stopping = False
        slot.failure = event.failure
        if not slot.is_foreign:
            self._send(RejectLease(key=event.key, failure=event.failure))
        self._go_on(slot, now)

    def _prepare_stopped(self, event: PrepareStopped, now: Now) -> None:
        slot = self._busy_slot(event.device_id, event.key)
        slot.phase = Phase.REJECTED
        slot.is_stopping = False
        self._go_on(slot, now)

    def _go_on(self, slot: Slot, now: Now) -> None:
        if slot.is_over:
            self._end_lease(slot, now)
        elif self._is_draining or (slot.phase is Phase.READY and self._is_done(slot)):
            self._give_back(slot, now)
        else:
            self._start_next(slot, now)

    @staticmethod
    def _is_done(slot: Slot) -> bool:
        """Whether nothing more may start under a lease: a canary wants no more, and what ran may have hurt the device.

        A canary is given back after its word was sent; should that be lost, the coordinator sends another one.
        """
        return not slot.facts.usable or (slot.lease is not None and slot.lease.is_canary)

    def _test_observed(self, event: TestObserved, now: Now) -> None:
        slot = self._busy_slot(event.device_id, event.key)
        test = slot.dated(event.test, now.mono_us)
        slot.tests[test.id] = test
        if not slot.is_over:
            self._send(
                ReportTest(key=event.key, attempt_id=event.attempt_id, test=test, is_resumable=event.is_resumable)
            )
        if event.test.state is TestState.RUNNING and self._is_preempted(slot, event.attempt_id):
            # Between two tests: what has ended keeps its result, and a spec without a next test ends by itself.
            self._stop(slot, self._pace.signal_grace_us)

    @staticmethod
    def _is_preempted(slot: Slot, attempt: AttemptId) -> bool:
        return slot.lease is not None and reason_of(slot.lease, attempt) is RevokeReason.PREEMPT

    def _attempt_ended(self, event: AttemptEnded, now: Now) -> None:
        slot = self._busy_slot(event.device_id, event.key)
        assert slot.lease is not None
        assert slot.installation is not None
        result = AttemptResult(
            attempt_id=event.attempt_id,
            key=event.key,
            outcome=event.outcome or stopped_outcome(slot.lease, event.attempt_id),
            failure=event.failure,
            tests=bounded(tuple(ended_test(test) for test in slot.tests.values())),
            log=event.log,
            duration_us=now.mono_us - slot.start_us,
            build_digest=slot.installation.digest,
            is_resumable=event.outcome is None and event.is_resumable,
        )
        slot.phase = Phase.READY
        slot.running = None
        slot.stop_at_us = None
        slot.is_stopping = False
        slot.finished[event.attempt_id] = None
        if not slot.is_foreign:
            self._results[event.attempt_id] = result
            self._writes.append(KeepResult(result=result))
            self._send(ReportResult(result=result))
        self._go_on(slot, now)

    # Stopping

    def _orphan_end_us(self) -> int | None:
        if self._cut_off_us is None:
            return None
        return self._cut_off_us + self._pace.orphan_limit_us

    def _drain(self, event: DrainRequested, now: Now) -> None:
        """Start nothing more, let what runs end within the grace, give the rest back."""
        if not self._is_draining:
            self._is_draining = True
            self._send(ReportDevices(devices=self._facts()))
        self._drain_end_us = now.mono_us + event.grace_us + 2 * self._pace.signal_grace_us
        for slot in list(self._slots.values()):
            if slot.phase is Phase.RUNNING and event.grace_us:
                slot.stop_at_us = now.mono_us + event.grace_us
            elif slot.phase is Phase.RUNNING:
                self._stop(slot, self._pace.signal_grace_us)
            elif slot.lease is not None:
                self._give_back(slot, now)

    def _give_back(self, slot: Slot, now: Now) -> None:
        assert slot.lease is not None
        self._send(ReleaseLease(key=slot.lease.key))
        slot.next_lease = None
        self._end_lease(slot, now)

    def _finish_drain(self) -> None:
        if not self._is_draining or self._is_flushing:
            return
        is_busy = any(slot.lease is not None for slot in self._slots.values())
        if is_busy or (self._results and self._is_connected):
            return
        self._is_flushing = True
        self._actions.append(FlushLogs())


def _is_leased_cloud(slot: Slot) -> bool:
    """Whether a slot of a cloud has a lease that goes on."""
    return slot.facts.kind is DeviceKind.BROWSERSTACK and slot.lease is not None and not slot.is_over


def _is_due(deadline_us: int | None, now: Now) -> bool:
    return deadline_us is not None and deadline_us <= now.mono_us


def _device_gone(device_id: DeviceId) -> Failure:
    return Failure(reason="DEVICE_LOST", message=f"the agent does not see {device_id} any more", blame=Blame.DEVICE)
