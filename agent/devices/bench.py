"""The devices that this agent holds: a lock and a runner for each, made when it is first seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from agent.core.model import DeviceFacts, DeviceId
from agent.devices.lock import DeviceBusy, DeviceLock
from agent.runners.protocol import Runner

RunnerMaker = Callable[[DeviceFacts, int, DeviceLock], Runner]
"""Makes the runner of a device in a slot, numbered from 0, whose lock is held."""


class Discovery(Protocol):
    """Something that sees devices come and go."""

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of all devices that it sees, at once and after every change."""


@dataclass(slots=True)
class _Place:
    slot: int
    lock: DeviceLock
    facts: DeviceFacts
    """What was seen last."""
    runner: Runner
    udid: str
    """What adb called the device when the runner was made."""


class Bench:
    """A device is offered only with its lock in hand; the lock is held until the agent ends."""

    def __init__(self, make: RunnerMaker, lock_name: Callable[[DeviceFacts], str]) -> None:
        """`lock_name` says what a device is called on this host by every agent, whatever the agent calls it itself."""
        self._make = make
        self._lock_name = lock_name
        self._places: dict[DeviceId, _Place] = {}

    def claimed(self, facts: DeviceFacts) -> DeviceFacts:
        """Return the facts of a device after its lock was asked for: unusable while somebody else has it."""
        if (place := self._places.get(facts.id)) is not None:
            place.facts = facts
            return facts
        if not facts.usable:
            return facts
        lock = DeviceLock(self._lock_name(facts))
        try:
            lock.acquire()
        except DeviceBusy as busy:
            return replace(facts, usable=False, reason=f"{busy}; stop that one first")
        slot = len(self._places)
        self._places[facts.id] = _Place(slot, lock, facts, self._make(facts, slot, lock), facts.udid)
        return facts

    def runner(self, device: DeviceId) -> Runner:
        """Return the runner of a device that was claimed."""
        return self._places[device].runner

    async def ready_runner(self, device: DeviceId) -> Runner:
        """Return the runner of an idle device: a new one when adb calls it by another name now."""
        place = self._places[device]
        if place.udid != place.facts.udid:
            await place.runner.close()
            place.runner, place.udid = self._make(place.facts, place.slot, place.lock), place.facts.udid
        return place.runner

    async def close(self) -> None:
        """End what the runners keep warm, and give the locks back."""
        for place in self._places.values():
            await place.runner.close()
            place.lock.release()
        self._places.clear()
