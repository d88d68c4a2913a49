"""The care of one Android device: it is looked at before each batch, cleaned of the last one, and mended if it may be.

A device that is not fit makes its batch run elsewhere, and its coordinator holds it until a canary passes. So all that
mends it happens in canaries, and the coordinator's waits between those are the back-off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from shlex import quote

import structlog

from agent.android import HUNG, Adb, Apk
from agent.core.model import Blame, Failure
from agent.health import REBOOT_REASONS, Limits, complaint, restart
from agent.runners.protocol import RunFailed

MOST_RESTARTS = 3
"""Restarts in a row; after them the device needs hands."""
LAST_TESTED = "/data/local/tmp/qgjob-tested"
"""File on the device with the package of the last batch. The device knows best: it outlives agents, and is reset as an
emulator is.
"""
_PACKAGE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)+")
_START_ERROR = re.compile(r"^Error", re.MULTILINE)
DRIVER_PACKAGES = ("io.appium.uiautomator2.server", "io.appium.uiautomator2.server.test")


@dataclass(frozen=True, slots=True, kw_only=True)
class CareOptions:
    """What the operator wants done to devices."""

    limits: Limits = field(default_factory=Limits)
    may_restart: bool = False
    """Whether a device that does not get well may be restarted."""
    removes_apps: bool = False
    """Whether the app of a batch is uninstalled before another app is tested."""


class Care:
    """Of one device."""

    def __init__(self, adb: Adb, serial: str | None, options: CareOptions) -> None:
        """`serial` is what the device must say that its serial number is; None for any."""
        self._adb = adb
        self._serial = serial
        self._options = options
        self._restarts = 0

    async def check(self, *, may_restart: bool) -> None:
        """Look whether the device is fit for a batch; restart it if that may help, and is allowed.

        Raises:
            RunFailed: It is not, and why.
        """
        found = await complaint(self._adb, self._serial, self._options.limits)
        if found is not None and may_restart and self._may_mend(found):
            self._restarts += 1
            structlog.get_logger("agent").warning("device_restarted", device=self._adb.udid, reason=found.reason)
            try:
                await restart(self._adb)
            except TimeoutError:
                raise RunFailed(found) from None
            found = await complaint(self._adb, self._serial, self._options.limits)
        if found is not None:
            raise RunFailed(found)
        self._restarts = 0

    def _may_mend(self, found: Failure) -> bool:
        is_allowed = self._options.may_restart and self._restarts < MOST_RESTARTS
        return is_allowed and found.reason in REBOOT_REASONS

    async def clean_up(self, package: str) -> None:
        """End what the last batch left running, and take the data or the whole of its app away if another one comes.

        Which that was is asked of the device, so it is also done when another agent ran it, or an earlier life of this.

        Raises:
            RunFailed: The device does not answer; what it has noted stays.
        """
        last = await self._last_tested()
        if last is not None:
            await self._ask("shell", "; ".join(f"am force-stop {quote(name)}" for name in (last, *DRIVER_PACKAGES)))
        if last is not None and last != package:
            await self._take_away(last)
        if last != package:
            await self._remember(package)

    async def _last_tested(self) -> str | None:
        code, text = await self._ask("shell", f"cat {LAST_TESTED}")
        found = _PACKAGE.fullmatch(text.strip())
        return found[0] if code == 0 and found is not None else None

    async def _take_away(self, package: str) -> None:
        if self._options.removes_apps:
            await self._ask("uninstall", package)
        else:
            await self._ask("shell", f"pm clear {quote(package)}")

    async def _ask(self, *arguments: str) -> tuple[int, str]:
        """Return what the device answers, be it a refusal; an app that is there no more is no matter."""
        code, text = await self._adb.run(*arguments)
        if code == HUNG or (code != 0 and text.startswith(("error:", "adb:"))):
            message = f"{self._adb.udid} cannot be cleaned of its last app: {text.strip()}"
            raise RunFailed(Failure(reason="CLEAN_UP_FAILED", message=message, blame=Blame.DEVICE))
        return code, text

    async def _remember(self, package: str) -> None:
        """Note on the device what is tested next; last, so that who is interrupted cleans up once more."""
        code, text = await self._adb.run("shell", f"echo {quote(package)} > {LAST_TESTED}")
        if code != 0:
            reason = text.strip() or f"code {code}"
            structlog.get_logger("agent").warning("last_app_not_noted", device=self._adb.udid, reason=reason)

    async def try_out(self, apk: Apk) -> None:
        """Start an app and end it again.

        Raises:
            RunFailed: The device does not start it.
        """
        code, text = await self._adb.run("shell", f"am start -W -n {quote(f'{apk.package}/{apk.activity}')}")
        if code != 0 or _START_ERROR.search(text) is not None:
            lines = text.strip().splitlines() or ["no answer"]
            message = f"{self._adb.udid} does not start {apk.package}: {lines[-1]}"
            raise RunFailed(Failure(reason="DEVICE_STARTS_NO_APP", message=message, blame=Blame.DEVICE))
        await self._adb.run("shell", f"am force-stop {quote(apk.package)}")
