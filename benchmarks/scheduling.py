"""Compares the real scheduler with rival policies and with what no policy can beat, in virtual time.

python -m benchmarks scheduling [--json]
python -m benchmarks optimum [--json]      small workloads beside their exact optimum; needs OR-tools
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.figures import Figures, arrival_figures, closed_figures
from benchmarks.workloads import ADVERSARIAL, CLOSED, arrivals, small
from coordinator.core.model import SECOND_US, Rules, Settings
from coordinator.simulation.lab import Dispatcher, Lab
from coordinator.simulation.model import Outcome, Workload
from coordinator.simulation.ours import OurScheduler
from coordinator.simulation.rivals import RIVALS

SEEDS = (1, 2, 3)
ARRIVAL_SEEDS = (1, 2)
LOADS = (0.7, 0.9, 1.1)
SPLITS = (1, 2, 4, 8, 16, 32)
SHARES = (0, 50, 75, 100, 150)
AGES_MINUTES = (30, 60, 120)
AGING_LOADS = (0.9, 1.1)
URGENT_LOADS = (0.7, 1.1)
URGENT_RULES = {
    "as it is": Rules(),
    "batches of 60 s": Rules(batch_least_us=60 * SECOND_US),
    "batches of 240 s": Rules(batch_least_us=240 * SECOND_US),
    "split_percent 50": Rules(split_percent=50),
    "split_percent 150": Rules(split_percent=150),
    "urgent_split_installs 8": Rules(urgent_split_installs=8),
}
"""What could be turned for the slowest jobs of priority 4."""
SMALL_SEEDS = range(1, 13)
SOLVER_SECONDS = 30.0

Measured = tuple[dict[str, Any], dict[str, float]]
Makers = dict[str, Callable[[], Dispatcher]]


def policies() -> Makers:
    makers: Makers = {"qgjob": OurScheduler}
    makers.update((rival.name, rival) for rival in RIVALS)
    return makers


def simulated(workload: Workload, dispatcher: Dispatcher) -> Outcome:
    return Lab(workload, dispatcher).simulate()


def medians(rows: list[Figures]) -> Figures:
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}


def run(is_told: bool) -> Measured:
    """Run every workload under every policy."""
    parts = ("closed", "arrivals", "adversarial", "splits", "shares", "ages", "urgent")
    metrics: dict[str, Any] = {part: {} for part in parts}
    for make in CLOSED:
        metrics["closed"][make.__name__] = _compared(
            [make(seed) for seed in SEEDS], closed_figures, is_told, make.__name__
        )
    for load in LOADS:
        workloads = [arrivals(seed, load) for seed in ARRIVAL_SEEDS]
        metrics["arrivals"][str(load)] = _compared(workloads, arrival_figures, is_told, f"load {load}")
    for make in ADVERSARIAL:
        metrics["adversarial"][make.__name__] = _compared([make(1)], arrival_figures, is_told, make.__name__)
    for installs in SPLITS:
        metrics["splits"][str(installs)] = _split(Rules(split_installs=installs))
        if is_told:
            print(f"split_installs {installs}: {metrics['splits'][str(installs)]}")
    for percent in SHARES:
        metrics["shares"][str(percent)] = _split(Rules(split_percent=percent))
        if is_told:
            print(f"split_percent {percent}: {metrics['shares'][str(percent)]}")
    for minutes in AGES_MINUTES:
        aged = Rules(age_us=minutes * 60 * SECOND_US)
        metrics["ages"][str(minutes)] = {str(load): _arrived(aged, load) for load in AGING_LOADS}
        if is_told:
            print(f"one priority higher after {minutes} minutes: {metrics['ages'][str(minutes)]}")
    for name, rules in URGENT_RULES.items():
        metrics["urgent"][name] = {str(load): _arrived(rules, load) for load in URGENT_LOADS}
        if is_told:
            print(f"{name}: {metrics['urgent'][name]}")
    return metrics, _ratios(metrics)


def _compared(
    workloads: list[Workload], figures: Callable[[Outcome], Figures], is_told: bool, title: str
) -> dict[str, Figures]:
    compared = {
        name: medians([figures(simulated(workload, make())) for workload in workloads])
        for name, make in policies().items()
    }
    if is_told:
        print(title)
        for name, row in compared.items():
            print(f"  {name:14} {row}")
    return compared


def _split(rules: Rules) -> Figures:
    """Return one point of the trade of makespan against installs."""
    settings = Settings(rules=rules)
    return medians([closed_figures(simulated(CLOSED[0](seed), OurScheduler(settings))) for seed in SEEDS])


def _arrived(rules: Rules, load: float) -> Figures:
    """Return one point of the trade of some priorities' waits against others', or against installs."""
    settings = Settings(rules=rules)
    return medians([arrival_figures(simulated(arrivals(seed, load), OurScheduler(settings))) for seed in ARRIVAL_SEEDS])


def _ratios(metrics: dict[str, Any]) -> dict[str, float]:
    ratios = {}
    for name, rows in metrics["closed"].items():
        ratios[f"{name}_makespan_over_bound"] = rows["qgjob"]["makespan_over_bound"]
        ratios[f"{name}_installs_over_fewest"] = rows["qgjob"]["installs_over_fewest"]
    for load, rows in metrics["arrivals"].items():
        for priority in range(1, 6):
            for figure in ("mean", "p95"):
                key = f"p{priority}_{figure}_flow_s"
                best = min(row[key] for name, row in rows.items() if name != "qgjob")
                ratios[f"load_{load}_p{priority}_{figure}_flow_over_best_rival"] = round(rows["qgjob"][key] / best, 3)
        shorter = rows["fifo"]["p5_p99_wait_s"] / max(0.1, rows["qgjob"]["p5_p99_wait_s"])
        ratios[f"load_{load}_p5_p99_wait_fifo_over_ours"] = round(shorter, 2)
    urgent = metrics["adversarial"]["urgent_stream"]
    ratios["urgent_stream_p5_p99_wait_fifo_over_ours"] = round(
        urgent["fifo"]["p5_p99_wait_s"] / max(0.1, urgent["qgjob"]["p5_p99_wait_s"]), 2
    )
    return ratios


def run_small(is_told: bool) -> Measured:
    """Compare small closed workloads with their exact optimum, or its best bound."""
    try:
        from benchmarks.exact import optimum
    except ImportError as missing:
        raise SystemExit(
            "this needs OR-tools: uv run --isolated --with ortools python -m benchmarks optimum"
        ) from missing
    rows = []
    for seed in SMALL_SEEDS:
        workload = small(random.Random(seed))
        best = optimum(workload, SOLVER_SECONDS)
        ours = simulated(workload, OurScheduler()).makespan_us
        row = {
            "jobs": len(workload.runs),
            "over_optimum": round(ours / best.makespan_us, 3),
            "solver_gap": round(best.makespan_us / best.bound_us - 1, 3),
        }
        rows.append(row)
        if is_told:
            print(row)
    ratio = statistics.median(row["over_optimum"] for row in rows)
    return {"cases": rows}, {"median_over_optimum": round(ratio, 3)}
