"""Emulators that the agent boots itself: `--emulators Pixel_8=2`. They are devices from the start, booted or not.

Each has a pair of ports of its own from the start, reserved on this host: two agents whose emulators met at one port
would drive each other's. What has a port in their range is some agent's own, and no other agent offers it.
"""

from __future__ import annotations

import re
from pathlib import Path

from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind
from agent.emulator import FIRST_PORT, LAST_PORT, Reset, udid_of
from agent.ports import DevicePorts, PortsTaken

MOST_EMULATORS = (LAST_PORT - FIRST_PORT) // 2
PORTS = range(FIRST_PORT, LAST_PORT + 2)
PORTS_EACH = 2
"""The console's, which is even, and adb's."""
OF_AGENTS = frozenset(udid_of(port) for port in PORTS[::PORTS_EACH])
"""What emulators are called that agents boot, whichever agent."""

_AVD = re.compile(r"^[A-Za-z0-9._-]+$")


def parse_emulators(text: str, reset: str) -> tuple[tuple[str, int], ...]:
    """Read `avd=count,avd=count`, and check that what becomes of them between batches is possible.

    Raises:
        ValueError: It is malformed; the text says what is allowed.
    """
    if reset not in set(Reset):
        raise ValueError(f"--emulator-reset {reset} is unknown; use {', '.join(Reset)}")
    counts: dict[str, int] = {}
    for part in text.split(","):
        avd, separator, count = part.strip().partition("=")
        if not _AVD.match(avd) or (separator and not count.isdecimal()) or avd in counts:
            raise ValueError(f"--emulators {text}: {part!r} is not AVD=COUNT, each AVD once")
        counts[avd] = int(count) if separator else 1
    if sum(counts.values()) > MOST_EMULATORS:
        raise ValueError(f"--emulators {text}: more than {MOST_EMULATORS}")
    if reset == Reset.WIPE and max(counts.values()) > 1:
        raise ValueError("--emulator-reset wipe: only one copy of each AVD can be wiped; make more AVDs")
    return tuple(counts.items())


class EmulatorPorts:
    """The ports of an agent's emulators: its own until `release`, or until it and its emulators are gone."""

    def __init__(self, count: int, directory: Path | None = None) -> None:
        """Reserve ports, the lowest that are free.

        Args:
            count: How many emulators there are.
            directory: Of the locks; default: one that all agents of a user share.

        Raises:
            PortsTaken: Other agents, or something else, have too many of them.
        """
        self._reserved: list[DevicePorts] = []
        try:
            for _ in range(count):
                self._reserved.append(DevicePorts(PORTS, PORTS_EACH, 0, directory))
        except PortsTaken:
            self.release()
            raise

    @property
    def consoles(self) -> tuple[int, ...]:
        """The console port of each emulator."""
        return tuple(reserved.numbers[0] for reserved in self._reserved)

    def release(self) -> None:
        """Give them back."""
        for reserved in self._reserved:
            reserved.release()
        self._reserved.clear()


def emulator_devices(
    counts: tuple[tuple[str, int], ...], agent: AgentId, consoles: tuple[int, ...]
) -> list[DeviceFacts]:
    """Return the facts of the emulators, each at one of the console ports; their names are local to the agent."""
    copies = [(avd, number) for avd, count in counts for number in range(1, count + 1)]
    return [
        DeviceFacts(
            id=DeviceId(f"{avd}-{number}@{agent}"),
            kind=DeviceKind.EMULATOR,
            model=avd,
            udid=udid_of(console),
        )
        for (avd, number), console in zip(copies, consoles, strict=True)
    ]
