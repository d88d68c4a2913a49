"""Frozen records of the lab: what jobs, attempts, leases, devices and agents are.

Times are integers: `mono_us` microseconds of a monotonic clock for deadlines, `wall_us` microseconds since the Unix
epoch for records that people read. Spans end in `_us`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, NewType

from coordinator.core.records import changed as changed
from coordinator.core.records import drafted

JobId = NewType("JobId", int)
AttemptId = NewType("AttemptId", int)
LeaseId = NewType("LeaseId", int)
SubmitSequence = NewType("SubmitSequence", int)
DeviceId = NewType("DeviceId", str)
AgentId = NewType("AgentId", str)
SessionId = NewType("SessionId", int)

SECOND_US = 1_000_000
NOTHING: Mapping[str, str] = MappingProxyType({})
NO_NUMBERS: Mapping[str, int] = MappingProxyType({})

MIN_PRIORITY, DEFAULT_PRIORITY, MAX_PRIORITY = 1, 3, 5
URGENT_PRIORITY = 4
"""From here on a job may preempt."""
PREEMPTIBLE_PRIORITY = 2
"""Up to here a job makes room, as submitted: else two aged jobs could throw each other out for ever."""
MAX_PREEMPTIONS = 2
MOST_AGED_PRIORITY = 3
"""Waiting lifts a job up to here: those of priority 4 and 5 are asked for, never grown into."""
DEFAULT_TIMEOUT_US = 600 * SECOND_US
KNOWN_APPS = 16_384
LAB_BUDGET = 3
"""Attempts of a job that may end by the lab's fault before the job does."""
REJECTING_DEVICES = 2
"""So many devices that refuse a build for its own reason make it a broken one."""
BUILD_REFUSED = "BUILD_REFUSED"
"""What an agent calls an install that fails for the build's own reason: its bytes, its signature, its ABI."""
BUILD_REJECTED = "BUILD_REJECTED"
"""What ends the jobs of a build that several devices have refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One reading of both clocks."""

    mono_us: int
    wall_us: int


class Target(StrEnum):
    """Kind of device that a job asks for; `any` is an emulator or a phone."""

    ANY = "any"
    EMULATOR = "emulator"
    DEVICE = "device"
    BROWSERSTACK = "browserstack"


class Lane(StrEnum):
    """Group of priorities."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class AttemptOutcome(StrEnum):
    """How one try ended."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LOST = "lost"
    REJECTED = "rejected"
    RELEASED = "released"


class LeaseState(StrEnum):
    """Where a lease stands; the last three are terminal."""

    OFFERED = "offered"
    ACTIVE = "active"
    DISCONNECTED = "disconnected"
    REVOKING = "revoking"
    RELEASED = "released"
    REVOKED = "revoked"
    EXPIRED = "expired"


class DeviceKind(StrEnum):
    """What a device is."""

    EMULATOR = "emulator"
    DEVICE = "device"
    BROWSERSTACK = "browserstack"


class DeviceState(StrEnum):
    """What may be done with a device."""

    IDLE = "idle"
    RESERVED = "reserved"
    LEASED = "leased"
    FENCING = "fencing"
    QUARANTINED = "quarantined"
    DRAINING = "draining"
    OFFLINE = "offline"


class DeviceHold(StrEnum):
    """Why new work is kept off a device."""

    QUARANTINE = "quarantine"
    DRAIN = "drain"
    SUSPICION = "suspicion"
    """By the scheduler itself: the device seems to be at fault, and comes back when its canary passes."""


