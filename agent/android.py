"""adb on one device: is it there, what does it hold, install."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import Blame, Failure
from agent.journal import Claim
from agent.process import capture, start

ADB_TIMEOUT_S = 20.0
INSTALL_TIMEOUT_S = 180.0
ANNOUNCE_TIMEOUT_S = 5.0
HUNG = 124
"""The exit code of a command that took too long."""
LOOK_S = 2.0
LOOKS_MISSED = 2
# Given as an address and not as "localhost", adb never starts a server of its own: such a one would outlive the lab.
SERVER_HOST = "127.0.0.1"

_FAILURE = re.compile(r"\b(INSTALL_[A-Z_]+|DELETE_[A-Z_]+)\b")
_BUILD_FAULTS = (
    "INSTALL_PARSE_FAILED",
    "INSTALL_FAILED_INVALID_APK",
    "INSTALL_FAILED_NO_MATCHING_ABIS",
    "INSTALL_FAILED_OLDER_SDK",
)
_IN_THE_WAY = ("INSTALL_FAILED_UPDATE_INCOMPATIBLE", "INSTALL_FAILED_VERSION_DOWNGRADE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Apk:
    """An APK on this host."""

    path: Path
    digest: str
    package: str
    activity: str


class InstallFailed(Exception):
    """The device did not take the APK; carries why, and whose fault that is."""

    def __init__(self, failure: Failure) -> None:
        """Take the failure."""
        super().__init__(failure.message)
        self.failure = failure


async def announce_emulator(server_port: int, port: int) -> None:
    """Tell an adb server of an emulator, by the port of its adb; one that is known already stays as it is.

    Raises:
        OSError: The server cannot be reached, or does not take it.
    """
    async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(SERVER_HOST, server_port)
        try:
            request = f"host:emulator:{port}".encode()
            writer.write(b"%04x%s" % (len(request), request))
            await reader.read()  # there is no answer; the server closes when it has done it
        finally:
            writer.close()


async def is_taken(port: int) -> bool:
    """Whether something listens on a port of this host."""
    try:
        async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(SERVER_HOST, port)
    except OSError:
        return False
    writer.close()
    return True


class Adb:
    """One device, through one adb server that somebody else owns."""

    def __init__(self, udid: str, server_port: int, claim: Claim | None = None) -> None:
        """`claim` is the right to the device: an install holds its lock, should its agent be killed."""
        self._claim = claim
        self.udid = udid
        self.server_port = server_port
        self._adb = shutil.which("adb") or "adb"

    async def run(self, *arguments: str, timeout_s: float = ADB_TIMEOUT_S) -> tuple[int, str]:
        """Run an adb command on the device; a command that hangs counts as failed."""
        command = (self._adb, "-H", SERVER_HOST, "-P", str(self.server_port), "-s", self.udid, *arguments)
        try:
            return await capture(command, timeout_s=timeout_s)
        except TimeoutError:
            return HUNG, f"adb {arguments[0]} took longer than {timeout_s:g} s"

    async def is_online(self) -> bool:
        """Whether the device answers."""
        code, text = await self.run("get-state")
        return code == 0 and text.strip() == "device"

    async def lost(self) -> None:
        """Return when the device has been away at two looks in a row: one alone may be a cable that was touched."""
        missed = 0
        while missed < LOOKS_MISSED:
            await asyncio.sleep(LOOK_S)
            missed = 0 if await self.is_online() else missed + 1

    async def installed_digest(self, package: str) -> str | None:
        """Return the SHA-256 of the APK that the device holds for a package."""
        code, text = await self.run("shell", "pm", "path", package)
        if code != 0 or not text.startswith("package:"):
            return None
        path = text.splitlines()[0].removeprefix("package:").strip()
        code, text = await self.run("shell", "sha256sum", path)
        digest = text.split(" ", 1)[0].strip()
        return digest if code == 0 and len(digest) == 64 else None

    async def install(self, apk: Apk) -> None:
        """Install an APK over whatever version is there, with all permissions granted.

        A newer version, or one of another signer, gives way: builds that a developer and a CI signed come in any order.

        Raises:
            InstallFailed: The device did not take it.
        """
        code, text = await self._run_install(apk)
        if code != 0 and any(reason in text for reason in _IN_THE_WAY):
            await self.run("uninstall", apk.package)
            code, text = await self._run_install(apk)
        if code == 0 and "Success" in text:
            return
        raise InstallFailed(await self._why(text))

    async def _run_install(self, apk: Apk) -> tuple[int, str]:
        """Run the install under a supervisor: one that outlived its agent would land in the tests of the next."""
        said = bytearray()
        install = await start(
            (
                self._adb,
                "-H",
                SERVER_HOST,
                "-P",
                str(self.server_port),
                "-s",
                self.udid,
                "install",
                "-r",
                "-g",
                str(apk.path),
            ),
            env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
            directory=apk.path.parent,
            output=said.extend,
            claim=self._claim,
            what=f"install of {apk.package}",
        )
        try:
            async with asyncio.timeout(INSTALL_TIMEOUT_S):
                code = await asyncio.shield(install.wait())
        except TimeoutError:
            return 124, f"adb install took longer than {INSTALL_TIMEOUT_S:g} s"
        finally:
            await install.stop(0)
        return code, said.decode(errors="replace")

    async def _why(self, text: str) -> Failure:
        found = _FAILURE.search(text)
        if found is None:
            if not await self.is_online():
                return Failure(
                    reason="DEVICE_LOST", message=f"{self.udid} went away during the install", blame=Blame.DEVICE
                )
            lines = text.strip().splitlines()
            last = lines[-1] if lines else "no answer"
            return Failure(reason="INSTALL_FAILED", message=f"adb install: {last}", blame=Blame.DEVICE)
        reason = found[1]
        if reason.startswith(_BUILD_FAULTS):
            return Failure(
                # Whether another device takes it is the coordinator's business to find out.
                reason="BUILD_REFUSED",
                message=f"{self.udid} refuses the build: {reason}",
                blame=Blame.BUILD,
            )
        fix = "; free some space on it" if reason == "INSTALL_FAILED_INSUFFICIENT_STORAGE" else ""
        return Failure(
            reason=reason, message=f"{self.udid} cannot install the build: {reason}{fix}", blame=Blame.DEVICE
        )
