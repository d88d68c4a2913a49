"""An agent process around the real Machine, as agent/app.py and agent/session.py are."""

from __future__ import annotations

from typing import Protocol

from agent import wire
from agent.core.events import (
    AttemptEnded,
    DevicesObserved,
    DrainRequested,
    Event,
    LogsFlushed,
    Received,
    SessionLost,
    SessionOpened,
    Started,
)
from agent.core.link import JITTER_RANGE
from agent.core.machine import Machine
from agent.core.model import AgentId, AttemptId, DeviceFacts, DeviceId, Identity, Lane, LeaseKey, Now, Outcome
from agent.core.step import (
    NOTHING,
    Action,
    CloseSession,
    EndLease,
    Exit,
    FlushLogs,
    Heartbeat,
    Hello,
    KeepResult,
    OpenSession,
    PrepareDevice,
    ReportDevices,
    Send,
    ShareUploads,
    StartAttempt,
    Step,
    StopAttempt,
    StopPreparing,
    TakeUploads,
    Write,
)
from agent.runners.protocol import Verdict
from qgjob.v1 import agent_service_pb2
from tests.sim.device import Device
from tests.sim.history import History, Note, ResultKept
from tests.sim.network import Side, Stream
from tests.sim.spool import Spool
from tests.sim.uploader import Uploader
from tests.sim.world import SECOND_US, Act, Process, World

RECLAIM_US = SECOND_US
FLUSH_TIMEOUT_US = 10 * SECOND_US
BACKOFF_US = 1_000
SPARED = (Hello, ReportDevices)
"""What rests on the order of a stream, and is neither lost nor doubled singly."""


class Bench(Protocol):
    """What a host has."""

    devices: list[Device]
    guests: list[Device]
    """What it sees besides, and what somebody else has."""


class Doors(Protocol):
    """How an agent finds the coordinator."""

    def connect_session(self, host: str, client: Side, opened: Act) -> None: ...

    def connect_logs(self, host: str, client: Side, opened: Act) -> None: ...

    def agent_exited(self, agent: AgentProcess) -> None: ...


class _Session:
    """One try to talk to the coordinator."""

    def __init__(self, agent: AgentProcess, number: int) -> None:
        self._agent = agent
        self._number = number
        self._stream: Stream | None = None
        self.side = Side(agent, self)

    def opened(self, stream: Stream) -> None:
        self._stream = stream
        self._agent.post(SessionOpened(session=self._number))

    def put(self, send: Send) -> None:
        if isinstance(send, Heartbeat) and self._agent.world.now_us < self._agent.beats_lost_until_us:
            return
        if self._stream is not None:
            self._stream.send_up(wire.fact(send), is_spared=isinstance(send, SPARED))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close(self.side)
        self.side.is_open = False
        self._agent.later(BACKOFF_US, self._lost)

    def received(self, stream: Stream, message: object) -> None:
        assert isinstance(message, agent_service_pb2.ConnectResponse)
        command = wire.command(message)
        assert command is not None
        self._agent.post(Received(session=self._number, command=command))

    def broken(self, stream: Stream) -> None:
        self._lost()

    def _lost(self) -> None:
        jitter = self._agent.world.random.randrange(JITTER_RANGE)
        self._agent.post(SessionLost(session=self._number, reason="the stream broke", jitter=jitter))


