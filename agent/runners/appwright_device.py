"""An Android device of this host as a station: its adb, its own Appium, the build that it holds."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import structlog

from agent.android import Adb, Apk, InstallFailed
from agent.appium import AppiumFailed, AppiumServer, LogMark, Toolbox
from agent.artifacts import LeftBehind
from agent.blobs import BlobCache, BlobUnusable
from agent.builds import BuildSource, BuildUnusable
from agent.core.model import MICROSECONDS, Blame, Failure, Installation, LeasedJob, LeaseSpec
from agent.crashes import Crash, crashes_of
from agent.devicelog import device_time, log_since
from agent.journal import Claim
from agent.runners.appwright import slot_directory
from agent.runners.appwright_care import Care
from agent.runners.appwright_left import APPIUM_LOG, DEVICE_LOG
from agent.runners.protocol import Observer, RunFailed, Verdict


class DeviceStation:
    """One phone or emulator."""

    def __init__(
        self,
        *,
        adb: Adb,
        tools: Toolbox,
        source: BuildSource,
        blobs: BlobCache,
        slot: int,
        provider: str,
        claim: Claim,
        care: Care,
    ) -> None:
        self._adb = adb
        self._care = care
        self._source = source
        self._blobs = blobs
        self._provider = provider
        self._appium = AppiumServer(tools, slot, slot_directory(tools, adb.udid), claim)
        self._apk: Apk | None = None
        self._crashes: list[Crash] = []
        """Those that the device remembered when the run began."""
        self._begun = ""
        """By the device's clock; empty where it does not tell."""
        self._mark = LogMark()

    @property
    def name(self) -> str:
        """What adb calls it."""
        return self._adb.udid

    # Preparing

    async def check(self, *, may_restart: bool) -> None:
        """Look whether the device is fit for a batch.

        Raises:
            RunFailed: It is not, and why.
        """
        await self._care.check(may_restart=may_restart)

    async def install(self, lease: LeaseSpec) -> Installation:
        """Put the build of a lease on the device, unless it is there, and warm the device's Appium up.

        Raises:
            RunFailed: The build or the device does not allow it.
        """
        try:
            self._apk = await self._find(lease)
            await self._care.clean_up(self._apk.package)
            installation = await self._put(self._apk)
            await self._appium.ensure()
            if lease.is_canary:
                await self._care.try_out(self._apk)
        except (BlobUnusable, BuildUnusable, InstallFailed, AppiumFailed) as error:
            raise RunFailed(error.failure) from error
        return installation

    async def _find(self, lease: LeaseSpec) -> Apk:
        """Return the registered build, else the one that the app version has on this host."""
        digest = lease.build_digest
        if not digest:
            return await self._source.find(lease.app_version_id)
        return await self._blobs.read(digest, lease.key, self._adb.udid, self._source.read)

    async def _put(self, apk: Apk) -> Installation:
        """Install, and look at what the device holds then: a stale build must never be tested."""
        if await self._adb.installed_digest(apk.package) == apk.digest:
            return Installation(digest=apk.digest, is_new=False, duration_us=0)
        begun = time.monotonic()
        await self._adb.install(apk)
        held = await self._adb.installed_digest(apk.package)
        if held != apk.digest:
            message = f"{self._adb.udid} holds another build after the install"
            raise InstallFailed(Failure(reason="INSTALL_FAILED", message=message, blame=Blame.DEVICE))
        spent_us = int((time.monotonic() - begun) * MICROSECONDS)
        return Installation(digest=apk.digest, is_new=True, duration_us=spent_us)

    # Running

    async def ready(self, _job: LeasedJob) -> None:
        """Put the build back, should a test of the batch have replaced it, and start the device's Appium.

        Raises:
            RunFailed: The device does not take it, this host has another one by now, or Appium does not come up.
        """
        assert self._apk is not None
        try:
            await self._check_unchanged(self._apk)
            if (await self._put(self._apk)).is_new:
                # The coordinator knows of one install a batch, and this one is a test's own doing.
                structlog.get_logger("agent").warning("build_put_back", device=self.name, digest=self._apk.digest)
            await self._appium.ensure()
        except (InstallFailed, AppiumFailed) as error:
            raise RunFailed(error.failure) from error

    async def _check_unchanged(self, apk: Apk) -> None:
        """Check the file on this host: a session would install what is newer there than on the device."""
        try:
            digest = (await self._source.read(apk.path)).digest
        except (OSError, BuildUnusable):  # it is gone, or half written just now
            digest = ""
        if digest != apk.digest:
            message = f"{apk.path} has changed since its batch began; `qgjob builds upload` keeps builds as they are"
            raise InstallFailed(Failure(reason="BUILD_CHANGED", message=message, blame=Blame.HOST))

    def environment(self) -> dict[str, str]:
        """Return what the wrapper must know of the device, its Appium and its app."""
        assert self._apk is not None
        return {
            "QGJOB_PROVIDER": self._provider,
            "QGJOB_UDID": self._adb.udid,
            "QGJOB_APPIUM_PORT": str(self._appium.port),
            "QGJOB_APPIUM_PATH": self._appium.base_path,
            "QGJOB_CAPABILITIES": json.dumps(self._appium.capabilities(self._adb.server_port)),
            "QGJOB_BUILD_PATH": str(self._apk.path),
            "QGJOB_APP_PACKAGE": self._apk.package,
            "QGJOB_APP_ACTIVITY": self._apk.activity,
        }

    async def begin(self, _job: LeasedJob, _observer: Observer) -> None:
        """Remember what is older than the run: crashes, and lines of logs."""
        assert self._apk is not None
        self._crashes = await crashes_of(self._adb, self._apk.package)
        self._begun = await device_time(self._adb)
        self._mark = self._appium.mark()

    async def end(self, out: Path) -> tuple[LeftBehind, ...]:
        """Keep what the device and its Appium have logged. The session is AppWright's to end, or `reset`'s."""
        log = await log_since(self._adb, self._begun)
        await asyncio.to_thread(self._write_logs, out, log)
        return ()

    def _write_logs(self, out: Path, log: str) -> None:
        try:
            for name, content in ((DEVICE_LOG, log.encode()), (APPIUM_LOG, self._appium.logged_since(self._mark))):
                if content:
                    (out / name).write_bytes(content)
        except OSError as error:  # it costs the logs, and not the verdict
            structlog.get_logger("agent").warning("device_log_lost", device=self.name, reason=str(error))

    async def explain(self, verdict: Verdict) -> Verdict:
        """Put a failure down to the build where the app died in the run."""
        assert self._apk is not None
        if verdict.failure is None or verdict.failure.reason != "TEST_FAILED":
            return verdict
        package = self._apk.package
        crash = next((one for one in await crashes_of(self._adb, package) if one not in self._crashes), None)
        if crash is None:
            return verdict
        message = f"{package} crashed: {crash.cause}; {verdict.failure.message}"
        return replace(verdict, failure=Failure(reason="APP_CRASHED", message=message, blame=Blame.BUILD))

    async def lost(self) -> None:
        """Wait until adb has lost the device."""
        await self._adb.lost()

    async def is_there(self) -> bool:
        """Whether adb sees the device."""
        return await self._adb.is_online()

    async def is_ready(self) -> bool:
        """Whether the device's Appium answers."""
        return await self._appium.is_ready()

    async def reset(self) -> None:
        """End the device's Appium and every session in it."""
        await self._appium.stop()

    async def close(self) -> None:
        """End the device's Appium."""
        await self._appium.stop()
