"""What a simulation is given and what it gives back. Times are microseconds since the start of the simulation."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.core.model import SECOND_US, AppKey, DeviceKind, JobSpec, Target

TARGET_KINDS: dict[Target, tuple[DeviceKind, ...]] = {
    Target.ANY: (DeviceKind.EMULATOR, DeviceKind.DEVICE),
    Target.EMULATOR: (DeviceKind.EMULATOR,),
    Target.DEVICE: (DeviceKind.DEVICE,),
    Target.BROWSERSTACK: (DeviceKind.BROWSERSTACK,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job of a workload: what was asked for, when, and how long its spec really takes."""

    number: int
    """Its place among all jobs by release, from 0."""
    spec: JobSpec
    release_us: int
    duration_us: int
    tests: int = 1
    """Tests of equal length inside the spec; between two of them it can be stopped without delay, and go on later."""

    @property
    def test_us(self) -> int:
        """How long one of its tests takes."""
        return -(-self.duration_us // self.tests)

    @property
    def app(self) -> AppKey:
        """The build that it needs."""
        return AppKey(org_id=self.spec.org_id, app_version_id=self.spec.app_version_id)

    @property
    def kinds(self) -> tuple[DeviceKind, ...]:
        """The kinds of device that can run it."""
        return TARGET_KINDS[self.spec.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A device that is away for a while; what runs on it is lost."""

    device: int
    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Jobs, and the lab that shall run them."""

    name: str
    runs: tuple[Run, ...]
    """In the order of their release."""
    kinds: tuple[DeviceKind, ...]
    """The kind of each device."""
    install_us: dict[AppKey, int]
    usual_us: dict[tuple[str, str], int] = field(default_factory=dict)
    """(organisation, test) -> how long the test usually takes, for a lab that has run it before."""
    outages: tuple[Outage, ...] = ()
    grace_us: int = 60 * SECOND_US
    """How long a test that is preempted may run on."""


@dataclass(slots=True)
class Fate:
    """What became of a run."""

    start_us: int = -1
    """When its test began first."""
    end_us: int = -1
    stops: int = 0
    """How often it was preempted or lost."""
    done: int = 0
    """Tests that it had run when it was preempted, and that it leaves out from then on."""

    @property
    def is_done(self) -> bool:
        """Whether it ran to its end."""
        return self.end_us >= 0


@dataclass(slots=True)
class Outcome:
    """What a policy made of a workload."""

    policy: str
    workload: Workload
    fates: list[Fate]
    installs: int = 0
    install_us: int = 0
    lost_us: int = 0
    """Device time of what was stopped and had to run again."""
    busy_us: int = 0

    @property
    def makespan_us(self) -> int:
        """When the last job ended."""
        return max((fate.end_us for fate in self.fates), default=0)
