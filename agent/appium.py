"""One Appium server for each device, kept warm, with an APPIUM_HOME that the agent owns."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.core.model import Blame, Failure
from agent.disk import UNREADABLE
from agent.journal import Claim
from agent.ports import DevicePorts, PortsTaken, free_port
from agent.process import Supervised, capture, start

TRUST = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")
DRIVER_TIMEOUT_S = 600.0
START_TIMEOUT_S = 60.0
POLL_S = 0.1
STOP_GRACE_S = 3.0
BUILD_TOOLS = "34.0.0"
MAX_LOG_BYTES = 16 * 1_024 * 1_024
START_TRIES = 3
COMPLETE = "complete"
"""File in an APPIUM_HOME that says that its driver was installed to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What makes Appium speak with one kind of device; pinned, in an APPIUM_HOME of its own."""

    package: str
    version: str
    home: str
    """Name of its APPIUM_HOME in the state directory."""
    ports: range
    """Where it reaches what it runs on devices."""
    ports_per_device: int = 1


UIAUTOMATOR2 = Driver(
    package="appium-uiautomator2-driver", version="3.10.0", home="appium-home", ports=range(8_200, 8_300)
)
XCUITEST = Driver(
    package="appium-xcuitest-driver",
    version="7.35.1",
    home="appium-home-ios",
    ports=range(8_100, 8_200),
    ports_per_device=2,
)
"""A device has a port for WebDriverAgent, and one for the pictures of its screen."""


class AppiumFailed(Exception):
    """The server or its driver cannot be had; the sentence says why."""

    @property
    def failure(self) -> Failure:
        """Why no job can run so."""
        return Failure(reason="APPIUM_FAILED", message=str(self), blame=Blame.HOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """Where the tools of one host are."""

    project: Path
    """The AppWright project; its node_modules carry Appium."""
    state_dir: Path
    has_workspace: bool = True
    """Whether the project has tests; else it is Appium alone, and only bundles can be run."""

    def appium_home(self, driver: Driver = UIAUTOMATOR2) -> Path:
        """Return the agent's own APPIUM_HOME for a driver."""
        return self.state_dir / driver.home

    def environment(self) -> dict[str, str]:
        """Return what a tool may know of this host: nothing is inherited but what is listed here."""
        keep = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", *TRUST, "DEVELOPER_DIR")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        env["ANDROID_HOME"] = str(self._android_home())
        env["ANDROID_SDK_ROOT"] = env["ANDROID_HOME"]
        # Appium's adb must use the server that is there, and never start one that would outlive it: see `android`.
        env["ANDROID_ADB_SERVER_ADDRESS"] = "127.0.0.1"
        env["JAVA_HOME"] = os.environ.get("JAVA_HOME") or _java_home()
        return env

    def _android_home(self) -> Path:
        given = os.environ.get("ANDROID_HOME")
        if given and any(Path(given).glob("build-tools/*/aapt2")):
            return Path(given)
        return _linked_sdk(self.state_dir / "android-sdk")


def _java_home() -> str:
    java = shutil.which("java")
    return str(Path(java).resolve().parent.parent) if java is not None else ""


def _linked_sdk(folder: Path) -> Path:
    """Return an SDK folder of links to the tools on PATH, as Appium and AppWright want to find them.

    Without aapt2 there Appium cannot compare versions and installs for every session.
    """
    tools = folder / "build-tools" / BUILD_TOOLS
    links = {
        folder / "platform-tools" / "adb": shutil.which("adb"),
        tools / "aapt": shutil.which("aapt"),
        tools / "aapt2": shutil.which("aapt2"),
        tools / "zipalign": shutil.which("zipalign"),
        tools / "lib" / "apksigner.jar": "/usr/share/java/apksigner.jar",
    }
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if target is not None and Path(target).exists() and not link.exists():
            link.symlink_to(target)
    return folder


@dataclass(frozen=True, slots=True)
class LogMark:
    """A place in the log of a server."""

    inode: int = 0
    """Of the file that was written to; 0 where there was none."""
    size: int = 0