class AgentState(StrEnum):
    """Whether an agent can be given work."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    STOPPED = "stopped"


class Blame(StrEnum):
    """Whose fault a failure was."""

    TEST = "test"
    BUILD = "build"
    DEVICE = "device"
    HOST = "host"


class TestState(StrEnum):
    """How one test inside a spec stands."""

    __test__ = False

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


class RevokeReason(StrEnum):
    """Why an attempt was taken back from an agent."""

    CANCEL = "cancel"
    PREEMPT = "preempt"
    RELEASE = "release"
    """An operator needs the device."""


TERMINAL_JOB_STATES = frozenset(
    {JobState.COMPLETED, JobState.FAILED, JobState.ERRORED, JobState.TIMED_OUT, JobState.CANCELLED}
)
TERMINAL_LEASE_STATES = frozenset({LeaseState.RELEASED, LeaseState.REVOKED, LeaseState.EXPIRED})
FATAL_REASONS = frozenset(
    {"SPEC_NOT_FOUND", "BUILD_NOT_FOUND", "BUILD_INVALID", BUILD_REJECTED, "BUNDLE_INVALID", "PROJECT_INVALID"}
)
"""Failures that no other device and no other try can mend: the job ends FAILED at once."""


ALL_LANES = tuple(Lane)


LANE_OF = MappingProxyType({1: Lane.LOW, 2: Lane.NORMAL, 3: Lane.NORMAL, 4: Lane.HIGH, 5: Lane.HIGH})
"""Priority -> the lane that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something did not pass."""

    reason: str
    message: str
    blame: Blame | None = None

    @property
    def is_fatal(self) -> bool:
        """Whether trying again is pointless."""
        return self.reason in FATAL_REASONS


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What a user asked for; never changed after it was accepted."""

    org_id: str
    app_version_id: str
    test: str
    priority: int = DEFAULT_PRIORITY
    target: Target = Target.ANY
    selector: tuple[tuple[str, str], ...] = ()
    """(attribute, shell-style pattern), sorted by attribute."""
    env: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    secrets: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)
    """More of the environment, masked by agents in all that the test tells."""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    retries: int = 0
    timeout_us: int = DEFAULT_TIMEOUT_US
    run: str = ""
    bundle_digest: str = ""
    """SHA-256 of the uploaded test project; empty for the agents' own."""

    @property
    def lane(self) -> Lane:
        """The lane of its priority."""
        return LANE_OF[self.priority]


@dataclass(frozen=True, slots=True)
class KeptTest:
    """A test that is done, and that the job's next attempt leaves out; see `kept`."""

    id: str
    error: str = ""
    """Why it did not pass, in a line; empty if it did."""


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One requested run of one spec file."""

    id: JobId
    sequence: SubmitSequence
    spec: JobSpec
    state: JobState
    create_us: int
    start_us: int | None = None
    end_us: int | None = None
    attempt: AttemptId | None = None
    """The current or last attempt."""
    attempt_count: int = 0
    device: DeviceId | None = None
    agent: AgentId | None = None
    failure: Failure | None = None
    flaky: bool = False
    is_cancel_requested: bool = False
    retries_used: int = 0
    lab_failures: int = 0
    avoid: tuple[DeviceId, ...] = ()
    """Devices on which the lab failed it, sorted: tried elsewhere first."""
    preemptions: int = 0
    kept: tuple[KeptTest, ...] = ()
    """Tests that attempts which made room have done."""
    retry_of: JobId | None = None
    build_digest: str = ""
    """SHA-256 of the build that was registered when it was accepted; empty where none was."""
    can_spill: bool = False
    """Whether a slot of a cloud may run it where no device of the lab is free, though it did not ask for one."""
    kept_org: str = field(default="", compare=False)
    """Its organisation, where agents are kept for that: its jobs wait in pools of their own. What agents say of
    themselves decides, so it is no part of the record."""

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.state in TERMINAL_JOB_STATES

    @property
    def app(self) -> AppKey:
        """The build that it is tested against."""
        return app_key(self.spec.org_id, self.spec.app_version_id, self.build_digest)


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a job on one device."""

    id: AttemptId
    job: JobId
    number: int
    lease: LeaseId
    device: DeviceId
    agent: AgentId
    assign_us: int
    start_us: int | None = None
    end_us: int | None = None
    outcome: AttemptOutcome | None = None
    failure: Failure | None = None
    build_digest: str = ""
    log_size: int = 0
    log_sha256: str = ""
    install_end_us: int | None = None
    """When its batch had put the build on the device; None where the device held it before the attempt was assigned."""
    install_us: int | None = None
    """How long that took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One test inside the spec, as the attempt that last ran it saw it."""

    __test__ = False

    id: str
    title: str
    state: TestState
    duration_us: int = 0
    error: str = ""
    begin_us: int | None = None
    """When it began, counted from the start of its attempt; None where its agent does not tell."""


