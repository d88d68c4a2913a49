"""Facts that reach the scheduler, in the past tense.

Facts from agents carry the session that brought them. Results are judged by lease and fence, never by session: a
result that comes late over a new stream counts as much as over the old one.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.model import (
    ALL_LANES,
    AgentId,
    AttemptId,
    AttemptOutcome,
    DeviceFacts,
    DeviceHold,
    DeviceId,
    DeviceKind,
    Failure,
    Fence,
    Job,
    JobId,
    JobSpec,
    Lane,
    LeaseId,
    Request,
    SessionId,
    TestResult,
    UploadKey,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSubmitted:
    """A user asked for jobs.

    `known` is the earlier request under the same key, if there is one; `spent` are the jobs of one, all of them pruned.
    """

    org_id: str
    key: str
    payload_sha256: str
    specs: tuple[JobSpec, ...]
    is_strict: bool = False
    known: Request | None = None
    spent: tuple[JobId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequested:
    """A user asked for another run of a terminal job."""

    job: Job
    key: str
    payload_sha256: str
    known: Request | None = None
    spent: tuple[JobId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """A user asked for the end of jobs. Those that are not live any more are left alone."""

    jobs: tuple[JobId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequested:
    """An operator asked to keep new work off a device."""

    device: DeviceId
    hold: DeviceHold
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadmitRequested:
    """An operator asked to let a device work again."""

    device: DeviceId
    host_is_gone: bool = False
    """The operator knows that nothing works on a FENCING device any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRequested:
    """A user asked that an app version be a binary that was uploaded."""

    org_id: str
    app_version_id: str
    digest: str
    size: int
    file_name: str
    is_replacing: bool = False
    """Whether it may take the place of another binary."""
    platform: str = ""
    """android or ios, where the binary tells."""
    kind: DeviceKind | None = None
    """The only kind of device that it was built for, where it tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDrainRequested:
    """An operator asked to keep new work off all devices of an agent, or (`is_draining` false) not to any more."""

    agent: AgentId
    is_draining: bool
    is_interrupting: bool = False
    """Whether what runs is ended as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentForgetRequested:
    """An operator asked to forget an agent that will not come back, and all of its devices."""

    agent: AgentId


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEcho:
    """What an agent has adopted of a lease."""

    lease: LeaseId
    fence: Fence
    revision: int
    started: tuple[AttemptId, ...] = ()
    finished: tuple[AttemptId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A test run ended."""

    session: SessionId
    lease: LeaseId
    fence: Fence
    attempt: AttemptId
    outcome: AttemptOutcome
    failure: Failure | None = None
    tests: tuple[TestResult, ...] = ()
    is_resumable: bool = False
    """Whether the tests that were done need not run again: nothing in the spec ties the others to them."""
    log_size: int = 0
    log_sha256: str = ""
    build_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConnected:
    """An agent opened a session with Hello."""

    session: SessionId
    agent: AgentId
    boot_id: str
    version: str
    host: str
    devices: tuple[DeviceFacts, ...]
    leases: tuple[LeaseEcho, ...] = ()
    results: tuple[AttemptFinished, ...] = ()
    is_stranger: bool = False
    """It comes from another database, so it has nothing of what this one may believe it holds."""
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes that it serves."""
    orgs: tuple[str, ...] = ()
    """The organisations that it serves, sorted; none for all."""
    answers_close: bool = False
    """Whether it says when nothing of a closed lease is left; agents of older releases do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDisconnected:
    """A session ended; `is_goodbye` when the agent said so itself."""

    session: SessionId
    is_goodbye: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReceived:
    """An agent lives, and this is what it has adopted."""

    session: SessionId
    sequence: int
    leases: tuple[LeaseEcho, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAdopted:
    """An agent has adopted a revision of a lease."""

    session: SessionId
    echo: LeaseEcho


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseClosed:
    """Nothing of a lease that was closed is left on its device, and nothing of it will begin."""

    session: SessionId
    lease: LeaseId
    device: DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesReported:
    """An agent's devices, whole."""

    session: SessionId
    devices: tuple[DeviceFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadClaim:
    """A build that slots of an agent wait for at an account of a cloud."""

    key: UploadKey
    turn: int = 0
    """0 asks for leave to look whether it is there, N for the Nth upload."""
    devices: tuple[DeviceId, ...] = ()
    """The slots that wait."""
    url: str = ""
    """Where the build is; with that the claim is at its end."""
    number: int = 0
    """Another one for each claim that an agent begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadsClaimed:
    """An agent said which uploads it claims, all of them."""

    session: SessionId
    claims: tuple[UploadClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInstalled:
    """The device of a lease holds its build. `install_us` is 0 when it already did."""

    session: SessionId
    lease: LeaseId
    fence: Fence
    digest: str
    install_us: int
    was_installed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRejected:
    """The agent cannot run the batch."""

    session: SessionId
    lease: LeaseId
    fence: Fence
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReleased:
    """The agent gives the lease back."""

    session: SessionId
    lease: LeaseId
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """A test run began."""

    session: SessionId
    lease: LeaseId
    fence: Fence
    attempt: AttemptId


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReported:
    """One test inside a spec began or ended."""

    __test__ = False

    session: SessionId
    lease: LeaseId
    fence: Fence
    attempt: AttemptId
    test: TestResult
    is_resumable: bool = False
    """Whether the run, ended here, loses none of the tests that were done."""


UserEvent = (
    JobsSubmitted
    | RetryRequested
    | CancelRequested
    | HoldRequested
    | ReadmitRequested
    | RegistrationRequested
    | AgentDrainRequested
    | AgentForgetRequested
)
AgentEvent = (
    AgentConnected
    | AgentDisconnected
    | HeartbeatReceived
    | LeaseAdopted
    | LeaseClosed
    | DevicesReported
    | UploadsClaimed
    | BuildInstalled
    | LeaseRejected
    | LeaseReleased
    | AttemptStarted
    | TestReported
    | AttemptFinished
)
Event = UserEvent | AgentEvent
