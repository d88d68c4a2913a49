"""The program `qgjob`. Heavy imports live in the commands: `--help` must be instant."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import click
import typer

from qgjob.cli import jobs, lab, status
from qgjob.cli.logs import logs
from qgjob.cli.session import GLOBALS
from qgjob.cli.submit import submit
from qgjob.errors import ClientError

app = typer.Typer(
    name="qgjob",
    help="Run AppWright tests on the devices of your lab.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(submit)
app.command()(logs)
app.add_typer(status.app, name="status")
app.add_typer(jobs.app, name="jobs")
app.add_typer(lab.queue, name="queue")
app.add_typer(lab.devices, name="devices")
app.add_typer(lab.agents, name="agents")
app.add_typer(lab.builds, name="builds")
app.add_typer(lab.config, name="config")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        sys.stdout.write(f"qgjob {version('qgjob')}\n")
        raise typer.Exit


@app.callback()
def _globals(
    coordinator: Annotated[
        str | None, typer.Option("--coordinator", help="HOST:PORT; default: QGJOB_COORDINATOR, else 127.0.0.1:50051.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="A profile of the user's config file.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the release.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options before the command."""
    GLOBALS.coordinator = coordinator
    GLOBALS.profile = profile
    GLOBALS.is_debugging = debug


def main() -> None:
    """Run the program, and turn whatever happens into a line and a code."""
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except BrokenPipeError:
        # `| head` has enough. What is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _refuse(_usage(error), "", error.exit_code)
    except ClientError as error:
        if GLOBALS.is_debugging:
            raise
        _refuse(str(error), error.hint, error.exit_code)


def _usage(error: click.ClickException) -> str:
    """Return a usage error with the nearest right word."""
    message = error.format_message()
    if isinstance(error, click.UsageError) and message.startswith("No such command"):
        import difflib

        group = error.ctx.command if error.ctx is not None else None
        known = list(getattr(group, "commands", {}))
        near = difflib.get_close_matches(message.split("'")[1], known, n=1)
        if near and "Did you mean" not in message:
            message = f"{message.rstrip('.')}. Did you mean {near[0]!r}?"
    return message[:500]


def _refuse(message: str, hint: str, code: int) -> None:
    from qgjob.cli.render import clean

    sys.stderr.write(f"error: {clean(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {clean(hint)}\n")
    sys.exit(code)
