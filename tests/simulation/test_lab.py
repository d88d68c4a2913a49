"""The lab of the scheduling simulation keeps its clock, its installs and its stops."""

from __future__ import annotations

import pytest

from coordinator.core.model import SECOND_US, AppKey, DeviceKind, JobSpec, Target
from coordinator.simulation.lab import Dispatcher, Lab
from coordinator.simulation.model import Outage, Outcome, Run, Workload
from coordinator.simulation.ours import OurScheduler
from coordinator.simulation.rivals import RIVALS, Fifo, LongestFirst

APP = AppKey(org_id="qualgent", app_version_id="v1")
OTHER = AppKey(org_id="qualgent", app_version_id="v2")


def a_run(number: int, seconds: int, *, app: AppKey = APP, at: int = 0, priority: int = 3, tests: int = 1) -> Run:
    spec = JobSpec(
        org_id=app.org_id,
        app_version_id=app.app_version_id,
        test=f"t{number}",
        priority=priority,
        target=Target.EMULATOR,
    )
    return Run(number=number, spec=spec, release_us=at * SECOND_US, duration_us=seconds * SECOND_US, tests=tests)


def a_workload(*runs: Run, devices: int = 1, outages: tuple[Outage, ...] = ()) -> Workload:
    return Workload(
        name="small",
        runs=runs,
        kinds=(DeviceKind.EMULATOR,) * devices,
        install_us={APP: 10 * SECOND_US, OTHER: 5 * SECOND_US},
        outages=outages,
    )


def simulated(workload: Workload, dispatcher: Dispatcher) -> Outcome:
    return Lab(workload, dispatcher).simulate()


def ends_s(outcome: Outcome) -> list[float]:
    return [fate.end_us / SECOND_US for fate in outcome.fates]


def test_device_installs_once_for_jobs_of_one_build_and_again_for_another() -> None:
    outcome = simulated(a_workload(a_run(0, 30), a_run(1, 20), a_run(2, 7, app=OTHER)), Fifo())
    assert ends_s(outcome) == [40, 60, 72]
    assert (outcome.installs, outcome.install_us) == (2, 15 * SECOND_US)


def test_longest_first_runs_the_longest_that_is_there() -> None:
    outcome = simulated(a_workload(a_run(0, 5), a_run(1, 9), a_run(2, 7)), LongestFirst())
    assert ends_s(outcome) == [31, 19, 26]


@pytest.mark.parametrize("make", [OurScheduler, *RIVALS])
def test_every_job_ends_though_a_device_goes_away(make: type[Dispatcher]) -> None:
    runs = [a_run(number, 30, app=(APP, OTHER)[number % 2]) for number in range(12)]
    outage = Outage(device=1, start_us=25 * SECOND_US, end_us=90 * SECOND_US)
    outcome = simulated(a_workload(*runs, devices=2, outages=(outage,)), make())
    assert all(fate.is_done for fate in outcome.fates)
    assert outcome.lost_us > 0


def test_preempted_spec_ends_at_its_next_boundary_between_tests_and_goes_on_from_there() -> None:
    slow = a_run(0, 100, priority=1, tests=4)
    urgent = a_run(1, 8, app=OTHER, at=40, priority=5)
    outcome = simulated(a_workload(slow, urgent), OurScheduler())
    # Install until 10, the second of four tests ends at 60, the other build takes 5 s.
    assert ends_s(outcome) == [60 + 5 + 8 + 10 + 50, 60 + 5 + 8]
    assert (outcome.fates[0].stops, outcome.lost_us) == (1, 0)


def test_preempted_test_that_ends_within_its_grace_is_not_run_again() -> None:
    slow = a_run(0, 100, priority=1)
    urgent = a_run(1, 8, app=OTHER, at=80, priority=5)
    outcome = simulated(a_workload(slow, urgent), OurScheduler())
    assert ends_s(outcome) == [110, 123]
    assert outcome.fates[0].stops == 0
