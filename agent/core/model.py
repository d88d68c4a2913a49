"""Records of the agent's core: leases, attempts, devices. Frozen, and free of any transport."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

AgentId = NewType("AgentId", str)
AttemptId = NewType("AttemptId", int)
DeviceId = NewType("DeviceId", str)
JobId = NewType("JobId", int)
LeaseId = NewType("LeaseId", int)

MICROSECONDS = 1_000_000
"""Microseconds in a second: every span and every instant of the core is an integer of them."""


class Lane(StrEnum):
    """Group of priorities."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


ALL_LANES = tuple(Lane)


class DeviceKind(StrEnum):
    """What a device is."""

    EMULATOR = "emulator"
    DEVICE = "device"
    BROWSERSTACK = "browserstack"


class RevokeReason(StrEnum):
    """Why an attempt was taken back."""

    CANCEL = "cancel"
    PREEMPT = "preempt"
    RELEASE = "release"


class Outcome(StrEnum):
    """How an attempt ended, as far as an agent can say."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LOST = "lost"
    RELEASED = "released"


class Blame(StrEnum):
    """Whose fault a failure was; `NOBODY` also where it is not known."""

    NOBODY = "nobody"
    TEST = "test"
    BUILD = "build"
    DEVICE = "device"
    HOST = "host"


class ArtifactKind(StrEnum):
    """What a file that a run has left is to whoever looks for it."""

    RESULTS = "results"
    JUNIT = "junit"
    JSON_REPORT = "json_report"
    HTML_REPORT = "html_report"
    BLOB_REPORT = "blob_report"
    SCREENSHOT = "screenshot"
    VIDEO = "video"
    TRACE = "trace"
    DEVICE_LOG = "device_log"
    APPIUM_LOG = "appium_log"
    LINK = "link"
    OTHER = "other"


class TestState(StrEnum):
    """How one test inside a spec file stands."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One reading of both clocks, in microseconds."""

    mono_us: int
    """Monotonic: deadlines and spans are counted on it."""
    wall_us: int
    """Since the Unix epoch: for records and people only."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fence:
    """Orders the leases of one device; the higher one governs."""

    epoch: int
    number: int


NO_FENCE = Fence(epoch=0, number=0)
"""Below every fence that a coordinator gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseKey:
    """Names a lease and proves the right to it."""

    lease_id: LeaseId
    fence: Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something did not pass."""

    reason: str
    """UPPER_SNAKE and stable."""
    message: str
    """One line for people: what happened and what to do."""
    blame: Blame


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test inside a spec."""

    __test__ = False  # the name is the domain's, and pytest shall not collect it

    id: str
    title: str
    state: TestState
    duration_us: int = 0
    error: str = ""
    attempt: int = 0
    """Number of the attempt that the result came from, from 1."""
    begin_us: int | None = None
    """When it began, counted from the start of its attempt; None before the machine has seen it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedJob:
    """One attempt of a batch."""

    attempt_id: AttemptId
    job_id: JobId
    attempt_number: int
    test: str
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """More of the environment, masked in all that the test tells."""
    timeout_us: int
    priority: int = 3
    bundle_digest: str = ""
    """SHA-256 of the bundle with the test project; empty for the configured workspace."""
    selector: tuple[tuple[str, str], ...] = ()
    """(attribute, shell-style pattern) of what its device must be like."""
    done: tuple[str, ...] = ()
    """Ids of the tests that earlier attempts have done, and that this one leaves out if it can."""

    @property
    def environment(self) -> dict[str, str]:
        """All that the user gave."""
        return dict((*self.env, *self.secrets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An attempt that must not start, or must end."""

    attempt_id: AttemptId
    reason: RevokeReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSpec:
    """What a lease is, whole: an idempotent snapshot."""

    key: LeaseKey
    revision: int
    device_id: DeviceId
    org_id: str
    app_version_id: str
    jobs: tuple[LeasedJob, ...]
    revoked: tuple[Revocation, ...] = ()
    grace_us: int = 0
    """How long a preempted attempt that runs may take to end."""
    is_canary: bool = False
    """It has no jobs: look whether the device is sound, and whether the build, if one is named, installs and starts."""
    build_digest: str = ""
    """SHA-256 of the registered build, in hexadecimal; empty where the build is looked for by its app version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEcho:
    """What the agent has adopted of a lease, and how far it has come."""

    key: LeaseKey
    revision: int
    started: tuple[AttemptId, ...] = ()
    finished: tuple[AttemptId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The build that a device holds for a lease."""

    digest: str
    is_new: bool
    """False when the device already held the build."""
    duration_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """The whole of an attempt's log: what the receiver must arrive at."""

    size: int = 0
    sha256: str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """The end of one attempt; kept until the coordinator acknowledges it."""

    attempt_id: AttemptId
    key: LeaseKey
    outcome: Outcome
    failure: Failure | None
    tests: tuple[TestResult, ...]
    log: LogSummary
    duration_us: int
    build_digest: str
    is_resumable: bool = False
    """Whether the tests that were done need not run again: nothing in the spec ties the others to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a device is; None for what it does not tell."""

    api_level: int | None = None
    battery_percent: int | None = None
    temperature_decidegrees: int | None = None
    """Of the battery, in tenths of a degree Celsius."""
    free_bytes: int | None = None
    """Of the storage that apps are installed to."""


