"""A coordinator process around the real Scheduler, as coordinator/engine.py and services/agent.py are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from coordinator import wire
from coordinator.core import invariants
from coordinator.core.errors import QgjobError
from coordinator.core.events import AgentConnected, AgentDisconnected, Event, HeartbeatReceived, LeaseAdopted, LeaseEcho
from coordinator.core.model import Now, SessionId, Settings
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import CloseSession, JobsAccepted, Send, SendWelcome, Step, Write
from qgjob.v1 import agent_service_pb2
from tests.sim.database import Database, StaleEpoch
from tests.sim.history import Committed, CoordinatorStarted, EchoArrived, EchoRefused, History, Note
from tests.sim.network import Side, Stream
from tests.sim.plan import CrashPoint
from tests.sim.recovery import differences
from tests.sim.shelf import LogDisk, Shelf
from tests.sim.world import SECOND_US, Process, World

MAX_EVENTS_PER_TURN = 256
TURN_US = 200
LEADER_RENEWAL_US = 3 * SECOND_US
FAST_COMMIT_US = (500, 8_000)
RECOVERY_CHECKS_PERCENT = 8
"""Of the commits of a seed whose recovery is checked."""
WHOLE_CHECK_TURNS = 16
"""Of so many turns with writes one has its whole state checked, the others what they have put."""
CLUSTER_ID = "cluster"

Reply = Callable[[JobsAccepted | QgjobError | None], None]
Facts = list[tuple[Event | None, Step]]
Answers = list[tuple[Reply, JobsAccepted | QgjobError | None]]


class Watch(Protocol):
    """Who must know that a coordinator has ended."""

    def coordinator_ended(self, coordinator: CoordinatorProcess, why: str) -> None: ...


class _Session:
    """The way down to one agent."""

    def __init__(self, coordinator: CoordinatorProcess, number: SessionId) -> None:
        self._coordinator = coordinator
        self.id = number
        self.stream: Stream | None = None
        self._has_hello = False
        self._is_told = False
        self.side = Side(coordinator, self)

    def received(self, stream: Stream, message: object) -> None:
        assert isinstance(message, agent_service_pb2.ConnectRequest)
        self.stream = stream
        kind = message.WhichOneof("event")
        if kind == "hello":
            self._has_hello = True
            self._coordinator.post(wire.agent_connected(self.id, message.hello, CLUSTER_ID), self._answered)
        elif kind == "goodbye":
            self._end(is_goodbye=True)
        else:
            self._coordinator.post(wire.agent_event(self.id, message), self._answered)

    def _answered(self, answer: JobsAccepted | QgjobError | None) -> None:
        """End the session that brought what was refused."""
        if isinstance(answer, QgjobError):
            self._end(is_goodbye=False)

    def broken(self, stream: Stream) -> None:
        self._end(is_goodbye=False)

    def put(self, send: Send) -> None:
        assert self.stream is not None
        if isinstance(send, CloseSession):
            self._end(is_goodbye=False)
        elif isinstance(send, SendWelcome):
            self.stream.send_down(self._coordinator.welcome(), is_spared=True)
        else:
            self.stream.send_down(wire.command(send))

    def _end(self, *, is_goodbye: bool) -> None:
        """Close the stream and tell the scheduler, once."""
        self._coordinator.forget(self.id)
        if self.stream is not None:
            self.stream.close(self.side)
        if self._has_hello and not self._is_told:
            self._is_told = True
            self._coordinator.post(AgentDisconnected(session=self.id, is_goodbye=is_goodbye))


class CoordinatorProcess(Process):
    """One life of a coordinator."""

    def __init__(
        self,
        world: World,
        history: History,
        database: Database,
        disk: LogDisk,
        settings: Settings,
        is_ordered: bool,
        watch: Watch,
        read_latency_us: Callable[[], int],
    ) -> None:
        super().__init__(world)
        self.crash_point: CrashPoint | None = None
        """Where it is killed in its next commit."""
        self.is_recovery_checked = False
        """Whether what another coordinator would take up is compared with what this one knows."""
        self._history = history
        self._database = database
        self._settings = settings
        self._is_ordered = is_ordered
        self._watch = watch
        self._read_latency_us = read_latency_us
        self._inbox: deque[tuple[Event, Reply | None, int]] = deque()
        self._sessions: dict[SessionId, _Session] = {}
        self._next_session = 1
        self._is_turning = False
        self._turns = 0
        """Those with writes."""
        self._timer_us: int | None = None
        self._begin_life(disk)

    def _begin_life(self, disk: LogDisk) -> None:
        self.scheduler = Scheduler(self._settings, self._database.start_epoch())
        self.epoch = self._database.epoch
        self.shelf = Shelf(self, self.epoch, disk, self._database, self._history, self._read_latency_us)
        records = self._database.records
        step = self.scheduler.restore(
            jobs=records.live_jobs(),
            attempts=records.open_attempts(),
            leases=records.live_leases(),
            devices=list(records.devices.values()),
            agents=list(records.agents.values()),
            builds=list(records.builds.values()),
            expectations=list(records.expectations.values()),
            trials=list(records.trials.values()),
            crossings=list(records.crossings.values()),
            uploads=list(records.uploads.values()),
            now=self._now(),
        )
        self._history.add(CoordinatorStarted(self.world.now_us, self.epoch, step))
        self._database.commit(self.epoch, step.writes)
        self.later(LEADER_RENEWAL_US, self._renew_leadership)
        self._set_timer()

    def _now(self) -> Now:
        return Now(mono_us=self.world.now_us, wall_us=self.world.wall_us)

    # Sessions

    def accept(self) -> Side:
        session = _Session(self, SessionId(self._next_session))
        self._next_session += 1
        self._sessions[session.id] = session
        return session.side

    def forget(self, session: SessionId) -> None:
        self._sessions.pop(session, None)

    def welcome(self) -> agent_service_pb2.ConnectResponse:
        return wire.welcome(CLUSTER_ID, self.epoch, self._settings, "0.1.0")

    # Turns

    def post(self, event: Event, reply: Reply | None = None) -> None:
        """Hand in an event."""
        for echo in _echoes(event):
            self._history.add(EchoArrived(self.world.now_us, self.epoch, echo.lease))
        self._inbox.append((event, reply, self.world.now_us))
        self._wake()

    def _wake(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            self.later(TURN_US, self._turn)

    def _set_timer(self) -> None:
        deadline_us = self.scheduler.next_deadline()
        if deadline_us is None:
            self._timer_us = None
        elif self._timer_us is None or deadline_us < self._timer_us:
            self._timer_us = max(deadline_us, self.world.now_us)
            self.at(self._timer_us, self._ring, self._timer_us)

    def _ring(self, time_us: int) -> None:
        if time_us == self._timer_us:
            self._timer_us = None
            self._wake()

    def _turn(self) -> None:
        now = self._now()
        facts, answers = self.take_facts(now)
        writes = [write for _, step in facts for write in step.writes]
        if writes:
            self._check_state(writes)
            self.commit(now, facts, answers, writes)
        else:
            self.deliver(facts, answers)
            self.end_turn()

    def _check_state(self, writes: list[Write]) -> None:
        self._turns += 1
        if self._turns % WHOLE_CHECK_TURNS:
            invariants.check_written(self.scheduler.ledger, writes, is_ordered=self._is_ordered)
        else:
            self.check_whole_state()

    def check_whole_state(self) -> None:
        """Raise AssertionError if what this life knows contradicts itself."""
        invariants.check(self.scheduler.ledger, is_ordered=self._is_ordered)

    def take_facts(self, now: Now) -> tuple[Facts, Answers]:
        """Take the inbox first and what has fallen due after it."""
        facts, answers = self.handle_inbox(now)
        facts.append((None, self.scheduler.expire(now)))
        return facts, answers

    def handle_inbox(self, now: Now) -> tuple[Facts, Answers]:
        facts: Facts = []
        answers: Answers = []
        for _ in range(min(MAX_EVENTS_PER_TURN, len(self._inbox))):
            event, reply, arrived_us = self._inbox.popleft()
            if isinstance(event, HeartbeatReceived) and self._is_of_old_session(event):
                # Its echoes renew nothing: another stream of the agent has said since what it holds.
                self._refuse_echoes(event, arrived_us)
            try:
                step = self.scheduler.handle(event, now)
            except QgjobError as refusal:
                self._refuse_echoes(event, arrived_us)
                if reply is not None:
                    answers.append((reply, refusal))
                continue
            facts.append((event, step))
            if reply is not None:
                answers.append((reply, step.reply))
        return facts, answers

    def _is_of_old_session(self, event: HeartbeatReceived) -> bool:
        return self.scheduler.ledger.fleet.agent_of(event.session) is None

    def _refuse_echoes(self, event: Event, arrived_us: int) -> None:
        for echo in _echoes(event):
            self._history.add(EchoRefused(arrived_us, self.epoch, echo.lease))

    def commit(self, now: Now, facts: Facts, answers: Answers, writes: list[Write]) -> None:
        """Write in one transaction, which is durable a little before this process hears of it."""
        latency_us = self._read_latency_us()
        crash, self.crash_point = self.crash_point, None
        if crash is CrashPoint.BEFORE_COMMIT:
            self._watch.coordinator_ended(self, "killed before COMMIT")
            return
        if crash is CrashPoint.DURING_COMMIT:
            if self.world.chance(60):
                # It is on its way to the database and may come late, even after another life has begun.
                delay_us = latency_us * self.world.between(1, 400)
                self.world.after(delay_us, self._commit_blindly, now, facts, writes)
            self._watch.coordinator_ended(self, "killed during COMMIT")
            return
        self.world.after(latency_us * 3 // 4, self._make_durable, now, facts, answers, writes, crash)

    def _commit_blindly(self, now: Now, facts: Facts, writes: list[Write]) -> None:
        try:
            self._store(now, facts, writes)
        except StaleEpoch:
            self._history.add(Note(self.world.now_us, f"a late COMMIT of epoch {self.epoch} is refused"))

    def _store(self, now: Now, facts: Facts, writes: list[Write]) -> None:
        self._database.commit(self.epoch, writes)
        for event, step in facts:
            if step.writes or isinstance(event, AgentConnected):
                self._history.add(Committed(now.mono_us, self.epoch, event, step))

    def _make_durable(
        self, now: Now, facts: Facts, answers: Answers, writes: list[Write], crash: CrashPoint | None
    ) -> None:
        if not self.is_alive:
            return
        try:
            self._store(now, facts, writes)
        except StaleEpoch:
            self.hear(self._watch.coordinator_ended, self, "its COMMIT was refused: another epoch has begun")
            return
        if crash is CrashPoint.AFTER_COMMIT:
            self._watch.coordinator_ended(self, "killed after COMMIT")
        else:
            self.later(300, self._committed, facts, answers)

    def _committed(self, facts: Facts, answers: Answers) -> None:
        if self.is_recovery_checked and self.world.chance(RECOVERY_CHECKS_PERCENT):
            self._check_recovery()
        self.deliver(facts, answers)
        self.end_turn()

    def _check_recovery(self) -> None:
        if self._database.epoch == self.epoch:
            for difference in differences(self.scheduler.ledger, self._database.records, self._settings, self._now()):
                raise AssertionError(difference)

    def end_turn(self) -> None:
        self._is_turning = False
        if self._inbox:
            self._wake()
        self._set_timer()

    def deliver(self, facts: Facts, answers: Answers) -> None:
        """Tell what is durable."""
        for _, step in facts:
            for send in step.sends:
                session = self._sessions.get(send.session)
                if session is not None:
                    session.put(send)
        for reply, answer in answers:
            reply(answer)

    def _renew_leadership(self) -> None:
        """Hear from the database whether this is still the newest epoch."""
        if self._database.epoch != self.epoch:
            self._watch.coordinator_ended(self, "it finds that another epoch has begun")
        else:
            self.later(LEADER_RENEWAL_US + self._read_latency_us(), self._renew_leadership)


def _echoes(event: Event) -> tuple[LeaseEcho, ...]:
    match event:
        case HeartbeatReceived() | AgentConnected():
            return event.leases
        case LeaseAdopted():
            return (event.echo,)
        case _:
            return ()