@dataclass(frozen=True, slots=True, order=True)
class Fence:
    """Orders the leases of one device over all lives of the coordinator."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppKey:
    """Names a build: by its digest where it was registered, else by its app version.

    App versions that are the same binary are the same build: they share batches and installs.
    """

    org_id: str
    app_version_id: str = field(compare=False)
    digest: str = ""
    """SHA-256 of the registered binary, in hexadecimal; empty where agents look for the build themselves."""
    unregistered: str = field(init=False, repr=False)
    """What tells builds apart that have no digest."""
    hash: int = field(init=False, repr=False, compare=False)
    """Worked out once: every decision looks builds up."""

    def __post_init__(self) -> None:
        unregistered = "" if self.digest else self.app_version_id
        object.__setattr__(self, "unregistered", unregistered)
        object.__setattr__(self, "hash", hash((self.org_id, self.digest, unregistered)))

    def __hash__(self) -> int:
        return self.hash

    @property
    def version(self) -> AppKey:
        """The app version, whatever binary it is."""
        return AppKey(org_id=self.org_id, app_version_id=self.app_version_id) if self.digest else self


@lru_cache(maxsize=KNOWN_APPS)
def app_key(org_id: str, app_version_id: str, digest: str) -> AppKey:
    """Return the name of a build; the many jobs of one share it."""
    return AppKey(org_id=org_id, app_version_id=app_version_id, digest=digest)


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTally:
    """What a batch has done so far."""

    started: int = 0
    passed: int = 0
    failed: int = 0
    other: int = 0
    installs: int = 0
    install_us: int = 0


NO_TALLY = BatchTally()


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The fenced, renewable right of an agent to run a batch on a device."""

    id: LeaseId
    fence: Fence
    device: DeviceId
    agent: AgentId
    boot_id: str
    app: AppKey
    target: Target
    state: LeaseState
    revision: int
    grant_us: int
    end_us: int | None = None
    attempts: tuple[AttemptId, ...] = ()
    """Attempts that have not ended, in the order in which they shall run."""
    revoked: tuple[tuple[AttemptId, RevokeReason], ...] = ()
    """Those of `attempts` that must not run on."""
    tally: BatchTally = field(default_factory=lambda: NO_TALLY)
    install_end_us: int | None = None
    """When the build had been put on the device; None while it has not, and where the device held it already."""
    is_canary: bool = False
    """It has no attempts: the agent looks whether the device is sound, and the build can be installed and started."""

    @property
    def is_live(self) -> bool:
        """Whether it still governs its device."""
        return self.state not in TERMINAL_LEASE_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a device is, as its agent saw it last; None for what it does not tell."""

    api_level: int | None = None
    battery_percent: int | None = None
    temperature_decidegrees: int | None = None
    """Of the battery, in tenths of a degree Celsius."""
    free_bytes: int | None = None
    """Of the storage that apps are installed to."""


NO_VITALS = Vitals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose sessions a slot of a cloud uses, as its agent saw it last."""

    name: str
    """The same for all agents that serve it."""
    sessions: int = 0
    """How many may run at once, whoever asks for them; 0 where that is not known."""
    others: int = 0
    """How many run that are not the agent's own."""


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What an agent knows about one of its devices."""

    id: DeviceId
    kind: DeviceKind
    platform: str = "android"
    model: str = ""
    os_version: str = ""
    udid: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    is_usable: bool = True
    reason: str = ""
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes that its agent keeps it for, by the priorities with which jobs were submitted."""
    orgs: tuple[str, ...] = ()
    """The organisations that its agent keeps it for, sorted; none for all."""
    vitals: Vitals = field(default_factory=lambda: NO_VITALS)
    account: Account | None = None
    """Of a slot of a cloud. Only its name is kept over restarts: how it stands the agents say again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A failure that tells against a device."""

    subject: str
    """What failed: a test, or the install of a build."""
    reason: str
    age: int = 0
    """Attempts that have ended on the device since."""


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One phone, emulator or cloud slot."""

    facts: DeviceFacts
    agent: AgentId
    state: DeviceState
    fence_number: int = 0
    lease: LeaseId | None = None
    app: AppKey | None = None
    """The app version whose build was installed last, with its digest."""
    app_digest: str = ""
    busy_us: int = 0
    """Leased time in the last hour, as a moving average; see `fleet.busy_after`."""
    free_us: int = 0
    """Wall time at which its last lease ended; 0 if it never had one."""
    seen_us: int = 0
    hold: DeviceHold | None = None
    """Set and lifted by an operator, or by suspicion; its agent has no say in it."""
    hold_reason: str = ""
    marks: tuple[Mark, ...] = ()
    """What tells against it, the oldest first."""
    relapses: int = 0
    """How often it was found to be at fault, less the tests that passed since; its canary waits longer for each."""

    @property
    def id(self) -> DeviceId:
        """The device's id."""
        return self.facts.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The host process that owns devices."""

    id: AgentId
    state: AgentState
    boot_id: str
    version: str
    host: str
    seen_us: int
    connect_us: int
    is_draining: bool = False
    """An operator keeps new work off all of its devices."""
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes that it serves; the same as long as its process lives."""
    orgs: tuple[str, ...] = ()
    """The organisations that it serves, sorted, none for all; the same as long as its process lives."""


