"""What a seed stands for: the lab, the users' wishes and the faults, written down before anything happens.

Whatever fails can therefore be made smaller by taking lines away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agent.core.model import ALL_LANES, DeviceFacts, Lane
from coordinator.core.model import DeviceHold, JobSpec, Settings


class Ending(StrEnum):
    """What a test does if nobody stops it."""

    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"
    CRASHED = "crashed"
    """The device restarts under it."""
    HANGING = "hanging"
    """It neither ends nor obeys; only a kill ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What one try of a job does on its device."""

    span_us: int
    """Of the whole spec, in equal parts of its tests."""
    ending: Ending
    log_bytes: int
    failing: int = 0
    """Which of the tests that run fails, if one does; the last one does whatever else the ending is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    spec: JobSpec
    behaviours: tuple[Behaviour, ...]
    """By the number of the try; they begin anew when there are more tries."""
    tests: tuple[str, ...]
    """Ids of the tests in its spec."""
    is_tied: bool
    """Whether its tests can only run together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    at_us: int
    key: str
    jobs: tuple[PlannedJob, ...]


class WishKind(StrEnum):
    """What a user wants of a job besides running it."""

    CANCEL = "cancel"
    RETRY = "retry"
    FOLLOW = "follow"
    """Read its logs as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    at_us: int
    kind: WishKind
    submission: str
    index: int
    """Of the job in its submission."""


class CrashPoint(StrEnum):
    """Where in its work a coordinator is killed."""

    ANYWHERE = "anywhere"
    BEFORE_COMMIT = "before commit"
    DURING_COMMIT = "during commit"
    """The transaction is on its way: it may still come through, early or late, or not at all."""
    AFTER_COMMIT = "after commit"
    """Nothing of it was told to anybody yet."""


class Direction(StrEnum):
    """Which way of a link is cut."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class KillCoordinator:
    at_us: int
    point: CrashPoint
    down_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeCoordinator:
    at_us: int
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeposeCoordinator:
    """It freezes, another one takes over, and it wakes as if nothing had happened."""

    at_us: int
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDisk:
    at_us: int
    for_us: int
    latency_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KillAgent:
    at_us: int
    agent: str
    is_at_commit: bool
    """Whether it dies right after it has kept its next result, before it tells."""
    down_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseHeartbeats:
    """Of an agent each heartbeat vanishes, and nothing else."""

    at_us: int
    agent: str
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPower:
    """The whole host goes down; what was not synced is lost."""

    at_us: int
    agent: str
    down_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeAgent:
    at_us: int
    agent: str
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAgent:
    at_us: int
    agent: str
    grace_us: int
    down_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplug:
    at_us: int
    agent: str
    device: str
    for_us: int


class Ailment(StrEnum):
    """What ails a device."""

    UNSOUND = "unsound"
    """It takes no build, and looking at it shows why."""
    FLAKY = "flaky"
    """It looks sound, and no test can begin on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SickenDevice:
    """A device fails whatever it is given, and gets well by itself."""

    at_us: int
    agent: str
    device: str
    ailment: Ailment
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    at_us: int
    agent: str
    direction: Direction
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakStreams:
    """Every stream breaks at once."""

    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JumpClocks:
    """Every wall clock is put forward or back."""

    at_us: int
    by_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDevice:
    """An operator takes a device out of work, and lets it work again after a while."""

    at_us: int
    device: str
    hold: DeviceHold
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAgent:
    """An operator drains an agent, and resumes it after a while."""

    at_us: int
    agent: str
    is_interrupting: bool
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareDevice:
    """Another agent sees a device as well, and announces it."""

    at_us: int
    agent: str
    device: str
    for_us: int


Fault = (
    KillCoordinator
    | FreezeCoordinator
    | DeposeCoordinator
    | SlowDisk
    | KillAgent
    | CutPower
    | FreezeAgent
    | DrainAgent
    | LoseHeartbeats
    | Unplug
    | SickenDevice
    | Partition
    | BreakStreams
    | JumpClocks
    | HoldDevice
    | HoldAgent
    | ShareDevice
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAgent:
    name: str
    devices: tuple[DeviceFacts, ...]
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes that it serves."""
    orgs: tuple[str, ...] = ()
    """The organisations that it serves; none for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How the network behaves while there are faults, in per cent of the messages."""

    is_raw: bool = False
    """Messages vanish, are doubled and overtake each other; otherwise streams are in order, and only ever late."""
    lost: int = 0
    doubled: int = 0
    late: int = 0
    longest_delay_us: int = 50_000
    answers_lost: int = 0
    """Of the users' calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    settings: Settings
    agents: tuple[PlannedAgent, ...]
    weather: Weather
    submissions: tuple[Submission, ...]
    wishes: tuple[Wish, ...] = ()
    faults: tuple[Fault, ...] = ()
    calm_us: int = 0
    """When the faults stop."""
    jobs: dict[str, PlannedJob] = field(init=False, repr=False, compare=False)
    """By the path of their spec file, which is unique."""

    def serves(self, agent: str, lane: str, org: str) -> bool:
        """Whether an agent serves a lane, and an organisation."""
        planned = next(planned for planned in self.agents if planned.name == agent)
        return lane in planned.lanes and (not planned.orgs or org in planned.orgs)

    def __post_init__(self) -> None:
        jobs = {job.spec.test: job for submission in self.submissions for job in submission.jobs}
        object.__setattr__(self, "jobs", jobs)
