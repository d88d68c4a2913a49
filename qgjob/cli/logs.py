"""`qgjob logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from qgjob.cli import completion, terminal
from qgjob.cli.exits import Exit
from qgjob.cli.fields import MAX_ID, MAX_NUMBER
from qgjob.cli.session import client


def logs(
    job_id: Annotated[int, typer.Argument(help="The job.", min=1, max=MAX_ID, autocompletion=completion.jobs)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job and its log have ended.")] = False,
    attempt: Annotated[
        int, typer.Option("--attempt", help="Only this attempt, from 1; 0 for all.", min=0, max=MAX_NUMBER)
    ] = 0,
    tail: Annotated[int, typer.Option("--tail", help="Only so many last lines; 0 for all.", min=0, max=MAX_NUMBER)] = 0,
) -> None:
    """Print a job's log through all its attempts; what lies between them goes to stderr."""
    from qgjob.cli.waiting import say_cut

    writer = terminal.LogWriter()
    is_first = True
    with client() as opened:
        try:
            for piece in opened.follow_logs(job_id, attempt=attempt, follow=follow, tail=tail):
                if piece.state is None:
                    writer.write(piece.data)
                    continue
                writer.end()
                say_cut(piece, job_id, is_first=is_first)
                is_first = False
            writer.end()
        except KeyboardInterrupt:
            terminal.say(f"detached; follow again with `qgjob logs {job_id} --follow`")
            raise typer.Exit(Exit.INTERRUPTED) from None
    if is_first:
        terminal.say(f"job {job_id} has no log yet; `qgjob logs {job_id} --follow` waits for it")
