"""Errors as people read them: a line, a hint, and with --debug where they came from."""

from __future__ import annotations

from qgjob.cli.globals import GLOBALS
from qgjob.cli.terminal import say
from qgjob.program import short


def tell_error(error: BaseException, sentence: str, hint: str) -> None:
    """Tell what went wrong and what to do about it."""
    if GLOBALS.is_debugging:
        import traceback

        say("".join(traceback.format_exception(error)).rstrip())
    say(f"error: {short(sentence)}")
    if hint:
        say(f"hint: {hint}")


def tell_trouble_of_host(error: OSError) -> None:
    """Tell what this computer refused: a full disk, a file that may not be written."""
    where = f"{error.filename}: " if error.filename is not None else ""
    tell_error(error, f"{where}{error.strerror or error}", "look at this computer; the lab and its jobs go on")


def tell_bug(error: BaseException) -> None:
    """Tell that the program itself is wrong, so that nobody looks for it in the lab or in a test."""
    from importlib.metadata import version

    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    how = "the trace above" if GLOBALS.is_debugging else "what the same command prints with --debug"
    tell_error(
        error,
        f"a bug in qgjob, not a fault of the lab or of a test: {' '.join(told.split())}",
        f"report it with {how}; this is qgjob {version('qgjob')}",
    )
