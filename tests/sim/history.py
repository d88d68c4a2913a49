"""What happened, in order: what users said and heard, what was committed, and what the devices really did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from agent.core.model import AttemptId, DeviceId, LeaseId, TestState
from coordinator.core.events import Event
from coordinator.core.model import JobId
from coordinator.core.model import LeaseId as CoordinatorLeaseId
from coordinator.core.step import Step


class Asked(NamedTuple):
    """A user's submit was sent for the first time."""

    at_us: int
    key: str


class Answered(NamedTuple):
    """A user heard that jobs were accepted."""

    at_us: int
    key: str
    jobs: tuple[JobId, ...]


class EchoArrived(NamedTuple):
    """Word of a lease came into a coordinator's hands."""

    at_us: int
    epoch: int
    lease: CoordinatorLeaseId


class EchoRefused(NamedTuple):
    """Word of a lease that came at this time was refused with the message that brought it."""

    at_us: int
    epoch: int
    lease: CoordinatorLeaseId


class Committed(NamedTuple):
    """A step became durable. `event` is None for what the clock did."""

    at_us: int
    """When it was decided."""
    epoch: int
    event: Event | None
    step: Step


class CoordinatorStarted(NamedTuple):
    at_us: int
    epoch: int
    step: Step
    """What taking up the work has written."""


class CoordinatorPaused(NamedTuple):
    """A coordinator was frozen for a while."""

    at_us: int
    epoch: int
    until_us: int


class WorkBegan(NamedTuple):
    """Something began on a device: a test run, or an installation (attempt 0)."""

    at_us: int
    device: DeviceId
    lease: LeaseId
    attempt: AttemptId
    test: str
    build: tuple[str, str, str] | None
    """What the device held: organisation, app version, and the digest of a registered build."""


class TestEnded(NamedTuple):
    """One test of a run ended on its device."""

    at_us: int
    attempt: AttemptId
    spec: str
    test: str
    state: TestState


class WorkEnded(NamedTuple):
    at_us: int
    device: DeviceId
    lease: LeaseId
    attempt: AttemptId


class ResultKept(NamedTuple):
    """An agent has put the result of an attempt on its disk."""

    at_us: int
    attempt: AttemptId


class LogAcknowledged(NamedTuple):
    """An agent was told that so many bytes of a log are durable."""

    at_us: int
    epoch: int
    attempt: AttemptId
    size: int


class LogRead(NamedTuple):
    """A follower got bytes of a log."""

    at_us: int
    attempt: AttemptId
    offset: int
    data: bytes


class Note(NamedTuple):
    """What helps a reader: faults, starts and ends of processes."""

    at_us: int
    text: str


Record = (
    Asked
    | Answered
    | EchoArrived
    | EchoRefused
    | Committed
    | CoordinatorStarted
    | CoordinatorPaused
    | WorkBegan
    | TestEnded
    | WorkEnded
    | ResultKept
    | LogAcknowledged
    | LogRead
    | Note
)


@dataclass(slots=True)
class History:
    """Append-only."""

    records: list[Record] = field(default_factory=list)
    written: dict[AttemptId, bytearray] = field(default_factory=dict)
    """What each attempt's device wrote, as far as its agent could take it down."""
    damaged: dict[AttemptId, None] = field(default_factory=dict)
    """Attempts whose spooled log lost bytes with the power."""

    def add(self, record: Record) -> None:
        self.records.append(record)
