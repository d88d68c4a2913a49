"""Simulators, as `xcrun simctl` tells of them and works with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Failure
from agent.ios.target import INSTALL_TIMEOUT_S, unfit
from agent.ios.xcrun import Xcrun, XcrunFailed

BOOTED = "Booted"
_RUNTIME = re.compile(r"\.SimRuntime\.iOS-(\d+(?:-\d+)*)$")
_UDID = re.compile(r"^[0-9A-Fa-f-]{36}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorFacts:
    """What simctl tells of a simulator."""

    udid: str
    name: str
    model: str
    os_version: str
    state: str
    """Shutdown, Booting, Booted, Shutting Down or Creating."""
    problem: str = ""
    """Why it cannot be booted; empty where it can."""

    @property
    def release(self) -> tuple[int, ...]:
        """Its version, to be compared."""
        return tuple(int(part) for part in self.os_version.split("."))


def parse_simulators(listing: bytes) -> tuple[SimulatorFacts, ...]:
    """Return the iOS simulators of `simctl list devices --json`, those of the newest iOS first.

    Raises:
        ValueError: It is not what simctl told when this was written.
    """
    try:
        told = json.loads(listing)["devices"]
        found = [facts for runtime, devices in told.items() for facts in _of_runtime(runtime, devices)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"simctl tells of simulators in a way that this release does not know: {error!r}") from error
    return tuple(sorted(found, key=lambda one: (*(-part for part in one.release), one.name, one.udid)))


def _of_runtime(runtime: str, devices: list[dict[str, Any]]) -> Iterator[SimulatorFacts]:
    version = _RUNTIME.search(runtime)
    if version is None:
        return  # a watch, a television
    for device in devices:
        if not _UDID.match(device["udid"]):
            raise ValueError(f"simctl tells of a simulator {device['udid']!r}, which is no udid")
        kind = str(device.get("deviceTypeIdentifier", "")).rpartition(".")[2]
        is_available = device.get("isAvailable") is True
        yield SimulatorFacts(
            udid=device["udid"],
            name=device["name"],
            model=kind.replace("-", " ") or device["name"],
            os_version=version[1].replace("-", "."),
            state=device["state"],
            problem="" if is_available else device.get("availabilityError") or "its runtime is not installed",
        )


async def list_simulators(xcrun: Xcrun) -> tuple[SimulatorFacts, ...]:
    """Return the iOS simulators of this host.

    Raises:
        XcrunFailed: simctl does not tell.
    """
    try:
        return parse_simulators(await xcrun.simctl("list", "devices", "--json"))
    except ValueError as error:
        raise XcrunFailed(str(error)) from error


class Simulator:
    """One simulator."""

    is_simulator = True

    def __init__(self, udid: str, xcrun: Xcrun) -> None:
        self.udid = udid
        self._xcrun = xcrun

    async def state(self) -> SimulatorFacts | None:
        """Return what is told of it, None if it is not there any more.

        Raises:
            XcrunFailed: simctl does not tell.
        """
        return next((one for one in await list_simulators(self._xcrun) if one.udid == self.udid), None)

    async def complaint(self) -> Failure | None:
        """Say what makes it unfit for a batch, None if nothing does."""
        try:
            facts = await self.state()
        except XcrunFailed as error:
            return unfit("DEVICE_SILENT", f"simctl does not tell of {self.udid}: {error}")
        if facts is None:
            return unfit("DEVICE_LOST", f"there is no simulator {self.udid} any more")
        if facts.problem:
            return unfit("DEVICE_LOST", f"{facts.name} cannot be used: {facts.problem}")
        if facts.state != BOOTED:
            return unfit("DEVICE_BOOTING", f"{facts.name} is {facts.state}; boot it, or let the agent: --simulators")
        return None

    async def is_there(self) -> bool:
        """Whether it is booted. A tool that does not tell says nothing of that, and ends no test."""
        found = await self.complaint()
        return found is None or found.reason == "DEVICE_SILENT"

    async def place(self, bundle_id: str) -> str | None:
        """Return where it holds an app."""
        try:
            told = await self._xcrun.simctl("get_app_container", self.udid, bundle_id, "app")
        except XcrunFailed:
            return None  # it says so of an app that is not there, and nothing else fails before the install does
        return told.decode(errors="replace").strip() or None

    async def install(self, bundle_id: str, folder: Path) -> None:
        """Install the folder of an app."""
        command = ("simctl", "install", self.udid, str(folder))
        await self._xcrun.install(*command, of=bundle_id, timeout_s=INSTALL_TIMEOUT_S)

    async def uninstall(self, bundle_id: str) -> None:
        """Take an app away with its data."""
        await self._xcrun.simctl("uninstall", self.udid, bundle_id)

    async def try_out(self, bundle_id: str) -> None:
        """Start an app, which ends one that runs."""
        await self._xcrun.simctl("launch", "--terminate-running-process", self.udid, bundle_id)

    async def boot(self, timeout_s: float) -> None:
        """Boot it, and wait until it has booted.

        Raises:
            XcrunFailed: It does not.
        """
        # Boots it where it is not, and returns once the home screen is there.
        await self._xcrun.simctl("bootstatus", self.udid, "-b", timeout_s=timeout_s)

    async def shut_down(self) -> None:
        """Shut it down, if it runs.

        Raises:
            XcrunFailed: It does not go down.
        """
        facts = await self.state()
        if facts is not None and facts.state != "Shutdown":
            await self._xcrun.simctl("shutdown", self.udid, timeout_s=60)

    async def erase(self) -> None:
        """Take all its content and settings away; it is shut down.

        Raises:
            XcrunFailed: It cannot be.
        """
        await self._xcrun.simctl("erase", self.udid, timeout_s=60)
