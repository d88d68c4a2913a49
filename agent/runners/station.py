"""Where the sessions of tests are: what the AppWright runner asks of a phone of this host, or of a slot of a cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from agent.artifacts import LeftBehind
from agent.core.model import Installation, LeasedJob, LeaseSpec
from agent.runners.protocol import Observer, Verdict


class Station(Protocol):
    """One place for one session at a time."""

    @property
    def name(self) -> str:
        """What it is called on this host; its files and its share of caches go by it."""

    async def check(self, *, may_restart: bool) -> None:
        """Look whether it is fit for a batch; restart it if that may help, and is allowed.

        Raises:
            RunFailed: It is not, and why.
        """

    async def install(self, lease: LeaseSpec) -> Installation:
        """Bring the build of a lease to where its tests run, unless it is there. For a canary, try it out as well.

        Raises:
            RunFailed: The build or the station does not allow it.
        """

    async def ready(self, job: LeasedJob) -> None:
        """Make sure that a session can be asked for.

        Raises:
            RunFailed: It cannot. Blamed on the test where no other try would help.
        """

    def environment(self) -> dict[str, str]:
        """Return what the wrapper around a project's config must know; ready and installed before."""

    async def begin(self, job: LeasedJob, observer: Observer) -> None:
        """A run begins."""

    async def end(self, out: Path) -> tuple[LeftBehind, ...]:
        """A run has ended: end what it left open, and keep what there is to know of its sessions in a folder.

        Returns:
            Links to what is kept of its sessions elsewhere: by the word of the station, never of a test.
        """

    async def explain(self, verdict: Verdict) -> Verdict:
        """Return the verdict on the run that ended last, with what the station alone can know of its cause."""

    async def lost(self) -> None:
        """Wait until the device has gone away for good."""

    async def is_there(self) -> bool:
        """Whether the device is there now."""

    async def is_ready(self) -> bool:
        """Whether the server that makes sessions answers."""

    async def reset(self) -> None:
        """End every session, however it hangs."""

    async def close(self) -> None:
        """End everything that is kept warm."""
