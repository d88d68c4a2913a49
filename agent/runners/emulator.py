"""A device that is booted when a batch comes for it, and ended when none came for a while."""

from __future__ import annotations

import asyncio
from typing import Protocol

from agent.core.model import Blame, Failure, Installation, LeasedJob, LeaseKey, LeaseSpec
from agent.emulator import EmulatorFailed
from agent.runners.protocol import INSTALL_STOPPED, Observer, RunFailed, Runner, Stop, Verdict

IDLE_S = 600.0


class Bootable(Protocol):
    """An emulator or simulator that is booted on demand."""

    async def boot(self) -> None:
        """Have it booted for a batch, in the state that is wanted.

        Raises:
            EmulatorFailed: It does not boot.
        """

    async def stop(self) -> None:
        """End it, if it runs."""


class EmulatorRunner:
    """Boots an emulator around what another runner does on it."""

    def __init__(self, emulator: Bootable, inner: Runner, idle_s: float = IDLE_S) -> None:
        self._emulator = emulator
        self._inner = inner
        self._idle_s = idle_s
        self._resting: asyncio.Task[None] | None = None

    async def prepare(self, lease: LeaseSpec, stop: Stop) -> Installation:
        """Boot the emulator, and put the build of a lease on it.

        Raises:
            RunFailed: It does not boot, or the build or the device does not allow it, or it was stopped.
        """
        self._wake()
        try:
            await self._boot(stop)
            return await self._inner.prepare(lease, stop)
        finally:
            self._rest()

    async def _boot(self, stop: Stop) -> None:
        booting = asyncio.create_task(self._emulator.boot())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((booting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not booting.done():
                raise RunFailed(Failure(reason=INSTALL_STOPPED, message="the boot was stopped", blame=Blame.NOBODY))
            booting.result()
        except EmulatorFailed as error:
            raise RunFailed(error.failure) from error
        finally:
            for task in (booting, stopping):
                task.cancel()
            await asyncio.gather(booting, stopping, return_exceptions=True)

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        """Run one spec to its end."""
        self._wake()
        try:
            return await self._inner.run(key, job, observer, stop)
        finally:
            self._rest()

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _rest(self) -> None:
        self._resting = asyncio.create_task(self._end_when_idle())

    async def _end_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        await self._inner.close()  # what it keeps warm speaks with the emulator
        await asyncio.shield(self._emulator.stop())

    async def close(self) -> None:
        """End the emulator, and what the other runner keeps warm."""
        self._wake()
        await self._inner.close()
        await self._emulator.stop()
