"""A simulator or device of iOS as a station: Apple's tools, an Appium of its own with XCUITest, the build it holds."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from agent.appium import AppiumFailed, AppiumServer, LogMark
from agent.artifacts import LeftBehind
from agent.blobs import BlobCache, BlobUnusable
from agent.builds import BuildSource, BuildUnusable
from agent.core.model import MICROSECONDS, Blame, Failure, Installation, LeasedJob, LeaseSpec
from agent.ios.apps import IosApp, IosApps
from agent.ios.installs import Installs
from agent.ios.target import Target
from agent.ios.xcrun import XcrunFailed
from agent.runners.appwright_left import APPIUM_LOG
from agent.runners.protocol import Observer, RunFailed, Verdict

LOOK_S = 5.0
LOOKS_MISSED = 2
WDA_TIMEOUT_MS = 300_000
"""Xcode builds WebDriverAgent before the first session of a device, and that takes minutes."""
_BUILD_FAULT = re.compile(
    r"code signature|provisioning profile|ApplicationVerificationFailed|not a valid|MinimumOSVersion"
    r"|lower than the minimum|not compatible|missing (?:or invalid )?CFBundle|0xe80080|architecture",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How WebDriverAgent is signed for devices; simulators need nothing of it."""

    team_id: str = ""
    wda_bundle_id: str = ""
    """Under which bundle id, where the team may not use Appium's own."""

    def capabilities(self) -> dict[str, object]:
        """Return what sessions on devices ask for."""
        signed = {"appium:xcodeOrgId": self.team_id, "appium:xcodeSigningId": "Apple Development"}
        return {
            **(signed if self.team_id else {}),
            **({"appium:updatedWDABundleId": self.wda_bundle_id} if self.wda_bundle_id else {}),
        }