NO_VITALS = Vitals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose sessions a slot of a cloud uses."""

    name: str
    """The same for all agents that serve it."""
    sessions: int
    """How many may run at once, whoever asks for them."""
    others: int = 0
    """How many run that are not this agent's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadClaim:
    """A build that slots of this agent wait for at an account of a cloud."""

    account: str
    digest: str
    number: int
    """Another one for each claim that this process begins."""
    turn: int = 0
    """0 asks for leave to look whether the account has the build, N for leave to begin the Nth upload."""
    devices: tuple[DeviceId, ...] = ()
    """The slots that wait."""
    url: str = ""
    """Where the build is; with that the claim is at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStatus:
    """How a claim of this agent stands at the coordinator. Ages are in microseconds."""

    account: str
    digest: str
    number: int
    holder: str
    """The agent that has the claim; empty for none."""
    turn: int
    """What this agent has leave for; -1 for nothing."""
    upload_age_us: int | None = None
    """For how long the holder has uploaded the build; None if it does not."""
    url: str = ""
    """Where the build was when an agent said so last."""
    url_age_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the agent knows about one of its devices."""

    id: DeviceId
    kind: DeviceKind
    platform: str = "android"
    model: str = ""
    os_version: str = ""
    udid: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    usable: bool = True
    reason: str = ""
    """Why it is not usable, with the fix; of one that is, what keeps the test on it from going on, if anything does."""
    vitals: Vitals = NO_VITALS
    account: Account | None = None
    """Of a slot of a cloud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this agent process is."""

    agent_id: AgentId
    boot_id: str
    """Random, new at every start of the process."""
    version: str
    host: str
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes that it serves."""
    orgs: tuple[str, ...] = ()
    """The organisations that it serves; none for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The spans that the coordinator sets in its Welcome, in microseconds."""

    heartbeat_us: int = 5 * MICROSECONDS
    lease_ttl_us: int = 30 * MICROSECONDS
    orphan_limit_us: int = 600 * MICROSECONDS
    signal_grace_us: int = 10 * MICROSECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunAttempt:
    """An attempt that an earlier life began, and of whose end nothing is known."""

    attempt_id: AttemptId
    key: LeaseKey
    log: LogSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an agent process finds of its earlier lives when it starts."""

    cluster_id: str = ""
    epoch: int = 0
    results: tuple[AttemptResult, ...] = field(default=())
    """Not acknowledged yet, oldest first."""
    begun: tuple[BegunAttempt, ...] = ()
