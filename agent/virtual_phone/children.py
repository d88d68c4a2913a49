"""Child processes that end with their parent, however it ends.

A child holds the read end of a pipe whose write end only the parent has: when the parent is gone, killed or not, the
pipe ends and so does the child. Programs that do not watch a pipe are run under ``guard``, which does it for them.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from agent.virtual_phone.errors import LabFailed

END_SECONDS = 5.0
TERMINATE_SECONDS = 3.0


class Child:
    """A running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, diagnostics: Path) -> None:
        self._process = process
        self._diagnostics = diagnostics
        self.name = name

    @classmethod
    async def start(
        cls, name: str, command: list[str], *, diagnostics: Path, environment: Mapping[str, str] | None = None
    ) -> "Child":
        """Start a process in a session of its own, with pipes as its standard input and output.

        A session of its own keeps the terminal's Ctrl-C away: it is the parent that ends its children, in order.

        Args:
            name: what the child is called in errors.
            command: the program and its arguments.
            diagnostics: file that gets the child's standard error.
            environment: the child's environment; the parent's by default.
        """
        with diagnostics.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        return cls(name, process, diagnostics)

    @classmethod
    async def start_guarded(
        cls, name: str, command: list[str], *, diagnostics: Path, environment: Mapping[str, str]
    ) -> "Child":
        """Start a program that does not watch its standard input, under the guard that does."""
        guarded = [sys.executable, "-m", "agent.virtual_phone.guard", *command]
        return await cls.start(name, guarded, diagnostics=diagnostics, environment=environment)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    async def read_line(self, timeout_seconds: float) -> bytes:
        """Return the next line of the output; raises `LabFailed` if none comes in time."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise LabFailed(f"{self.name} did not answer within {timeout_seconds} s") from None
        if not line:
            raise LabFailed(f"{self.name} ended early: {self.last_words()}")
        return line

    async def write_line(self, line: bytes) -> None:
        """Write to the input; raises `LabFailed` if the process is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            raise LabFailed(f"{self.name} is gone: {self.last_words()}") from None

    def last_words(self) -> str:
        """Return the end of what the process wrote to its standard error."""
        text = self._diagnostics.read_text(errors="replace") if self._diagnostics.exists() else ""
        return text.strip()[-500:] or f"exit code {self._process.returncode}"

    async def close(self) -> None:
        """End the process: by the end of its input, else by SIGTERM, else by SIGKILL. May be called again."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not await self._has_ended_within(END_SECONDS):
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            if not await self._has_ended_within(TERMINATE_SECONDS):
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await self._process.wait()
        # The transport keeps the pipes until told otherwise, and complains when it is collected with them.
        self._process._transport.close()  # type: ignore[attr-defined]

    async def _has_ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True
