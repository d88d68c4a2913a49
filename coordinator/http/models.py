"""What comes in and goes out over HTTP, in the words of `qgjob.resources`: checked on the way in, told of both ways."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator.core.artifacts import ArtifactKind
from coordinator.core.explain import Why
from coordinator.core.model import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MIN_PRIORITY,
    AgentState,
    AttemptOutcome,
    Blame,
    DeviceKind,
    DeviceState,
    JobState,
    Lane,
    Target,
    TestState,
)
from coordinator.environment import MAX_ENTRIES, MIN_SECRET
from coordinator.wire import (
    MAX_JOBS_PER_CALL,
    MAX_NAME,
    MAX_PAGE,
    MAX_PATH_BYTES,
    MAX_RETRIES,
    MAX_SELECTOR,
    MAX_STATES,
)

MAX_ID = 2**63 - 1
MAX_INT32 = 2**31 - 1
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Spec = Annotated[str, Field(min_length=1, max_length=MAX_PATH_BYTES, description="A spec file inside the project.")]
Instant = Annotated[str, Field(description="RFC 3339, UTC", examples=["2026-11-24T12:30:05.120Z"])]
Priority = Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY, description="1 (when idle) to 5 (now)")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Submission(_Asked):
    """One job, or several that differ in their spec file alone."""

    org_id: Name
    app_version_id: Name
    test: Spec | None = None
    tests: Annotated[list[Spec], Field(min_length=1, max_length=MAX_JOBS_PER_CALL)] | None = None
    priority: Priority = DEFAULT_PRIORITY
    target: Target = Target.ANY
    selector: Annotated[
        dict[str, str],
        Field(max_length=MAX_SELECTOR, description="Device attribute or label to a shell-style pattern."),
    ] = {}
    env: Annotated[
        dict[str, str], Field(max_length=MAX_ENTRIES, description="Environment of the test; it is shown nowhere.")
    ] = {}
    secrets: Annotated[
        dict[str, Annotated[str, Field(min_length=MIN_SECRET)]],
        Field(max_length=MAX_ENTRIES, description="More of it, masked in all that the test tells."),
    ] = {}
    labels: Annotated[dict[str, str], Field(max_length=MAX_ENTRIES)] = {}
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES, description="For a test that fails or is timed out.")] = 0
    timeout_seconds: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 600
    run: Annotated[str, Field(max_length=MAX_NAME, description="A name for the whole.")] = ""
    strict: Annotated[bool, Field(description="Refuse what no known device could run.")] = False

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "org_id": "qualgent",
                    "app_version_id": "xyz123",
                    "tests": ["tests/onboarding.spec.js", "tests/login.spec.js"],
                    "priority": 5,
                    "target": "emulator",
                    "labels": {"branch": "main"},
                }
            ],
            "oneOf": [
                {"required": ["test"], "properties": {"test": {"type": "string"}, "tests": {"type": "null"}}},
                {"required": ["tests"], "properties": {"tests": {"type": "array"}, "test": {"type": "null"}}},
            ],
        }
    )

    @model_validator(mode="after")
    def _check_tests(self) -> Submission:
        if (self.test is None) == (self.tests is None):
            raise ValueError("give test or tests")
        return self

    @property
    def specs(self) -> list[str]:
        """The spec files."""
        return self.tests if self.tests is not None else [self.test or ""]


class Page(_Asked):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE
    page_token: Annotated[str, Field(max_length=1_024, description="From the `next` link of the page before.")] = ""


class BuildPage(Page):
    """Whose builds, and which part of their list."""

    org_id: Annotated[str, Field(max_length=MAX_NAME, description="An organisation; all without.")] = ""


class Retry(_Asked):
    """Nothing is to be chosen. It is asked for as JSON all the same, which a foreign web page cannot send here."""


class JobQuery(_Asked):
    """Which jobs, and which part of their list."""

    status: Annotated[list[JobState], Field(max_length=MAX_STATES)] = []
    status_filter: Annotated[
        list[JobState],
        Field(max_length=MAX_STATES, description="The same as `status`, by the name of the CLI's option."),
    ] = []
    priority: Priority | None = None
    target: Target | None = None
    app_version_id: Annotated[str, Field(max_length=MAX_NAME)] = ""
    org_id: Annotated[str, Field(max_length=MAX_NAME)] = ""
    run: Annotated[str, Field(max_length=MAX_NAME)] = ""
    label: Annotated[
        list[Annotated[str, Field(pattern=r"^[^=]+=")]],
        Field(max_length=MAX_ENTRIES, description="KEY=VALUE; of several, all.", examples=[["branch=main"]]),
    ] = []
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    history: Annotated[
        bool, Field(description="With `attempts`, `tests` and `earlier_failures`; without, these are empty.")
    ] = True
    page_token: Annotated[
        str, Field(max_length=18, pattern=r"^\d*$", description="From the `next` link of the page before.")
    ] = ""


class LogQuery(_Asked):
    """How much of a log."""

    follow: Annotated[bool, Field(description="Go on until the log is closed, as server-sent events.")] = False
    attempt: Annotated[int | None, Field(ge=1, le=MAX_INT32, description="Of this attempt alone.")] = None
    tail: Annotated[int | None, Field(ge=1, le=MAX_INT32, description="At most so many lines of what is there.")] = None
    timestamps: Annotated[
        bool, Field(description="Before each line, when it was written, where that is known: by the agent's clock.")
    ] = False


class FailureReason(_Told):
    """Why something did not pass."""

    reason: Annotated[str, Field(examples=["TEST_FAILED"])]
    message: str
    blame: Blame | None


class Test(_Told):
    """One test inside the spec."""

    id: str
    title: str
    status: TestState
    start_time: Instant | None
    seconds: float
    error: str | None
    attempt: int


class Attempt(_Told):
    """One try of a job."""

    number: int
    outcome: AttemptOutcome | None
    device: str
    agent: str
    assign_time: Instant | None
    install_time: Annotated[
        Instant | None, Field(description="When the build was on the device; null if it was before.")
    ]
    install_seconds: float | None
    start_time: Instant | None
    end_time: Instant | None
    failure_reason: FailureReason | None
    build_digest: str | None
    log: Literal["open", "complete", "truncated"] | None
    log_size: int


class Job(_Told):
    """One requested run of one spec file.

    Attempts and tests are filled in for a single job and in lists of jobs; the queue and answers to changes lack them.
    """

    id: int
    org_id: str
    app_version_id: str
    test: str
    priority: int
    target: Target
    status: JobState
    lane: Lane
    create_time: Instant | None
    start_time: Instant | None
    end_time: Instant | None
    device: str | None
    agent: str | None
    attempt: int
    attempts: list[Attempt]
    labels: dict[str, str]
    selector: dict[str, str]
    run: str | None
    retries: int
    timeout_seconds: float
    failure_reason: FailureReason | None
    flaky: bool
    cancel_requested: bool
    retry_of: int | None
    preemptions: int
    queue_position: int | None
    build_digest: Annotated[str | None, Field(description="SHA-256 of the build registered when it was accepted.")]
    bundle_digest: Annotated[str | None, Field(description="SHA-256 of the uploaded test project.")]
    expected_start_time: Instant | None
    tests: list[Test]
    earlier_failures: Annotated[
        list[Test], Field(description="Failed results of tests that a later attempt ran again, oldest first.")
    ]

    example: ClassVar[dict[str, Any]] = {
        "id": 123,
        "org_id": "qualgent",
        "app_version_id": "xyz123",
        "test": "tests/onboarding.spec.js",
        "priority": 5,
        "target": "emulator",
        "status": "queued",
        "lane": "high",
        "create_time": "2026-11-24T12:30:05.120Z",
        "start_time": None,
        "end_time": None,
        "device": None,
        "agent": None,
        "attempt": 0,
        "attempts": [],
        "labels": {"branch": "main"},
        "selector": {},
        "run": None,
        "retries": 0,
        "timeout_seconds": 600.0,
        "failure_reason": None,
        "flaky": False,
        "cancel_requested": False,
        "retry_of": None,
        "preemptions": 0,
        "build_digest": None,
        "bundle_digest": None,
        "queue_position": 1,
        "expected_start_time": None,
        "tests": [],
        "earlier_failures": [],
    }


class JobAlone(Job):
    """A job that is looked at alone."""

    why: Annotated[str | None, Field(description="Of a job that has not begun: what keeps it, in whole sentences.")] = (
        None
    )

    example: ClassVar[dict[str, Any]] = {
        **Job.example,
        "why": "Every device that matches is busy. 1 job is ahead of it. It is expected to start in about 1m 20s.",
    }


class Explanation(_Told):
    """Why a job waits, what it does, or how it ended."""

    id: int
    status: JobState
    reason: Why | Literal["ended"]
    message: Annotated[str, Field(description="The same for people, in whole sentences.")]
    queue_position: Annotated[int | None, Field(description="Among the jobs that the same devices can run, from 1.")]
    expected_start_time: Instant | None
    matching_devices: int
    usable_devices: int
    device: Annotated[str | None, Field(description="Where it is, or which device is the nearest.")]
    blocking_job: Annotated[int | None, Field(description="What runs there.")]
    device_free_time: Instant | None

    example: ClassVar[dict[str, Any]] = {
        "id": 123,
        "status": "queued",
        "reason": "busy",
        "message": (
            "The only device that matches and works, emulator-5554@lab-1, is busy: job 120 is at work there,"
            " for about 40s with its batch. 1 job is ahead of it. It is expected to start in about 1m 20s."
        ),
        "queue_position": 2,
        "expected_start_time": "2026-11-24T12:31:25.120Z",
        "matching_devices": 1,
        "usable_devices": 1,
        "device": "emulator-5554@lab-1",
        "blocking_job": 120,
        "device_free_time": "2026-11-24T12:30:45.120Z",
    }


class Artifact(_Told):
    """A file that an attempt left behind."""

    attempt: Annotated[int, Field(description="Number of the attempt, from 1.")]
    name: Annotated[str, Field(description="A relative path, unique in the attempt.")]
    kind: ArtifactKind
    content_type: str
    size: int
    sha256: str
    create_time: Instant
    url: Annotated[str | None, Field(description="Of a link: where it leads.")]

    example: ClassVar[dict[str, Any]] = {
        "attempt": 1,
        "name": "test-results/login-works/screenshot.png",
        "kind": "screenshot",
        "content_type": "image/png",
        "size": 48213,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "create_time": "2026-11-24T12:31:25.120Z",
        "url": None,
    }


class Build(_Told):
    """What an app version is."""

    org_id: str
    app_version_id: str
    digest: str
    registered: Annotated[bool, Field(description="Whether it was uploaded, or only seen on a device.")]
    size: int | None
    file_name: str | None
    platform: Annotated[str | None, Field(description="android or ios, where the binary tells.")]
    device_kind: Annotated[DeviceKind | None, Field(description="The only kind of device that it was built for.")]
    installs: int
    create_time: Instant
    register_time: Instant | None
    install_time: Instant | None

    example: ClassVar[dict[str, Any]] = {
        "org_id": "qualgent",
        "app_version_id": "xyz123",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "registered": True,
        "size": 31457280,
        "file_name": "app.apk",
        "platform": "android",
        "device_kind": None,
        "installs": 3,
        "create_time": "2026-11-24T12:30:05.120Z",
        "register_time": "2026-11-24T12:30:05.120Z",
        "install_time": "2026-11-24T12:31:00.000Z",
    }


class InstalledBuild(_Told):
    """A build that is on a device."""

    org_id: str
    app_version_id: str
    digest: str


class Device(_Told):
    """A phone, emulator or cloud slot."""

    id: str
    kind: DeviceKind
    platform: str
    model: str
    os_version: str
    state: DeviceState
    agent: str
    job: int | None
    builds: list[InstalledBuild]
    utilisation: Annotated[float, Field(description="Leased share of the last hour, 0 to 1.")]
    labels: dict[str, str]
    reason: Annotated[str | None, Field(description="Why it is held or cannot be used, with what to do about it.")]
    contested_by: Annotated[list[str], Field(description="Other agents that announce it too; it stays where it is.")]
    api_level: int | None
    battery: Annotated[int | None, Field(description="Charge in percent.")]
    temperature: Annotated[float | None, Field(description="Of the battery, in degrees Celsius.")]
    storage_free: Annotated[int | None, Field(description="Free bytes of the storage that apps are installed to.")]

    example: ClassVar[dict[str, Any]] = {
        "id": "lab-1/emulator-5554",
        "kind": "emulator",
        "platform": "android",
        "model": "Pixel 8",
        "os_version": "14",
        "state": "idle",
        "agent": "lab-1",
        "job": None,
        "builds": [{"org_id": "qualgent", "app_version_id": "xyz123", "digest": "9f86d081884c7d65"}],
        "utilisation": 0.42,
        "labels": {},
        "reason": None,
        "contested_by": [],
        "api_level": 34,
        "battery": 87,
        "temperature": 27.0,
        "storage_free": 6442450944,
    }


class Agent(_Told):
    """A host process that holds devices."""

    name: str
    state: AgentState
    host: str
    version: str
    draining: bool
    lanes: Annotated[list[Lane], Field(description="Its devices get only jobs that were submitted in these.")]
    orgs: Annotated[list[str], Field(description="Its devices get only jobs of these organisations; empty for all.")]
    devices: int
    conflicting_devices: Annotated[
        list[str], Field(description="Devices that it announces and does not get, for other agents have them.")
    ]
    batches: int
    seen_time: Instant | None
    connect_time: Instant | None


class LaneStatus(_Told):
    """One lane; active is queued and running together."""

    lane: Lane
    active: int
    queued: int
    running: int


class Batch(_Told):
    """A batch that a device works on."""

    device: str
    org_id: str
    app_version_id: str
    job: Annotated[int | None, Field(description="What runs now.")]
    jobs_left: Annotated[int, Field(description="That have not ended.")]
    jobs_done: int
    grant_time: Instant | None


class QueueStatus(_Told):
    """The queue at a glance; of running and waiting jobs at most 1,000 each are listed."""

    lanes: list[LaneStatus]
    running: list[Job]
    waiting: list[Job]
    installs_avoided: int
    seconds_saved: float
    expected_drain_time: Instant | None
    batches: list[Batch]
    devices: Annotated[dict[DeviceState, int], Field(description="How many stand in each state that occurs.")]


class Health(_Told):
    """That all is well."""

    status: Literal["ok"]


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="For people.")]
    reason: Annotated[str, Field(description="For programs.")]
    fields: dict[str, str]
