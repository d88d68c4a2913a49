"""Synthetic workloads, made from a seed: nothing in here was measured in anybody's lab.

Durations are lognormal with a heavy tail, jobs come in bursts by build (20-200 specs), the sizes of organisations
follow Zipf's law, an install takes 5-15 s, and 50 devices stand in three pools.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from coordinator.core.model import SECOND_US, AppKey, DeviceKind, JobSpec, Target
from coordinator.simulation.model import Outage, Run, Workload

LAB = (DeviceKind.EMULATOR,) * 25 + (DeviceKind.DEVICE,) * 18 + (DeviceKind.BROWSERSTACK,) * 7
ORGS = 8
TARGETS = ((Target.EMULATOR, 40), (Target.DEVICE, 28), (Target.ANY, 18), (Target.BROWSERSTACK, 14))
PRIORITIES = ((1, 15), (2, 20), (3, 45), (4, 12), (5, 8))
MEDIAN_SPEC_S = 25.0
SPEC_SIGMA = 0.7
NOISE_SIGMA = 0.15
TAIL_SHARE = 0.02
LONGEST_SPEC_S = 500.0
HOUR_US = 3600 * SECOND_US


@dataclass(frozen=True, slots=True)
class Burst:
    """What one push to CI submits."""

    app: AppKey
    target: Target
    priority: int
    release_us: int
    specs: int


class Draw:
    """Draws workloads from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.install_us: dict[AppKey, int] = {}
        self._usual_s: dict[tuple[str, str], float] = {}
        self._builds = 0

    def org(self) -> str:
        weights = [1 / (rank + 1) for rank in range(ORGS)]
        return f"org-{self.random.choices(range(ORGS), weights)[0] + 1}"

    def choice(self, table: tuple[tuple[object, int], ...]) -> object:
        return self.random.choices([one for one, _ in table], [weight for _, weight in table])[0]

    def target(self) -> Target:
        target = self.choice(TARGETS)
        assert isinstance(target, Target)
        return target

    def priority(self) -> int:
        priority = self.choice(PRIORITIES)
        assert isinstance(priority, int)
        return priority

    def specs(self) -> int:
        return round(math.exp(self.random.uniform(math.log(20), math.log(200))))

    def app(self, org: str) -> AppKey:
        self._builds += 1
        app = AppKey(org_id=org, app_version_id=f"build-{self._builds}")
        self.install_us[app] = round(self.random.uniform(5, 15) * SECOND_US)
        return app

    def duration_us(self, org: str, test: str) -> int:
        """Return how long a test takes this time: about as long as it usually does."""
        usual = self._usual_s.get((org, test))
        if usual is None:
            usual = self.random.lognormvariate(math.log(MEDIAN_SPEC_S), SPEC_SIGMA)
            if self.random.random() < TAIL_SHARE:
                usual *= self.random.paretovariate(1.2)
            usual = self._usual_s[org, test] = min(LONGEST_SPEC_S, max(2.0, usual))
        return round(usual * self.random.lognormvariate(0, NOISE_SIGMA) * SECOND_US)

    def burst(self, release_us: int, *, priority: int | None = None, specs: int | None = None) -> Burst:
        return Burst(
            app=self.app(self.org()),
            target=self.target(),
            priority=priority if priority is not None else self.priority(),
            release_us=release_us,
            specs=specs if specs is not None else self.specs(),
        )

    def runs(self, bursts: list[Burst]) -> tuple[Run, ...]:
        """Return the jobs of bursts in the order of their release."""
        drawn = [(burst, f"tests/{index}.spec.ts") for burst in bursts for index in range(burst.specs)]
        drawn.sort(key=lambda one: one[0].release_us)
        return tuple(
            Run(
                number=number,
                spec=JobSpec(
                    org_id=burst.app.org_id,
                    app_version_id=burst.app.app_version_id,
                    test=test,
                    priority=burst.priority,
                    target=burst.target,
                ),
                release_us=burst.release_us,
                duration_us=self.duration_us(burst.app.org_id, test),
                tests=1 + number % 5,
            )
            for number, (burst, test) in enumerate(drawn)
        )

    def workload(self, name: str, bursts: list[Burst], outages: tuple[Outage, ...] = ()) -> Workload:
        runs = self.runs(bursts)
        usual_us = {key: round(usual_s * SECOND_US) for key, usual_s in self._usual_s.items()}
        return Workload(name=name, runs=runs, kinds=LAB, install_us=self.install_us, usual_us=usual_us, outages=outages)


def nightly(seed: int) -> Workload:
    """All of one priority and there at once: a night's regression."""
    draw = Draw(seed)
    return draw.workload("nightly", _level([draw.burst(0, priority=3) for _ in range(40)]))


def backlog(seed: int) -> Workload:
    """All priorities, there at once: what stands in the queue after an outage."""
    draw = Draw(seed)
    return draw.workload("backlog", _level([draw.burst(0) for _ in range(40)]))


