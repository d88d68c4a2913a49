"""Simulators and devices of iOS as this agent's devices.

Apple's tools tell nothing by themselves: they are asked again and again. A simulator that somebody has booted is a
device while it runs, one that the agent may boot itself (`--simulators`) all the time, an iPhone or iPad while it is
connected.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind
from agent.ios.devicectl import PhoneFacts, list_phones
from agent.ios.simctl import BOOTED, SimulatorFacts, list_simulators
from agent.ios.xcrun import Xcrun, XcrunFailed

POLL_S = 5.0
MOST_SIMULATORS = 20
PLATFORM = "ios"

_UNNAMED = re.compile(r"[^A-Za-z0-9._-]+")


def parse_simulators_option(text: str) -> tuple[tuple[str, int], ...]:
    """Read `name=count,name=count`, in which a name may be a pattern, as in `iPhone 15=2,iPad*`.

    Raises:
        ValueError: It is malformed; the text says what is allowed.
    """
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, separator, count = (word.strip() for word in part.partition("="))
        if not name or name in counts or (separator and not count.isdecimal()):
            raise ValueError(f"--simulators {text}: {part!r} is not NAME=COUNT, each name once")
        counts[name] = int(count) if separator else 1
    if sum(counts.values()) > MOST_SIMULATORS:
        raise ValueError(f"--simulators {text}: more than {MOST_SIMULATORS}")
    return tuple(counts.items())


def chosen_simulators(
    wanted: tuple[tuple[str, int], ...], known: tuple[SimulatorFacts, ...], before: frozenset[str]
) -> frozenset[str]:
    """Return the simulators that the agent may boot: those of before while they can be, then the newest iOS first."""
    usable = [one for one in known if not one.problem]
    chosen: set[str] = set()
    for pattern, count in wanted:
        fitting = [one for one in usable if one.udid not in chosen and fnmatch.fnmatch(one.name, pattern)]
        fitting.sort(key=lambda one: one.udid not in before)
        chosen.update(one.udid for one in fitting[:count])
    return frozenset(chosen)


class IosDiscovery:
    """Turns what Apple's tools tell into facts about devices."""

    def __init__(
        self, agent: AgentId, xcrun: Xcrun, wanted: tuple[tuple[str, int], ...] = (), poll_s: float = POLL_S
    ) -> None:
        """Look for devices.

        Args:
            agent: The name of this agent.
            xcrun: Apple's tools.
            wanted: Names of simulators to boot when work comes, and how many of each.
            poll_s: How often the tools are asked.
        """
        self._agent = agent
        self._xcrun = xcrun
        self._wanted = wanted
        self._poll_s = poll_s
        self.ours: frozenset[str] = frozenset()
        """Simulators that the agent may boot."""
        self._missing = 0
        self._seen: dict[str, tuple[DeviceFacts, ...]] = {"simctl": (), "devicectl": ()}
        self._complaints: dict[str, str] = {}
        self._out = structlog.get_logger("agent")

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of all devices, at once and after every change, for ever."""
        told: tuple[DeviceFacts, ...] | None = None
        while True:
            seen = await self.look()
            if seen != told:
                told = seen
                observed(seen)
            await asyncio.sleep(self._poll_s)

    async def look(self) -> tuple[DeviceFacts, ...]:
        """Return what both tools tell now."""
        await asyncio.gather(
            self._ask("simctl", self._simulators()),
            self._ask("devicectl", self._phones()),
        )
        return tuple(facts for tool in self._seen.values() for facts in tool)

    async def _ask(self, tool: str, answer: Awaitable[tuple[DeviceFacts, ...]]) -> None:
        """Take in what a tool tells. While it does not, its devices cannot be used, and that is said once."""
        try:
            self._seen[tool] = await answer
        except XcrunFailed as error:
            if self._complaints.get(tool) != str(error):
                self._complaints[tool] = str(error)
                self._out.warning("ios_devices_unknown", tool=tool, reason=str(error))
            reason = f"{tool} does not answer: {error}"
            self._seen[tool] = tuple(replace(facts, usable=False, reason=reason) for facts in self._seen[tool])
        else:
            self._complaints.pop(tool, None)

    # Simulators

    async def _simulators(self) -> tuple[DeviceFacts, ...]:
        known = await list_simulators(self._xcrun)
        chosen = chosen_simulators(self._wanted, known, self.ours)
        missing = sum(count for _, count in self._wanted) - len(chosen)
        if missing and missing != self._missing:
            self._out.warning("simulators_missing", missing=missing, hint="make them with `xcrun simctl create`")
        self.ours, self._missing = chosen, missing
        shown = (one for one in known if one.udid in chosen or (one.state == BOOTED and not one.problem))
        return tuple(self._simulator(one) for one in shown)

    def _simulator(self, one: SimulatorFacts) -> DeviceFacts:
        name = _UNNAMED.sub("-", one.name).strip("-")
        return DeviceFacts(
            id=DeviceId(f"{name}-{one.udid[:8].lower()}@{self._agent}"),
            kind=DeviceKind.EMULATOR,
            platform=PLATFORM,
            model=one.model,
            os_version=one.os_version,
            udid=one.udid,
        )

    # Devices

    async def _phones(self) -> tuple[DeviceFacts, ...]:
        return tuple(_phone(one) for one in await list_phones(self._xcrun) if one.is_connected)


def _phone(one: PhoneFacts) -> DeviceFacts:
    return DeviceFacts(
        id=DeviceId(one.udid),
        kind=DeviceKind.DEVICE,
        platform=PLATFORM,
        model=one.model,
        os_version=one.os_version,
        udid=one.udid,
        usable=not one.reason,
        reason=one.fix,
    )
