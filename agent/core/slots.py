"""What a device of the agent does, for which lease."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.core.model import (
    AttemptId,
    DeviceFacts,
    DeviceKind,
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

    @property
    def is_done(self) -> bool:
        """Whether nothing more may start under a lease: a canary wants no more, and what ran may have hurt the device.

        A canary is given back after its word was sent; should that be lost, the coordinator sends another one.
        """
        return not self.facts.usable or (self.lease is not None and self.lease.is_canary)

    @property
    def is_leased_cloud(self) -> bool:
        """Whether it is a slot of a cloud and has a lease that goes on."""
        return self.facts.kind is DeviceKind.BROWSERSTACK and self.lease is not None and not self.is_over

    def may_start(self, job: LeasedJob) -> bool:
        """Whether a job of the lease was neither started nor revoked."""
        assert self.lease is not None
        return job.attempt_id not in self.started and reason_of(self.lease, job.attempt_id) is None

    def is_preempted(self, attempt: AttemptId) -> bool:
        """Whether an attempt is to make room for a job of higher priority."""
        return self.lease is not None and reason_of(self.lease, attempt) is RevokeReason.PREEMPT

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
