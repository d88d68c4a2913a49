"""What the agent asks of a runner. One runner belongs to one device and does one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.core.model import Failure, Installation, LeasedJob, LeaseKey, LeaseSpec, Outcome, TestResult


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Where a run tells what it sees. Neither call blocks."""

    output: Callable[[bytes], None]
    test: Callable[[TestResult], None]


class Runner(Protocol):
    """Puts builds on one device and runs specs there."""

    async def prepare(self, lease: LeaseSpec) -> Installation:
        """Put the build of a lease on the device.

        Raises:
            RunFailed: It cannot be done.
        """

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer) -> Verdict:
        """Run one spec to its end. When it returns, nothing of the run is left on the host."""

    async def stop(self, grace_us: int) -> None:
        """Ask the run to end, and after the grace insist. `run` returns."""

    async def close(self) -> None:
        """End everything that the runner keeps warm."""
