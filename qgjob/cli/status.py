"""`qgjob status job`."""

from __future__ import annotations

from typing import Annotated

import typer

from qgjob.cli import completion, fields, render
from qgjob.cli.command import Command
from qgjob.cli.session import Json, Output, chosen_format, client, show_one

app = typer.Typer(help="Show how one thing stands.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `job` a command of its own."""


@app.command(cls=Command)
def job(
    job_id: Annotated[
        int,
        typer.Option(
            "--job-id", metavar="ID", help="The job.", min=1, max=fields.MAX_ID, autocompletion=completion.jobs
        ),
    ],
    verbose: Annotated[bool, typer.Option("--verbose", help="Every attempt, and errors whole.")] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Show one job."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        told = opened.get_job(job_id)
        found = (
            resources.job_with_why(told, opened.explain_job(job_id))
            if resources.is_waiting(told)
            else resources.job(told)
        )
        if verbose:
            kept = opened.list_artifacts(job_id)
            found["artifacts"] = [resources.artifact(one) for one in kept.artifacts]
            found["artifacts_kept_seconds"] = resources.kept_seconds(kept)
    show_one(found, chosen, lambda one: render.job_block(one, is_verbose=verbose))