PLATFORM = "platform"
"""Name of the demand on a device's platform."""
ANDROID, IOS = "android", "ios"
PLATFORMS = (ANDROID, IOS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """The app binary of an app version, as it was registered or as the lab has seen it."""

    app: AppKey
    """The app version; without a digest, for that changes."""
    digest: str
    """Of the registered binary, else of the one that was installed last."""
    create_us: int
    install_us: int = 0
    """When it was installed last; 0 if never."""
    installs: int = 0
    mean_install_us: int = 0
    """Moving average of the time one install took; 0 if none was made."""
    size: int = 0
    file_name: str = ""
    register_us: int = 0
    """When this binary was registered; 0 where none is."""
    platform: str = ""
    """android or ios, as the registered binary tells; empty where it does not."""
    kind: DeviceKind | None = None
    """The only kind of device that it was built for; None where it runs on all, or does not tell."""

    @property
    def registered(self) -> str:
        """The digest of the registered binary, empty where none is."""
        return self.digest if self.register_us else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConflict:
    """A device that an agent announces and another one has."""

    device: DeviceId
    owner: AgentId
    """Who has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What devices did with a build that they were to install."""

    app: AppKey
    refused_by: tuple[DeviceId, ...] = ()
    """The devices that refused it for its own reason since one took it, one for each time."""
    is_taken: bool = False
    """Whether a device ever took these very bytes."""
    note_us: int = 0
    """When that was noted."""

    @property
    def is_broken(self) -> bool:
        """Whether two devices refused it, or one as often as a job has tries: where it is alone, no other can tell."""
        return len(set(self.refused_by)) >= REJECTING_DEVICES or len(self.refused_by) >= LAB_BUDGET

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is known."""
        return not self.refused_by and not self.is_taken


class UploadKey(NamedTuple):
    """A build at an account of a cloud."""

    account: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A build that an agent brings, or has brought, to an account of a cloud. Times are wall time."""

    account: str
    digest: str
    agent: AgentId
    """Who uploads it, or said last that it is there."""
    begin_us: int
    end_us: int | None = None
    """When it was there; None while it is uploaded."""
    url: str = ""
    """Where it is."""

    @property
    def key(self) -> UploadKey:
        """What it is found by."""
        return UploadKey(self.account, self.digest)

    @property
    def is_given_up(self) -> bool:
        """Whether it ended without the build being there: nothing is known any more."""
        return self.end_us is not None and not self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStatus:
    """How the claim of an agent to the upload of a build stands."""

    key: UploadKey
    number: int
    """Of the claim."""
    holder: AgentId | None
    """Who has the claim."""
    turn: int
    """What the agent itself has leave for: 0 to look whether the build is there, N for the Nth upload; -1 for none."""
    upload: Upload | None
    """What is known of the build there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where a test, or an install, has failed since it passed last."""

    subject: str
    places: tuple[tuple[DeviceId, bool], ...] = ()
    """Device, and whether it failed there as tests do and not by the lab's fault; none where it passed since."""
    note_us: int = 0
    """When it failed last."""


class TestKey(NamedTuple):
    """Names what the durations of a test are kept under."""

    org_id: str
    test: str
    kind: DeviceKind


TestKey.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's, and no field either


@drafted
@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """How long a test took; see `durations`."""

    key: TestKey
    count: int
    mean: int
    """Of the logarithms of microseconds, in fractions of 1/65536; so is `deviation`."""
    deviation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A submit that was accepted under an idempotency key."""

    org_id: str
    key: str
    payload_sha256: str
    jobs: tuple[JobId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Everything that only rises; written in the transaction that uses it."""

    epoch: int = 0
    next_job: int = 1
    next_attempt: int = 1
    next_lease: int = 1
    next_sequence: int = 1
    installs_avoided: int = 0
    saved_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the scheduler's policy goes by; docs/scheduling.md says why these are the figures."""

    split_installs: int = 4
    """A family gets another device only while each of its devices then has work for so many installs."""
    urgent_split_installs: int = 1
    """The same for work of priority 4 and 5, which would rather run now."""
    split_percent: int = 100
    """And only while each of its devices then has so much of what each device of its pool has before it."""
    batch_least_us: int = 120 * SECOND_US
    """A batch is filled with this much work, or with that of `split_installs` installs, whichever is more."""
    batch_most_us: int = 600 * SECOND_US
    """A batch is never filled with more; after this time a device goes to a family that has none."""
    long_us: int = 40 * SECOND_US
    """No test that takes less is called long."""
    long_parts: int = 3
    """A long test comes first among those that were submitted with it once it takes this part of what each device of
    its family has before it."""
    lag_us: int = 600 * SECOND_US
    """A device goes on with the build that it holds until its organisation is so far ahead of another."""
    age_us: int = 3_600 * SECOND_US
    """A job counts one priority higher for each such wait, up to `MOST_AGED_PRIORITY`."""
    guarantee_wait_us: int = 7_200 * SECOND_US
    """Who has waited longer has a guaranteed share in the devices of its pool."""
    guarantee_every: int = 10
    """One decision of so many goes to the oldest of those."""
    weights: Mapping[str, int] = field(default_factory=lambda: NO_NUMBERS)
    """Organisation -> its share of the lab in hundredths of the usual."""
    quotas: Mapping[str, int] = field(default_factory=lambda: NO_NUMBERS)
    """Organisation -> devices that it may have at once."""
    default_quota: int = 0
    """Devices at once of an organisation that `quotas` does not name; 0 for any number."""
    spill: Mapping[str, int] = field(default_factory=lambda: NO_NUMBERS)
    """Organisation -> the least priority with which its jobs of `any` may use slots of a cloud; others never do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator may turn; told to agents in Welcome."""

    heartbeat_us: int = 5 * SECOND_US
    lease_ttl_us: int = 30 * SECOND_US
    orphan_limit_us: int = 600 * SECOND_US
    signal_grace_us: int = 10 * SECOND_US
    preempt_grace_us: int = 60 * SECOND_US
    canary_wait_us: int = 5 * SECOND_US
    """How long a device that seems to be at fault is left alone before its first canary; twice as long for the next."""
    canary_most_us: int = 1_800 * SECOND_US
    max_batch: int = 100
    """Jobs that one lease holds at a time, at most."""
    max_queued_per_org: int = 1_000_000
    max_pools_per_org: int = 64
    """Different requests for devices (target, selector) that one organisation may have in the queue."""
    max_pools: int = 1_024
    rules: Rules = field(default_factory=Rules)
