"""The program `qgjob`. Heavy imports live in the commands: `--help` must be instant."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

# Typer carries its own copy of click and gives this one no public name.
from typer._click.exceptions import ClickException

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
    except typer.Abort:
        sys.exit(130)
    except ClickException as error:
        _refuse(error.format_message()[:500], "", error.exit_code)
    except ClientError as error:
        if GLOBALS.is_debugging:
            raise
        _refuse(str(error), error.hint, error.exit_code)


def _refuse(message: str, hint: str, code: int) -> None:
    from qgjob.cli.render import clean

    sys.stderr.write(f"error: {clean(message)}\n")
    if hint:
        sys.stderr.write(f"hint: {clean(hint)}\n")
    sys.exit(code)
