"""Runs a program until the guard's standard input ends: ``python -m agent.virtual_phone.guard PROGRAM ARGUMENT...``.

The parent holds the other end of the pipe. When the parent dies, by whatever signal, the pipe ends and the guard ends
the program. On Linux the kernel also kills the program should the guard itself be killed.
"""

import asyncio
import contextlib
import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable

TERMINATE_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1
_USAGE = 2


def _die_with_guard() -> Callable[[], None] | None:
    """Return what the program must do between fork and exec, where the kernel offers it."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _guard(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard())  # noqa: ASYNC220
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(asyncio.to_thread(process.wait))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(_read_to_end(reader))]
    await asyncio.wait([ended, *waits], return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if not ended.done():
        process.terminate()
        done, _ = await asyncio.wait([ended], timeout=TERMINATE_SECONDS)
        if not done:
            process.kill()
    return await ended


async def _read_to_end(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass
    return True


def run() -> int:
    """Run the program in the arguments of the process; return its exit code."""
    command = sys.argv[1:]
    if not command:
        sys.stderr.write("usage: python -m agent.virtual_phone.guard PROGRAM ARGUMENT...\n")
        return _USAGE
    code = asyncio.run(_guard(command))
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(run())
