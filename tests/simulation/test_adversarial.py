"""Workloads that are made to break a promise, each with the promise that it must not break."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.bounds import least_makespan_us
from benchmarks.figures import arrival_figures, pairs, quantile, wait_us
from benchmarks.workloads import idle_backlog, one_huge_family, urgent_stream, vanishing_devices
from coordinator.core.model import MAX_PREEMPTIONS, SECOND_US, Rules
from coordinator.simulation.lab import Lab
from coordinator.simulation.model import Outcome, Workload
from coordinator.simulation.ours import OurScheduler
from coordinator.simulation.rivals import Fifo


def ours(workload: Workload) -> Outcome:
    return Lab(workload, OurScheduler()).simulate()


def test_family_of_a_thousand_specs_leaves_devices_to_ten_small_ones() -> None:
    outcome = ours(one_huge_family(1))
    first_starts: dict[str, int] = {}
    for run, fate in pairs(outcome):
        wait = wait_us(run, fate)
        version = run.spec.app_version_id
        first_starts[version] = min(wait, first_starts.get(version, wait))
    small = sorted(first_starts.values())[1:]
    assert len(small) == 10
    # A device goes on for ten minutes at most since it was granted, and then to the end of what it was given.
    assert max(small) <= Rules().batch_most_us + Rules().batch_least_us


def test_stream_of_priority_five_waits_less_than_under_fifo_and_starves_nobody() -> None:
    workload = urgent_stream(1)
    outcome, fifo = ours(workload), Lab(workload, Fifo()).simulate()
    urgent = arrival_figures(outcome)["p5_p99_wait_s"]
    assert urgent * 4 < arrival_figures(fifo)["p5_p99_wait_s"]
    waits = [wait_us(run, fate) for run, fate in pairs(outcome) if run.spec.priority == 3]
    assert max(waits) <= Rules().guarantee_wait_us
    assert quantile(waits, 0.5) < 900 * SECOND_US


def test_backlog_of_priority_one_fills_the_lab_and_hardly_holds_up_the_rest() -> None:
    workload = idle_backlog(1, builds=20, hours=0.5)
    rest = [run for run in workload.runs if run.spec.priority > 1]
    alone = replace(workload, runs=tuple(replace(run, number=number) for number, run in enumerate(rest)))
    outcome, without = arrival_figures(both := ours(workload)), arrival_figures(ours(alone))
    for priority in (3, 4, 5):
        # What it costs is the grace of tests that make room, and the installs after them.
        mean, lone = (figures[f"p{priority}_mean_flow_s"] for figures in (outcome, without))
        assert mean <= 1.25 * lone, f"priority {priority} takes {mean} s, and {lone} s without the backlog"
    assert both.makespan_us <= 1.2 * least_makespan_us(workload)
    assert outcome["lost_share"] <= 0.03
    assert max(fate.stops for fate in both.fates) <= MAX_PREEMPTIONS
    assert outcome["p1_longest_wait_s"] <= outcome["p1_wait_bound_s"]


def test_lab_that_loses_a_third_of_its_devices_for_a_while_runs_every_job_to_its_end() -> None:
    workload = vanishing_devices(1)
    outcome = ours(workload)
    assert all(fate.is_done for fate in outcome.fates)
    assert outcome.lost_us < outcome.busy_us // 20
    stopped = sum(fate.stops for fate in outcome.fates)
    assert 0 < stopped <= len(workload.outages) * 2