class _CappedLog:
    """A file for a server's output that never grows beyond a limit: when it is full, it is begun anew beside the old.

    A disk that refuses costs the lines; Appium goes on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._file.tell() > MAX_LOG_BYTES:
                self._file.close()
                self._path.replace(self._path.with_suffix(".log.1"))
                self._file = self._path.open("ab", buffering=0)
            self._file.write(data)

    def close(self) -> None:
        self._file.close()


def _mark(path: Path) -> LogMark:
    try:
        found = path.stat()
    except FileNotFoundError:
        return LogMark()
    return LogMark(inode=found.st_ino, size=found.st_size)


def _read_since(path: Path, mark: LogMark) -> bytes:
    """Return what a capped log holds from a mark on, if need be from the beginning of what is left of it."""
    parts = list[bytes]()
    for file in (path.with_suffix(".log.1"), path):
        try:
            with file.open("rb") as opened:
                is_marked = os.fstat(opened.fileno()).st_ino == mark.inode
                if is_marked:
                    parts.clear()
                    opened.seek(mark.size)
                if is_marked or file == path:
                    parts.append(opened.read())
        except FileNotFoundError:
            continue
    return b"".join(parts)


async def install_driver(tools: Toolbox, driver: Driver = UIAUTOMATOR2) -> None:
    """Install a pinned driver into its APPIUM_HOME, once for all slots and agents that share it.

    Raises:
        AppiumFailed: It cannot be installed.
    """
    home = tools.appium_home(driver)
    home.mkdir(parents=True, exist_ok=True)
    # Beside the home itself: agents with state of their own may have links to one.
    with home.resolve().with_suffix(".lock").open("w") as guard:
        await asyncio.to_thread(fcntl.flock, guard, fcntl.LOCK_EX)
        complete = home / COMPLETE
        if installed_version(home, driver) == driver.version:
            return
        # Of another release, or left by an install that was interrupted: Appium would not install over it.
        complete.unlink(missing_ok=True)
        shutil.rmtree(home / "node_modules", ignore_errors=True)
        structlog.get_logger("agent").info("driver_installing", driver=driver.package, version=driver.version)
        command = (*_appium(tools), "driver", "install", "--source=npm", f"{driver.package}@{driver.version}")
        env = {**tools.environment(), "APPIUM_HOME": str(home)}
        try:
            code, text = await capture(command, env=env, timeout_s=DRIVER_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise AppiumFailed(f"the Appium driver cannot be installed: {str(error) or 'it takes too long'}") from error
        if code != 0 or _version_in(home, driver) != driver.version:
            lines = text.strip().splitlines()
            raise AppiumFailed(f"the Appium driver cannot be installed: {lines[-1] if lines else code}")
        complete.touch()


def installed_version(home: Path, driver: Driver) -> str | None:
    """Return the release of a driver in an APPIUM_HOME; None where there is none, or it is not whole.

    Raises:
        OSError: What is there cannot be read.
    """
    return _version_in(home, driver) if (home / COMPLETE).exists() else None


def _version_in(home: Path, driver: Driver) -> str | None:
    manifest = home / "node_modules" / driver.package / "package.json"
    try:
        return str(json.loads(manifest.read_bytes())["version"])
    except (FileNotFoundError, *UNREADABLE):
        return None


def _appium(tools: Toolbox) -> tuple[str, str]:
    return "node", str(tools.project / "node_modules" / "appium" / "index.js")


class AppiumServer:
    """The Appium of one device."""

    def __init__(
        self,
        tools: Toolbox,
        slot: int,
        directory: Path,
        claim: Claim | None = None,
        driver: Driver = UIAUTOMATOR2,
    ) -> None:
        """`claim` is the right to the device: nobody else may have it before the server is gone."""
        self._tools = tools
        self._driver = driver
        self._directory = directory
        self._slot = slot
        self._claim = claim
        self._server: Supervised | None = None
        self._log: _CappedLog | None = None
        self._ports: DevicePorts | None = None
        self.port = 0
        self.base_path = f"/qgjob-{secrets.token_hex(8)}"
        """Nobody else's server answers under it: a port that was free a moment ago may be another agent's by now."""

    async def ensure(self) -> None:
        """Start the server, or start it again when it has died.

        Raises:
            AppiumFailed: It does not come up.
        """
        if self._server is not None and self._server.is_running and await self.is_ready():
            return
        for left in reversed(range(START_TRIES)):
            await self.stop()
            try:
                return await self._start()
            except AppiumFailed:
                if left == 0:
                    raise

    async def _start(self) -> None:
        try:
            self._ports = DevicePorts(self._driver.ports, self._driver.ports_per_device, self._slot)
        except PortsTaken as error:
            raise AppiumFailed(str(error)) from error
        self.port = free_port()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._log = _CappedLog(self._log_path)
        env = {**self._tools.environment(), "APPIUM_HOME": str(self._tools.appium_home(self._driver))}
        command = (*_appium(self._tools), "server", "--address", "127.0.0.1", "--port", str(self.port))
        self._server = await start(
            (*command, "--base-path", self.base_path, "--log-timestamp", "--log-no-colors"),
            env=env,
            directory=self._directory,
            output=self._log.write,
            claim=self._claim,
            what="Appium",
            locks=(self._ports.descriptor,),
        )
        await self._wait_until_ready()

    async def _wait_until_ready(self) -> None:
        assert self._server is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        while not await self.is_ready():
            if not self._server.is_running:
                raise AppiumFailed(f"Appium ended at once; see {self._log_path}")
            if loop.time() > deadline:
                await self.stop()
                raise AppiumFailed(f"Appium did not come up; see {self._log_path}")
            await asyncio.sleep(POLL_S)

    @property
    def _log_path(self) -> Path:
        return self._directory / "appium.log"

    def mark(self) -> LogMark:
        """Return where the log ends now."""
        return _mark(self._log_path)

    def logged_since(self, mark: LogMark) -> bytes:
        """Return what the server, and those that took its place, have logged since a mark.

        Raises:
            OSError: The log cannot be read.
        """
        return _read_since(self._log_path, mark)

    async def is_ready(self) -> bool:
        """Whether the server answers."""
        return await asyncio.to_thread(_answers, f"http://127.0.0.1:{self.port}{self.base_path}/status")

    async def stop(self) -> None:
        """End the server and every session in it."""
        try:
            if self._server is not None:
                await self._server.stop(STOP_GRACE_S)
                await self._server.wait()
        finally:
            # Whatever went wrong: a server whose end failed must not keep the device from a new one.
            self._reset()

    def _reset(self) -> None:
        self._server = None
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._ports is not None:
            self._ports.release()
            self._ports = None

    @property
    def device_ports(self) -> tuple[int, ...]:
        """The ports that were reserved for what the driver runs on the device."""
        assert self._ports is not None, "the server does not run"
        return self._ports.numbers

    def capabilities(self, adb_port: int) -> Mapping[str, object]:
        """Return what every session on an Android device must ask for."""
        return {
            "appium:adbPort": adb_port,
            "appium:systemPort": self.device_ports[0],
            # The build is on the device already, and each test begins with clean data.
            "appium:noReset": False,
            "appium:fullReset": False,
            # The adb server is the host's: its other devices hang on it.
            "appium:suppressKillServer": True,
        }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own server on loopback
            return bool(answer.status == 200)
    except OSError:
        return False
