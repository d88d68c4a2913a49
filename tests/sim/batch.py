"""Runs many seeds over several processes and sums them up."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from tests.sim.checker import Pair
from tests.sim.draw import draw_plan
from tests.sim.simulation import simulate
from tests.sim.thaw import thaw_records

SEEDS_AT_A_TIME = 10
"""A process that has no more of them waits a second at most for the last that still runs."""


@dataclass(slots=True)
class Summary:
    """What came of some seeds."""

    seeds: int = 0
    span_us: int = 0
    events: list[int] = field(default_factory=list)
    rests_us: list[int] = field(default_factory=list)
    pairs: dict[Pair, int] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(seed, its first breach)."""

    def add(self, other: Summary) -> None:
        self.seeds += other.seeds
        self.span_us += other.span_us
        self.events += other.events
        self.rests_us += other.rests_us
        self.failures += other.failures
        for pair, seeds in other.pairs.items():
            self.pairs[pair] = self.pairs.get(pair, 0) + seeds


def run_seeds(first: int, count: int) -> Summary:
    """Run seeds one after the other, and sweep after each: to look for garbage all the time takes a tenth of it."""
    gc.freeze()  # what was there before is not looked at either
    gc.disable()
    try:
        return _run_seeds(first, count)
    finally:
        gc.enable()
        gc.unfreeze()


def _run_seeds(first: int, count: int) -> Summary:
    summary = Summary()
    for seed in range(first, first + count):
        verdict = simulate(draw_plan(seed))
        summary.seeds += 1
        summary.span_us += verdict.span_us
        summary.events.append(verdict.events)
        summary.rests_us.append(verdict.rest_us)
        for pair in verdict.pairs:
            summary.pairs[pair] = summary.pairs.get(pair, 0) + 1
        if verdict.breaches:
            summary.failures.append((seed, verdict.breaches[0]))
        verdict.lab.history.records.clear()  # what is freed at once is not looked at by the sweep
        del verdict
        gc.collect()
    return summary


class Shelf(Protocol):
    """Where pieces of a run are kept."""

    def find(self, first: int, count: int) -> Summary | None: ...

    def add(self, first: int, count: int, summary: Summary) -> None: ...


def run_in_processes(first: int, count: int, processes: int, kept: Shelf | None = None) -> Iterator[Summary]:
    """Yield the growing sum. Processes are started anew, because gRPC's library must not be forked, and thawed."""
    total = Summary()
    pieces = [
        (start, min(SEEDS_AT_A_TIME, first + count - start)) for start in range(first, first + count, SEEDS_AT_A_TIME)
    ]
    if kept is not None:
        known = {piece: summary for piece in pieces if (summary := kept.find(*piece)) is not None}
        for summary in known.values():
            total.add(summary)
        pieces = [piece for piece in pieces if piece not in known]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=thaw_records) as pool:
        done = pool.map(run_seeds, [start for start, _ in pieces], [size for _, size in pieces])
        for piece, summary in zip(pieces, done, strict=True):
            if kept is not None:
                kept.add(*piece, summary)
            total.add(summary)
            yield total
    if not pieces:
        yield total
