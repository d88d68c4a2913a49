"""What the machine asks for: writes to keep, sends to the coordinator, actions on the host.

The type says the order: commit every write of a step, then deliver its sends, then begin its actions.
"""

from dataclasses import dataclass

from agent.core.model import (
    AttemptId,
    AttemptResult,
    DeviceFacts,
    DeviceId,
    Failure,
    Identity,
    Installation,
    LeasedJob,
    LeaseEcho,
    LeaseKey,
    LeaseSpec,
    TestResult,
    UploadClaim,
    UploadStatus,
)

# Writes ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberCluster:
    """Keep which database and which epoch the agent obeys."""

    cluster_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCluster:
    """Drop everything kept for this database: its ids mean nothing to the next one."""

    cluster_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepResult:
    """Keep a result until it is acknowledged."""

    result: AttemptResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetResults:
    """Drop results that the coordinator holds or will never want."""

    attempt_ids: tuple[AttemptId, ...]


Write = RememberCluster | ForgetCluster | KeepResult | ForgetResults

# Sends ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Open the session with all that the agent is and holds."""

    identity: Identity
    devices: tuple[DeviceFacts, ...]
    leases: tuple[LeaseEcho, ...]
    results: tuple[AttemptResult, ...]
    cluster_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Renew the leases."""

    sequence: int
    leases: tuple[LeaseEcho, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDevices:
    """Replace what the coordinator knows of the devices."""

    devices: tuple[DeviceFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoLease:
    """Tell at once which revision was adopted."""

    echo: LeaseEcho


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInstallation:
    """Tell that the device holds the build of the lease."""

    key: LeaseKey
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectLease:
    """Tell that the batch cannot run on this device."""

    key: LeaseKey
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLease:
    """Give back what has not started."""

    key: LeaseKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportClosed:
    """Tell that nothing of a closed lease is left on its device, and that nothing of it will begin."""

    key: LeaseKey
    device_id: DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStart:
    """Tell that a test run began."""

    key: LeaseKey
    attempt_id: AttemptId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTest:
    """Tell how one test stands; may be lost, because the result repeats it."""

    key: LeaseKey
    attempt_id: AttemptId
    test: TestResult
    is_resumable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """Tell that a test run ended."""

    result: AttemptResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimUploads:
    """Tell all claims to uploads."""

    claims: tuple[UploadClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye:
    """End the session on purpose."""

    reason: str


Send = (
    Hello
    | Heartbeat
    | ReportDevices
    | EchoLease
    | ReportInstallation
    | RejectLease
    | ReleaseLease
    | ReportClosed
    | ReportStart
    | ReportTest
    | ReportResult
    | ClaimUploads
    | Goodbye
)

# Actions --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Connect to the coordinator; ends in SessionOpened or SessionLost of this number."""

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """Give this session up; ends in SessionLost."""

    session: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareDevice:
    """Put the build of the lease on the device; ends in one of DevicePrepared, PrepareFailed, PrepareStopped."""

    lease: LeaseSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPreparing:
    """End a preparation early."""

    device_id: DeviceId
    key: LeaseKey


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAttempt:
    """Run one spec; ends in exactly one AttemptEnded."""

    device_id: DeviceId
    key: LeaseKey
    job: LeasedJob
    installation: Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAttempt:
    """End a run: ask, and after the grace insist."""

    device_id: DeviceId
    key: LeaseKey
    attempt_id: AttemptId
    grace_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndLease:
    """The lease is over and nothing of it runs: its batch can be summed up."""

    device_id: DeviceId
    key: LeaseKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareUploads:
    """Upload builds only with leave of the coordinator from now on; or without, where it gives none."""

    is_shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeUploads:
    """Go by what the coordinator says of the claims to uploads, and share accounts as it says."""

    statuses: tuple[UploadStatus, ...]
    sharers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushLogs:
    """Bring the spooled logs out; ends in LogsFlushed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """The agent holds nothing any more: end the process."""


Action = (
    OpenSession
    | CloseSession
    | PrepareDevice
    | StopPreparing
    | StartAttempt
    | StopAttempt
    | EndLease
    | ShareUploads
    | TakeUploads
    | FlushLogs
    | Exit
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """All that follows from one event, or from one look at the clock."""

    writes: tuple[Write, ...] = ()
    sends: tuple[Send, ...] = ()
    actions: tuple[Action, ...] = ()


NOTHING = Step()