def _level(bursts: list[Burst]) -> list[Burst]:
    """Send bursts to the pools so that each has about the same to do; a pool that rests would flatter any bound."""
    pools = {Target.EMULATOR: 0, Target.DEVICE: 0, Target.BROWSERSTACK: 0}
    sent = []
    for burst in sorted(bursts, key=lambda one: -one.specs):
        if burst.target is not Target.ANY:
            target = min(pools, key=lambda one: (pools[one] + burst.specs) / LAB.count(DeviceKind(one.value)))
            pools[target] += burst.specs
            burst = replace(burst, target=target)
        sent.append(burst)
    return sent


def arrivals(seed: int, load: float, hours: float = 3) -> Workload:
    """Bursts that come over a day that is pressed into some hours, with a morning and an afternoon peak."""
    draw = Draw(seed)
    span_us = round(hours * HOUR_US)
    mean_us = MEDIAN_SPEC_S * math.exp(SPEC_SIGMA**2 / 2) * 1.06 * SECOND_US
    wanted_us = load * span_us * len(LAB)
    bursts: list[Burst] = []
    work_us = 0.0
    while work_us < wanted_us:
        burst = draw.burst(round(_moment(draw.random) * span_us))
        bursts.append(burst)
        work_us += burst.specs * mean_us
    return draw.workload(f"arrivals-{load}", bursts)


def _moment(chance: random.Random) -> float:
    """Return a time of day between 0 and 1, twice as likely at the peaks as at night."""
    while True:
        moment = chance.random()
        if chance.random() * 1.5 < 1 + 0.5 * math.sin(4 * math.pi * moment - math.pi / 2):
            return moment


def one_huge_family(seed: int) -> Workload:
    """A family of 1,000 specs, and ten small ones a minute later."""
    draw = Draw(seed)
    huge = Burst(draw.app("org-huge"), Target.EMULATOR, 3, 0, 1_000)
    small = [Burst(draw.app("org-huge"), Target.EMULATOR, 3, 60 * SECOND_US, 12) for _ in range(10)]
    return draw.workload("one-huge-family", [huge, *small])


def urgent_stream(seed: int) -> Workload:
    """A stream of priority 5 that takes half of the emulators, over enough of priority 3 for all of them."""
    draw = Draw(seed)
    span_us = 3 * HOUR_US
    bursts = [Burst(draw.app("org-batch"), Target.EMULATOR, 3, index * 180 * SECOND_US, 60) for index in range(50)]
    at_us = 0
    while at_us < span_us:
        bursts.append(Burst(draw.app("org-urgent"), Target.EMULATOR, 5, at_us, 12))
        at_us += round(draw.random.expovariate(1 / 34) * SECOND_US)
    return draw.workload("urgent-stream", bursts)


def idle_backlog(seed: int, builds: int = 150, hours: float = 3) -> Workload:
    """A backlog of priority 1 that would keep the lab busy for half a day, under arrivals at a load of 0.5."""
    draw = Draw(seed)
    bursts = [Burst(draw.app("org-low"), draw.target(), 1, 0, 200) for _ in range(builds)]
    at_us = 0.0
    while at_us < hours * HOUR_US:
        bursts.append(draw.burst(round(at_us), priority=draw.random.choice((3, 4, 5))))
        at_us += draw.random.expovariate(1 / 110) * SECOND_US
    return draw.workload("idle-backlog", bursts)


def vanishing_devices(seed: int) -> Workload:
    """The backlog of all priorities, in a lab where a third of the devices go away for a while."""
    draw = Draw(seed)
    bursts = [draw.burst(0) for _ in range(20)]
    return draw.workload("vanishing-devices", bursts, tuple(_outages(draw.random)))


def _outages(chance: random.Random) -> Iterator[Outage]:
    for device in sorted(chance.sample(range(len(LAB)), len(LAB) // 3)):
        start_us = round(chance.uniform(30, 600) * SECOND_US)
        yield Outage(device=device, start_us=start_us, end_us=start_us + round(chance.uniform(60, 400) * SECOND_US))


CLOSED: tuple[Callable[[int], Workload], ...] = (nightly, backlog)
ADVERSARIAL: tuple[Callable[[int], Workload], ...] = (one_huge_family, urgent_stream, idle_backlog, vanishing_devices)


def small(chance: random.Random) -> Workload:
    """6-12 jobs (or up to 40) of a few builds on a few emulators, for comparison with the exact optimum."""
    draw = Draw(chance.randrange(1_000_000))
    devices = chance.randint(2, 4)
    builds = [draw.app("org-1") for _ in range(chance.randint(2, 4))]
    jobs = chance.choice((8, 10, 12, 40))
    sizes = [jobs // len(builds) + (index < jobs % len(builds)) for index in range(len(builds))]
    bursts = [Burst(app, Target.EMULATOR, 3, 0, size) for app, size in zip(builds, sizes, strict=True)]
    full = draw.workload("small", bursts)
    return replace(full, kinds=(DeviceKind.EMULATOR,) * devices)
