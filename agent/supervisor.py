"""A small process around each test run and each Appium server, so that nothing outlives its agent.

    python supervisor.py [--grace SECONDS] [--keep-fd FD] -- COMMAND ...

It waits for the line `go`, with which the agent says that its journal knows of this process, starts the command in a
process group of its own and ends with the command's exit code (128 + signal where it was killed). Its standard input is
the agent's hand: a line `stop SECONDS` asks the group to end and insists after the grace, and the end of the input,
which is what a killed agent leaves behind, does the same at once. `--keep-fd` is the device's lock, inherited from the
agent: it is held here until nothing of the command is left, and the command itself never gets it. Should this process
be killed, the kernel kills the command; what that has started is ended by the agent, from its journal. Only the
standard library is used: it has to start fast, and to be hard to break.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
DEFAULT_GRACE_S = 10.0
SWEEP_S = 0.02
KILL_PATIENCE_S = 5.0


def adopt_orphans() -> None:
    """Become the parent of what the command leaves behind. Linux only; elsewhere the process group has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the command in a group of its own; on Linux it does not survive this process.

    Raises:
        OSError: It cannot be started.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    supervisor = os.getpid()

    def die_with_supervisor() -> None:
        if libc is None:
            return
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:  # it died before the kernel was told
            os.kill(os.getpid(), signal.SIGKILL)

    # No other thread runs here that could hold a lock between fork and exec.
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, process_group=0, restore_signals=True, preexec_fn=die_with_supervisor
    )


def is_let_go() -> bool:
    """Wait for the agent's word. Returns whether the command may start."""
    word = b""
    while not word.endswith(b"\n"):
        data = os.read(0, 1)
        if not data:
            return False
        word += data
    return word == b"go\n"


def children() -> list[int]:
    """Return the processes whose parent this is."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return [int(pid) for pid in path.read_text().split()]
    except OSError:
        return []


def signal_all(group: int, number: int) -> None:
    """Signal the command's group, and whoever left it and was adopted; who became another user's stays as it is."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for pid in children():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(leader: subprocess.Popen[bytes]) -> None:
    """Collect adopted processes that have ended; the leader is collected by its own handle."""
    leader.poll()
    for pid in children():
        if pid != leader.pid:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def is_anything_left(leader: subprocess.Popen[bytes]) -> bool:
    """Whether the command or anything that it started still lives."""
    reap(leader)
    if leader.returncode is None or children():
        return True
    try:
        os.killpg(leader.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # all that is left of the group is another user's
    return True


def end(leader: subprocess.Popen[bytes], grace_s: float) -> None:
    """TERM, the grace, KILL, until nothing is left."""
    signal_all(leader.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while is_anything_left(leader) and time.monotonic() < deadline:
        time.sleep(SWEEP_S)
    deadline = time.monotonic() + KILL_PATIENCE_S
    while is_anything_left(leader) and time.monotonic() < deadline:
        signal_all(leader.pid, signal.SIGKILL)
        time.sleep(SWEEP_S)


def watch(leader: subprocess.Popen[bytes], wakeup: int, grace_s: float) -> None:
    """Wait for the end of the command, or for the agent's word."""
    pending = b""
    while leader.poll() is None:
        readable, _, _ = select.select([0, wakeup], [], [], 1.0)
        if wakeup in readable:
            os.read(wakeup, 1_024)
        if 0 not in readable:
            continue
        data = os.read(0, 1_024)
        if not data:
            return
        pending += data
        if b"\n" in pending:
            word, _, seconds = pending.partition(b"\n")[0].partition(b" ")
            if word == b"stop":
                end(leader, float(seconds or grace_s))
                return
            pending = b""


def main(arguments: list[str]) -> int:
    """Run one command to its end."""
    grace_s, keep = DEFAULT_GRACE_S, []
    while arguments and arguments[0] != "--":
        option, value, *arguments = arguments
        if option == "--grace":
            grace_s = float(value)
        elif option == "--keep-fd":
            keep.append(int(value))
        else:
            sys.stderr.write(f"supervisor: unknown option {option}\n")
            return 2
    for descriptor in keep:
        os.set_inheritable(descriptor, False)
    adopt_orphans()
    # A signal to the agent's terminal is for the agent to judge. Handlers, not SIG_IGN: the command would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    wakeup, wakeup_in = os.pipe()
    os.set_blocking(wakeup_in, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wakeup_in)
    if not is_let_go():
        return 128 + signal.SIGTERM
    try:
        leader = start(arguments[1:])
    except OSError as error:
        sys.stderr.write(f"supervisor: cannot start {arguments[1]}: {error.strerror}\n")
        return 127
    watch(leader, wakeup, grace_s)
    end(leader, grace_s if leader.poll() is None else 0.0)
    code = leader.returncode
    return 137 if code is None else 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