class IosStation:
    """One simulator or device."""

    def __init__(
        self,
        *,
        target: Target,
        appium: AppiumServer,
        directory: Path,
        source: BuildSource,
        blobs: BlobCache,
        apps: IosApps,
        installs: Installs,
        signing: Signing,
    ) -> None:
        """`directory` is the station's own on this host: Xcode keeps what it built there."""
        self._target = target
        self._appium = appium
        self._directory = directory
        self._source = source
        self._blobs = blobs
        self._apps = apps
        self._installs = installs
        self._signing = signing
        self._app: IosApp | None = None
        self._mark = LogMark()
        """Where Appium's log was when the run began."""

    @property
    def name(self) -> str:
        """Its udid."""
        return self._target.udid

    # Preparing

    async def check(self, *, may_restart: bool) -> None:
        """Look whether the device is fit for a batch. What would restart it is not tried.

        Raises:
            RunFailed: It is not, and why.
        """
        found = await self._target.complaint()
        if found is not None:
            raise RunFailed(found)

    async def install(self, lease: LeaseSpec) -> Installation:
        """Put the build of a lease on the device, unless it is there, and warm the device's Appium up.

        Raises:
            RunFailed: The build or the device does not allow it.
        """
        try:
            app = await self._find(lease)
            await self._clean_up(app)
            self._app = app
            installation = await self._put(app)
            await self._appium.ensure()
            if lease.is_canary:
                await self._try_out(app)
        except (BlobUnusable, BuildUnusable, AppiumFailed) as error:
            raise RunFailed(error.failure) from error
        except OSError as error:
            raise RunFailed(_storage_failed(error)) from error
        return installation

    async def _find(self, lease: LeaseSpec) -> IosApp:
        """Return the registered build, else the one that the app version has on this host."""
        digest = lease.build_digest
        if not digest:
            return self._fitting(await self._apps.get(await self._source.locate(lease.app_version_id), self.name))
        read = partial(self._apps.get, user=self.name)
        return self._fitting(await self._blobs.read(digest, lease.key, self.name, read))

    def _fitting(self, app: IosApp) -> IosApp:
        is_simulator = self._target.is_simulator
        if app.is_for_simulators if is_simulator else app.is_for_devices:
            return app
        made, have = ("devices", "a simulator") if is_simulator else ("simulators", "a device")
        target = "device" if is_simulator else "emulator"
        raise BuildUnusable(
            "BUILD_REFUSED", f"{app.folder.name} was built for {made}, and {self.name} is {have}; use --target={target}"
        )

    async def _clean_up(self, app: IosApp) -> None:
        """Take the app of the last batch away where another one comes: iOS has no other way to clear its data.

        Which that was is known from its install, so it also goes when an earlier life of this agent has tested it.
        """
        last = {self._app.bundle_id} if self._app is not None else set[str]()
        for bundle_id in sorted((last | await asyncio.to_thread(self._installs.apps)) - {app.bundle_id}):
            try:
                if await self._target.place(bundle_id) is not None:
                    await self._target.uninstall(bundle_id)
            except XcrunFailed as error:
                message = f"{bundle_id} cannot be uninstalled from {self.name}: {error}"
                raise RunFailed(_failure("CLEAN_UP_FAILED", message, Blame.DEVICE)) from error
            await asyncio.to_thread(self._installs.forget, bundle_id)

    async def _put(self, app: IosApp) -> Installation:
        """Install, and look at where the device holds it then: a stale build must never be tested."""
        begun = time.monotonic()
        try:
            place = await self._target.place(app.bundle_id)
            if await asyncio.to_thread(self._installs.held, app.bundle_id, place) == app.digest:
                return Installation(digest=app.digest, is_new=False, duration_us=0)
            await asyncio.to_thread(self._installs.forget, app.bundle_id)
            await self._target.install(app.bundle_id, app.folder)
            place = await self._target.place(app.bundle_id)
        except XcrunFailed as error:
            raise RunFailed(await self._refusal(app, error)) from error
        if place is None:
            message = f"{self.name} does not hold {app.bundle_id} after the install"
            raise RunFailed(_failure("INSTALL_FAILED", message, Blame.DEVICE))
        await asyncio.to_thread(self._installs.note, app.bundle_id, place, app.digest)
        spent_us = int((time.monotonic() - begun) * MICROSECONDS)
        return Installation(digest=app.digest, is_new=True, duration_us=spent_us)

    async def _refusal(self, app: IosApp, error: XcrunFailed) -> Failure:
        if not await self._target.is_there():
            return _failure("DEVICE_LOST", f"{self.name} went away during the install", Blame.DEVICE)
        if _BUILD_FAULT.search(str(error)):
            # Whether another device takes it is the coordinator's business to find out.
            return _failure("BUILD_REFUSED", f"{self.name} refuses {app.folder.name}: {error}", Blame.BUILD)
        return _failure("INSTALL_FAILED", f"{self.name} cannot install {app.folder.name}: {error}", Blame.DEVICE)

    async def _try_out(self, app: IosApp) -> None:
        try:
            await self._target.try_out(app.bundle_id)
        except XcrunFailed as error:
            message = f"{self.name} does not start {app.bundle_id}: {error}"
            raise RunFailed(_failure("DEVICE_STARTS_NO_APP", message, Blame.DEVICE)) from error

    # Running

    async def ready(self, _job: LeasedJob) -> None:
        """Put the build back, should a test of the batch have replaced it, and start the device's Appium.

        Raises:
            RunFailed: The device does not take it, or Appium does not come up.
        """
        assert self._app is not None
        try:
            if (await self._put(self._app)).is_new:
                structlog.get_logger("agent").warning("build_put_back", device=self.name, digest=self._app.digest)
            await self._appium.ensure()
        except AppiumFailed as error:
            raise RunFailed(error.failure) from error
        except OSError as error:
            raise RunFailed(_storage_failed(error)) from error

    def environment(self) -> dict[str, str]:
        """Return what the wrapper must know of the device, its Appium and its app."""
        assert self._app is not None
        return {
            "QGJOB_PLATFORM": "ios",
            "QGJOB_PROVIDER": "emulator" if self._target.is_simulator else "local-device",
            "QGJOB_UDID": self.name,
            "QGJOB_APPIUM_PORT": str(self._appium.port),
            "QGJOB_APPIUM_PATH": self._appium.base_path,
            "QGJOB_CAPABILITIES": json.dumps(self._capabilities(self._app)),
            "QGJOB_BUILD_PATH": str(self._build_path(self._app)),
            "QGJOB_APP_PACKAGE": self._app.bundle_id,
        }

    def _build_path(self, app: IosApp) -> Path:
        """Return what AppWright takes for the build: it asks for an .ipa on devices, and for no more than its name."""
        if self._target.is_simulator:
            return app.folder
        link = self._directory / f"{app.folder.stem}.ipa"
        link.unlink(missing_ok=True)
        link.symlink_to(app.folder)
        return link

    def _capabilities(self, app: IosApp) -> dict[str, object]:
        wda_port, mjpeg_port = self._appium.device_ports
        return {
            "appium:bundleId": app.bundle_id,
            # It is installed already; with the path Appium would install it for every session. None takes it out.
            "appium:app": None,
            "appium:platformVersion": None,
            "appium:noReset": False,
            "appium:fullReset": False,
            # What two sessions of a host must not share.
            "appium:wdaLocalPort": wda_port,
            "appium:mjpegServerPort": mjpeg_port,
            "appium:derivedDataPath": str(self._directory / "webdriveragent"),
            "appium:wdaLaunchTimeout": WDA_TIMEOUT_MS,
            **({} if self._target.is_simulator else self._signing.capabilities()),
        }

    async def begin(self, _job: LeasedJob, _observer: Observer) -> None:
        """Remember what of Appium's log is older than the run."""
        self._mark = self._appium.mark()

    async def end(self, out: Path) -> tuple[LeftBehind, ...]:
        """Keep what the device's Appium has logged. The session is AppWright's to end, or `reset`'s."""
        await asyncio.to_thread(self._write_log, out)
        return ()

    def _write_log(self, out: Path) -> None:
        try:
            if content := self._appium.logged_since(self._mark):
                (out / APPIUM_LOG).write_bytes(content)
        except OSError as error:  # it costs the log, and not the verdict
            structlog.get_logger("agent").warning("device_log_lost", device=self.name, reason=str(error))

    async def explain(self, verdict: Verdict) -> Verdict:
        """Return the verdict as it is: crash reports of iOS are not read."""
        return verdict

    async def lost(self) -> None:
        """Wait until the device has been away at two looks in a row: one alone may be a cable that was touched."""
        missed = 0
        while missed < LOOKS_MISSED:
            await asyncio.sleep(LOOK_S)
            missed = 0 if await self._target.is_there() else missed + 1

    async def is_there(self) -> bool:
        """Whether the device can be worked with."""
        return await self._target.is_there()

    async def is_ready(self) -> bool:
        """Whether the device's Appium answers."""
        return await self._appium.is_ready()

    async def reset(self) -> None:
        """End the device's Appium and every session in it."""
        await self._appium.stop()

    async def close(self) -> None:
        """End the device's Appium."""
        await self._appium.stop()


def _storage_failed(error: OSError) -> Failure:
    message = f"the app cannot be unpacked on this host: {error.strerror or error}"
    return _failure("HOST_STORAGE_FAILED", message, Blame.HOST)


def _failure(reason: str, message: str, blame: Blame) -> Failure:
    return Failure(reason=reason, message=message, blame=blame)
