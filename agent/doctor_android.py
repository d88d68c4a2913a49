"""What `qgjob-agent doctor` says of Android devices: those that adb knows now, and the AVDs to boot."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

from agent.android import Adb
from agent.devices.adb import AdbUnavailable, fix_of, track
from agent.health import Limits, judged, look
from agent.process import capture
from qgjob.checkup import Check, failed, passed, warned

ADB_PATIENCE_S = 10.0
LIST_TIMEOUT_S = 30.0
EXAMINED = ("booted", "sdk", "battery", "storage", "packages")
"""What a device is asked. Whether its screen is off is no matter: it is woken before a batch."""


async def examine_emulators(wanted: tuple[tuple[str, int], ...]) -> Check:
    """Look whether the emulator is there, and has the AVDs that it shall boot."""
    counted = ", ".join(f"{count} of {avd}" for avd, count in wanted)
    found = shutil.which("emulator")
    if found is None:
        return failed("emulator", "is not on PATH", f"install the Android emulator, which shall boot {counted}")
    try:
        code, text = await capture((found, "-list-avds"), timeout_s=LIST_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        return failed("emulator", f"{found} cannot be run: {str(error) or 'it does not answer'}", "install it anew")
    there = {line.strip() for line in text.splitlines()}
    if code != 0:
        told = (text.strip().splitlines() or ["it says nothing"])[-1]
        return failed("emulator", f"{found} does not list its AVDs: {told}", "install it anew")
    missing = [avd for avd, _ in wanted if avd not in there]
    if missing:
        message = f"{found} knows no AVD named {', '.join(missing)}"
        return failed("emulator", message, "make it with `avdmanager create avd`; `emulator -list-avds` lists them")
    return passed("emulator", f"{found} boots {counted} when work comes")


async def examine_devices(port: int, *, is_alone: bool) -> list[Check]:
    """Look at each device that adb knows; nothing is changed on it.

    Args:
        port: The adb server's.
        is_alone: Whether these are the only devices, so that one of them has to be usable.
    """
    changes = track(port)
    states: dict[str, str] = {}
    try:
        async with asyncio.timeout(ADB_PATIENCE_S), contextlib.aclosing(changes):
            states = await anext(changes, {})
    except (OSError, AdbUnavailable, TimeoutError):
        hint = "the agent starts one; until then nothing is known of devices"
        return [warned("devices", f"no adb server on port {port}", hint)]
    if not states:
        if is_alone:
            return [failed("devices", "none", "connect one and allow USB debugging, or start an emulator")]
        return [passed("devices", "none besides")]
    looks = (_examine_device(Adb(udid, port), state) for udid, state in sorted(states.items()))
    found = await asyncio.gather(*looks)
    must_work = is_alone and all(fix is not None for _, fix in found)
    return [_check(message, fix, must_work=must_work) for message, fix in found]


def _check(message: str, fix: str | None, *, must_work: bool) -> Check:
    if fix is None:
        return passed("device", message)
    return failed("device", message, fix) if must_work else warned("device", message, fix)


async def _examine_device(adb: Adb, state: str) -> tuple[str, str | None]:
    """Return what is to say of a device, and how it is mended; None where it can be used."""
    if state != "device":
        return f"{adb.udid} is {state}", fix_of(state)
    try:
        sections = await look(adb, EXAMINED)
    except OSError as error:  # a server runs, and there is no adb to ask it with
        return f"{adb.udid} cannot be asked: adb cannot be run ({error.strerror or error})", "install adb"
    if sections is None:
        return f"{adb.udid} is connected and answers no command", "restart it"
    complaint = judged(adb.udid, sections, None, Limits())
    if complaint is None:
        return f"{adb.udid} can be used", None
    message, _, fix = complaint.message.partition("; ")
    return message, fix or "see `adb devices`"
