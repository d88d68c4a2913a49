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

`link` knows the stream and its silences, `leases` the slots, `kept` the results. All of them put what is to be said and
done into one `outbox`, which is the step of the turn.
"""

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
from agent.core.kept import KeptResults
from agent.core.leases import Leases
from agent.core.link import Link, is_due
from agent.core.model import Identity, Memory, Now, UploadClaim
from agent.core.outbox import Outbox
from agent.core.results import lost
from agent.core.step import (
    ClaimUploads,
    CloseSession,
    Exit,
    FlushLogs,
    ForgetCluster,
    Goodbye,
    Heartbeat,
    Hello,
    RememberCluster,
    ReportDevices,
    ShareUploads,
    Step,
    TakeUploads,
)


class Machine:
    """The pure core of the agent."""

    def __init__(self, identity: Identity, memory: Memory) -> None:
        self._identity = identity
        self._cluster_id = memory.cluster_id
        self._epoch = memory.epoch
        self._lost = tuple(lost(begun) for begun in memory.begun)
        self._outbox = Outbox()
        self._link = Link(self._outbox)
        self._results = KeptResults(self._outbox, memory.results)
        self._leases = Leases(self._outbox, self._link, self._results)
        self._hello: Hello | None = None
        self._claims: tuple[UploadClaim, ...] | None = None
        """To uploads; None while nothing was ever uploaded."""
        self._shares_uploads = False
        self._drain_end_us: int | None = None
        self._is_flushing = False

    # Turning

    def handle(self, event: Event, now: Now) -> Step:
        """Take in one fact or command."""
        match event:
            case Started():
                self._keep_lost()
                self._link.open()
            case SessionOpened():
                self._session_opened(event, now)
            case SessionLost():
                self._session_lost(event, now)
            case Received():
                self._received(event, now)
            case DevicesObserved():
                self._leases.observed(event, now)
            case UploadsWanted(claims=claims):
                self._claims = claims
                if self._shares_uploads:  # a coordinator that knows of no claims would end the session over one
                    self._outbox.send(ClaimUploads(claims=claims))
            case DevicePrepared():
                self._leases.prepared(event, now)
            case PrepareFailed():
                self._leases.prepare_failed(event, now)
            case PrepareStopped():
                self._leases.prepare_stopped(event, now)
            case TestObserved():
                self._leases.test_observed(event, now)
            case AttemptEnded():
                self._leases.attempt_ended(event, now)
            case DrainRequested():
                self._leases.drain(event, now)
                self._drain_end_us = now.mono_us + event.grace_us + 2 * self._link.pace.signal_grace_us
            case LogsFlushed():
                self._outbox.sends.append(Goodbye(reason="the agent was told to stop"))
                self._outbox.actions.append(Exit())
        self._finish_drain()
        return self._outbox.take_step()

    def expire(self, now: Now) -> Step:
        """Do what has fallen due."""
        self._link.expire(now)
        if self._link.is_beat_due(now):
            self._beat(now)
        self._link.end_silence(now)
        if self._link.take_orphan(now):
            self._leases.give_up(now)
        self._leases.expire(now)
        if is_due(self._drain_end_us, now) and not self._is_flushing:
            self._is_flushing = True
            self._outbox.actions.append(FlushLogs())
        return self._outbox.take_step()

    def next_deadline(self) -> int | None:
        """Return the monotonic time, in microseconds, at which `expire` has something to do."""
        deadlines = [*self._link.deadlines(), *self._leases.deadlines()]
        if self._drain_end_us is not None and not self._is_flushing:
            deadlines.append(self._drain_end_us)
        return min(deadlines, default=None)

    def _keep_lost(self) -> None:
        """Keep what an earlier life could not: by the next one the log that tells the length may be handed in."""
        for result in self._lost:
            self._results.keep(result)

    # Session

    def _session_opened(self, event: SessionOpened, now: Now) -> None:
        if event.session != self._link.session:
            return
        self._link.note_opened(now)
        self._hello = Hello(
            identity=self._identity,
            devices=self._leases.facts(),
            leases=self._leases.echoes(),
            results=self._results.newest(),
            cluster_id=self._cluster_id,
            epoch=self._epoch,
        )
        self._outbox.sends.append(self._hello)

    def _session_lost(self, event: SessionLost, now: Now) -> None:
        if event.session != self._link.session:
            return
        self._link.note_lost(now)
        if self._is_flushing:
            self._outbox.actions.append(Exit())
        else:
            self._link.come_back(event, now)

    def _received(self, event: Received, now: Now) -> None:
        if event.session != self._link.session:
            return
        self._link.note_heard(now)
        match event.command:
            case Welcome() as welcome:
                self._welcomed(welcome, now)
            case AdoptLease(lease=lease):
                self._leases.adopt(lease, now)
            case CloseLease() as close:
                self._leases.close(close, now)
            case AcknowledgeResults(attempt_ids=attempts):
                self._results.acknowledge(attempts)
            case AcknowledgeHeartbeat(sequence=sequence):
                self._link.note_answered(sequence)
            case TellConflicts():
                pass  # for people: no lease comes for these devices, and a late one would be as good as any
            case TellUploads() as told:
                self._outbox.actions.append(TakeUploads(statuses=told.statuses, sharers=told.sharers))

    def _welcomed(self, welcome: Welcome, now: Now) -> None:
        if welcome.cluster_id == self._cluster_id and welcome.epoch < self._epoch:
            reason = f"epoch {welcome.epoch} is older than {self._epoch}: it was replaced, or restored from a backup"
            self._outbox.actions.append(CloseSession(session=self._link.session, reason=reason))
            return
        if self._cluster_id and welcome.cluster_id != self._cluster_id:
            self._forget_everything(now)
        if (welcome.cluster_id, welcome.epoch) != (self._cluster_id, self._epoch):
            self._cluster_id, self._epoch = welcome.cluster_id, welcome.epoch
            self._outbox.writes.append(RememberCluster(cluster_id=welcome.cluster_id, epoch=welcome.epoch))
        self._link.note_welcomed(welcome.pace, now)
        if welcome.shares_uploads is not self._shares_uploads:
            self._shares_uploads = welcome.shares_uploads
            self._outbox.actions.append(ShareUploads(is_shared=welcome.shares_uploads))
        self._catch_up()

    def _catch_up(self) -> None:
        """Say what came about between Hello and Welcome, when nothing could be sent, and what Hello has no room for."""
        assert self._hello is not None
        if self._leases.facts() != self._hello.devices:
            self._outbox.send(ReportDevices(devices=self._leases.facts()))
        self._results.repeat(self._hello.results)
        if self._claims is not None and self._shares_uploads:
            self._outbox.send(ClaimUploads(claims=self._claims))
        self._leases.repeat_rejections()

    def _forget_everything(self, now: Now) -> None:
        """Another database answers: its ids are not the ones that were worked for."""
        self._outbox.writes.append(ForgetCluster(cluster_id=self._cluster_id))
        self._results.clear()
        self._leases.forget_all(now)

    def _beat(self, now: Now) -> None:
        self._outbox.sends.append(Heartbeat(sequence=self._link.beat(now), leases=self._leases.echoes()))
        # What nobody has acknowledged by now may have been lost, and no echo stands for it.
        self._results.repeat()
        self._leases.repeat_rejections()

    # Stopping

    def _finish_drain(self) -> None:
        if not self._leases.is_draining or self._is_flushing:
            return
        if self._leases.is_any_held or (self._results and self._outbox.is_connected):
            return
        self._is_flushing = True
        self._outbox.actions.append(FlushLogs())
