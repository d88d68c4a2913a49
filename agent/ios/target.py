"""What is asked of a device of iOS, be it a simulator or made of glass."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from agent.core.model import Blame, Failure

INSTALL_TIMEOUT_S = 300.0


class Target(Protocol):
    """One simulator or device. What the tools refuse is raised as `XcrunFailed`."""

    @property
    def udid(self) -> str:
        """The id under which Apple's tools know it."""

    @property
    def is_simulator(self) -> bool:
        """Whether it takes builds for simulators, and not those for devices."""

    async def complaint(self) -> Failure | None:
        """Say what makes it unfit for a batch, None if nothing does."""

    async def is_there(self) -> bool:
        """Whether it can be worked with now."""

    async def place(self, bundle_id: str) -> str | None:
        """Return where it holds an app, None if it does not: another place after every install."""

    async def install(self, bundle_id: str, folder: Path) -> None:
        """Install the folder of an app, over whatever version is there."""

    async def uninstall(self, bundle_id: str) -> None:
        """Take an app away with its data."""

    async def try_out(self, bundle_id: str) -> None:
        """Start an app, which ends one that runs."""


def unfit(reason: str, message: str) -> Failure:
    """Return a complaint about a device; its reason begins with DEVICE_."""
    return Failure(reason=reason, message=message, blame=Blame.DEVICE)
