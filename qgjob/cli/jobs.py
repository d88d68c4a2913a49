"""`qgjob jobs`: list, recent, active, why, wait, cancel, retry."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, fields, render, terminal
from qgjob.cli.command import Command
from qgjob.cli.session import Json, Output, chosen_format, client, is_format_asked_for, show, show_one
from qgjob.errors import NotFound, UsageError

if TYPE_CHECKING:
    from qgjob.v1.job_pb2 import Job, JobFilter

app = typer.Typer(help="List, explain, wait for, cancel and retry jobs.", no_args_is_help=True)

MAX_LIMIT = 100_000
UNFINISHED = ("queued", "assigned", "running")

Limit = Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=MAX_LIMIT)]


def _filter(
    *,
    statuses: list[str],
    priority: int | None = None,
    target: str | None = None,
    app_version_id: str | None = None,
    org_id: str | None = None,
    label: list[str] | None = None,
    run: str | None = None,
) -> JobFilter:
    from qgjob.v1.job_pb2 import JobFilter

    return JobFilter(
        states=fields.status_numbers(statuses),  # type: ignore[arg-type]
        priority=fields.priority(priority) if priority is not None else 0,
        target=fields.target_number(target) if target is not None else 0,  # type: ignore[arg-type]
        app_version_id=app_version_id or "",
        org_id=org_id or "",
        labels=fields.labels(fields.pairs(label or [], "label")),
        run=run or "",
    )


def _list(wanted: JobFilter, limit: int, output: str, *, empty: str = "") -> None:
    from qgjob import resources

    empty = empty or ("No job is like that." if wanted.ByteSize() else render.NO_JOBS)
    with client() as opened:
        # A table shows nothing of what happened to each job, and is there the sooner without.
        found = opened.list_jobs(wanted, limit, with_history=output in ("json", "jsonl"))
        show(resources.jobs(found), output, partial(render.jobs_table, empty=empty))


@app.command("list", cls=Command)
def list_jobs(
    status_filter: Annotated[
        list[str] | None,
        typer.Option(
            "--status-filter",
            metavar="STATUS",
            help="A status, or several with commas; repeatable.",
            autocompletion=completion.statuses,
        ),
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", metavar="1-5", help="A priority.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="KIND", help="any, emulator, device or browserstack.", autocompletion=completion.targets
        ),
    ] = None,
    app_version_id: Annotated[
        str | None, typer.Option("--app-version-id", metavar="APP", help="An app version.")
    ] = None,
    org_id: Annotated[
        str | None, typer.Option("--org-id", metavar="ORG", help="An organisation; default: all.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="K=V; repeatable.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="A run.", autocompletion=completion.runs)
    ] = None,
    limit: Limit = 20,
    output: Output = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    wanted = _filter(
        statuses=status_filter or [],
        priority=priority,
        target=target,
        app_version_id=app_version_id,
        org_id=org_id,
        label=label,
        run=run,
    )
    _list(wanted, limit, chosen_format(output, json))


@app.command(cls=Command)
def recent(limit: Limit = 10, output: Output = None, json: Json = False) -> None:
    """List the newest jobs."""
    _list(_filter(statuses=[]), limit, chosen_format(output, json))


@app.command(cls=Command)
def active(
    limit: Limit = 100,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show them all, and every change; on a pipe a JSON object for each.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """List jobs that wait or run."""
    if watch:
        _watch_active(chosen_format(output, json))
        return
    _list(_filter(statuses=list(UNFINISHED)), limit, chosen_format(output, json), empty=render.NO_ACTIVE_JOBS)


def _watch_active(output: str) -> None:
    from qgjob.cli import live, views
    from qgjob.cli.reader import needed_reader

    with needed_reader():
        if output == "table":
            live.show(views.read_active_jobs)
        else:
            views.stream_active_jobs(output)


@app.command(cls=Command)
def why(
    job_id: Annotated[
        int,
        typer.Argument(metavar="ID", help="A job.", min=1, max=fields.MAX_ID, autocompletion=completion.active_jobs),
    ],
    output: Output = None,
    json: Json = False,
) -> None:
    """Say why a job waits, or how it ended.

    Of one that waits: what keeps it, its place in the queue, and when it is expected to start.
    """
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        found = resources.explanation(opened.explain_job(job_id))
    show_one(found, chosen, render.explanation_lines)


@app.command(cls=Command)
def wait(
    job_ids: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[ID ...]", help="Jobs to wait for.", min=1, max=fields.MAX_ID, autocompletion=completion.jobs
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="All jobs of a run.", autocompletion=completion.runs)
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="All jobs with K=V.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the logs as they come.")] = False,
    wait_timeout: Annotated[
        str | None,
        typer.Option("--wait-timeout", metavar="SPAN", help="Give up waiting after this, as in 30m; the jobs go on."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report to this file.")
    ] = None,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the jobs instead of detaching.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Wait for jobs; the exit code is that of `submit --wait`."""
    from qgjob.cli.waiting import Waiting

    chosen = chosen_format(output, json)
    waiting = Waiting.of(
        follow,
        wait_timeout,
        junit,
        is_cancelling=cancel_on_interrupt,
        is_result_wanted=is_format_asked_for(output, json),
    )
    if not job_ids and not run and not label:
        raise UsageError("no job to wait for", hint="give job ids, --run NAME or --label K=V")
    found: list[Job] = []
    with client() as opened:
        if run or label:
            found = opened.list_jobs(_filter(statuses=[], run=run, label=label), MAX_LIMIT)
            if not found:
                whole = f"belongs to run {run!r}" if run else "has these labels"
                raise NotFound(f"no job {whole}", hint="`qgjob jobs list` shows what there is")
        ids = list(dict.fromkeys([*(job_ids or []), *(job.id for job in reversed(found))]))
        waiting.finish(opened, ids, chosen, known=found)


@app.command(cls=Command)
def cancel(
    job_ids: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[ID ...]", help="Jobs to cancel.", min=1, max=fields.MAX_ID, autocompletion=completion.active_jobs
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="All unfinished jobs with K=V.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="All unfinished jobs of a run.", autocompletion=completion.runs),
    ] = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Cancel jobs. Those that have ended are left as they are."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    if not job_ids and not label and not run:
        raise UsageError("nothing to cancel", hint="give job ids, --label K=V or --run NAME")
    with client() as opened:
        jobs = opened.cancel_jobs(job_ids) if job_ids else []
        if label or run:
            known = {job.id for job in jobs}
            like_that = opened.cancel_jobs(wanted=_filter(statuses=[], label=label, run=run))
            jobs += (job for job in like_that if job.id not in known)
        if running := [str(job.id) for job in jobs if job.cancel_requested]:
            # Their state says nothing of it before their agents have stopped them.
            terminal.say(f"cancel requested: {' '.join(running)}")
        show(resources.jobs(jobs), chosen, partial(render.jobs_table, empty="No unfinished job is like that."))


@app.command(cls=Command)
def retry(
    job_id: Annotated[
        int,
        typer.Argument(
            metavar="ID", help="A job that has ended.", min=1, max=fields.MAX_ID, autocompletion=completion.ended_jobs
        ),
    ],
    output: Output = None,
    json: Json = False,
) -> None:
    """Submit a job again."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        show_one(resources.job(opened.retry_job(job_id)), chosen, lambda job: render.jobs_table([job]))
