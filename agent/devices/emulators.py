"""Emulators that the agent boots itself: `--emulators Pixel_8=2`. They are devices from the start, booted or not."""

from __future__ import annotations

import re

from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind
from agent.emulator import FIRST_PORT, LAST_PORT, Reset, udid_of

MOST_EMULATORS = (LAST_PORT - FIRST_PORT) // 2

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


def emulator_devices(counts: tuple[tuple[str, int], ...], agent: AgentId) -> list[DeviceFacts]:
    """Return the facts of the emulators; their names are local to the agent, and their ports follow each other."""
    copies = [(avd, number) for avd, count in counts for number in range(1, count + 1)]
    return [
        DeviceFacts(
            id=DeviceId(f"{avd}-{number}@{agent}"),
            kind=DeviceKind.EMULATOR,
            model=avd,
            udid=udid_of(FIRST_PORT + 2 * index),
        )
        for index, (avd, number) in enumerate(copies)
    ]
