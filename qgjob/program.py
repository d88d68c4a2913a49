"""What the three programs share at their edge: wrong use told as `error:` and `hint:`, and the release."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

# Typer carries its own click and shows only part of it; the pinned range of releases has these names.
from typer._click.exceptions import ClickException, NoArgsIsHelpError, NoSuchOption

USAGE = 2
INTERRUPTED = 130


def print_release(program: str, tell_more: Callable[[], None] = lambda: None) -> NoReturn:
    """Print the release of this installation, then what else there is to tell, and end."""
    from importlib.metadata import version

    sys.stdout.write(f"{program} {version('qgjob')}\n")
    sys.stdout.flush()
    tell_more()
    raise typer.Exit


def stdout_width() -> int | None:
    """Return the columns of the terminal; None where there is none and so no limit."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return None
    return shutil.get_terminal_size().columns


def run_program(app: typer.Typer) -> NoReturn:
    """Run a program whose commands tell their own errors; wrong use ends in a line, a hint and code 2."""
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(INTERRUPTED)
    except ClickException as error:
        refuse_usage(error)
    sys.exit(code if isinstance(code, int) else 0)


def refuse_usage(error: ClickException) -> NoReturn:
    """Tell wrong use, and end."""
    if isinstance(error, NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        sys.exit(USAGE)
    sentence, hint = _told(error)
    # What somebody typed may hold characters that a terminal obeys.
    plain = "".join(letter if letter.isprintable() else "?" for letter in short(sentence))
    sys.stderr.write(f"error: {plain}\nhint: {hint}\n")
    sys.exit(USAGE)


def _told(error: ClickException) -> tuple[str, str]:
    """Return a usage error as a sentence and a hint, the nearest right word where there is one."""
    if isinstance(error, NoSuchOption):
        from difflib import get_close_matches

        # The dashes alone would make short names alike.
        names = {option.lstrip("-"): option for option in sorted(error.possibilities or ())}
        near = get_close_matches(error.option_name.lstrip("-"), names, n=1)
        hint = f"did you mean {names[near[0]]}?" if near else _help_hint(error)
        return f"there is no option {error.option_name}", hint
    message = re.sub(r"is not a valid int( range)?", "is no whole number", error.format_message())
    message = re.sub(r"is not a valid float( range)?", "is no number", message)
    message = re.sub(r"^Got unexpected extra argument\(s\) \((.*)\)$", r"there is no place for \1", message)
    sentence, _, suggestion = message.partition(" Did you mean ")
    sentence = sentence.rstrip(".")
    return sentence[:1].lower() + sentence[1:], f"did you mean {suggestion}" if suggestion else _help_hint(error)


def _help_hint(error: ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if context is not None else "see --help"


def short(sentence: str) -> str:
    """Keep what somebody typed from flooding the terminal."""
    return sentence if len(sentence) <= 500 else f"{sentence[:400]} ... ({len(sentence)} characters)"
