"""What a device of the agent does, for which lease."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.core.model import (
    AttemptId,
    DeviceFacts,
    Failure,
    Installation,
    LeasedJob,
    LeaseEcho,
    LeaseKey,
    LeaseSpec,
    RevokeReason,
    TestResult,
)


class Phase(StrEnum):
    """What a slot does."""

    EMPTY = "empty"
    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    REJECTED = "rejected"


@dataclass(slots=True)
class Slot:
    """A device, and the one lease that it is given at a time."""

    facts: DeviceFacts
    phase: Phase = Phase.EMPTY
    lease: LeaseSpec | None = None
    next_lease: LeaseSpec | None = None
    """A newer lease that waits until the old one has stopped."""
    is_over: bool = False
    """The lease was closed while something of it ran."""
    awaited: LeaseKey | None = None
    """What the coordinator closed and waits to hear of when nothing runs any more."""
    is_foreign: bool = False
    """The lease belongs to a database that does not answer any more: what comes of it concerns nobody."""
    installation: Installation | None = None
    failure: Failure | None = None
    started: dict[AttemptId, None] = field(default_factory=dict)
    finished: dict[AttemptId, None] = field(default_factory=dict)
    running: LeasedJob | None = None
    start_us: int = 0
    tests: dict[str, TestResult] = field(default_factory=dict)
    stop_at_us: int | None = None
    """When the running attempt is stopped if it does not end by itself."""
    is_stopping: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether something of the lease runs on the host."""
        return self.phase in (Phase.PREPARING, Phase.RUNNING)

    def dated(self, test: TestResult, mono_us: int) -> TestResult:
        """Return how a test of the running attempt stands, with when it began: as it was seen first."""
        known = self.tests.get(test.id)
        if known is not None and known.begin_us is not None:
            return replace(test, begin_us=known.begin_us)
        return replace(test, begin_us=max(0, mono_us - self.start_us - test.duration_us))

    def echo(self) -> LeaseEcho | None:
        """Return what was adopted and how far it has come."""
        if self.lease is None or self.is_foreign:
            return None
        return LeaseEcho(
            key=self.lease.key,
            revision=self.lease.revision,
            started=tuple(self.started),
            finished=tuple(self.finished),
        )


def reason_of(lease: LeaseSpec, attempt: AttemptId) -> RevokeReason | None:
    """Return why an attempt of a lease was revoked, None if it was not."""
    return next((one.reason for one in lease.revoked if one.attempt_id == attempt), None)
