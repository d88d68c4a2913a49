"""`qgjob artifacts`: what the attempts of a job left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, printing, render, terminal, words
from qgjob.cli.command import Command
from qgjob.cli.fields import MAX_ID, MAX_NUMBER
from qgjob.cli.progress import showing_progress
from qgjob.cli.session import Json, Output, chosen_format, client, show, show_one
from qgjob.counts import counted
from qgjob.errors import UsageError
from qgjob.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgjob.v1.artifact_pb2 import Artifact

app = typer.Typer(help="Show and fetch what jobs left behind.", no_args_is_help=True)

DEFAULT_FOLDER = "qgjob-artifacts"

JobId = Annotated[int, typer.Argument(help="The job.", min=1, max=MAX_ID, autocompletion=completion.jobs)]
Attempt = Annotated[
    int, typer.Option("--attempt", help="Only of this attempt, from 1; 0 for all.", min=0, max=MAX_NUMBER)
]
Kinds = Annotated[
    list[str] | None, typer.Option("--kind", help="Only files of this kind, as in screenshot or video; repeatable.")
]


@app.callback()
def _group() -> None:
    """Keep the commands below commands of their own."""


@app.command("list", cls=Command)
def list_artifacts(
    job_id: JobId,
    attempt: Attempt = 0,
    kind: Kinds = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """List the artifacts of a job, by attempt and name."""
    from qgjob import resources

    chosen, kinds = chosen_format(output, json), _checked(kind or [])
    with client() as opened:
        left = opened.list_artifacts(job_id).artifacts
    found = [resources.artifact(one) for one in _chosen(left, attempt, kinds)]
    empty = _nothing_of(job_id) if left else render.NO_ARTIFACTS
    show(found, chosen, lambda records: render.artifacts_table(records, empty=empty), key="name")


@app.command("download", cls=Command)
def download_artifacts(
    job_id: JobId,
    to: Annotated[
        Path | None, typer.Option("--to", help=f"The folder; default: {DEFAULT_FOLDER}/JOB.", show_default=False)
    ] = None,
    attempt: Attempt = 0,
    kind: Kinds = None,
    output: Output = None,
    json: Json = False,
) -> None:
    """Fetch the artifacts of a job into a folder, as attempt-N/NAME. What is there already is not fetched again."""
    from qgjob import resources
    from qgjob.artifacts import download

    chosen, kinds = chosen_format(output, json), _checked(kind or [])
    folder = to or Path(DEFAULT_FOLDER) / str(job_id)
    with client() as opened:
        found = _chosen(opened.list_artifacts(job_id).artifacts, attempt, kinds)
        with showing_progress(f"job {job_id}") as tell:
            paths = download(opened, job_id, found, folder, tell)
    records = [{**resources.artifact(one), "path": str(path)} for one, path in zip(found, paths, strict=True)]
    show(records, chosen, lambda records: _tell_downloaded(records, job_id, folder), key="path")


@app.command("open", cls=Command)
def open_report(
    job_id: JobId,
    attempt: Attempt = 0,
    output: Output = None,
    json: Json = False,
) -> None:
    """Show the HTML report of a job in a browser.

    It is that of its last attempt which has one, and is kept in a folder of the user's cache, whose path is printed.
    Where no browser can be opened, or the output goes to a program, that is all.
    """
    from qgjob.cli.reports import keep_report, open_in_browser

    chosen = chosen_format(output, json)
    with client() as opened:
        page = keep_report(opened, job_id, attempt)
    is_open = sys.stdout.isatty() and open_in_browser(page)
    if chosen == "table":
        printing.line_out(str(page))
        if not is_open:
            terminal.say("no browser was opened; open this file in one")
        return
    show_one({"job": job_id, "path": str(page), "opened": is_open}, chosen, lambda _: None, key="path")


def _tell_downloaded(records: list[Resource], job_id: int, folder: Path) -> None:
    if not records:
        terminal.say(_nothing_of(job_id))
        return
    printing.line_out(f"{counted(len(records), 'file')}, {words.size(sum(one['size'] for one in records))} in {folder}")


def _nothing_of(job_id: int) -> str:
    return f"job {job_id} has left nothing behind that was asked for"


def _chosen(artifacts: Sequence[Artifact], attempt: int, kinds: set[int]) -> list[Artifact]:
    return [
        one for one in artifacts if (not attempt or one.attempt_number == attempt) and (not kinds or one.kind in kinds)
    ]


def _checked(words: list[str]) -> set[int]:
    """Return kinds by their words.

    Raises:
        UsageError: There is no such kind.
    """
    from qgjob.resources import word
    from qgjob.v1.artifact_pb2 import ARTIFACT_KIND_UNSPECIFIED, ArtifactKind

    kinds = {word(ArtifactKind, kind): kind for kind in ArtifactKind.values() if kind != ARTIFACT_KIND_UNSPECIFIED}
    for asked in words:
        if asked not in kinds:
            raise UsageError(f"--kind {asked} is no kind of artifact", hint=f"use one of {', '.join(sorted(kinds))}")
    return {kinds[asked] for asked in words}
