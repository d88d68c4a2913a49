"""A simulator that the agent boots when work comes, and shuts down when none does."""

from __future__ import annotations

import asyncio
from enum import StrEnum

import structlog

from agent.emulator import BOOT_TIMEOUT_S, BOOT_TRIES, EmulatorFailed
from agent.ios.simctl import BOOTED, Simulator
from agent.ios.xcrun import XcrunFailed


class SimulatorReset(StrEnum):
    """What becomes of a simulator between two batches."""

    KEEP = "keep"
    """It goes on as it is."""
    ERASE = "erase"
    """All its content and settings are taken away, and it is booted anew."""


class BootedSimulator:
    """Booted for batches, in the state that is wanted."""

    def __init__(self, simulator: Simulator, name: str, reset: SimulatorReset) -> None:
        self._simulator = simulator
        self._name = name
        self._reset = reset
        self._is_used = False
        """Whether a batch has run on it in this life."""
        self._turn = asyncio.Lock()
        self._out = structlog.get_logger("agent")

    async def boot(self) -> None:
        """Have it booted for a batch; one that hangs is shut down and booted again.

        Raises:
            EmulatorFailed: It does not boot.
        """
        async with self._turn:
            for number in range(1, BOOT_TRIES + 1):
                try:
                    await self._boot(is_again=number > 1)
                except XcrunFailed as error:
                    self._out.warning("simulator_not_booted", simulator=self._name, tries=number, reason=str(error))
                    if number == BOOT_TRIES:
                        raise EmulatorFailed(f"the simulator {self._name} does not boot: {error}") from error
                else:
                    self._is_used = True
                    return

    async def _boot(self, *, is_again: bool) -> None:
        is_wiped = self._reset is SimulatorReset.ERASE and self._is_used
        if is_again or is_wiped:
            await self._simulator.shut_down()
        if is_wiped:
            await self._simulator.erase()
        facts = await self._simulator.state()
        if facts is None or facts.problem:
            raise XcrunFailed(facts.problem if facts is not None else "it is not there any more")
        if facts.state != BOOTED:
            self._out.info("simulator_booting", simulator=self._name)
            await self._simulator.boot(BOOT_TIMEOUT_S)

    async def stop(self) -> None:
        """Shut it down, if it runs."""
        async with self._turn:
            self._is_used = False
            try:
                await self._simulator.shut_down()
            except XcrunFailed as error:
                self._out.warning("simulator_stays", simulator=self._name, reason=str(error))
