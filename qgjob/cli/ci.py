"""What is different where a CI service runs us: labels that say for whom, a sign of life, and a report on its pages."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgjob.cli import terminal
from qgjob.cli.terminal import clean

Resource = dict[str, Any]

HEARTBEAT_S = 60.0
"""CI services end a step that says nothing for some minutes."""
MOST_ANNOTATIONS = 10
"""GitHub shows no more errors of one step."""
MOST_ROWS = 100
"""GitHub takes a summary of at most 1 MiB."""
MOST_LINKS = 12
"""Of a job: one for each of its first sessions."""
BAD = ("failed", "timed_out", "errored", "cancelled")

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ci:
    """The CI service that runs us."""

    labels: Mapping[str, str]
    """For whom jobs run: ci, run, commit, ref, url."""
    has_annotations: bool = False
    """Whether lines that begin with `::error` are shown beside the code."""
    summary: Path | None = None
    """Where Markdown is appended that is shown beside the run."""
    sources_url: str = ""
    """Address below which the files of this commit are shown; empty where that is not known."""


def detected(env: Mapping[str, str]) -> Ci | None:
    """Return the CI service that the environment tells of, None where it tells of none."""
    if env.get("GITHUB_ACTIONS") == "true":
        return _github(env)
    if env.get("GITLAB_CI") == "true":
        # Of the pipeline, not of the job: a job that is tried again submits the same under the same key.
        names = {"run": "PIPELINE_ID", "commit": "COMMIT_SHA", "ref": "COMMIT_REF_NAME", "url": "PIPELINE_URL"}
        return Ci(labels=_labels("gitlab", {label: env.get(f"CI_{name}", "") for label, name in names.items()}))
    if env.get("BUILDKITE") == "true":
        names = {"run": "BUILD_ID", "commit": "COMMIT", "ref": "BRANCH", "url": "BUILD_URL"}
        found = {label: env.get(f"BUILDKITE_{name}", "") for label, name in names.items()}
        return Ci(labels=_labels("buildkite", found))
    return None


def _github(env: Mapping[str, str]) -> Ci:
    repository, run, commit = (env.get(f"GITHUB_{name}", "") for name in ("REPOSITORY", "RUN_ID", "SHA"))
    site = f"{env.get('GITHUB_SERVER_URL', '')}/{repository}" if repository else ""
    url = f"{site}/actions/runs/{run}" if site and run else ""
    summary = env.get("GITHUB_STEP_SUMMARY")
    return Ci(
        labels=_labels("github", {"run": run, "commit": commit, "ref": env.get("GITHUB_REF", ""), "url": url}),
        has_annotations=True,
        summary=Path(summary) if summary else None,
        sources_url=f"{site}/blob/{commit}" if site and commit else "",
    )


def _labels(service: str, found: Mapping[str, str]) -> dict[str, str]:
    return {"ci": service, **{name: value for name, value in found.items() if value}}


@contextlib.contextmanager
def heartbeat(read: Callable[[], str], every_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Say how things stand again and again while the context lasts."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(every_s):
            terminal.say(read())

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def census(jobs: Iterable[Resource]) -> str:
    """Return how many jobs stand how, as in `2 completed, 1 running`."""
    counts = Counter(str(job["status"]) for job in jobs)
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def page_of(job_id: int, dashboard_url: str) -> str:
    """Return the address of a job's page on the dashboard."""
    return f"{dashboard_url}/#/jobs/{job_id}"


def report(found: Ci, jobs: list[Resource], dashboard_url: str = "") -> None:
    """Show on the service's own pages how jobs ended.

    Args:
        found: The service.
        jobs: As they ended.
        dashboard_url: Address of the coordinator's pages, for links; empty where it is not known.
    """
    if found.has_annotations:
        for line in error_lines(jobs):
            terminal.say_as_it_is(line)
    if found.summary is not None:
        try:
            with found.summary.open("a", encoding="utf-8") as file:
                file.write(summary(jobs, found.sources_url, dashboard_url))
        except OSError as error:
            terminal.say(f"warning: no summary was written to {found.summary}: {error.strerror}")


