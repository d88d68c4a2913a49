"""The plots of docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def draw(chart: Chart, folder: Path) -> None:
    """Write a chart as NAME.svg. What draws it, only the group `bench` installs."""
    import pygal
    from pygal.style import CleanStyle

    kind = pygal.Line if chart.is_line else pygal.Bar
    # Without the script of another host, which a document has no use for.
    drawn = kind(
        width=720, height=360, style=CleanStyle, js=(), title=chart.title, legend_at_bottom=True, print_values=True
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
