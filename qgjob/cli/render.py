"""How jobs, the queue and artifacts look to people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from qgjob.cli.folding import folded
from qgjob.cli.harmless import marked
from qgjob.cli.printing import fold_out, in_a_line, line_out, table
from qgjob.cli.styles import painted
from qgjob.cli.table import Column
from qgjob.cli.terminal import STDOUT, clean, say
from qgjob.cli.words import ago, parse, queue_seconds, rough_span, size, span, spec_name, took, until
from qgjob.counts import counted
from qgjob.program import stdout_width
from qgjob.resources import Resource

MOST_LISTED = 20
"""How many running and how many waiting jobs the queue shows to people; JSON has all that the coordinator sends."""

NO_ACTIVE_JOBS = "No job waits or runs."

NO_JOBS = "No jobs. Submit one with `qgjob submit`."

JOB_COLUMNS = [
    Column("ID"),
    Column("State"),
    Column("Pri"),
    Column("Test", is_flexible=True, is_end_told=True),
    Column("Device", is_flexible=True, is_optional=True),
    Column("App", is_flexible=True, is_optional=True),
    Column("Age", is_optional=True),
    Column("Ran", is_optional=True),
]


def jobs_table(jobs: list[Resource], *, empty: str = NO_JOBS) -> None:
    """Print jobs."""
    table(JOB_COLUMNS, job_rows(jobs), empty=empty)


def job_rows(jobs: Iterable[Resource]) -> list[list[str]]:
    """Return the cells of jobs."""
    return [
        [
            str(job["id"]),
            str(job["status"]),
            f"P{job['priority']}",
            job["test"],
            (job["status"] != "queued" and job["device"]) or "-",
            job["app_version_id"],
            ago(job["create_time"]).removesuffix(" ago"),
            took(job),
        ]
        for job in jobs
    ]


def job_block(job: Resource, *, is_verbose: bool) -> None:
    """Print one job, a line a fact."""
    flaky = " (flaky: it passed on a retry)" if job["flaky"] else ""
    cancelling = " (cancel requested)" if job["cancel_requested"] else ""
    facts = [
        ("Job", str(job["id"])),
        ("Status", f"{painted(job['status'])}{flaky}{cancelling}"),
        ("Test", job["test"]),
        ("App version", f"{job['app_version_id']} of {job['org_id']}"),
        ("Priority", f"{job['priority']} ({job['lane']} lane)"),
        ("Target", job["target"]),
        ("Submitted", f"{job['create_time']} ({ago(job['create_time'])})"),
    ]
    for name, digest in (("Build", job["build_digest"]), ("Bundle", job["bundle_digest"])):
        if digest:
            facts.append((name, f"sha256 {digest[:16]}"))
    if job["queue_position"]:
        facts.append(("Place in queue", str(job["queue_position"])))
    if job["expected_start_time"]:
        facts.append(("Expected start", f"{job['expected_start_time']} ({until(job['expected_start_time'])})"))
    if job["start_time"] and job["status"] != "queued":
        facts.append(("Started", f"{job['start_time']} (after {span(queue_seconds(job))} in queue)"))
    if job["end_time"]:
        facts.append(("Ended", f"{job['end_time']} (ran {took(job)})"))
    if job["device"] and job["status"] != "queued":
        facts.append(("Device", f"{job['device']} of agent {job['agent']}"))
    if job.get("why"):
        facts.append(("Waits", job["why"]))
    if is_verbose:
        facts += _wishes(job)
    if job["failure_reason"]:
        reason = job["failure_reason"]
        blame = f" (blame: {reason['blame']})" if reason["blame"] else ""
        facts.append(("Reason", f"{reason['reason']}: {reason['message']}{blame}"))
    width = stdout_width()
    for name, value in facts:
        # The colours of the state are ours; whatever else stands here may come from a test.
        shown = value if name == "Status" else in_a_line(value)
        fold_out(f"{name + ':':<16}{shown}", width, indent=16)
    is_of_several = len({one["attempt"] for one in job["tests"]}) > 1
    for one in job["tests"]:
        ran_in = f", attempt {one['attempt']}" if is_of_several else ""
        state = painted(one["status"]) + " " * (12 - len(one["status"]))
        fold_out(f"  {state}{in_a_line(one['title'])} ({span(one['seconds'])}{ran_in})", width, indent=14)
        if one["error"] and (is_verbose or one["status"] != "passed"):
            for text in clean(one["error"]).splitlines():
                line_out(marked(f"      {text}", STDOUT))
    if is_verbose:
        for line in (*_timeline(job), *_left_behind(job)):
            fold_out(line, width, indent=13)
        for line in _links(job.get("artifacts", [])):
            line_out(marked(f"  {line}", STDOUT))


def explanation_lines(explanation: Resource) -> None:
    """Print why a job waits, in lines that fit the terminal."""
    line_out(f"Job {explanation['id']} ({painted(explanation['status'])})")
    fold_out(clean(explanation["message"]), stdout_width(), indent=0)


def _wishes(job: Resource) -> list[tuple[str, str]]:
    """Return what was asked for beyond the test and its device."""
    shown = {
        "Limits": f"{span(job['timeout_seconds'])} an attempt, {counted(job['retries'], 'retry')}",
        "Run": job["run"],
        "Retry of": job["retry_of"] and f"job {job['retry_of']}",
        "Selector": _joined(job["selector"]),
        "Labels": _joined(job["labels"]),
    }
    return [(name, value) for name, value in shown.items() if value]


def _joined(entries: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in entries.items())


def _timeline(job: Resource) -> list[str]:
    """Return what happened to a job, a line an event, each with the time since it was submitted."""
    create = parse(job["create_time"])
    assert create is not None
    events = [(create, "queued")]
    for one in job["attempts"]:
        told = [
            *_events(one),
            *(event for test in job["tests"] if test["attempt"] == one["number"] for event in _ran(test)),
        ]
        # What happened at the same moment stays in the order in which it is told.
        events += sorted(told, key=lambda event: event[0])
    if (end := parse(job["end_time"])) is not None:
        events.append((end, painted(str(job["status"]))))
    lines = [f"  {'+' + span((when - create).total_seconds()):<9}{what}" for when, what in events]
    return ["Timeline:", *lines]


def _events(attempt: Resource) -> Iterator[tuple[datetime, str]]:
    build = f", on build sha256 {attempt['build_digest'][:16]}" if attempt["build_digest"] else ""
    reason = attempt["failure_reason"]
    told = f": {' '.join(clean(reason['message']).split())}" if reason else ""
    happened = {
        "assign_time": f"assigned to {clean(attempt['device'])} of agent {clean(attempt['agent'])}",
        "install_time": f"had its build installed in {span(attempt['install_seconds'] or 0)}",
        "start_time": f"started{build}",
        "end_time": f"{painted(str(attempt['outcome']))}{told}",
    }
    for name, what in happened.items():
        if (when := parse(attempt[name])) is not None:
            yield when, f"attempt {attempt['number']} {what}"


def _ran(test: Resource) -> Iterator[tuple[datetime, str]]:
    """Return when a test began, or when it ended with what."""
    begin = parse(test["start_time"])
    if begin is not None:
        yield begin + timedelta(seconds=test["seconds"]), f"  {in_a_line(test['title'])}: {painted(test['status'])}"


def _left_behind(job: Resource) -> list[str]:
    """Return what each attempt left behind, a line an attempt, and how long that is kept."""
    artifacts: list[Resource] = job.get("artifacts", [])
    if not artifacts:
        return []
    lines = ["Artifacts:"]
    for attempt in sorted({one["attempt"] for one in artifacts}):
        ours = [one for one in artifacts if one["attempt"] == attempt]
        kinds = ", ".join(dict.fromkeys(str(one["kind"]) for one in ours))
        lines.append(
            f"  attempt {attempt}: {counted(len(ours), 'file')}, {size(sum(one['size'] for one in ours))}: {kinds}"
        )
    lines.append(f"  {_kept_until(artifacts, job['artifacts_kept_seconds'])}")
    return lines


def _links(artifacts: list[Resource]) -> list[str]:
    """Return where links lead, a line each."""
    return [f"{str(one['name']).removesuffix('.url')}: {clean(one['url'])}" for one in artifacts if one.get("url")]


def _kept_until(artifacts: list[Resource], seconds: float | None) -> str:
    if seconds is None:
        return "kept as long as the job"
    last = max(when for one in artifacts if (when := parse(one["create_time"])) is not None)
    return f"kept until {(last + timedelta(seconds=seconds)).strftime('%Y-%m-%d %H:%M')} UTC unless space gets short"


def queue_block(status: Resource) -> None:
    """Print the queue in the layout that users know."""
    width = stdout_width()
    for line in (*queue_summary(status, width), *active_jobs(status, width, most=MOST_LISTED)):
        line_out(line)


def queue_summary(status: Resource, width: int | None) -> list[str]:
    """Return the lanes, in lines that fit the terminal."""
    lines = ["Queue Status Summary"]
    for lane in status["lanes"]:
        name = f"{lane['lane'].capitalize()} Priority Queue:"
        told = f"{name:<23}{lane['active']} active ({lane['queued']} queued, {lane['running']} running)"
        lines += folded(told, width)
    return [*lines, ""]


def active_jobs(status: Resource, width: int | None, *, most: int) -> list[str]:
    """Return what runs and what waits, at most so many of each, the batches, and the totals; in lines that fit."""
    lines = ["Active Jobs"]
    if not status["running"] and not status["waiting"]:
        lines.append("None. Submit a test with `qgjob submit`.")
    if status["running"]:
        lines.append("Running:")
    lines += [
        f"  {_short(job)} on {clean(str(job['device']))} ({_queued_for(job)} in queue)"
        for job in status["running"][:most]
    ]
    lines += _more(sum(lane["running"] for lane in status["lanes"]), len(status["running"]), most)
    if status["waiting"]:
        lines.append("Waiting in Queue:")
    lines += [f"  {_short(job)} ({_queued_for(job)} in queue)" for job in status["waiting"][:most]]
    lines += _more(sum(lane["queued"] for lane in status["lanes"]), len(status["waiting"]), most)
    for part in (_batches(status["batches"], most), _totals(status)):
        lines += ["", *part] if part else []
    return [part for line in lines for part in folded(line, width, indent=4)]


def _batches(batches: list[Resource], most: int) -> list[str]:
    """Return what each device works on."""
    lines = [
        f"  {clean(one['device'])}: {clean(one['app_version_id'])} of {clean(one['org_id'])},"
        f" {one['jobs_done']} done, {one['jobs_left']} to go"
        for one in batches[:most]
    ]
    hidden = len(batches) - len(lines)
    return ["Batches:", *lines, *([f"  ... and {hidden} more"] if hidden else [])] if lines else []


def _totals(status: Resource) -> list[str]:
    """Return what there is of devices, when the queue should be empty, and what batches have saved."""
    lines = []
    if status["devices"]:
        lines.append("Devices: " + ", ".join(f"{count} {painted(state)}" for state, count in status["devices"].items()))
    if status["expected_drain_time"]:
        lines.append(f"Expected to be empty: {until(status['expected_drain_time'])}")
    if status["installs_avoided"]:
        saved = f"{span(status['seconds_saved'])} (avoided {counted(status['installs_avoided'], 'app installation')})"
        lines.append(f"Time saved: {saved}")
    return lines


def _more(total: int, listed: int, most: int) -> list[str]:
    """Say how many jobs are not shown; the lanes are counted a moment before the jobs are read."""
    hidden = max(total, listed) - min(listed, most)
    return [f"  ... and {hidden} more"] if listed and hidden > 0 else []


def _short(job: Resource) -> str:
    return f"Job {job['id']} (P{job['priority']}) - {spec_name(job)}"


def _queued_for(job: Resource) -> str:
    return rough_span(queue_seconds(job))


NO_ARTIFACTS = "No artifacts. Attempts bring them after they have ended."

ARTIFACT_COLUMNS = [
    Column("Attempt"),
    Column("Kind"),
    Column("Size"),
    Column("Name", is_flexible=True, is_end_told=True),
]


def artifacts_table(artifacts: list[Resource], *, empty: str = NO_ARTIFACTS) -> None:
    """Print what attempts left behind; of a report that is a folder of files only its first page."""
    shown = [one for one in artifacts if is_told_by_itself(one)]
    rows = [[str(one["attempt"]), one["kind"], size(one["size"]), one["name"]] for one in shown]
    table(ARTIFACT_COLUMNS, rows, empty=empty)
    for line in _links(shown):
        line_out(marked(line, STDOUT))  # whole, however long: people open it
    if hidden := len(artifacts) - len(shown):
        say(f"{counted(hidden, 'file')} of reports are not shown; -o json has them all")


def is_told_by_itself(artifact: Resource) -> bool:
    """Whether people are told of a file, which they are not of those that an HTML report consists of."""
    return artifact["kind"] != "html_report" or str(artifact["name"]).endswith("index.html")
