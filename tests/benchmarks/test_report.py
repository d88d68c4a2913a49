"""The report of the benchmarks: what runs, what is kept, and what stands in the document."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks import report
from benchmarks.plots import Chart, charts, flow

PROGRAM = """
import json, sys, time
name, option = sys.argv[1:]
assert option == "--json"
if name == "logs":
    sys.exit("the store is gone")
if name == "dispatch":
    print("begun", flush=True)
    time.sleep(600)
print("a line that something else prints")
print(json.dumps({"name": name, "metrics": {"quiet_p50_ms": 3.8, "help_ms": {"median": 135.0, "least": 105.4,
"most": 195.0}}, "ratios": {"quiet_p50_over_promise": 0.19}, "machine": {"cpus": 2, "load": 0.5, "python": "3.11.2"}}))
"""
BENCHMARKS = Path(report.__file__).parent
MACHINE = {"cpus": 2, "load": 3.25, "python": "3.11.2"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose benchmarks are quick: `follow` and others end well, `logs` fails, `dispatch` hangs."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    (tmp_path / "benchmarks" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "performance.md").write_text(
        f"# By hand\n\n{report.BEGIN}\nold figures\n{report.END}\n\nmore by hand\n"
    )
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "performance.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "plots")
    monkeypatch.setattr(report, "draw", lambda chart, folder: (folder / f"{chart.name}.svg").touch())
    return tmp_path


def found(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 - what a benchmark finds
    return {"date": "2026-11-28", "machine": MACHINE, "metrics": {}, "ratios": {}, **fields}


def keep(project: Path, name: str, **fields: Any) -> None:  # noqa: ANN401
    (project / "results").mkdir(exist_ok=True)
    (project / "results" / f"{name}.json").write_text(json.dumps(found(**fields)))


def test_what_a_benchmark_found_is_kept_and_told_between_the_marks(project: Path) -> None:
    assert report.main(["follow"]) == 0
    kept = json.loads((project / "results" / "follow.json").read_text())
    assert kept["ratios"] == {"quiet_p50_over_promise": 0.19}
    written = (project / "performance.md").read_text()
    assert written.startswith(f"# By hand\n\n{report.BEGIN}\n\n| what | promised | found | |\n")
    assert written.endswith(f"{report.END}\n\nmore by hand\n")
    assert "old figures" not in written
    told = textwrap.dedent(f"""\

        ### follow

        {kept["date"]}, 2 processors, Python 3.11.2.

        | | median | least | most |
        |---|---|---|---|
        | help ms | 135.0 | 105.4 | 195.0 |

        | | |
        |---|---|
        | quiet p50 ms | 3.8 |
        | quiet p50 over promise | 0.19 |
        """)
    assert told in written
    assert "\n| line to follower p50, of 20 ms | at most 1 | 0.19 | met |\n" in written
    assert "\n| line to follower p99, of 100 ms | at most 1 | - | not measured yet |\n" in written


def test_a_benchmark_that_fails_leaves_its_earlier_figures_and_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(project, "logs", ratios={"one_log_over_bare": 0.8})
    assert report.main(["logs", "follow"]) == 1
    told = capsys.readouterr().err
    assert "error: these did not end well: logs\nhint: their figures are those of an earlier run;" in told
    written = (project / "performance.md").read_text()
    assert "| one log, of a bare stream's bytes a second | at least 0.35 | 0.8 | met |" in written
    assert "### follow" in written


def test_a_benchmark_that_does_not_end_is_ended_and_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "LONGEST_S", 0.2)
    assert report.main(["dispatch"]) == 1
    assert "these did not end well: dispatch" in capsys.readouterr().err
    assert not (project / "results" / "dispatch.json").exists()


def test_a_benchmark_that_there_is_not_is_refused_with_the_names(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["folow"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: folow is no benchmark of this report\nhint: name some of submit, submit_batch, "
    )
    assert not (project / "results").exists()


@pytest.mark.parametrize(
    ("benchmark", "ratio", "value", "row"),
    [
        ("follow", "quiet_p99_over_promise", 1.0, "| line to follower p99, of 100 ms | at most 1 | 1 | met |"),
        (
            "follow",
            "quiet_p99_over_promise",
            1.01,
            "| line to follower p99, of 100 ms | at most 1 | 1.01 | **not met** |",
        ),
        (
            "logs",
            "one_log_over_bare",
            0.35,
            "| one log, of a bare stream's bytes a second | at least 0.35 | 0.35 | met |",
        ),
        (
            "logs",
            "one_log_over_bare",
            0.349,
            "| one log, of a bare stream's bytes a second | at least 0.35 | 0.349 | **not met** |",
        ),
    ],
)
def test_a_promise_is_met_up_to_its_very_value(
    project: Path, benchmark: str, ratio: str, value: float, row: str
) -> None:
    keep(project, benchmark, ratios={ratio: value})
    report._write()
    written = (project / "performance.md").read_text().splitlines()
    rows = written[written.index("|---|---|---|---|") + 1 :]
    assert [told for told in rows[: rows.index("")] if not told.endswith(" | - | not measured yet |")] == [row]


def test_sizes_become_rows_and_the_load_of_others_is_told(project: Path) -> None:
    rows = [
        {"jobs": 10_000, "p50_cpu_us": 20.5, "p99_cpu_us": 1_200.4, "submit_us_per_job": 9.0},
        {"jobs": 1_000_000, "p50_cpu_us": 21.5, "p99_cpu_us": 1_300.4, "submit_us_per_job": 9.5},
    ]
    keep(project, "decision", metrics={"sizes": rows, "answer_ms": {"p50": 1.5, "p99": 12.25, "samples": 7}})
    report._write()
    written = (project / "performance.md").read_text()
    assert "2026-11-28, 2 processors, Python 3.11.2, at a load of 3.25 when it began.\n" in written
    assert "![decision](performance/decision.svg)\n" in written
    assert "| | p50 | p99 |\n|---|---|---|\n| answer ms | 1.5 | 12.25 |\n" in written
    assert (
        "| jobs | p50 cpu us | p99 cpu us | submit us per job |\n|---|---|---|---|\n"
        "| 10,000 | 20.5 | 1,200 | 9.0 |\n| 1,000,000 | 21.5 | 1,300 | 9.5 |\n"
    ) in written


def test_every_promised_ratio_is_told_by_its_benchmark() -> None:
    kept = {file.stem: json.loads(file.read_text()) for file in report.RESULTS.glob("*.json")}
    assert set(kept) <= set(report.NAMES)
    assert set(report.NAMES) <= set(program.NAMES)
    for promise in report.PROMISES:
        assert promise.benchmark in report.NAMES
        source = (BENCHMARKS / f"{program.NAMES[promise.benchmark][0]}.py").read_text()
        is_told = promise.ratio in kept[promise.benchmark]["ratios"] or f'"{promise.ratio}"' in source
        assert is_told, f"{promise.benchmark} does not tell {promise.ratio}"


def test_what_is_kept_in_the_project_can_be_drawn() -> None:
    kept = {file.stem: json.loads(file.read_text()) for file in report.RESULTS.glob("*.json")}
    drawn = list(charts(kept))
    assert [chart.name for chart in drawn] == ["submit", "dispatch", "lifecycle", "decision"]
    for chart in drawn:
        assert {len(values) for values in chart.series.values()} == {len(chart.labels)}, chart.name


def test_policies_are_drawn_by_priority() -> None:
    rows = {
        policy: {f"p{priority}_mean_flow_s": priority * seconds for priority in range(1, 6)}
        for policy, seconds in (("qgjob", 10.4), ("fifo", 20.0))
    }
    drawn = flow({"arrivals": {"0.7": {}, "0.9": rows}})
    assert drawn.labels == ["P1", "P2", "P3", "P4", "P5"]
    assert drawn.series == {"qgjob": [10, 21, 31, 42, 52], "fifo": [20, 40, 60, 80, 100]}


def test_a_chart_has_a_value_for_each_label() -> None:
    metrics = {
        f"{name}_ms": {"p50": number, "p99": 2.0 * number}
        for number, name in enumerate(("bare_round_trip", "qgjob", "celery_plain_redis", "celery"), 1)
    }
    (chart,) = charts({"dispatch": found(metrics=metrics)})
    assert chart == Chart(
        name="dispatch",
        title="From the submit to the start by an agent, in milliseconds",
        labels=("p50", "p99"),
        series={
            "bare round trip": [1, 2.0],
            "qgjob": [2, 4.0],
            "celery plain redis": [3, 6.0],
            "celery": [4, 8.0],
        },
    )
