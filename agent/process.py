"""Starts commands under the supervisor and speaks with it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PUMP_BYTES = 64 * 1_024
KILL_MARGIN_S = 10.0


class Supervised:
    """A running command. When `wait` returns, nothing of it is left on the host."""

    def __init__(self, process: asyncio.subprocess.Process, output: Callable[[bytes], None]) -> None:
        self._process = process
        self._pump = asyncio.create_task(self._read(output))

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    @property
    def supervisor_pid(self) -> int:
        """The process id of its supervisor."""
        return self._process.pid

    async def _read(self, output: Callable[[bytes], None]) -> None:
        """Pass the output on. Whatever happens to it there, the pipe is emptied: a full one would hold the command."""
        assert self._process.stdout is not None
        failure: Exception | None = None
        while data := await self._process.stdout.read(PUMP_BYTES):
            if failure is None:
                try:
                    output(data)
                except Exception as error:  # noqa: BLE001 - `wait` raises it when the command has ended
                    failure = error
        if failure is not None:
            raise failure

    async def wait(self) -> int:
        """Return the exit code, 128 + signal where it was killed, after all output was taken in."""
        code = await self._process.wait()
        try:
            await self._pump
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()
        return code

    async def stop(self, grace_s: float) -> None:
        """Ask the group to end, insist after the grace, and wait until nothing is left."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(f"stop {grace_s:g}\n".encode())
            await self._process.stdin.drain()
        try:
            await asyncio.wait_for(self._process.wait(), grace_s + KILL_MARGIN_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    directory: Path,
    output: Callable[[bytes], None],
    locks: Sequence[int] = (),
) -> Supervised:
    """Start a command; its stdout and stderr go to `output`, and `locks` are held until nothing of it is left."""
    keep = [word for lock in locks for word in ("--keep-fd", str(lock))]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(Path(__file__).with_name("supervisor.py")),
        *keep,
        "--",
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        cwd=directory,
        pass_fds=tuple(locks),
        # Its own session: a kill of the agent's whole group must not take it along.
        start_new_session=True,
    )
    return Supervised(process, output)


async def capture(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float) -> tuple[int, str]:
    """Run a short command and return its exit code and output.

    Raises:
        TimeoutError: It took longer; it was killed.
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env) if env is not None else None,
    )
    try:
        data, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    finally:
        # It took too long, or nobody waits for it any more.
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, data.decode(errors="replace")
