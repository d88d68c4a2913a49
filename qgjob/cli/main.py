"""The program `qgjob`. Heavy imports live in the commands: `--help` must be instant."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated, NoReturn

import typer

# Typer carries its own click and shows only part of it; the pinned range of releases has these names.
from typer._click.exceptions import ClickException

from qgjob.cli import artifacts, builds, holds, jobs, lab, status
from qgjob.cli.command import Command
from qgjob.cli.complaints import tell_bug, tell_error, tell_trouble_of_host
from qgjob.cli.doctor import doctor, say_coordinators_release
from qgjob.cli.exits import Exit, exit_of_error
from qgjob.cli.globals import GLOBALS
from qgjob.cli.interrupts import heed_first_interrupt
from qgjob.cli.logs import logs
from qgjob.cli.submit import submit
from qgjob.cli.terminal import ReaderGone, abandon_broken_stdout, abandon_readers
from qgjob.errors import ClientError
from qgjob.program import print_release, refuse_usage

EXIT_CODES = (
    "Exit codes: 0 passed or done, 1 a test failed, 2 wrong use, 3 the lab's fault, 4 not allowed, 5 not found,"
    " 6 no coordinator answers, 7 cancelled, 8 the wait timed out, 9 no matching device, 130 Ctrl-C; more on them,"
    " and on 70 and 74, in docs/cli.md."
)
app = typer.Typer(
    name="qgjob",
    help="Run AppWright tests on the devices of your lab.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=Command)(submit)
app.command(cls=Command)(logs)
app.command(cls=Command)(doctor)
holds.add_to(agents=lab.agents, devices=lab.devices)
app.add_typer(status.app, name="status")
app.add_typer(jobs.app, name="jobs")
app.add_typer(lab.queue, name="queue")
app.add_typer(lab.devices, name="devices")
app.add_typer(lab.agents, name="agents")
app.add_typer(builds.app, name="builds")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(lab.config, name="config")


def _print_version(context: typer.Context, is_asked: bool) -> None:
    if is_asked:
        _take_globals(**{name: value for name, value in context.params.items() if name != "version"})
        print_release("qgjob", say_coordinators_release)


@app.callback()
def _globals(
    # Eager, in this order: --version asks the coordinator that the options before it name.
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator",
            metavar="ADDRESS",
            help="HOST:PORT[,HOST:PORT]; default: QGJOB_COORDINATOR, else 127.0.0.1:50051.",
            is_eager=True,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="A profile of the user's config file.", is_eager=True),
    ] = None,
    tls_ca: Annotated[
        str | None,
        typer.Option(
            "--tls-ca",
            metavar="FILE",
            help="The coordinator's CA (PEM), or `system`; without it no TLS.",
            is_eager=True,
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            help="Certificate of yours, where the coordinator asks for one.",
            is_eager=True,
        ),
    ] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its key.", is_eager=True)] = None,
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="FILE", help="File with your token; or set QGJOB_TOKEN.", is_eager=True),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let the token leave this host without TLS.", is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.", is_eager=True)] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show this release and the coordinator's.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run AppWright tests on the devices of your lab."""
    _take_globals(
        coordinator=coordinator,
        profile=profile,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        token_file=token_file,
        insecure=insecure,
        debug=debug,
    )


def _take_globals(*, insecure: bool = False, debug: bool = False, **texts: str | None) -> None:
    GLOBALS.is_insecure, GLOBALS.is_debugging = insecure, debug
    for name, text in texts.items():
        setattr(GLOBALS, name, text)


def main() -> NoReturn:
    """Run the program, and turn whatever happens into a line and a code."""
    # Before gRPC is loaded: it would write of its own to stderr, between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    heed_first_interrupt()
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding does not have must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _tell_bug_of_thread
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        abandon_readers()
        sys.exit(Exit.OK)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(Exit.INTERRUPTED)
    except ClickException as error:
        refuse_usage(error)
    except ClientError as error:
        tell_error(error, str(error), error.hint)
        sys.exit(exit_of_error(error))
    except OSError as error:
        tell_trouble_of_host(error)
        abandon_broken_stdout()
        sys.exit(Exit.HOST_TROUBLE)
    except Exception as error:  # noqa: BLE001 - the top of the program
        tell_bug(error)
        sys.exit(Exit.BUG)
    sys.exit(result if isinstance(result, int) else Exit.OK)


def _open_closed_streams() -> None:
    """Let what goes to a stdout or stderr that the caller has closed, as `2>&-` does, go nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the program


def _tell_bug_of_thread(died: threading.ExceptHookArgs) -> None:
    """Tell what ended a thread; the main thread goes on to its own verdict."""
    if died.exc_value is not None:
        tell_bug(died.exc_value)
