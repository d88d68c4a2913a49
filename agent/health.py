"""Whether a device is fit for a batch, and how it is: one command on the device tells all.

What is only asleep is woken. All else is told with what to do about it; each complaint has a reason of its own, and all
of them begin with DEVICE_, which the coordinator takes to be the device's fault for certain.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

from agent.android import Adb
from agent.core.model import Blame, Failure, Vitals

LEAST_FREE_BYTES = 100 * 1_024 * 1_024
LEAST_BATTERY_PERCENT = 10
"""Below it a device that is not charged may not last for a batch."""
MOST_DECIDEGREES = 500
REBOOT_REASONS = frozenset({"DEVICE_BOOTING", "DEVICE_PACKAGE_MANAGER_DOWN", "DEVICE_SILENT"})
"""Complaints that a restart may mend."""
WAKE_TRIES = 3
WAKE_S = 0.5
BOOT_TIMEOUT_S = 180.0
BOOT_POLL_S = 2.0

_SECTIONS = {
    "serial": "getprop ro.serialno",
    "booted": "getprop sys.boot_completed",
    "sdk": "getprop ro.build.version.sdk",
    "battery": "dumpsys battery",
    "storage": "df -k /data",
    "packages": "pm list packages android",
    "power": "dumpsys power",
    "window": "dumpsys window",
}
VITAL_SECTIONS = ("sdk", "battery", "storage")
_MARK = "qgjob-section"
_WAKE = "input keyevent KEYCODE_WAKEUP; wm dismiss-keyguard"
_PACKAGES_DOWN = re.compile(r"Can't find service|Could not access the Package Manager|DeadSystem")
_LOCKED = re.compile(r"(?:mShowingLockscreen|mDreamingLockscreen|isStatusBarKeyguard|mIsShowing)=true")
_POWERED = re.compile(r"(?:AC|USB|Wireless|Dock) powered: true")
_FREE = re.compile(r"^\S+\s+\d+\s+\d+\s+(\d+)\s+\d+%\s+\S+$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a device must have to be given a batch."""

    free_bytes: int = LEAST_FREE_BYTES
    battery_percent: int = LEAST_BATTERY_PERCENT


