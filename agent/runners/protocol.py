"""What the agent asks of a runner. One runner belongs to one device and does one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from agent.artifacts import LeftBehind
from agent.core.model import Blame, Failure, Installation, LeasedJob, LeaseKey, LeaseSpec, Outcome, TestResult

INSTALL_STOPPED = "INSTALL_STOPPED"

Result = TypeVar("Result")
Merge = Callable[[Sequence[Path]], Awaitable[tuple[LeftBehind, ...]]]
"""Takes what earlier attempts left for it, the oldest first; raises `MergeFailed`."""


class MergeFailed(Exception):
    """Reports cannot be merged; says why. Each of them is there by itself."""


class RunFailed(Exception):
    """The device could not be prepared; carries why."""

    def __init__(self, failure: Failure) -> None:
        """Take the failure."""
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run ended. The outcome is None when it was stopped before it had one of its own."""

    outcome: Outcome | None
    failure: Failure | None = None
    is_resumable: bool = False
    """Whether a run that was stopped can go on at the first test that was not done."""
    left_behind: tuple[LeftBehind, ...] = ()
    """Files of the run that are of use to people, the most important first."""
    merge: Merge | None = None
    """Makes one report of those of earlier attempts and this one's, where the runner can."""


class Stop:
    """The wish that one preparation or one run ends. It belongs to that one alone, so it is never lost nor stale."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.grace_us = 0

    @property
    def is_asked(self) -> bool:
        """Whether it was asked to end."""
        return self._asked.is_set()

    def ask(self, grace_us: int) -> None:
        """Ask for the end within a grace."""
        self.grace_us = grace_us
        self._asked.set()

    async def wait(self) -> None:
        """Wait until the end is asked for."""
        await self._asked.wait()


async def until_stopped(work: Coroutine[Any, Any, Result], stop: Stop) -> Result:
    """Return what a preparation comes to, unless it is asked to end before.

    Raises:
        RunFailed: It was.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        message = "the preparation was stopped"
        raise RunFailed(Failure(reason=INSTALL_STOPPED, message=message, blame=Blame.NOBODY))
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Where a run tells what it sees. Neither call blocks."""

    output: Callable[[bytes], None]
    test: Callable[[TestResult, bool], None]
    """Takes how a test stands, and whether the run could be resumed if it was stopped now."""


class Runner(Protocol):
    """Puts builds on one device and runs specs there."""

    async def prepare(self, lease: LeaseSpec, stop: Stop) -> Installation:
        """Put the build of a lease on the device.

        Raises:
            RunFailed: It cannot be done, or was stopped.
        """

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        """Run one spec to its end. When it returns, nothing of the run is left on the host."""

    async def close(self) -> None:
        """End everything that the runner keeps warm."""
