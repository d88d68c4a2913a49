"""iPhones and iPads, as `xcrun devicectl` tells of them and works with them (Xcode 15 and newer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Failure
from agent.ios.target import INSTALL_TIMEOUT_S, unfit
from agent.ios.xcrun import Xcrun, XcrunFailed

GONE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneFacts:
    """What devicectl tells of a device."""

    udid: str
    name: str
    model: str
    os_version: str
    is_connected: bool
    """False for one that was paired once and is not here."""
    reason: str = ""
    """What makes it unusable, as the reason of a failure; empty where nothing does."""
    fix: str = ""
    """What to do about that, after the state that is seen."""


def parse_phones(result: Mapping[str, Any]) -> tuple[PhoneFacts, ...]:
    """Return the iPhones and iPads of `devicectl list devices`.

    Raises:
        ValueError: It is not what devicectl told when this was written.
    """
    try:
        phones = [_phone(device) for device in result["devices"] if _is_phone(device)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"devicectl tells of devices in a way that this release does not know: {error!r}") from error
    return tuple(sorted(phones, key=lambda one: one.udid))


def _is_phone(device: Mapping[str, Any]) -> bool:
    hardware = device["hardwareProperties"]
    # A device that was paired over the air and never seen again has no hardware to tell of.
    return hardware.get("platform") == "iOS" and hardware.get("reality") != "virtual" and "udid" in hardware


def _phone(device: Mapping[str, Any]) -> PhoneFacts:
    hardware, software, connection = (device[f"{part}Properties"] for part in ("hardware", "device", "connection"))
    reason, fix = _fault(software, connection)
    return PhoneFacts(
        udid=hardware["udid"],
        name=software.get("name", ""),
        model=hardware.get("marketingName") or hardware.get("productType", ""),
        os_version=software.get("osVersionNumber", ""),
        is_connected=connection.get("tunnelState") != GONE,
        reason=reason,
        fix=fix,
    )


def _fault(software: Mapping[str, Any], connection: Mapping[str, Any]) -> tuple[str, str]:
    if connection.get("tunnelState") == GONE:
        return "DEVICE_LOST", "unavailable: plug it in, or bring it into the same network, and unlock it"
    if connection.get("pairingState") != "paired":
        return "DEVICE_UNAUTHORIZED", "not paired: unlock it and trust this computer"
    if software.get("bootState", "booted") != "booted":
        return "DEVICE_BOOTING", "it has not booted yet"
    if software.get("developerModeStatus") == "disabled":
        return "DEVICE_NO_DEVELOPER_MODE", "developer mode is off: turn it on in Settings > Privacy & Security"
    # While there is no tunnel nothing is known of the image: devicectl mounts it when it connects.
    if connection.get("tunnelState") == "connected" and software.get("ddiServicesAvailable") is False:
        return "DEVICE_NO_DEVELOPER_IMAGE", "its developer disk image is missing: unlock it and open Xcode once"
    return "", ""


async def list_phones(xcrun: Xcrun) -> tuple[PhoneFacts, ...]:
    """Return the devices that this host was ever paired with.

    Raises:
        XcrunFailed: devicectl does not tell.
    """
    try:
        return parse_phones(await xcrun.devicectl("list", "devices"))
    except ValueError as error:
        raise XcrunFailed(str(error)) from error


class Phone:
    """One device."""

    is_simulator = False

    def __init__(self, udid: str, xcrun: Xcrun) -> None:
        self.udid = udid
        self._xcrun = xcrun

    async def _fault(self) -> Failure | None:
        try:
            phones = await list_phones(self._xcrun)
        except XcrunFailed as error:
            return unfit("DEVICE_SILENT", f"devicectl does not tell of {self.udid}: {error}")
        facts = next((one for one in phones if one.udid == self.udid), None)
        if facts is None:
            return unfit("DEVICE_LOST", f"{self.udid} is not known to this computer any more; pair it again")
        return unfit(facts.reason, f"{facts.name or facts.udid}: {facts.fix}") if facts.reason else None

    async def complaint(self) -> Failure | None:
        """Say what makes it unfit for a batch, None if nothing does."""
        found = await self._fault()
        if found is not None:
            return found
        try:
            lock = await self._xcrun.devicectl("device", "info", "lockState", "--device", self.udid)
        except XcrunFailed as error:
            return unfit("DEVICE_SILENT", f"{self.udid} is connected and does not answer: {error}; restart it")
        if lock.get("passcodeRequired") is True:
            return unfit("DEVICE_LOCKED", f"{self.udid} is locked; unlock it, and take its passcode away")
        return None

    async def is_there(self) -> bool:
        """Whether it is connected. A tool that does not tell says nothing of that, and ends no test."""
        found = await self._fault()
        return found is None or found.reason != "DEVICE_LOST"

    async def place(self, bundle_id: str) -> str | None:
        """Return where it holds an app."""
        told = await self._xcrun.devicectl("device", "info", "apps", "--device", self.udid, "--bundle-id", bundle_id)
        apps = [one for one in told.get("apps", ()) if one.get("bundleIdentifier") == bundle_id]
        return str(apps[0].get("url") or "") or None if apps else None

    async def install(self, bundle_id: str, folder: Path) -> None:
        """Install the folder of an app."""
        command = ("devicectl", "device", "install", "app", "--device", self.udid, str(folder))
        await self._xcrun.install(*command, of=bundle_id, timeout_s=INSTALL_TIMEOUT_S)

    async def uninstall(self, bundle_id: str) -> None:
        """Take an app away with its data."""
        await self._xcrun.devicectl("device", "uninstall", "app", "--device", self.udid, bundle_id, timeout_s=60)

    async def try_out(self, bundle_id: str) -> None:
        """Start an app, which ends one that runs."""
        launch = ("device", "process", "launch", "--device", self.udid, "--terminate-existing", bundle_id)
        await self._xcrun.devicectl(*launch, timeout_s=60)
