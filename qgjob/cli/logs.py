"""`qgjob logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from qgjob.cli import render
from qgjob.cli.session import client


def logs(
    job_id: Annotated[int, typer.Argument(help="The job.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job and its log have ended.")] = False,
    attempt: Annotated[int, typer.Option("--attempt", help="Only this attempt, from 1.", min=0)] = 0,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines.", min=0)] = 0,
) -> None:
    """Print a job's log through all its attempts; what lies between them goes to stderr."""
    from qgjob.cli.waiting import write_log
    from qgjob.v1.job_pb2 import LOG_STATE_OPEN, LOG_STATE_TRUNCATED

    has_any = False
    with client() as opened:
        try:
            for piece in opened.follow_logs(job_id, attempt=attempt, follow=follow, tail=tail):
                if piece.state is None:
                    write_log(piece.data)
                elif piece.state == LOG_STATE_OPEN:
                    if has_any:
                        render.say(f"--- attempt {piece.attempt} ---")
                    has_any = True
                elif piece.state == LOG_STATE_TRUNCATED:
                    render.say(f"--- the rest of attempt {piece.attempt} never came ---")
        except KeyboardInterrupt:
            render.say(f"detached; follow again with `qgjob logs {job_id} --follow`")
            raise typer.Exit(130) from None
    if not has_any:
        render.say(f"job {job_id} has no log yet; `qgjob logs {job_id} --follow` waits for it")
