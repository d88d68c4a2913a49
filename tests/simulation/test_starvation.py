"""Random streams of urgent work over a few low jobs: nobody waits beyond the bound, nobody is thrown out for ever."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from benchmarks.bounds import wait_bound_us
from coordinator.core.model import MAX_PREEMPTIONS, SECOND_US, AppKey, DeviceKind, JobSpec, Rules, Settings, Target
from coordinator.simulation.lab import Lab
from coordinator.simulation.model import Fate, Run, Workload
from coordinator.simulation.ours import OurScheduler

EXAMPLES = int(os.environ.get("QGJOB_ORDER_EXAMPLES", "60")) // 4
INSTALL_US = 10 * SECOND_US
GRACE_US = 5 * SECOND_US
TARGETS = st.sampled_from((Target.ANY, Target.EMULATOR, Target.DEVICE))


@dataclass(frozen=True)
class Low:
    """A job that may have to make room."""

    target: Target
    priority: int
    seconds: int


@dataclass(frozen=True)
class Wave:
    """Urgent jobs that come again and again."""

    target: Target
    priority: int
    app: int
    jobs: int
    seconds: int
    pause: int
    """Seconds until the next wave."""


LOWS = st.builds(Low, target=TARGETS, priority=st.integers(1, 3), seconds=st.integers(5, 90))
WAVES = st.builds(
    Wave,
    target=TARGETS,
    priority=st.sampled_from((3, 4, 5, 5)),
    app=st.integers(1, 5),
    jobs=st.integers(1, 8),
    seconds=st.integers(15, 40),
    pause=st.integers(10, 40),
)
RULES = st.builds(
    Rules,
    batch_least_us=st.just(40 * SECOND_US),
    batch_most_us=st.just(60 * SECOND_US),
    age_us=st.sampled_from((100 * SECOND_US, 10_000 * SECOND_US)),
    guarantee_wait_us=st.just(200 * SECOND_US),
    guarantee_every=st.integers(2, 4),
)


def workload_of(lows: list[Low], waves: list[Wave], devices: int, length_us: int) -> Workload:
    """Return the low jobs, and behind them the waves over and over until `length_us`."""
    runs = [_run(number, low.target, low.priority, f"low{number}", low.seconds, 0) for number, low in enumerate(lows)]
    at_us, turn = SECOND_US, 0
    while at_us < length_us:
        wave = waves[turn % len(waves)]
        for _ in range(wave.jobs):
            runs.append(_run(len(runs), wave.target, wave.priority, f"hot{wave.app}", wave.seconds, at_us))
        at_us += wave.pause * SECOND_US
        turn += 1
    return Workload(
        name="waves",
        runs=tuple(runs),
        kinds=(DeviceKind.EMULATOR, DeviceKind.DEVICE) * devices,
        install_us={run.app: INSTALL_US for run in runs},
        usual_us={(run.spec.org_id, run.spec.test): run.duration_us for run in runs},
        grace_us=GRACE_US,
    )


def _run(number: int, target: Target, priority: int, app: str, seconds: int, at_us: int) -> Run:
    key = AppKey(org_id="q", app_version_id=app)
    spec = JobSpec(
        org_id=key.org_id, app_version_id=app, test=f"{app}-{seconds}.spec.ts", priority=priority, target=target
    )
    return Run(number=number, spec=spec, release_us=at_us, duration_us=seconds * SECOND_US, tests=3)


def fates_of(workload: Workload, rules: Rules) -> list[Fate]:
    scheduler = OurScheduler(Settings(rules=rules, preempt_grace_us=GRACE_US))
    return Lab(workload, scheduler).simulate().fates


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    lows=st.lists(LOWS, min_size=1, max_size=3),
    waves=st.lists(WAVES, min_size=1, max_size=4),
    devices=st.integers(1, 2),
    rules=RULES,
)
def test_no_low_job_waits_beyond_the_bound_or_makes_room_for_ever(
    lows: list[Low], waves: list[Wave], devices: int, rules: Rules
) -> None:
    workload = workload_of(lows, waves, devices, length_us=1_500 * SECOND_US)
    for run, low, fate in zip(workload.runs, lows, fates_of(workload, rules), strict=False):
        # Nothing that comes after it counts.
        bound_us = wait_bound_us(workload, run, rules)
        event(f"waited for {fate.start_us * 4 // bound_us} quarters of the bound")
        assert fate.start_us <= bound_us, f"{low} starts after {fate.start_us} us, and {bound_us} us is the bound"
        assert fate.stops <= MAX_PREEMPTIONS
        # Each time that it was thrown out it is the oldest again, or would be due by its age anyway.
        assert fate.end_us <= (1 + MAX_PREEMPTIONS) * bound_us + low.seconds * SECOND_US


def test_low_job_under_a_flood_starts_within_the_bound_and_only_by_its_guaranteed_share() -> None:
    """A stream of priority 5 that never leaves a device free: what the random streams seldom are."""
    low = Low(Target.ANY, 1, 20)
    flood = [Wave(Target.ANY, 5, app, 4, 30, 20) for app in (1, 2, 3)]
    workload = workload_of([low], flood, 1, length_us=1_500 * SECOND_US)
    rules = Rules(
        batch_least_us=40 * SECOND_US,
        batch_most_us=60 * SECOND_US,
        guarantee_wait_us=200 * SECOND_US,
        guarantee_every=4,
    )
    bound_us = wait_bound_us(workload, workload.runs[0], rules)
    assert rules.guarantee_wait_us < fates_of(workload, rules)[0].start_us <= bound_us
    unfair = replace(rules, guarantee_wait_us=10_000 * SECOND_US)
    assert fates_of(workload, unfair)[0].start_us > bound_us


def test_urgent_job_waits_no_longer_than_making_room_and_an_install_take_where_a_low_one_can_make_room() -> None:
    lows = [_run(number, Target.EMULATOR, 1, "low", 240, 0) for number in range(40)]
    urgent = [_run(40 + turn, Target.EMULATOR, 5, f"hot{turn}", 20, (90 + 37 * turn) * SECOND_US) for turn in range(15)]
    runs = (*lows, *urgent)
    workload = Workload(
        name="singles",
        runs=runs,
        kinds=(DeviceKind.EMULATOR,) * 4,
        install_us={run.app: INSTALL_US for run in runs},
        usual_us={(run.spec.org_id, run.spec.test): run.duration_us for run in runs},
        grace_us=GRACE_US,
    )
    fates = fates_of(workload, Rules())
    assert any(fate.stops for fate in fates[:40])
    for run, fate in zip(urgent, fates[40:], strict=True):
        # A device of this lab that is just installing for its victim comes to the end of that, instead of a grace.
        assert fate.start_us - run.release_us <= max(GRACE_US, INSTALL_US) + INSTALL_US
    assert max(fate.stops for fate in fates) <= MAX_PREEMPTIONS
