"""An emulator that the agent boots itself: a process of its own on a port of its own, ended with the agent.

It is started when the first batch comes, without a window, and ended when nothing came for a while. Its device is held
by the lock like any other, by the emulator's process as well, until that is gone.

An emulator tells the adb server of itself once, when it starts. A server that was away then, or was started again
since, or still held the last emulator at that port, never hears of it, and looks for none at these ports. So the agent
tells it whenever it looks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import deque
from enum import StrEnum
from pathlib import Path

import structlog

from agent.android import Adb, announce_emulator, is_taken
from agent.core.model import Blame, Failure
from agent.health import look
from agent.journal import Claim
from agent.process import Supervised, start

FIRST_PORT = 5_640
"""Console ports are even, from here on: adb takes what it finds up to 5585 for emulators of its own accord, and virtual
phones begin at 5601.
"""
LAST_PORT = 5_680
"""The emulator program takes none that is higher than 5682."""
BOOT_TIMEOUT_S = 240.0
BOOT_POLL_S = 1.0
BOOT_TRIES = 2
ANSWER_S = 20.0
"""How long one that runs may take to answer before it is taken to hang; adb may have to find it again in that time."""
STOP_GRACE_S = 10.0
KEPT_LINES = 20


class Reset(StrEnum):
    """What becomes of an emulator between two batches."""

    KEEP = "keep"
    """It goes on as it is."""
    SNAPSHOT = "snapshot"
    """It is started anew from what its AVD has saved."""
    WIPE = "wipe"
    """It is started anew without any data."""


class EmulatorFailed(Exception):
    """The emulator does not boot; carries why."""

    def __init__(self, message: str) -> None:
        """Take the sentence."""
        super().__init__(message)
        self.failure = Failure(reason="DEVICE_BOOT_FAILED", message=message, blame=Blame.DEVICE)


def udid_of(port: int) -> str:
    """Return what adb calls the emulator of a console port."""
    return f"emulator-{port}"


class Emulator:
    """One running copy of an AVD, or none at the moment."""

    def __init__(self, avd: str, port: int, adb: Adb, claim: Claim, reset: Reset, directory: Path) -> None:
        self._avd = avd
        self._port = port
        self._adb = adb
        self._claim = claim
        self._reset = reset
        self._directory = directory
        self._process: Supervised | None = None
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._is_used = False
        """Whether a batch has run on it since it was started."""
        self._turn = asyncio.Lock()
        """Held while it is started or ended: two copies would meet at one port."""
        self._out = structlog.get_logger("agent")

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.is_running

    async def boot(self) -> None:
        """Have it booted for a batch, in the state that is wanted; one that hangs is replaced.

        Raises:
            EmulatorFailed: It does not boot.
        """
        async with self._turn:
            await self._boot()

    async def _boot(self) -> None:
        if self.is_running and self._is_used and self._reset is not Reset.KEEP:
            await self._stop()
        if self.is_running and await self._answers():
            self._is_used = True
            return
        for number in range(1, BOOT_TRIES + 1):
            await self._stop()
            try:
                await self._start()
                await self._wait_until_booted()
            except EmulatorFailed as error:
                await self._stop()
                self._out.warning("emulator_not_booted", avd=self._avd, tries=number, reason=str(error))
                if number == BOOT_TRIES:
                    raise
            else:
                self._is_used = True
                return

    async def _start(self) -> None:
        program = shutil.which("emulator")
        if program is None:
            raise EmulatorFailed("the program `emulator` is not on PATH; install the Android emulator")
        if await is_taken(self._port + 1):  # ours would end at once, and the other one would pass for it
            what = f"something else listens on port {self._port + 1}, which this agent took for {self._avd}"
            raise EmulatorFailed(f"{what}; end that, or start the agent again, which takes another port")
        self._said.clear()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._out.info("emulator_starting", avd=self._avd, port=self._port)
        options = ("-wipe-data",) if self._reset is Reset.WIPE else ("-read-only",)
        try:
            self._process = await start(
                (
                    program,
                    f"@{self._avd}",
                    "-port",
                    str(self._port),
                    "-no-window",
                    "-no-audio",
                    "-no-boot-anim",
                    "-no-snapshot-save",
                    *options,
                ),
                env=self._environment(),
                directory=self._directory,
                output=self._hear,
                claim=self._claim,
                what=f"emulator {self._avd}",
            )
        except OSError as error:
            raise EmulatorFailed(f"`emulator` cannot be started: {error}") from error

    def _environment(self) -> dict[str, str]:
        keep = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR")
        names = (
            *keep,
            "ANDROID_HOME",
            "ANDROID_SDK_ROOT",
            "ANDROID_AVD_HOME",
            "ANDROID_USER_HOME",
            "ANDROID_EMULATOR_HOME",
        )
        env = {name: os.environ[name] for name in names if name in os.environ}
        return {**env, "ANDROID_ADB_SERVER_PORT": str(self._adb.server_port)}

    def _hear(self, data: bytes) -> None:
        self._said.extend(data.decode(errors="replace").splitlines())

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S):
                while self.is_running:
                    if await self._has_booted():
                        return True
                    await asyncio.sleep(BOOT_POLL_S)
        except TimeoutError:
            self._out.warning("emulator_hangs", avd=self._avd, port=self._port, patience_s=ANSWER_S)
        return False

    async def _wait_until_booted(self) -> None:
        try:
            async with asyncio.timeout(BOOT_TIMEOUT_S):
                while not await self._has_booted():
                    if not self.is_running:
                        raise EmulatorFailed(f"the emulator of {self._avd} ended: {self._last_word()}")
                    await asyncio.sleep(BOOT_POLL_S)
        except TimeoutError:
            raise EmulatorFailed(
                f"the emulator of {self._avd} did not boot in {BOOT_TIMEOUT_S:g} s: {self._last_word()}"
            ) from None

    def _last_word(self) -> str:
        return self._said[-1] if self._said else "no word"

    async def _has_booted(self) -> bool:
        try:
            await announce_emulator(self._adb.server_port, self._port + 1)
        except OSError as error:
            self._said.append(f"the adb server on port {self._adb.server_port} does not answer: {error}")
            return False
        sections = await look(self._adb, ("booted",))
        return sections is not None and sections["booted"].strip() == "1"

    async def stop(self) -> None:
        """End it, if it runs."""
        async with self._turn:
            await self._stop()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        self._is_used = False
        if process is not None and process.is_running:
            self._out.info("emulator_stopping", avd=self._avd, port=self._port)
            await process.stop(STOP_GRACE_S)
