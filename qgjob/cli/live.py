"""Live views: painted anew when something has changed, turned by keys, left with q or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from qgjob.cli import printing, styles
from qgjob.cli.session import client
from qgjob.errors import ClientError
from qgjob.program import stdout_width

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod

    from qgjob.client import Client

TICK_S = 1.0
"""How often ages are painted anew where nothing else happens."""
PAUSE_S = 0.1
"""Between two paintings, however much changes."""
PIPE_WIDTH = 80
TERMINATED = 128 + signal.SIGTERM

_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_UP, _DOWN = (b"k", b"\x1b[A", b"\x1bOA"), (b"j", b"\n", b"\r", b"\x1b[B", b"\x1bOB")
_PAGE_UP, _PAGE_DOWN = (b"b", b"\x1b[5~"), (b" ", b"f", b"\x1b[6~")
_FIRST, _LAST = (b"g", b"\x1b[H", b"\x1b[1~"), (b"G", b"\x1b[F", b"\x1b[4~")
_QUIT = b"q"


class View(Protocol):
    """What is shown, as it stands."""

    def heading_size(self, width: int) -> int:
        """Return how many lines on top stay when the rest is turned, on a terminal of so many columns."""

    def size(self, width: int) -> int:
        """Return how many lines are turned."""

    def draw(self, first: int, last: int, width: int) -> list[str]:
        """Return the heading, and the lines from `first` up to `last` of the rest."""


Read = Callable[["Client"], Iterator[View]]


def show(read: Read) -> None:
    """Show views as they come until somebody leaves.

    Raises:
        ClientError: The coordinator refused, or was away for too long.
    """
    feed = _Feed()
    with client(feed.lose) as opened:
        feed.start(read, opened)
        view = feed.first()
        console = styles.console()
        if console.is_dumb_terminal or not sys.stdout.isatty():
            _print_all(feed, view)
        else:
            _Screen(console, feed, view).run()


class _Feed:
    """Reads views on a thread of its own, and wakes whoever waits at the pipe."""

    def __init__(self) -> None:
        self._pipe, self.wake_end = os.pipe()
        os.set_blocking(self.wake_end, False)
        self._failure: Exception | None = None
        self.view: View | None = None
        self.lost: ClientError | None = None

    def start(self, read: Read, opened: Client) -> None:
        def run() -> None:
            try:
                for view in read(opened):
                    self.view, self.lost = view, None
                    self._wake()
            except Exception as error:  # noqa: BLE001 - raised again on the main thread
                self._failure = error
                self._wake()

        threading.Thread(target=run, daemon=True, name="live view").start()

    def lose(self, error: ClientError) -> None:
        """Note that the connection is lost, until the next view."""
        self.lost = error
        self._wake()

    def _wake(self) -> None:
        # A pipe that is full wakes as well as one more byte would.
        with contextlib.suppress(BlockingIOError):
            os.write(self.wake_end, b"!")

    def first(self) -> View:
        """Wait for the first view."""
        while self.view is None:
            self.wait(seconds=None)
        return self.view

    def wait(self, *others: int, seconds: float | None) -> list[int]:
        """Wait for news, or for one of the other descriptors; return which of those is ready."""
        ready, _, _ = select.select([self._pipe, *others], [], [], seconds)
        if self._pipe in ready:
            os.read(self._pipe, 65_536)
            ready.remove(self._pipe)
        if self._failure is not None:
            raise self._failure
        return ready


def _print_all(feed: _Feed, view: View) -> None:
    """Print each view below the last: this terminal cannot be painted on."""
    while True:
        width = stdout_width() or PIPE_WIDTH
        for line in (*view.draw(0, view.size(width), width), ""):
            printing.line_out(line)
        sys.stdout.flush()
        shown = view
        while view is shown:
            feed.wait(seconds=None)
            view = feed.view or shown


class _Screen:
    """The terminal while a view is on it."""

    def __init__(self, console: Console, feed: _Feed, view: View) -> None:
        from rich.live import Live

        self._console = console
        self._feed = feed
        self._live = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._view = view
        self._top = 0
        self._size = 1
        """Lines that can be turned, as they were painted last."""
        self._room = 1
        """How many of them are seen at a time: heading and status line stay."""

    def run(self) -> None:
        keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        with _keys(), _signals(self._feed.wake_end), self._live:
            while True:
                self._paint()
                time.sleep(PAUSE_S)
                if self._feed.wait(*keyboard, seconds=TICK_S) and self._is_left(os.read(keyboard[0], 1_024)):
                    return

    def _is_left(self, typed: bytes) -> bool:
        """Turn the view as the keys say; whether they say to leave it. Nothing typed is the end of the terminal."""
        page = max(1, self._room - 1)
        moves = {_UP: -1, _DOWN: 1, _PAGE_UP: -page, _PAGE_DOWN: page, _FIRST: -sys.maxsize, _LAST: sys.maxsize}
        for key in _KEY.findall(typed):
            if key == _QUIT:
                return True
            for names, lines in moves.items():
                if key in names:
                    self._top = max(0, min(self._top + lines, self._last_top()))
        return not typed

    def _last_top(self) -> int:
        return max(0, self._size - self._room)

    def _paint(self) -> None:
        from rich.console import Group
        from rich.text import Text

        self._view = self._feed.view or self._view
        width, height = self._console.size
        self._size = self._view.size(width)
        self._room = max(1, height - self._view.heading_size(width) - 1)
        self._top = min(self._top, self._last_top())
        last = min(self._size, self._top + self._room)
        lines = self._view.draw(self._top, last, width)[: height - 1]
        overflow: OverflowMethod = "ellipsis" if printing.is_utf8() else "crop"
        shown = [Text.from_ansi(line, no_wrap=True, overflow=overflow) for line in lines]
        shown += [Text("")] * (height - 1 - len(shown))
        shown.append(Text(self._status_line(last), style="dim", no_wrap=True, overflow=overflow))
        self._live.update(Group(*shown), refresh=True)

    def _status_line(self, last: int) -> str:
        if self._feed.lost is not None:
            return "connection lost, trying again | q: quit"
        if self._size <= self._room:
            return "live | q: quit"
        return f"{self._top + 1}-{last} of {self._size} | space, b: page | q: quit"


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Take keys one by one and unseen; without Ctrl-Z, which would leave the shell on the view's screen."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        mode = termios.tcgetattr(keyboard)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(keyboard, termios.TCSANOW, mode)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _signals(wake_end: int) -> Iterator[None]:
    """Paint anew when the terminal's size changes, and leave it clean when the process is told to end."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(TERMINATED)

    def resized(number: int, frame: FrameType | None) -> None:
        """Nothing to do here: Python writes to the pipe, which wakes whoever waits."""

    handlers = {signal.SIGWINCH: resized, signal.SIGTERM: leave, signal.SIGHUP: leave}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    woken = signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
