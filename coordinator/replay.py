"""Runs what a lab has done once more, in virtual time, under the policy of this release or of others.

The jobs, their submit times, durations and builds are those of the database, which is only read. The devices on which
anything ran are there all the time and never fail; each serves every job of its kind, whatever selector it had.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from coordinator.core.durations import PRIOR_INSTALL_US
from coordinator.core.model import SECOND_US, AppKey
from coordinator.simulation.lab import Dispatcher, Lab
from coordinator.simulation.model import TARGET_KINDS, Fate, Outcome, Run, Workload
from coordinator.simulation.ours import OurScheduler
from coordinator.simulation.rivals import RIVALS
from coordinator.simulation.summary import Summary, summarised
from coordinator.store.history import History, PastRun, read_history
from coordinator.story import span
from qgjob.counts import counted

OURS = "qgjob"
RECORDED = "recorded"
POLICIES: dict[str, Callable[[], Dispatcher]] = {OURS: OurScheduler, **{rival.name: rival for rival in RIVALS}}


class NoHistory(Exception):
    """The database tells of no job that ran to its end in that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How the recorded jobs fared, and how they would have under each policy."""

    jobs: int
    devices: int
    left_out: int
    """Jobs of that time that never ran to their end, or on no device that is known."""
    with_selector: int
    """Jobs whose selector is not taken into account."""
    summaries: tuple[Summary, ...]
    """What was recorded comes first."""


def replay(database_url: str, policies: list[str], since_us: int, tell: Callable[[str], None]) -> Report:
    """Run a history under policies, by their names.

    Raises:
        NoHistory: There is nothing to run.
        StoreError: The database cannot be read.
    """
    history = read_history(database_url, since_us)
    kinds = tuple(history.devices.values())
    past = [one for one in history.runs if any(kind in TARGET_KINDS[one.job.spec.target] for kind in kinds)]
    if not past:
        raise NoHistory("no job ran to its end in that time")
    workload = _workload(history, past)
    outcomes = [_recorded(history, past, workload)]
    for name in policies:
        tell(f"replaying {counted(len(past), 'job')} on {counted(len(kinds), 'device')} under {name}")
        outcomes.append(Lab(workload, POLICIES[name]()).simulate())
    return Report(
        jobs=len(past),
        devices=len(kinds),
        left_out=history.others + len(history.runs) - len(past),
        with_selector=sum(1 for one in past if one.job.spec.selector),
        summaries=tuple(summarised(outcome) for outcome in outcomes),
    )


def _workload(history: History, past: list[PastRun]) -> Workload:
    begin_us = past[0].job.create_us
    runs = tuple(
        Run(
            number=number,
            spec=replace(one.job.spec, selector=()),
            release_us=max(0, one.job.create_us - begin_us),
            duration_us=max(1, one.duration_us),
        )
        for number, one in enumerate(past)
    )
    usual_us = int(statistics.median(history.install_us.values())) if history.install_us else PRIOR_INSTALL_US
    apps: dict[AppKey, None] = dict.fromkeys(run.app for run in runs)
    install_us = {app: history.install_us.get(app, usual_us) for app in apps}
    return Workload(name="history", runs=runs, kinds=tuple(history.devices.values()), install_us=install_us)


def _recorded(history: History, past: list[PastRun], workload: Workload) -> Outcome:
    begin_us = past[0].job.create_us
    fates = []
    for one in past:
        assert one.job.start_us is not None, f"job {one.job.id} has run and never started"
        assert one.job.end_us is not None, f"job {one.job.id} has run and never ended"
        fates.append(Fate(start_us=one.job.start_us - begin_us, end_us=one.job.end_us - begin_us))
    return Outcome(policy=RECORDED, workload=workload, fates=fates, installs=history.installs)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report for scripts."""
    return {
        "jobs": report.jobs,
        "devices": report.devices,
        "left_out": report.left_out,
        "with_selector": report.with_selector,
        "policies": [_policy_json(summary) for summary in report.summaries],
    }


def _policy_json(summary: Summary) -> dict[str, Any]:
    return {
        "policy": summary.policy,
        "makespan_seconds": _seconds(summary.makespan_us),
        "installs": summary.installs,
        "lost_seconds": _seconds(summary.lost_us),
        "priorities": [
            {
                "priority": flow.priority,
                "jobs": flow.jobs,
                "mean_flow_seconds": _seconds(flow.mean_us),
                "p95_flow_seconds": _seconds(flow.p95_us),
                "longest_wait_seconds": _seconds(flow.longest_wait_us),
            }
            for flow in summary.flows
        ],
    }


def _seconds(span_us: int) -> float:
    return round(span_us / SECOND_US, 3)


def as_lines(report: Report) -> Iterator[str]:
    """Yield a report for people."""
    yield f"Jobs: {report.jobs}, devices: {report.devices}"
    if report.left_out:
        are = "job never ran to its end and is" if report.left_out == 1 else "jobs never ran to their end and are"
        yield f"{report.left_out} more {are} left out"
    if report.with_selector:
        yield f"{counted(report.with_selector, 'job')} had a selector, which is not taken into account"
    yield ""
    head = ["Policy", "Makespan", "Installs", "Lost"]
    yield from _table(
        head, [[one.policy, span(one.makespan_us), str(one.installs), span(one.lost_us)] for one in report.summaries]
    )
    for title, cell in (
        ("From submit to end, mean (95 of 100 at most):", lambda flow: f"{span(flow.mean_us)} ({span(flow.p95_us)})"),
        ("Longest wait for the first start:", lambda flow: span(flow.longest_wait_us)),
    ):
        yield ""
        yield title
        names = [f"P{flow.priority}" for flow in report.summaries[0].flows]
        yield from _table(["Policy", *names], [[one.policy, *map(cell, one.flows)] for one in report.summaries])


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[index]) for row in (head, *rows)) for index in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
