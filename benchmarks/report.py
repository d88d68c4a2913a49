"""Runs the benchmarks one after the other, keeps their JSON, and writes tables and plots into docs/performance.md.

python -m benchmarks.report [NAME ...]

With names only those run, and of the others what was kept before is told. What stands in the document outside of the
two marks is written by hand and stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.plots import charts, draw, words

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LONGEST_S = 400
"""For one benchmark; all together take ten minutes."""
NAMES = (
    "submit",
    "submit_batch",
    "dispatch",
    "lifecycle",
    "logs",
    "follow",
    "scale",
    "recovery",
    "builds",
    "cli_startup",
    "decision",
)


class Promise(NamedTuple):
    """What a ratio is to reach."""

    benchmark: str
    ratio: str
    is_most: bool
    """Whether it must not be exceeded, rather than be reached."""
    value: float
    what: str


PROMISES = (
    Promise("submit", "submit_over_bare_echo_32", False, 0.33, "submits, 32 in flight, of a bare echo's rate"),
    Promise("submit", "submit_over_bare_echo_128", False, 0.33, "submits, 128 in flight, of a bare echo's rate"),
    Promise("submit", "submit_over_classic_32", False, 5, "submits, 32 in flight, times the classic stack's"),
    Promise("submit", "submit_over_classic_128", False, 5, "submits, 128 in flight, times the classic stack's"),
    Promise("submit_batch", "submit_batch_over_promise", False, 1, "jobs a second in calls of 1,000, of 12,000"),
    Promise("dispatch", "dispatch_p50_over_round_trip", True, 10, "dispatch p50 in bare round trips"),
    Promise("dispatch", "dispatch_p99_over_round_trip", True, 25, "dispatch p99 in bare round trips (of p50)"),
    Promise("dispatch", "dispatch_p50_over_celery", True, 1, "dispatch p50 of Celery's, whose Redis syncs always"),
    Promise("lifecycle", "lifecycle_over_celery", False, 1.5, "whole lives of jobs, times Celery's rate"),
    Promise("logs", "one_log_over_bare", False, 0.35, "one log, of a bare stream's bytes a second"),
    Promise("logs", "fifty_logs_over_bare", False, 0.35, "fifty logs at once, of bare streams'"),
    Promise(
        "logs", "writer_beside_followers_over_alone", True, 1.1, "a writer beside 1,000 followers, of its time alone"
    ),
    Promise("follow", "quiet_p50_over_promise", True, 1, "line to follower p50, of 20 ms"),
    Promise("follow", "quiet_p99_over_promise", True, 1, "line to follower p99, of 100 ms"),
    Promise("builds", "upload_over_bare_stream", False, 0.35, "a build of 300 MB uploaded, of a bare stream's speed"),
    Promise("builds", "cut_sent_again", True, 0.05, "sent again of a build whose upload was cut in its middle"),
    Promise("builds", "fetches_per_agent", True, 1, "fetches of a build by each of ten agents with two devices"),
    Promise("follow", "command_p50_over_promise", True, 1, "line to the output of `logs --follow` p50, of 20 ms"),
    Promise("follow", "command_p99_over_promise", True, 1, "line to the output of `logs --follow` p99, of 100 ms"),
    Promise("follow", "chatty_p50_over_promise", True, 1, "line of a chatty log p50, of 20 ms and a sync's interval"),
    Promise("follow", "chatty_p99_over_promise", True, 1, "line of a chatty log p99, of 100 ms and a sync's interval"),
    Promise("cli_startup", "help_over_promise", True, 1, "`qgjob --help`, of 150 ms"),
    Promise("cli_startup", "jobs_table_over_promise", True, 1, "one call and its table of 20 jobs, of 300 ms"),
    Promise("scale", "resident_over_promise", True, 1, "memory at scale, of 2.5 GB"),
    Promise("scale", "grants_over_promise", False, 1, "grants a second at scale, of 200"),
    Promise("scale", "dispatch_p99_over_promise", True, 1, "dispatch p99 at scale, of 50 ms"),
    Promise("scale", "connect_over_promise", True, 1, "10,000 agents connected, of 30 s"),
    Promise("scale", "restart_over_promise", True, 1, "restart with 1,000,000 queued jobs, of 45 s"),
)


def main(wanted: list[str]) -> int:
    """Run, keep, write after each; return the exit code."""
    for unknown in set(wanted) - set(NAMES):
        print(
            f"error: {unknown} is no benchmark of this report\nhint: name some of {', '.join(NAMES)}", file=sys.stderr
        )
        return 2
    RESULTS.mkdir(exist_ok=True)
    failed = []
    for name in wanted or NAMES:
        if not _run(name):
            failed.append(name)
        _write()
    if failed:
        print(f"error: these did not end well: {', '.join(failed)}", file=sys.stderr)
        print("hint: their figures are those of an earlier run; `python -m benchmarks NAME` shows why", file=sys.stderr)
    return 1 if failed else 0


def _write() -> None:
    """Write what is kept into the document; what stands outside of the marks is left as it is."""
    kept = {name: json.loads(file.read_text()) for name in NAMES if (file := RESULTS / f"{name}.json").exists()}
    PLOTS.mkdir(exist_ok=True)
    for chart in charts(kept):
        draw(chart, PLOTS)
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    figures = "\n".join(_figures(kept))
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}")


def _run(name: str) -> bool:
    """Run one benchmark and keep what it found; return whether it ended well."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    began_s = time.monotonic()
    command = [sys.executable, "-m", "benchmarks", name, "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            process.terminate()  # it stops what it started
            process.communicate()
            out = ""
    lines = out.splitlines()
    if process.returncode or not lines:
        return False
    found = json.loads(lines[-1]) | {"date": time.strftime("%Y-%m-%d", time.gmtime())}
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
    return True


# The document


def _figures(kept: dict[str, Any]) -> Iterator[str]:
    yield from _promised(kept)
    for name, found in kept.items():
        yield from ("", f"### {name}", "", _circumstances(found), "")
        yield from _plotted(name)
        yield from _tables(found)


def _promised(kept: dict[str, Any]) -> Iterator[str]:
    yield from ("| what | promised | found | |", "|---|---|---|---|")
    for promise in PROMISES:
        found = kept.get(promise.benchmark, {}).get("ratios", {}).get(promise.ratio)
        word = "at most" if promise.is_most else "at least"
        if found is None:
            yield f"| {promise.what} | {word} {promise.value:g} | - | not measured yet |"
            continue
        is_met = found <= promise.value if promise.is_most else found >= promise.value
        yield f"| {promise.what} | {word} {promise.value:g} | {found:g} | {'met' if is_met else '**not met**'} |"


def _circumstances(found: dict[str, Any]) -> str:
    machine = found["machine"]
    load = machine["load"]
    others = f", at a load of {load:g} when it began" if load > 1 else ""
    return f"{found['date']}, {machine['cpus']} processors, Python {machine['python']}{others}."


def _plotted(name: str) -> Iterator[str]:
    if (PLOTS / f"{name}.svg").exists():
        yield from (f"![{name}](performance/{name}.svg)", "")


def _tables(found: dict[str, Any]) -> Iterator[str]:
    spreads = {name: value for name, value in found["metrics"].items() if isinstance(value, dict)}
    for columns in (("median", "least", "most"), ("p50", "p99")):
        rows = {name: value for name, value in spreads.items() if columns[0] in value}
        if rows:
            yield from (f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
            for name, value in rows.items():
                yield f"| {words(name)} | {' | '.join(_number(value[column]) for column in columns)} |"
            yield ""
    rows_of = found["metrics"].get("sizes")
    if rows_of:
        yield from _sizes(rows_of)
    single = {name: value for name, value in found["metrics"].items() if isinstance(value, (int, float))}
    yield from ("| | |", "|---|---|")
    yield from (f"| {words(name)} | {_number(value)} |" for name, value in (single | found["ratios"]).items())


def _sizes(rows: list[dict[str, float]]) -> Iterator[str]:
    yield from (f"| {' | '.join(words(name) for name in rows[0])} |", "|---" * len(rows[0]) + "|")
    yield from (f"| {' | '.join(_number(value) for value in row.values())} |" for row in rows)
    yield ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or abs(value) < 1_000 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
