"""What the checker knows at each point of a history: the durable records, what runs, and who was heard of when."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.core.model import AttemptId, DeviceId, TestState
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    Event,
    LeaseRejected,
    LeaseReleased,
)
from coordinator.core.model import DeviceId as CoordinatorDeviceId
from coordinator.core.model import JobId, Lease, LeaseId, SessionId
from coordinator.core.step import PutAttempt, PutLease, Write
from tests.sim.database import Records
from tests.sim.history import (
    Committed,
    CoordinatorPaused,
    CoordinatorStarted,
    EchoArrived,
    EchoRefused,
    Record,
    ResultKept,
    TestEnded,
    WorkBegan,
    WorkEnded,
)
from tests.sim.plan import Plan


@dataclass(slots=True)
class Scene:
    plan: Plan
    records: Records = field(default_factory=Records)
    live: dict[CoordinatorDeviceId, dict[LeaseId, None]] = field(default_factory=dict)
    """The live leases of each device."""
    granted_us: dict[LeaseId, int] = field(default_factory=dict)
    work: dict[DeviceId, WorkBegan] = field(default_factory=dict)
    """What runs on each device."""
    begun: dict[AttemptId, WorkBegan] = field(default_factory=dict)
    """Test runs, by attempt."""
    ended_tests: dict[AttemptId, dict[str, TestState]] = field(default_factory=dict)
    """What each run's tests have come to on the device."""
    kept: dict[AttemptId, None] = field(default_factory=dict)
    """Attempts whose result lies on their agent's disk, or did."""
    taken_back: dict[AttemptId, None] = field(default_factory=dict)
    """Attempts that their agent has agreed not to start."""
    echoes: dict[LeaseId, list[int]] = field(default_factory=dict)
    """When each lease was heard of in this epoch."""
    epoch: int = 0
    """The newest."""
    epoch_us: int = 0
    pauses: list[CoordinatorPaused] = field(default_factory=list)
    sessions: dict[str, SessionId] = field(default_factory=dict)
    """The newest session of each agent in this epoch."""

    def follow(self, record: Record) -> None:
        """Take in a record; a committed step is taken in write by write, by `apply`."""
        match record:
            case CoordinatorStarted():
                self.epoch, self.epoch_us = record.epoch, record.at_us
                self.echoes.clear()
                self.sessions.clear()
                self.pauses.clear()
            case CoordinatorPaused():
                self.pauses.append(record)
            case EchoArrived() if record.epoch == self.epoch:
                self.echoes.setdefault(record.lease, []).append(record.at_us)
            case EchoRefused() if record.epoch == self.epoch:
                self.echoes[record.lease].remove(record.at_us)
            case WorkBegan():
                self.work[record.device] = record
                if record.attempt:
                    self.begun[record.attempt] = record
            case TestEnded():
                self.ended_tests.setdefault(record.attempt, {})[record.test] = record.state
            case ResultKept():
                self.kept[record.attempt] = None
            case WorkEnded():
                self.work.pop(record.device, None)
            case _:
                pass

    def apply(self, step: Committed, write: Write) -> None:
        match write:
            case PutLease(lease):
                self._apply_lease(step, lease)
            case PutAttempt(attempt):
                is_unstarted = attempt.outcome is not None and attempt.start_us is None
                if is_unstarted and not is_closing(self, step.event):
                    self.taken_back[AttemptId(attempt.id)] = None
            case _:
                pass
        self.records.apply(write)

    def _apply_lease(self, step: Committed, lease: Lease) -> None:
        live = self.live.setdefault(lease.device, {})
        if lease.is_live:
            if lease.id not in self.records.leases:
                self.granted_us[lease.id] = step.at_us
            live[lease.id] = None
        else:
            live.pop(lease.id, None)

    def attempts_of(self, job: JobId) -> list[AttemptId]:
        """Return a job's attempts."""
        return [AttemptId(one.id) for one in self.records.attempts.values() if one.job == job]

    def running_us(self, since_us: int, until_us: int) -> int:
        """Return how long the coordinator ran between two times; of each pause a heartbeat may count as running."""
        heartbeat_us = self.plan.settings.heartbeat_us
        span_us = until_us - since_us
        for pause in self.pauses:
            paused_us = min(until_us, pause.until_us) - max(since_us, pause.at_us)
            span_us -= max(0, paused_us - heartbeat_us)
        return span_us

    def last_word_us(self, lease: LeaseId, before_us: int) -> int:
        """Return when a lease was granted, taken up or heard of last before a time."""
        echoes = [heard_us for heard_us in self.echoes.get(lease, []) if heard_us < before_us]
        return max(self.granted_us.get(lease, 0), self.epoch_us, *echoes[-1:])


def is_new_boot(scene: Scene, event: Event | None) -> bool:
    """Whether an event is the Hello of a process that was started anew."""
    if not isinstance(event, AgentConnected):
        return False
    known = scene.records.agents.get(event.agent)
    return known is not None and known.boot_id != event.boot_id


def is_closing(scene: Scene, event: Event | None) -> bool:
    """Whether what leads to a step may end whole leases, without a word of their agent on single attempts."""
    if event is None or isinstance(event, AgentDisconnected | LeaseReleased | LeaseRejected):
        return True
    if not isinstance(event, AgentConnected):
        return False
    return any(
        lease.agent == event.agent and lease.boot_id != event.boot_id and lease.is_live
        for lease in scene.records.leases.values()
    ) or is_new_boot(scene, event)