def error_lines(jobs: Iterable[Resource]) -> list[str]:
    """Return a workflow command of GitHub for each job that did not pass, as many as are shown."""
    lines = []
    for job in (job for job in jobs if job["status"] in BAD):
        place = {"file": str(job["test"])} if _is_here(job) else {}
        properties = {**place, "title": f"{job['test']} {job['status']}"}
        told = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
        lines.append(f"::error {told}::{_escaped(_why(job))}")
    return lines[:MOST_ANNOTATIONS]


def _is_here(job: Resource) -> bool:
    """Whether the spec is a file of this checkout, to which a report can lead."""
    try:
        return Path(job["test"]).is_file()
    except OSError:
        # The name is too long for a file, or the way to it is barred.
        return False


def _escaped(text: str, more: str = "") -> str:
    """Return text that cannot end a workflow command, or begin one."""
    return "".join(f"%{ord(letter):02X}" if letter in "%\r\n" + more else letter for letter in clean(text))


def _why(job: Resource) -> str:
    reason = job["failure_reason"]
    told = f"{reason['reason']}: {reason['message']}" if reason else str(job["status"])
    return f"job {job['id']}{' on ' + job['device'] if job['device'] else ''}: {told}"


def summary(jobs: list[Resource], sources_url: str = "", dashboard_url: str = "") -> str:
    """Return Markdown: counts, and a table of what did not pass, with links as far as addresses are known."""
    flaky = [job for job in jobs if job["flaky"]]
    bad = [job for job in jobs if job["status"] != "completed"]
    heading = f"### qgjob: {census(jobs)}" + (f" ({len(flaky)} flaky)" if flaky else "")
    lines = [heading, ""]
    if bad or flaky:
        lines += ["| Job | Test | Status | Device | Reason |", "|---|---|---|---|---|"]
        lines += [_row(job, sources_url, dashboard_url) for job in (*bad, *flaky)[:MOST_ROWS]]
        lines.append("")
    if len(bad) + len(flaky) > MOST_ROWS:
        lines += [f"... and {len(bad) + len(flaky) - MOST_ROWS} more.", ""]
    if bad:
        lines += [f"`qgjob logs {bad[0]['id']}` shows the first one's log.", ""]
    return "\n".join(lines) + "\n"


def is_listed(job: Resource) -> bool:
    """Whether a job has a row of its own in a summary."""
    return bool(job["flaky"]) or job["status"] != "completed"


def _row(job: Resource, sources_url: str, dashboard_url: str) -> str:
    test = _markdown(str(job["test"]))
    if sources_url and _is_here(job):
        from urllib.parse import quote

        test = f"[{test}]({sources_url}/{quote(str(job['test']))})"
    status = f"{job['status']} (flaky)" if job["flaky"] else str(job["status"])
    reason = job["failure_reason"] or {"reason": "", "message": ""}
    told = f"{reason['reason']}: {reason['message']}" if reason["reason"] else ""
    number = f"[{job['id']}]({page_of(job['id'], dashboard_url)})" if dashboard_url else str(job["id"])
    links = [f"[{_markdown(_name_of(one))}]({_target(one['url'])})" for one in job.get("links", [])[:MOST_LINKS]]
    cells = (number, test, _markdown(status), _markdown(job["device"] or "-"), " ".join([_markdown(told), *links]))
    return f"| {' | '.join(cells)} |"


def _name_of(link: Resource) -> str:
    return str(link["name"]).rpartition("/")[2].removesuffix(".url")


def _target(url: str) -> str:
    """Return an address that cannot end its link or its cell."""
    return "".join(f"%{ord(letter):02X}" if letter in "()<>|\\ " else letter for letter in clean(url))


def _markdown(text: str) -> str:
    """Return text that reads as it is, and stays in its cell."""
    return _MARKDOWN.sub(r"\\\1", " ".join(clean(text).split()))
