"""Simulate the lab from many seeds, or replay one.

    python -m tests.sim --seeds 2000 [--from 0] [--jobs 2] [--record FILE]
    python -m tests.sim --seed 123 [--trace]

A seed that fails is made smaller and told; `--trace` tells everything that happened in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from coordinator.core.transitions import DEVICE_TRANSITIONS, JOB_TRANSITIONS, LEASE_TRANSITIONS
from tests.sim.batch import Summary, run_in_processes
from tests.sim.checker import Pair
from tests.sim.draw import draw_plan
from tests.sim.plan import Plan
from tests.sim.record import OtherCode, Record
from tests.sim.shrink import fails_like, shrunk
from tests.sim.simulation import Verdict, simulate
from tests.sim.story import plan_lines, story_lines

MOST_TOLD = 3
PROGRESS_S = 10


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Simulate the lab from seeds.")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to run them in")
    parser.add_argument("--record", type=Path, help="keep what is done in this file, and go on from there")
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--trace", action="store_true", help="tell all that happened in it")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        return replay(chosen.seed, is_traced=chosen.trace)
    try:
        record = Record(chosen.record) if chosen.record is not None else None
    except OtherCode as error:
        parser.error(str(error))
    return run_many(chosen.first, chosen.seeds, chosen.jobs, record)


def replay(seed: int, *, is_traced: bool) -> int:
    """Run one seed, and make it smaller if it fails."""
    plan = draw_plan(seed)
    verdict = simulate(plan)
    if verdict.breaches:
        tell_failure(plan, verdict)
    if is_traced:
        tell(plan, verdict)
    say(f"seed {seed}: {verdict.events} events, {len(verdict.breaches)} breaches")
    return 1 if verdict.breaches else 0


def tell(plan: Plan, verdict: Verdict) -> None:
    for line in (*plan_lines(plan), *story_lines(verdict.lab.history)):
        say(line)


def tell_failure(plan: Plan, verdict: Verdict) -> None:
    """Tell a failing seed as small as it can be made, and how to see it again."""
    say(f"SEED {plan.seed} FAILS; see it again with: make sim SEED={plan.seed}")
    for breach in verdict.breaches[:MOST_TOLD]:
        say(f"  {breach}")
    smaller = shrunk(plan, fails_like(verdict.breaches[0]))
    again = simulate(smaller)
    say(f"it still fails with {len(smaller.faults)} faults and {len(smaller.submissions)} submissions:")
    tell(smaller, again)
    for breach in again.breaches[:MOST_TOLD]:
        say(f"  {breach}")


def run_many(first: int, seeds: int, processes: int, record: Record | None = None) -> int:
    """Run seeds from `first` on and say what they covered."""
    begun = told = time.monotonic()
    failures = 0
    total = Summary()
    for total in run_in_processes(first, seeds, processes, record):
        for seed, breach in total.failures[failures:]:
            say(f"FAILED {seed}: {breach.strip()}")
        failures = len(total.failures)
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            rate = total.seeds / (told - begun)
            say(f"{total.seeds} seeds, {failures} failures, {total.span_us / 3.6e9:.1f} hours, {rate:.1f} seeds/s")
    if total.failures:
        plan = draw_plan(total.failures[0][0])
        tell_failure(plan, simulate(plan))
    summarise(total, time.monotonic() - begun)
    return 1 if total.failures else 0


def summarise(total: Summary, seconds: float) -> None:
    legal = legal_pairs()
    say(f"{total.seeds} seeds, {len(total.failures)} failures, {total.span_us / 3.6e9:.1f} simulated hours")
    say(f"events in a seed: {int(statistics.median(total.events))} (median), {min(total.events)} at least")
    say(f"at rest after the last fault: {max(total.rests_us) / 1e6:.0f} s at most")
    unseen = [f"{kind} {before}->{after}" for kind, before, after in legal if (kind, before, after) not in total.pairs]
    say(f"transition pairs: {len(legal) - len(unseen)} of {len(legal)}; not seen: {', '.join(unseen) or 'none'}")
    say(f"{seconds:.1f} s, {total.seeds / seconds:.1f} seeds/s")


def legal_pairs() -> list[Pair]:
    """Return the changes that the tables of the coordinator allow."""
    pairs: list[Pair] = []
    for job_state, job_states in JOB_TRANSITIONS.items():
        pairs += [("job", str(job_state), str(after)) for after in sorted(job_states)]
    for lease_state, lease_states in LEASE_TRANSITIONS.items():
        pairs += [("lease", str(lease_state), str(after)) for after in sorted(lease_states)]
    for device_state, device_states in DEVICE_TRANSITIONS.items():
        pairs += [("device", str(device_state), str(after)) for after in sorted(device_states)]
    return pairs
