"""What the machine is told: facts, in the past tense, and the coordinator's commands as they arrived."""

from dataclasses import dataclass

from agent.core.model import (
    AttemptId,
    DeviceFacts,
    DeviceId,
    Failure,
    Installation,
    LeaseKey,
    LeaseSpec,
    LogSummary,
    Outcome,
    Pace,
    TestResult,
    UploadClaim,
    UploadStatus,
)

# Commands of the coordinator ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The coordinator answered Hello."""

    cluster_id: str
    epoch: int
    pace: Pace
    version: str = ""
    shares_uploads: bool = False
    """Whether claims to uploads are answered; releases before that know of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptLease:
    """The coordinator said what a lease is now."""

    lease: LeaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseLease:
    """The coordinator has closed a lease."""

    key: LeaseKey
    reason: str = ""
    device_id: DeviceId | None = None
    """The device that waits for the answer, if one does: everything on it up to this fence is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeResults:
    """The coordinator holds these results, or will never want them."""

    attempt_ids: tuple[AttemptId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeHeartbeat:
    """The coordinator heard a heartbeat."""

    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TellConflicts:
    """All devices of this agent that get no work, for other agents have them."""

    owners: tuple[tuple[DeviceId, str], ...]
    """Device, and the name of the agent that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TellUploads:
    """How all claims of this agent to uploads stand, and which of its accounts other agents serve as well."""

    statuses: tuple[UploadStatus, ...]
    sharers: tuple[tuple[str, int], ...] = ()
    """Account, and how many agents serve it; an account that is missing is this agent's alone."""


Command = Welcome | AdoptLease | CloseLease | AcknowledgeResults | AcknowledgeHeartbeat | TellConflicts | TellUploads

# Facts ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The agent process is ready to connect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """The stream is up; Hello may be sent."""

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost:
    """The stream is gone, or never came up."""

    session: int
    reason: str
    jitter: int
    """Random, 0 to 65535: where in the window the next try lies."""
    is_refused: bool = False
    """Whether the coordinator wants nothing of this agent as it is: soon is too early to try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A command arrived on a session."""

    session: int
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesObserved:
    """All devices that the host has now. One that was known and is missing has gone."""

    devices: tuple[DeviceFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsWanted:
    """The claims to uploads that this agent has now, all of them."""

    claims: tuple[UploadClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrepared:
    """The build of the lease is on the device."""

    device_id: DeviceId
    key: LeaseKey
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareFailed:
    """The build of the lease could not be put on the device."""

    device_id: DeviceId
    key: LeaseKey
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareStopped:
    """The preparation ended early, as asked."""

    device_id: DeviceId
    key: LeaseKey


@dataclass(frozen=True, slots=True, kw_only=True)
class TestObserved:
    """One test inside the running spec began or ended."""

    __test__ = False  # the name is the domain's, and pytest shall not collect it

    device_id: DeviceId
    key: LeaseKey
    attempt_id: AttemptId
    test: TestResult
    is_resumable: bool = False
    """Whether the run, ended here, could go on at the first test that was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """Nothing of the run is left: its processes are gone and the device is free."""

    device_id: DeviceId
    key: LeaseKey
    attempt_id: AttemptId
    outcome: Outcome | None
    """None when the run was stopped before it had a verdict of its own."""
    failure: Failure | None
    log: LogSummary
    is_resumable: bool = False
    """Whether what was done need not run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested:
    """The operator asked the agent to stop; running tests may end within the grace."""

    grace_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsFlushed:
    """The logs are out, or the time for it has run out."""


Event = (
    Started
    | SessionOpened
    | SessionLost
    | Received
    | DevicesObserved
    | UploadsWanted
    | DevicePrepared
    | PrepareFailed
    | PrepareStopped
    | TestObserved
    | AttemptEnded
    | DrainRequested
    | LogsFlushed
)