class AgentProcess(Process):
    """One life of an agent."""

    def __init__(
        self,
        world: World,
        history: History,
        doors: Doors,
        name: str,
        boot: int,
        bench: Bench,
        spool: Spool,
        lanes: tuple[Lane, ...],
        orgs: tuple[str, ...],
    ) -> None:
        super().__init__(world)
        self.name = name
        self.boot_id = f"{name}-{boot}"
        self.dies_at_commit = False
        """Whether it is killed as soon as it has kept its next result."""
        self.beats_lost_until_us = 0
        """Until when its heartbeats vanish."""
        self._history = history
        self._doors = doors
        self._bench = bench
        self._devices = {device.facts.id: device for device in bench.devices}
        self._spool = spool
        identity = Identity(
            agent_id=AgentId(name), boot_id=self.boot_id, version="0.1.0", host=name, lanes=lanes, orgs=orgs
        )
        self._machine = Machine(identity, spool.recall())
        self._uploader = Uploader(self, spool, lambda side, opened: doors.connect_logs(name, side, opened))
        self._session: _Session | None = None
        self._timer_us: int | None = None
        self._is_flushing = False

    def start(self) -> None:
        self._history.add(Note(self.world.now_us, f"agent {self.boot_id} starts"))
        self._uploader.start()
        self.post(Started())
        self.look_at_devices()

    # Turning

    def post(self, event: Event) -> None:
        """Hand in a fact."""
        self.hear(self._turn, event)

    def _turn(self, event: Event) -> None:
        self._follow(self._machine.handle(event, self._now()))
        self._expire()

    def _expire(self) -> None:
        """Do what is due, if anything is, and set the timer for the rest."""
        deadline_us = self._machine.next_deadline()
        if deadline_us is not None and deadline_us <= self.world.now_us and self.is_alive:
            self._follow(self._machine.expire(self._now()))
            deadline_us = self._machine.next_deadline()
        self._set_timer(deadline_us)

    def _set_timer(self, deadline_us: int | None) -> None:
        if deadline_us is None or not self.is_alive:
            self._timer_us = None
        elif self._timer_us is None or deadline_us < self._timer_us:
            self._timer_us = max(deadline_us, self.world.now_us)
            self.at(self._timer_us, self._ring, self._timer_us)

    def _ring(self, time_us: int) -> None:
        if time_us != self._timer_us:
            return
        self._timer_us = None
        self._expire()

    def _now(self) -> Now:
        return Now(mono_us=self.world.now_us, wall_us=self.world.wall_us)

    def _follow(self, step: Step) -> None:
        if step is NOTHING:
            return
        if step.writes and self._keep(step.writes) and self.dies_at_commit:
            self._doors.agent_exited(self)
            return
        for send in step.sends:
            if self._session is not None:
                self._session.put(send)
        for action in step.actions:
            self._begin(action)

    def _keep(self, writes: tuple[Write, ...]) -> bool:
        """Put on the disk what is to stay. Returns whether it was the result of a run."""
        self._spool.commit(writes)
        results = [write.result for write in writes if isinstance(write, KeepResult)]
        kept = [result.attempt_id for result in results if result.outcome is not Outcome.LOST]
        for attempt in kept:
            self._history.add(ResultKept(self.world.now_us, attempt))
        return bool(kept)

    def _begin(self, action: Action) -> None:
        match action:
            case OpenSession():
                self._session = _Session(self, action.session)
                self._doors.connect_session(self.name, self._session.side, self._session.opened)
            case CloseSession():
                assert self._session is not None
                self._session.close()
            case PrepareDevice():
                self._devices[action.lease.device_id].prepare(action.lease, self._tell)
            case StartAttempt():
                self._start(action)
            case StopPreparing():
                self._stop(action.device_id, action.key, 0)
            case StopAttempt():
                self._stop(action.device_id, action.key, action.grace_us)
            case EndLease() | ShareUploads() | TakeUploads():
                pass  # there is no cloud to upload to
            case FlushLogs():
                self._is_flushing = True
                self.later(FLUSH_TIMEOUT_US, self._flushed)
                self._uploader.flush(self._flushed)
            case Exit():
                self._doors.agent_exited(self)

    def _flushed(self) -> None:
        if self._is_flushing:
            self._is_flushing = False
            self.later(0, self._turn, LogsFlushed())

    # The host

    def _tell(self, event: Event) -> None:
        """Let the host's word reach the machine after its turn."""
        self.later(0, self._turn, event)

    def _start(self, action: StartAttempt) -> None:
        attempt = action.job.attempt_id
        self._spool.open_log(attempt, action.key)
        self._devices[action.device_id].run(
            action.key,
            action.job,
            self._tell,
            lambda data: self.hear(self._write_log, attempt, data),
            lambda verdict: self.later(0, self._attempt_ended, action, verdict),
        )

    def _stop(self, device: DeviceId, key: LeaseKey, grace_us: int) -> None:
        work = self._devices[device].work
        if work is not None and work.key == key:
            work.stop(grace_us)

    def _write_log(self, attempt: AttemptId, data: bytes) -> None:
        self._spool.append(attempt, data)
        self._uploader.note(attempt)

    def _attempt_ended(self, action: StartAttempt, verdict: Verdict) -> None:
        attempt = action.job.attempt_id
        log = self._spool.end_log(attempt)
        self._uploader.note(attempt)
        self._turn(
            AttemptEnded(
                device_id=action.device_id,
                key=action.key,
                attempt_id=attempt,
                outcome=verdict.outcome,
                failure=verdict.failure,
                log=log,
                is_resumable=verdict.is_resumable,
            )
        )

    def look_at_devices(self) -> None:
        """Offer the devices whose lock can be had, and ask again soon for those that somebody else still holds."""
        plugged = [device for device in self._devices.values() if device.is_plugged]
        claimed = {device.facts.id: device.claim(self.boot_id) for device in plugged}
        own = tuple(_facts(device, claimed[device.facts.id]) for device in plugged)
        guests = tuple(_facts(device, is_claimed=False) for device in self._bench.guests)
        self.post(DevicesObserved(devices=own + guests))
        if not all(claimed.values()):
            self.later(RECLAIM_US, self.look_at_devices)

    # Operators

    def drain(self, grace_us: int) -> None:
        self.post(DrainRequested(grace_us=grace_us))

    def die(self) -> None:
        super().die()
        for device in self._devices.values():
            device.lose_agent(self.boot_id)


def _facts(device: Device, is_claimed: bool) -> DeviceFacts:
    if is_claimed:
        return device.facts
    return DeviceFacts(
        id=device.facts.id,
        kind=device.facts.kind,
        model=device.facts.model,
        usable=False,
        reason="somebody has it",
        account=device.facts.account,
    )
