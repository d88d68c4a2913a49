"""A terminal of a chosen size for one program, and what stands on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60.0
# A shell without job control starts what runs in its background with SIGINT ignored, nohup with SIGHUP, and so all
# their children.
INTERRUPTIBLE = (
    "import os, signal, sys;"
    "signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
HOME = "\x1b[H"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


class PseudoTerminal:
    """What a program writes to its terminal, and what is typed there."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._written = b""

    @property
    def written(self) -> str:
        """All that was written, as it is."""
        return self._written.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """What stands there since the terminal was last painted from its first line, without control sequences."""
        return [line.rstrip() for line in _SEQUENCE.sub("", self.written.rpartition(HOME)[2]).split("\n")]

    def wait_until(self, is_so: Callable[[list[str]], bool]) -> list[str]:
        """Read until the lines are so, and return them."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_so(self.lines):
            left = deadline - time.monotonic()
            assert left > 0, f"it never came to that:\n{self.lines}"
            assert self._read(left), f"it ended before:\n{self.lines}"
        return self.lines

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> int:
        """Wait for the program's end, and return its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, seconds: float) -> bool:
        # Not by select(), which takes no descriptor above 1,023.
        readable = select.poll()
        readable.register(self._descriptor, select.POLLIN)
        if not readable.poll(seconds * 1_000):
            return False
        # A terminal that nobody holds any more reads as an error on Linux.
        with contextlib.suppress(OSError):
            data = os.read(self._descriptor, 65_536)
            self._written += data
            return bool(data)
        return False


@contextmanager
def in_terminal(
    command: list[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24, folder: Path | None = None
) -> Iterator[PseudoTerminal]:
    """Run a program in a terminal, of which it is the only one."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    plain = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-c", INTERRUPTIBLE, shutil.which(command[0]) or command[0], *command[1:]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={"TERM": "xterm-256color", **plain},
        cwd=folder,
    )
    os.close(theirs)
    try:
        yield PseudoTerminal(process, ours)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        os.close(ours)
