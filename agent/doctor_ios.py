"""What `qgjob-agent doctor` says of a Mac: Apple's tools, the simulators, and the devices as they are now."""

from __future__ import annotations

import shutil

from agent.config import IosConfig
from agent.devices.ios import chosen_simulators
from agent.ios.devicectl import list_phones
from agent.ios.simctl import BOOTED, list_simulators
from agent.ios.xcrun import Xcrun, XcrunFailed
from qgjob.checkup import Check, failed, passed, warned

XCODE_HINT = "install Xcode, open it once, and choose it with `sudo xcode-select -s /Applications/Xcode.app`"


async def examine_ios(config: IosConfig) -> list[Check]:
    """Return what was found; nothing is booted."""
    found = shutil.which("xcrun")
    if found is None:
        return [failed("xcrun", "is not on PATH; --ios works on a Mac alone", XCODE_HINT)]
    xcrun = Xcrun()
    simulators, booted = await _simulators(xcrun, config)
    phones = await _phones(xcrun, is_alone=not config.simulators and not booted, team_id=config.team_id)
    return [passed("xcrun", found), simulators, phones]


async def _simulators(xcrun: Xcrun, config: IosConfig) -> tuple[Check, int]:
    """Return what is to say of simulators, and how many of them run."""
    try:
        known = await list_simulators(xcrun)
    except XcrunFailed as error:
        return failed("simulators", str(error), XCODE_HINT), 0
    booted = sum(one.state == BOOTED for one in known)
    told = f"{len(known)} of iOS, {booted} booted"
    wanted = sum(count for _, count in config.simulators)
    chosen = [one for one in known if one.udid in chosen_simulators(config.simulators, known, frozenset())]
    if len(chosen) < wanted:
        hint = "make them with `xcrun simctl create`, or install their runtime in Xcode > Settings > Components"
        return failed(
            "simulators", f"{told}; of {wanted} that --simulators names there are {len(chosen)}", hint
        ), booted
    names = ", ".join(f"{one.name} (iOS {one.os_version})" for one in chosen)
    return passed("simulators", f"{told}; boots {names} when work comes" if chosen else told), booted


async def _phones(xcrun: Xcrun, *, is_alone: bool, team_id: str) -> Check:
    try:
        phones = [one for one in await list_phones(xcrun) if one.is_connected]
    except XcrunFailed as error:
        hint = "devices need Xcode 15 or newer; simulators work without"
        return warned("devices", f"devicectl: {error}", hint)
    told = ", ".join(f"{one.name or one.udid} ({one.fix or 'ready'})" for one in phones)
    if not phones and is_alone:
        hint = "connect a device, boot a simulator, or name some with --simulators"
        return failed("devices", "none, and no simulator runs", hint)
    if any(not one.reason for one in phones) and not team_id:
        hint = "WebDriverAgent must be signed for devices: --ios-team-id"
        return warned("devices", f"{told}; no team is named", hint)
    return passed("devices", told or "none besides")
