"""Figures of a simulated outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.bounds import fewest_installs, least_makespan_us, longest_wait_bound_us
from coordinator.core.model import SECOND_US, Rules
from coordinator.simulation.model import Fate, Outcome, Run

Figures = dict[str, float]


def quantile(values: Iterable[int], share: float) -> int:
    """Return the least value that `share` of them do not exceed; 0 without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


def closed_figures(outcome: Outcome) -> Figures:
    """Return how far from the bounds a policy stays where all jobs are there at once."""
    bound_us = least_makespan_us(outcome.workload)
    fewest = fewest_installs(outcome.workload, outcome.makespan_us)
    return {
        "makespan_s": outcome.makespan_us / SECOND_US,
        "makespan_over_bound": round(outcome.makespan_us / bound_us, 3),
        "installs": outcome.installs,
        "installs_over_fewest": round(outcome.installs / fewest, 3),
        "mean_flow_s": mean_s(outcome, lambda _run: True, flow_us),
    }


def arrival_figures(outcome: Outcome) -> Figures:
    """Return how long jobs of each priority took, and what it cost."""
    figures: Figures = {}
    for priority in range(1, 6):
        flows = [flow_us(run, fate) for run, fate in pairs(outcome) if run.spec.priority == priority]
        figures[f"p{priority}_mean_flow_s"] = round(sum(flows) / max(1, len(flows)) / SECOND_US, 1)
        figures[f"p{priority}_p95_flow_s"] = round(quantile(flows, 0.95) / SECOND_US, 1)
    waits = {
        priority: [wait_us(run, fate) for run, fate in pairs(outcome) if run.spec.priority == priority]
        for priority in (1, 5)
    }
    figures["p5_p99_wait_s"] = round(quantile(waits[5], 0.99) / SECOND_US, 1)
    figures["p5_longest_wait_s"] = round(max(waits[5], default=0) / SECOND_US, 1)
    figures["p1_longest_wait_s"] = round(max(waits[1], default=0) / SECOND_US, 1)
    if not outcome.workload.outages:  # a device that goes away keeps no promise
        figures["p1_wait_bound_s"] = round(longest_wait_bound_us(outcome.workload, Rules(), 1) / SECOND_US, 1)
    figures["installs"] = outcome.installs
    figures["lost_share"] = round(outcome.lost_us / max(1, outcome.busy_us), 4)
    return figures


def pairs(outcome: Outcome) -> Iterable[tuple[Run, Fate]]:
    return zip(outcome.workload.runs, outcome.fates, strict=True)


def flow_us(run: Run, fate: Fate) -> int:
    """From its release to its end."""
    return fate.end_us - run.release_us


def wait_us(run: Run, fate: Fate) -> int:
    """From its release to its first start."""
    return fate.start_us - run.release_us


def mean_s(outcome: Outcome, wanted: Callable[[Run], bool], of: Callable[[Run, Fate], int]) -> float:
    values = [of(run, fate) for run, fate in pairs(outcome) if wanted(run)]
    return round(sum(values) / max(1, len(values)) / SECOND_US, 1)
