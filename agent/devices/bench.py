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


@dataclass(frozen=True, slots=True)
class _Place:
    lock: DeviceLock
    runner: Runner


class Bench:
    """A device is offered only with its lock in hand; the lock is held until the agent ends."""

    def __init__(self, make: RunnerMaker) -> None:
        self._make = make
        self._places: dict[DeviceId, _Place] = {}

    def claimed(self, facts: DeviceFacts) -> DeviceFacts:
        """Return the facts of a device after its lock was asked for: unusable while somebody else has it."""
        if facts.id in self._places or not facts.usable:
            return facts
        lock = DeviceLock(facts.id)
        try:
            lock.acquire()
        except DeviceBusy as busy:
            return replace(facts, usable=False, reason=f"{busy}; stop that one first")
        self._places[facts.id] = _Place(lock, self._make(facts, len(self._places), lock))
        return facts

    def runner(self, device: DeviceId) -> Runner:
        """Return the runner of a device that was claimed."""
        return self._places[device].runner

    async def close(self) -> None:
        """End what the runners keep warm, and give the locks back."""
        for place in self._places.values():
            await place.runner.close()
            place.lock.release()
        self._places.clear()