async def look(adb: Adb, names: tuple[str, ...] = tuple(_SECTIONS)) -> dict[str, str] | None:
    """Ask a device for some sections, in one command; None where it does not answer."""
    script = "; ".join(f"echo {_MARK} {name}; {_SECTIONS[name]}" for name in names)
    _, text = await adb.run("shell", script)
    _, *parts = re.split(rf"^{_MARK} (\w+)\r?$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True)) if parts else None


def vitals_of(sections: dict[str, str]) -> Vitals:
    """Return how a device is, as far as it told."""
    free_kib = _FREE.findall(sections.get("storage", ""))
    return Vitals(
        api_level=_number(r"^\s*(\d+)\s*$", sections.get("sdk", "")),
        battery_percent=_number(r"^\s*level: (\d+)", sections.get("battery", "")),
        temperature_decidegrees=_number(r"^\s*temperature: (-?\d+)", sections.get("battery", "")),
        free_bytes=int(free_kib[-1]) * 1_024 if free_kib else None,
    )


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found is not None else None


async def read_vitals(adb: Adb) -> Vitals | None:
    """Return how a device is; None where it does not answer."""
    sections = await look(adb, VITAL_SECTIONS)
    return vitals_of(sections) if sections is not None else None


async def complaint(adb: Adb, serial: str | None, limits: Limits) -> Failure | None:
    """Say what makes a device unfit for a batch, None if nothing does. A screen that is off is turned on.

    Args:
        adb: The device.
        serial: What it must say that its serial number is; None for any.
        limits: What it must have.
    """
    state, fix = await _state(adb)
    if state != "device":
        return _unfit(_STATE_REASONS.get(state, "DEVICE_LOST"), f"{adb.udid} is {state}; {fix}")
    sections = await look(adb)
    if sections is None:
        return _unfit("DEVICE_SILENT", f"{adb.udid} is connected and answers no command; restart it")
    for _ in range(WAKE_TRIES):
        if not _is_asleep(sections) and not _is_locked(sections):
            break
        await adb.run("shell", _WAKE)
        await asyncio.sleep(WAKE_S)  # until the lock has slid away
        sections = await look(adb) or sections
    return judged(adb.udid, sections, serial, limits)


def judged(udid: str, sections: dict[str, str], serial: str | None, limits: Limits) -> Failure | None:
    """Say what makes a device unfit that told so much of itself."""
    vitals = vitals_of(sections)
    told = sections.get("serial", "").strip()
    if serial is not None and told not in ("", serial):
        return _unfit("DEVICE_WRONG_SERIAL", f"{udid} says that it is {told}, and {serial} was leased")
    if sections.get("booted", "").strip() != "1":
        return _unfit("DEVICE_BOOTING", f"{udid} has not booted; wait for it, or restart it")
    if _PACKAGES_DOWN.search(sections.get("packages", "")):
        return _unfit("DEVICE_PACKAGE_MANAGER_DOWN", f"the package manager of {udid} does not answer; restart it")
    if vitals.free_bytes is not None and vitals.free_bytes < limits.free_bytes:
        free, wanted = vitals.free_bytes // 1_048_576, limits.free_bytes // 1_048_576
        return _unfit(
            "DEVICE_STORAGE_LOW", f"{udid} has {free} MB free, and {wanted} are wanted; free some space on it"
        )
    is_powered = _POWERED.search(sections.get("battery", "")) is not None
    if vitals.battery_percent is not None and vitals.battery_percent < limits.battery_percent and not is_powered:
        return _unfit("DEVICE_BATTERY_LOW", f"the battery of {udid} is at {vitals.battery_percent} %; charge it")
    if vitals.temperature_decidegrees is not None and vitals.temperature_decidegrees >= MOST_DECIDEGREES:
        degrees = vitals.temperature_decidegrees // 10
        return _unfit("DEVICE_TOO_HOT", f"the battery of {udid} has {degrees} degrees; let it cool down")
    if _is_asleep(sections) or _is_locked(sections):
        return _unfit("DEVICE_LOCKED", f"{udid} is locked; unlock it, and take its screen lock away")
    return None


async def restart(adb: Adb) -> None:
    """Restart a device and wait until it has booted, or has had its time."""
    await adb.run("reboot")
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        await asyncio.sleep(BOOT_POLL_S)  # until it has gone down
        while not await _has_booted(adb):  # noqa: ASYNC110 - adb is silent when a device has booted
            await asyncio.sleep(BOOT_POLL_S)


async def _has_booted(adb: Adb) -> bool:
    sections = await look(adb, ("booted",))
    return sections is not None and sections["booted"].strip() == "1"


_STATE_REASONS = {
    "offline": "DEVICE_OFFLINE",
    "unauthorized": "DEVICE_UNAUTHORIZED",
    "no permissions": "DEVICE_NO_PERMISSIONS",
}
_STATE_FIXES = {
    "offline": "plug it in again, or run `adb reconnect offline`",
    "unauthorized": "unlock it and allow USB debugging from this computer",
    "no permissions": "add a udev rule for it, then plug it in again",
    "gone": "plug it in again",
}


async def _state(adb: Adb) -> tuple[str, str]:
    """Return how adb sees the device, and what mends that."""
    code, text = await adb.run("get-state")
    state = text.strip() if code == 0 else next((one for one in _STATE_REASONS if one in text), "gone")
    return state, _STATE_FIXES.get(state, "restart it")


def _is_asleep(sections: dict[str, str]) -> bool:
    return re.search(r"mWakefulness=(?:Asleep|Dozing|Dreaming)", sections.get("power", "")) is not None


def _is_locked(sections: dict[str, str]) -> bool:
    return _LOCKED.search(sections.get("window", "")) is not None


def _unfit(reason: str, message: str) -> Failure:
    return Failure(reason=reason, message=message, blame=Blame.DEVICE)
