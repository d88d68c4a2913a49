"""Colours of states: the same wherever a state is shown, and always on its word."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from qgjob.cli import harmless, terminal
from qgjob.cli.terminal import STDERR, STDOUT

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {
    # Of jobs, their attempts and tests.
    "queued": "yellow",
    "assigned": "cyan",
    "running": "cyan",
    "completed": "green",
    "passed": "green",
    "failed": "red",
    "timed_out": "red",
    "errored": "magenta",
    "lost": "magenta",
    "rejected": "magenta",
    "preempted": "yellow",
    "released": "yellow",
    "interrupted": "yellow",
    "cancelled": "dim",
    "skipped": "dim",
    # Of devices and agents.
    "idle": "green",
    "leased": "cyan",
    "reserved": "cyan",
    "draining": "yellow",
    "fencing": "magenta",
    "offline": "red",
    "quarantined": "red",
    "connected": "green",
    "disconnected": "red",
    "stopped": "dim",
}


def console(descriptor: int = STDOUT) -> Console:
    """Return Rich's console on stdout or stderr."""
    from rich.console import Console

    # With NO_COLOR Rich alone would still write the sequences for bold and dim.
    is_plain = bool(os.environ.get("NO_COLOR"))
    return Console(color_system=None if is_plain else "auto", highlight=False, stderr=descriptor == STDERR)


def painted(state: str, descriptor: int = STDOUT) -> str:
    """Return the word of a state, in its colour where what it is written to shows colours."""
    stream = sys.stderr if descriptor == STDERR else sys.stdout
    if os.environ.get("NO_COLOR") or not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        return state  # Rich would say the same, and takes a tenth of a second to be loaded.
    return Painter(console(descriptor)).painted(state, state)


def say_with_state(before: str, state: str, after: str) -> None:
    """Print a message in which the word of a state stands."""
    told = f"{terminal.clean(before)}{painted(terminal.clean(state), STDERR)}{terminal.clean(after)}"
    terminal.say_as_it_is(harmless.marked(told, STDERR))


class Painter:
    """Colours of states, as a console writes them."""

    def __init__(self, console: Console) -> None:
        """Take the console, which knows whether there are colours."""
        self._console = console
        self._marks: dict[str, tuple[str, str]] = {}

    def painted(self, state: str, text: str) -> str:
        """Return what is shown of a state in its colour; of `connected, draining` in that of the last word."""
        before, after = self._marks.get(state) or self._learn(state)
        return f"{before}{text}{after}"

    def _learn(self, state: str) -> tuple[str, str]:
        from rich.text import Text

        with self._console.capture() as captured:
            self._console.print(Text("x", style=_STYLES.get(state.rpartition(", ")[2], "")), end="")
        before, _, after = captured.get().partition("x")
        self._marks[state] = before, after
        return before, after
