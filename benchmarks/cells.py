"""Simulates what it costs to divide a lab into cells, each with a coordinator of its own, in virtual time.

python -m benchmarks cells [--json]

A lab of 100 devices at a load of 0.9 works as one, then in cells: by pool (each kind of device has a coordinator), and
by organisation (each cell has a share of every kind, and organisations are dealt out so that their work is even).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from typing import Any

from benchmarks.figures import quantile
from benchmarks.workloads import LAB, arrivals
from coordinator.core.model import SECOND_US, DeviceKind, Target
from coordinator.simulation.lab import Lab
from coordinator.simulation.model import Run, Workload
from coordinator.simulation.ours import OurScheduler

LOAD, HOURS, TIMES = 0.9, 2.0, 2
"""Of the lab of the other workloads there are so many."""
SEED = 1


def run(is_telling: bool) -> tuple[dict[str, Any], dict[str, float]]:
    workload = arrivals(SEED, LOAD * TIMES, HOURS)
    whole = replace(workload, kinds=LAB * TIMES)
    divisions = {
        "one": [whole],
        "two_by_organisation": _by_organisation(whole, 2),
        "four_by_organisation": _by_organisation(whole, 4),
        "three_by_pool": _by_pool(whole),
    }
    metrics: dict[str, Any] = {}
    for name, cells in divisions.items():
        metrics[name] = _figures(cells)
        if is_telling:
            print(f"{name}: {metrics[name]}", file=sys.stderr)
    ratios = {
        f"{name}_mean_flow_over_one": round(figures["mean_flow_s"] / metrics["one"]["mean_flow_s"], 2)
        for name, figures in metrics.items()
        if name != "one"
    }
    return metrics, ratios


def _figures(cells: list[Workload]) -> dict[str, float]:
    flows: list[int] = []
    installs = 0
    for cell in cells:
        outcome = Lab(cell, OurScheduler()).simulate()
        flows += [fate.end_us - job.release_us for job, fate in zip(cell.runs, outcome.fates, strict=True)]
        installs += outcome.installs
    return {
        "cells": len(cells),
        "mean_flow_s": round(sum(flows) / len(flows) / SECOND_US, 1),
        "p95_flow_s": round(quantile(flows, 0.95) / SECOND_US, 1),
        "installs": installs,
    }


def _cell(whole: Workload, runs: list[Run], kinds: tuple[DeviceKind, ...]) -> Workload:
    numbered = tuple(replace(job, number=number) for number, job in enumerate(runs))
    return replace(whole, runs=numbered, kinds=kinds)


def _by_organisation(whole: Workload, count: int) -> list[Workload]:
    """Deal organisations out, the one with most work first, each to the cell that has least."""
    work: defaultdict[str, int] = defaultdict(int)
    for job in whole.runs:
        work[job.spec.org_id] += job.duration_us
    held = [0] * count
    home: dict[str, int] = {}
    for org in sorted(work, key=lambda one: -work[one]):
        home[org] = held.index(min(held))
        held[home[org]] += work[org]
    devices = sorted(whole.kinds)
    return [
        _cell(whole, [job for job in whole.runs if home[job.spec.org_id] == number], tuple(devices[number::count]))
        for number in range(count)
    ]


def _by_pool(whole: Workload) -> list[Workload]:
    """Give each kind of device a cell; what any device may do goes to the kind with the most of them."""
    runs: dict[DeviceKind, list[Run]] = {kind: [] for kind in DeviceKind}
    most = max(DeviceKind, key=whole.kinds.count)
    for job in whole.runs:
        runs[most if job.spec.target is Target.ANY else DeviceKind(job.spec.target.value)].append(job)
    return [_cell(whole, runs[kind], (kind,) * whole.kinds.count(kind)) for kind in DeviceKind]
