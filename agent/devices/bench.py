"""The devices that this agent holds: a lock and a runner for each, made when it is first seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from agent.core.model import DeviceFacts, DeviceId
from agent.devices.lock import DeviceBusy, DeviceLock
from agent.journal import Claim, Journal
from agent.runners.protocol import Runner

RunnerMaker = Callable[[DeviceFacts, int, Claim], Runner]
"""Makes the runner of a device in a slot, numbered from 0."""

OVERDUE_S = 20.0
"""A supervisor that has lost its agent needs its grace of 10 s and 5 s of killing; one that takes longer hangs."""
BEING_ENDED = "what ran on it when this agent ended is being stopped; it is usable in a moment"

CANNOT_BE_ENDED = "something that ran on it does not end; left_process_stays in its agent's diagnostics says of what"


class Discovery(Protocol):
    """Something that sees devices come and go."""

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of all devices that it sees, at once and after every change."""


@dataclass(slots=True)
class _Place:
    slot: int
    lock: DeviceLock
    claim: Claim
    facts: DeviceFacts
    """What was seen last."""
    runner: Runner
    udid: str
    """What adb called the device when the runner was made."""


class Bench:
    """A device is offered only with its lock in hand, and with nothing left on it; the lock is held until the end."""

    def __init__(self, make: RunnerMaker, lock_name: Callable[[DeviceFacts], str], journal: Journal) -> None:
        """Begin with no device.

        Args:
            make: Makes runners.
            lock_name: Says what a device is called on this host by every agent, whatever the agent calls it itself.
            journal: Knows what earlier lives of this agent have started.
        """
        self._make = make
        self._lock_name = lock_name
        self._journal = journal
        self._places: dict[DeviceId, _Place] = {}
        self._busy_since: dict[str, float] = {}

    def end_left(self) -> None:
        """End, once at the start, what earlier lives have left, also on devices that do not come back.

        What is still locked is being ended by its supervisor, or is another agent's; `claimed` looks again.
        """
        for name in self._journal.sweep():
            lock = DeviceLock(name)
            try:
                lock.acquire()
            except DeviceBusy:
                continue
            try:
                self._journal.end_left(name)
            finally:
                lock.release()

    async def claimed(self, facts: DeviceFacts) -> DeviceFacts:
        """Return the facts of a device after its lock was asked for: unusable while somebody else has it.

        So is one that is held already, while something lives on it that could not be ended.
        """
        try:
            return await self._claimed(facts)
        except OSError as error:
            return replace(facts, usable=False, reason=f"its agent cannot take it: {error}")

    async def _claimed(self, facts: DeviceFacts) -> DeviceFacts:
        if (place := self._places.get(facts.id)) is not None:
            place.facts = facts
            if facts.usable and not await asyncio.to_thread(self._journal.end_stays, place.claim.device):
                return replace(facts, usable=False, reason=CANNOT_BE_ENDED)
            return facts
        if not facts.usable:
            return facts
        name = self._lock_name(facts)
        lock = DeviceLock(name)
        try:
            lock.acquire()
        except DeviceBusy as busy:
            return replace(facts, usable=False, reason=await asyncio.to_thread(self._why_busy, name, busy))
        self._busy_since.pop(name, None)
        try:
            if not await asyncio.to_thread(self._journal.end_left, name):
                lock.release()
                return replace(facts, usable=False, reason=BEING_ENDED)
            slot, claim = len(self._places), Claim(name, lock.descriptor, self._journal)
            self._places[facts.id] = _Place(slot, lock, claim, facts, self._make(facts, slot, claim), facts.udid)
        except BaseException:
            lock.release()
            raise
        return facts

    def has_left(self, device: DeviceId) -> bool:
        """Whether something that ran on a held device could not be ended."""
        return self._journal.stays(self._places[device].claim.device)

    def _why_busy(self, name: str, busy: DeviceBusy) -> str:
        """Say who has a device; a supervisor of an earlier life that hangs is killed."""
        if not self._journal.is_anything_left(name):
            return f"{busy}; stop that one first"
        now = time.monotonic()
        if now - self._busy_since.setdefault(name, now) > OVERDUE_S:
            self._journal.kill_supervisors(name)
        return BEING_ENDED

    def runner(self, device: DeviceId) -> Runner:
        """Return the runner of a device that was claimed."""
        return self._places[device].runner

    async def ready_runner(self, device: DeviceId) -> Runner:
        """Return the runner of an idle device: a new one when adb calls it by another name now."""
        place = self._places[device]
        if place.udid != place.facts.udid:
            await place.runner.close()
            place.runner, place.udid = self._make(place.facts, place.slot, place.claim), place.facts.udid
        return place.runner

    async def close(self) -> None:
        """End what the runners keep warm, and give the locks back."""
        for place in self._places.values():
            await place.runner.close()
            place.lock.release()
        self._places.clear()
