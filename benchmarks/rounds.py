"""Compares contenders in interleaved rounds of one run, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Spread = dict[str, float]
Samples = dict[str, list[float]]


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int, *, is_telling: bool) -> Samples:
    """Let each contender measure itself once a round, forwards and backwards in turns; return its samples in order.

    What each does before the first round, when nothing is warm, is forgotten.
    """
    for contender in contenders.values():
        contender()
    samples: Samples = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)[:: 1 if number % 2 == 0 else -1]
        for name in names:
            samples[name].append(contenders[name]())
        if is_telling:
            told = ", ".join(f"{name} {samples[name][-1]:,.4g}" for name in contenders)
            print(f"round {number + 1} of {rounds}: {told}", file=sys.stderr)
    return samples


def spread(samples: Sequence[float]) -> Spread:
    """Return the median of samples, and between which they lie."""
    return {
        "median": _rounded(statistics.median(samples)),
        "least": _rounded(min(samples)),
        "most": _rounded(max(samples)),
    }


def shares(samples: Sequence[float]) -> Spread:
    """Return the median of many samples, and what 99 of 100 do not exceed."""
    ordered = sorted(samples)
    return {
        "p50": _rounded(statistics.median(ordered)),
        "p99": _rounded(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]),
        "samples": len(ordered),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios within the rounds: what the machine did meanwhile, both sides of a ratio met."""
    return round(statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)), 3)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used: on a busy machine it says more than the clock."""
    return _used_s(Path(f"/proc/{pid}/stat"))


def loop_s(pid: int) -> float:
    """Return the processor time of a process's first thread alone: that of its event loop."""
    return _used_s(Path(f"/proc/{pid}/task/{pid}/stat"))


def _used_s(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rounded(value: float) -> float:
    """Return a value to four digits that count."""
    return float(f"{value:.4g}")
