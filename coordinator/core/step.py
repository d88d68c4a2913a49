"""What one event leads to: writes to commit, then sends to deliver, then a reply to the caller."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.model import (
    Agent,
    AgentId,
    Attempt,
    AttemptId,
    Build,
    Counters,
    Crossing,
    Device,
    DeviceConflict,
    DeviceId,
    Expectation,
    Fence,
    Job,
    JobId,
    Lease,
    LeaseId,
    Request,
    RevokeReason,
    SessionId,
    TestResult,
    Trial,
    Upload,
    UploadStatus,
)
from coordinator.core.records import drafted


@dataclass(frozen=True, slots=True)
class PutJob:
    """Insert or replace a job."""

    job: Job


@dataclass(frozen=True, slots=True)
class PutAttempt:
    """Insert or replace an attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class PutTest:
    """Insert or replace the result of one test of a job."""

    attempt: Attempt
    test: TestResult


@dataclass(frozen=True, slots=True)
class PutLease:
    """Insert or replace a lease."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class PutDevice:
    """Insert or replace a device."""

    device: Device


@dataclass(frozen=True, slots=True)
class PutAgent:
    """Insert or replace an agent."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class DropDevice:
    """Delete a device; the attempts and leases that it had keep its name."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class DropAgent:
    """Delete an agent; what it did keeps its name."""

    agent: AgentId


@dataclass(frozen=True, slots=True)
class PutBuild:
    """Insert or replace a build."""

    build: Build


@dataclass(frozen=True, slots=True)
class PutTrial:
    """Insert or replace what devices did with a build; delete it where that says nothing any more."""

    trial: Trial


@dataclass(frozen=True, slots=True)
class PutCrossing:
    """Insert or replace where something failed; delete it where it has no places any more."""

    crossing: Crossing


@dataclass(frozen=True, slots=True)
class PutUpload:
    """Insert or replace what is known of a build at an account of a cloud; delete it where it was given up."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class PutExpectation:
    """Insert or replace what is known of a test's duration."""

    expectation: Expectation


@dataclass(frozen=True, slots=True)
class PutRequest:
    """Insert an accepted submit."""

    request: Request


@dataclass(frozen=True, slots=True)
class PutCounters:
    """Replace the counters."""

    counters: Counters


Write = (
    PutJob
    | PutAttempt
    | PutTest
    | PutLease
    | PutDevice
    | PutAgent
    | DropDevice
    | DropAgent
    | PutBuild
    | PutTrial
    | PutCrossing
    | PutUpload
    | PutExpectation
    | PutRequest
    | PutCounters
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """One attempt of a batch, as the agent needs it."""

    attempt: Attempt
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class SendWelcome:
    """Answer Hello."""

    session: SessionId


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class SendLease:
    """Tell what a lease is now."""

    session: SessionId
    lease: Lease
    jobs: tuple[LeasedJob, ...]
    revoked: tuple[tuple[AttemptId, RevokeReason], ...]
    grace_us: int


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class SendClose:
    """Tell that a lease is over: end what still runs under it."""

    session: SessionId
    lease: LeaseId
    fence: Fence
    why: str
    device: DeviceId | None = None
    """The FENCING device that the agent's answer frees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResultsAcknowledged:
    """Tell that results are durable, or will never be wanted."""

    session: SessionId
    attempts: tuple[AttemptId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendHeartbeatAcknowledged:
    """Tell that a heartbeat counted."""

    session: SessionId
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendConflicts:
    """Tell an agent which of its devices get no work from here, for other agents have them; all of them."""

    session: SessionId
    agent: AgentId
    conflicts: tuple[DeviceConflict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendUploads:
    """Tell an agent how its claims to uploads stand, all of them, and which of its accounts it shares."""

    session: SessionId
    statuses: tuple[UploadStatus, ...]
    sharers: tuple[tuple[str, int], ...]
    """Account, and how many connected agents serve it, where that is more than one."""
    told_us: int
    """Wall time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """End a stream that another one replaced."""

    session: SessionId
    why: str


Send = (
    SendWelcome
    | SendLease
    | SendClose
    | SendResultsAcknowledged
    | SendHeartbeatAcknowledged
    | SendConflicts
    | SendUploads
    | CloseSession
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsAccepted:
    """Reply to a submit or a retry."""

    jobs: tuple[Job, ...]
    """Empty when replayed: `job_ids` names the jobs of the first time."""
    job_ids: tuple[JobId, ...]
    is_replayed: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preemption:
    """Jobs are taken back from a device because a higher one waits. It is told to the operator, and nothing else."""

    lease: LeaseId
    device: DeviceId
    victims: tuple[JobId, ...]
    """Those that did not have to make room before."""
    waiting: JobId
    """The first of those that wait for the device."""


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Commit every write in one transaction, then deliver the sends, then answer."""

    writes: tuple[Write, ...] = ()
    sends: tuple[Send, ...] = ()
    reply: JobsAccepted | None = None
    preemptions: tuple[Preemption, ...] = ()
    """Why writes take leased jobs back."""


NOTHING = Step()
