"""Starts commands under the supervisor and speaks with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from agent.journal import MARK, Claim, Entry, Journal, new_mark

PUMP_BYTES = 64 * 1_024
KILL_MARGIN_S = 10.0


class Supervised:
    """A running command. When `wait` returns, nothing of it is left on the host."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: Callable[[bytes], None],
        noted: tuple[Journal, Entry] | None = None,
    ) -> None:
        """`noted` is what the journal says of it."""
        self._process = process
        self._noted = noted
        self._pump = asyncio.create_task(self._read(output))
        self._end = asyncio.create_task(self._settle())

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    @property
    def supervisor_pid(self) -> int:
        """The process id of its supervisor."""
        return self._process.pid

    async def _settle(self) -> int:
        """Wait for the supervisor's end. One that was killed has ended nothing: then the journal tells what it left."""
        if self._noted is not None:
            journal, entry = self._noted
            await _exited(self._process.pid)
            if not await asyncio.to_thread(journal.wait_until_ended, entry):
                structlog.get_logger("agent").error("left_process_stays", of=entry.what)
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

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
        code = await asyncio.shield(self._end)
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
            async with asyncio.timeout(grace_s + KILL_MARGIN_S):
                await asyncio.shield(self._end)
        except TimeoutError:
            self._process.kill()
            await self._end


async def _exited(pid: int) -> None:
    """Wait until a child has exited; the event loop's own wait lasts until nobody holds its pipes any more."""
    if sys.platform != "linux":
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, has_exited = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, has_exited.set)
    try:
        await has_exited.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    directory: Path,
    output: Callable[[bytes], None],
    claim: Claim | None = None,
    what: str = "",
    locks: Sequence[int] = (),
) -> Supervised:
    """Start a command; its stdout and stderr go to `output`.

    Args:
        command: The command.
        env: All of its environment.
        directory: Where it runs.
        output: Takes what it prints.
        claim: The device that it works on. Its lock is held until nothing of the command is left, and its journal
            knows of the command before that starts.
        what: What the journal calls it.
        locks: More locks to hold.

    Raises:
        OSError: It cannot be started, or not be written down.
    """
    held = (*locks, claim.lock) if claim is not None else tuple(locks)
    keep = [word for lock in held for word in ("--keep-fd", str(lock))]
    mark = new_mark()
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
        env={**env, MARK: mark},
        cwd=directory,
        pass_fds=held,
        # Its own session: a kill of the agent's whole group must not take it along.
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        noted = None
        if claim is not None:
            noted = claim.journal, await _note(claim, process.pid, mark, what)
        process.stdin.write(b"go\n")
    except BaseException:
        process.stdin.close()  # it was not let go: it ends without having started anything
        await process.wait()
        raise
    return Supervised(process, output, noted)


async def _note(claim: Claim, supervisor: int, mark: str, what: str) -> Entry:
    """Write a command down; one that is given up meanwhile never starts, and is forgotten again."""
    noting = asyncio.create_task(asyncio.to_thread(claim.journal.note, supervisor, mark, claim.device, what))
    try:
        return await asyncio.shield(noting)
    except asyncio.CancelledError:
        await asyncio.wait((noting,))
        if noting.exception() is None:
            await asyncio.to_thread(claim.journal.forget, noting.result())
        raise


async def capture(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float) -> tuple[int, str]:
    """Run a short command and return its exit code and output.

    Raises:
        TimeoutError: It took longer; it was killed, with all that it had started.
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env) if env is not None else None,
        process_group=0,
    )
    try:
        async with asyncio.timeout(timeout_s):
            data, _ = await process.communicate()
    except BaseException:
        # It took too long, or nobody waits for it any more. npm runs scripts of packages: those end with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # Not for its pipe: what has left its group may hold that open for as long as it likes.
        if process.returncode is None:
            await _exited(process.pid)
        process._transport.close()  # type: ignore[attr-defined]  # asyncio offers no other way to let go of a pipe
        raise
    assert process.returncode is not None
    return process.returncode, data.decode(errors="replace")
