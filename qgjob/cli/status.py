"""`qgjob status job`."""

from __future__ import annotations

from typing import Annotated

import typer

from qgjob.cli import render
from qgjob.cli.session import Json, Output, chosen_format, client

app = typer.Typer(help="Show how one thing stands.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `job` a command of its own."""


@app.command()
def job(
    job_id: Annotated[int, typer.Option("--job-id", help="The job.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Every attempt, and errors whole.")] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Show one job."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        found = resources.job(opened.get_job(job_id))
    match chosen:
        case "json":
            render.json_out(found)
        case "jsonl":
            render.jsonl_out(found)
        case "id":
            render.line_out(str(found["id"]))
        case _:
            render.job_block(found, is_verbose=verbose)
