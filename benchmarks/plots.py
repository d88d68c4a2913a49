"""The plots of docs/performance.md, and that of docs/scheduling.md.

`make bench` draws the former. The benchmark of policies takes minutes and depends on no machine, so it is no part of
that; its plot is drawn from what it tells:

python -m benchmarks scheduling --json | python -m benchmarks.plots
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEDULING = Path("docs/scheduling")
FLOW_LOAD = "0.9"
PRIORITIES = range(1, 6)
IN_FLIGHT = (32, 128)
SHARES = ("p50", "p99")

Kept = Mapping[str, dict[str, Any]]
"""What benchmarks found, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series of values, one for each label."""

    name: str
    title: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    is_line: bool = False
    """Whether it shows lines instead of bars."""
    has_figures: bool = True
    """Whether each value is written beside its bar: not where there are so many that they would cover each other."""


def charts(kept: Kept) -> Iterator[Chart]:
    """Yield the charts of the benchmarks that have run."""
    for name, chart in (
        ("submit", _submit),
        ("dispatch", _dispatch),
        ("lifecycle", _lifecycle),
        ("decision", _decision),
    ):
        if name in kept:
            yield chart(kept[name]["metrics"])


def flow(metrics: Mapping[str, Any]) -> Chart:
    """Return the chart of what the benchmark of policies found where jobs arrive."""
    rows: Mapping[str, Mapping[str, float]] = metrics["arrivals"][FLOW_LOAD]
    return Chart(
        name="flow",
        title=f"Mean flow time in seconds by priority, at a load of {FLOW_LOAD}",
        labels=[f"P{priority}" for priority in PRIORITIES],
        series={
            policy: [round(row[f"p{priority}_mean_flow_s"]) for priority in PRIORITIES] for policy, row in rows.items()
        },
        has_figures=False,
    )


def draw(chart: Chart, folder: Path) -> None:
    """Write a chart as NAME.svg. What draws it, only the group `bench` installs."""
    import pygal
    from pygal.style import CleanStyle

    kind = pygal.Line if chart.is_line else pygal.Bar
    # Without the script of another host, which a document has no use for.
    drawn = kind(
        width=720,
        height=360,
        style=CleanStyle,
        js=(),
        title=chart.title,
        legend_at_bottom=True,
        print_values=chart.has_figures,
    )
    drawn.x_labels = chart.labels
    for label, values in chart.series.items():
        drawn.add(label, list(values))
    drawn.render_to_file(str(folder / f"{chart.name}.svg"))


def words(name: str) -> str:
    """Return the name of a figure as people read it."""
    return name.replace("_", " ")


def _submit(metrics: dict[str, Any]) -> Chart:
    names = ("bare", "qgjob", "classic_plain_redis", "classic")
    return Chart(
        name="submit",
        title="Submits a second by calls in flight",
        labels=[str(number) for number in IN_FLIGHT],
        series={words(name): [metrics[f"{name}_per_s_{number}"]["median"] for number in IN_FLIGHT] for name in names},
    )


def _dispatch(metrics: dict[str, Any]) -> Chart:
    names = ("bare_round_trip", "qgjob", "celery_plain_redis", "celery")
    return Chart(
        name="dispatch",
        title="From the submit to the start by an agent, in milliseconds",
        labels=SHARES,
        series={words(name): [metrics[f"{name}_ms"][share] for share in SHARES] for name in names},
    )


def _lifecycle(metrics: dict[str, Any]) -> Chart:
    names = ("qgjob", "celery_plain_redis", "celery")
    return Chart(
        name="lifecycle",
        title="Whole lives of jobs a second",
        labels=[""],
        series={words(name): [metrics[f"{name}_jobs_per_s"]["median"]] for name in names},
    )


def _decision(metrics: dict[str, Any]) -> Chart:
    rows = metrics["sizes"]
    columns = {
        "a decision, p50": "p50_cpu_us",
        "a decision, p99": "p99_cpu_us",
        "a job's part of a submit": "submit_us_per_job",
    }
    return Chart(
        name="decision",
        title="Processor time in microseconds by queued jobs",
        labels=[f"{row['jobs']:,}" for row in rows],
        series={label: [row[column] for row in rows] for label, column in columns.items()},
        is_line=True,
    )


if __name__ == "__main__":
    told = sys.stdin.read().splitlines()
    SCHEDULING.mkdir(exist_ok=True)
    draw(flow(json.loads(told[-1])["metrics"]), SCHEDULING)
