"""`qgjob logs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, terminal
from qgjob.cli.exits import Exit
from qgjob.cli.fields import MAX_ID, MAX_NUMBER
from qgjob.cli.session import client
from qgjob.stamps import Stamper

if TYPE_CHECKING:
    from qgjob.client import LogPiece


def logs(
    job_id: Annotated[
        int, typer.Argument(metavar="ID", help="The job.", min=1, max=MAX_ID, autocompletion=completion.jobs)
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job and its log have ended.")] = False,
    attempt: Annotated[
        int, typer.Option("--attempt", help="Only this attempt, from 1; 0 for all.", min=0, max=MAX_NUMBER)
    ] = 0,
    tail: Annotated[int, typer.Option("--tail", help="Only so many last lines; 0 for all.", min=0, max=MAX_NUMBER)] = 0,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Before each line, when it was written: UTC, by the agent's clock.")
    ] = False,
) -> None:
    """Print a job's log. It goes through all attempts; what lies between them is told on stderr."""
    from qgjob.cli.reader import needed_reader
    from qgjob.cli.waiting import say_cut

    writer = terminal.LogWriter()
    stamper = Stamper() if timestamps else None
    is_first = True
    with needed_reader(), client() as opened:
        try:
            for piece in opened.follow_logs(job_id, attempt=attempt, follow=follow, tail=tail, timestamps=timestamps):
                if piece.state is None:
                    writer.write(piece.data if stamper is None else _stamped(stamper, piece))
                    continue
                if stamper is not None:
                    stamper.begin()
                writer.end()
                say_cut(piece, job_id, is_first=is_first)
                is_first = False
            writer.end()
        except KeyboardInterrupt:
            writer.end()
            terminal.say(f"detached; follow again with `qgjob logs {job_id} --follow`")
            raise typer.Exit(Exit.INTERRUPTED) from None
    if is_first and follow:
        terminal.say(f"job {job_id} has ended without a log")
    elif is_first:
        hint = f"`qgjob logs {job_id} --follow` waits until it has one, or has ended"
        terminal.say(f"job {job_id} has no log yet; {hint}")


def _stamped(stamper: Stamper, piece: LogPiece) -> bytes:
    """Return the bytes of a piece with the times of their lines; say once that some have none."""
    was_told = stamper.is_without_times
    data = stamper.feed(piece.offset, piece.data, piece.times)
    if stamper.is_without_times and not was_told:
        terminal.say("some lines have no time: the agent or the coordinator is of a release that kept none")
    return data
