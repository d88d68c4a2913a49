"""What the demo stands on: it starts programs, shows commands, and leaves nothing behind, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from agent.supervisor import adopt_orphans, children
from qgjob.cli.terminal import clean

BIN = Path(sys.executable).parent
IS_TERMINAL = sys.stdout.isatty()
IS_COLOURFUL = IS_TERMINAL and "NO_COLOR" not in os.environ
PATIENCE_S = (4.0, 20.0)
"""How long a program may take to end after a first and a second SIGTERM."""
SHOWN_DIAGNOSTICS = 15


class NotKept(Exception):
    """Something did not go as the demo promises; the sentence says what."""


def say(text: str = "", end: str = "\n") -> None:
    """Print, in order with what the commands print."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def title(text: str) -> None:
    """Print the title of the next scene."""
    say(f"\n\033[1m== {text}\033[0m" if IS_COLOURFUL else f"\n== {text}")


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Say what takes long, and while it goes on for how long."""
    begun, over = time.monotonic(), threading.Event()

    def tick() -> None:
        while not over.wait(1 if IS_TERMINAL else 15):
            spent = f"... {time.monotonic() - begun:.0f} s"
            say("\r" + _in_one_line(what, spent) if IS_TERMINAL else f"  {spent}", end="" if IS_TERMINAL else "\n")

    say(_in_one_line(what, "...") if IS_TERMINAL else f"{what} ...", end="" if IS_TERMINAL else "\n")
    clock = threading.Thread(target=tick)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()
        if IS_TERMINAL:
            say()


def _in_one_line(what: str, spent: str) -> str:
    """Cut a text where the terminal would wrap it: a wrapped line cannot be written over, each tick would add one."""
    room = shutil.get_terminal_size().columns - len(spent) - 2
    return f"{what[:room]} {spent}"


class Stage:
    """The programs of the demo in a folder of their own. Leaving it ends every process that came of them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="qgjob-demo-")
        self.folder = Path(self._temporary.name)
        self._programs: dict[str, subprocess.Popen[str]] = {}
        # The settings of whoever runs the demo must not change what it shows.
        own = {name: value for name, value in os.environ.items() if not name.startswith("QGJOB_")}
        home = {"XDG_CONFIG_HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder)}
        self.env = own | home | {"QGJOB_ORG_ID": "qualgent", "QGJOB_OUTPUT": "table"}

    def __enter__(self) -> Self:
        """Take in processes that lose their parent, so that none can get away."""
        adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        return self

    def limit(self, seconds: int) -> None:
        """Let everything that follows take so long, and no longer."""

        def too_long(_number: int, _frame: FrameType | None) -> NoReturn:
            raise NotKept(f"the demo took longer than {seconds} s")

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(seconds)

    def start(self, program: str, *arguments: str) -> str:
        """Show how a program is started, wait until it is ready, and return its ready line.

        Raises:
            NotKept: It ended instead.
        """
        say(f"$ {program} {shlex.join(arguments)} &")
        with self._diagnostics(program).open("w") as diagnostics:
            process = subprocess.Popen(
                [str(BIN / program), *arguments],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=diagnostics,
                text=True,
                # Ctrl-C is for the demo, which then ends the others in order.
                start_new_session=True,
            )
        self._programs[program] = process
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("ready"):
            raise NotKept(f"{program} did not start")
        say(line)
        return line

    def show(self, *arguments: str, code: int = 0) -> None:
        """Show a command and what it prints.

        Raises:
            NotKept: It ended with another exit code.
        """
        say(f"$ qgjob {shlex.join(arguments)}")
        done = subprocess.run([str(BIN / "qgjob"), *arguments], cwd=self.folder, env=self.env, check=False)
        if done.returncode != code:
            raise NotKept(f"qgjob {' '.join(arguments)} ended with {done.returncode}, not {code}")

    def read(self, *arguments: str) -> Any:  # noqa: ANN401 - whatever the command prints
        """Return what a command prints as JSON."""
        return json.loads(self.text(*arguments, "-o", "json"))

    def text(self, *arguments: str) -> str:
        """Return what a command prints, without colours.

        Raises:
            NotKept: It failed.
        """
        command = [str(BIN / "qgjob"), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode != 0:
            raise NotKept(f"qgjob {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return clean(done.stdout)

    def follow(self, job: int) -> datetime:
        """Show a job's log while it grows; return when its first line came.

        Raises:
            NotKept: No line came.
        """
        command = ("logs", str(job), "--follow")
        say(f"$ qgjob {shlex.join(command)}")
        first = None
        with subprocess.Popen(
            [str(BIN / "qgjob"), *command], cwd=self.folder, env=self.env, stdout=subprocess.PIPE, encoding="utf-8"
        ) as follower:
            assert follower.stdout is not None
            for line in follower.stdout:
                first = first or datetime.now(UTC)
                say(f"  | {clean(line)}", end="")
        if first is None:
            raise NotKept(f"the log of job {job} is empty")
        return first

    def stories(self, *events: str) -> list[str]:
        """Return what the coordinator's diagnostics told of some kinds of events."""
        lines = self._diagnostics("qgjob-coordinator").read_text().splitlines()
        wanted = [line for line in lines if any(f"event={event} " in line for event in events)]
        return [line.partition('story="')[2].partition('"')[0] for line in wanted]

    def _diagnostics(self, program: str) -> Path:
        return self.folder / f"{program}.log"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that was started, the last first.

        Raises:
            NotKept: A program left processes behind.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        if kind is not None:
            say("\nStopping what was started ...")
        for process in reversed(self._programs.values()):
            _end(process)
        left = _end_the_left()
        if isinstance(error, Exception):
            self._tell_diagnostics()
        self._temporary.cleanup()
        if left and kind is None:
            raise NotKept(f"processes were left behind: {', '.join(left)}")

    def _tell_diagnostics(self) -> None:
        for program in self._programs:
            say(f"\nThe last lines of {program}:")
            for line in self._diagnostics(program).read_text().splitlines()[-SHOWN_DIAGNOSTICS:]:
                say(f"  {line}")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[str]) -> None:
    """End a program: the second SIGTERM tells an agent not to wait for its running tests."""
    for patience_s in PATIENCE_S:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    else:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _end_the_left() -> list[str]:
    """Kill whatever the programs left behind, and return what it was."""
    left = []
    while found := children():
        for pid in found:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if name:  # nothing is left of a process that has ended, but for its exit code
                left.append(f"{pid} {name.strip()[:100]}")
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left
