"""What became of the jobs of a workload, by their priority."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.simulation.model import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How the jobs of one priority fared."""

    priority: int
    jobs: int
    mean_us: int
    """From submit to end."""
    p95_us: int
    longest_wait_us: int
    """From submit to the first start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a policy made of a workload."""

    policy: str
    makespan_us: int
    installs: int
    lost_us: int
    """Device time of tests that were stopped and had to run again."""
    flows: tuple[Flow, ...]
    """The highest priority first; without those of which there is no job."""


def quantile(values: Sequence[int], share: float) -> int:
    """Return the least value that `share` of them do not exceed.

    Raises:
        IndexError: There is none.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summarised(outcome: Outcome) -> Summary:
    """Return the figures of an outcome."""
    priorities = sorted({run.spec.priority for run in outcome.workload.runs}, reverse=True)
    return Summary(
        policy=outcome.policy,
        makespan_us=outcome.makespan_us,
        installs=outcome.installs,
        lost_us=outcome.lost_us,
        flows=tuple(_flow(outcome, priority) for priority in priorities),
    )


def _flow(outcome: Outcome, priority: int) -> Flow:
    pairs = zip(outcome.workload.runs, outcome.fates, strict=True)
    mine = [(run, fate) for run, fate in pairs if run.spec.priority == priority]
    flows = [fate.end_us - run.release_us for run, fate in mine]
    return Flow(
        priority=priority,
        jobs=len(mine),
        mean_us=sum(flows) // len(flows),
        p95_us=quantile(flows, 0.95),
        longest_wait_us=max(fate.start_us - run.release_us for run, fate in mine),
    )
