"""Finds the APK of an app version, and knows it by its SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

from agent.android import Apk
from agent.core.model import Blame, Failure
from agent.downloads import DownloadMissing, Downloads, is_url
from agent.process import capture

AAPT_TIMEOUT_S = 30.0
PLACEHOLDER = "{app_version_id}"

_PACKAGE = re.compile(r"package: name='([^']+)'")
_ACTIVITY = re.compile(r"launchable-activity: name='([^']+)'")


class BuildUnusable(Exception):
    """There is no build to install, or it is broken; carries why."""

    def __init__(self, reason: str, message: str, blame: Blame = Blame.BUILD) -> None:
        """Take the reason and the sentence."""
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, blame=blame)


class BuildSource:
    """A template of a path or a URL, as in `apps/{app_version_id}.apk`; relative paths begin at the workspace.

    An empty template means the build that the project itself names, whatever the app version is called.
    """

    def __init__(
        self, template: str, workspace: Path, ask_project: Callable[[], Awaitable[Path]] | None, downloads: Downloads
    ) -> None:
        """Take the template, how to ask a project where its own build lies, and what brings builds behind URLs."""
        self._template = template
        self._workspace = workspace
        self._ask_project = ask_project
        self._downloads = downloads
        self._known: dict[tuple[Path, int, int], Apk] = {}

    async def find(self, app_version_id: str) -> Apk:
        """Return the APK of an app version.

        Raises:
            BuildUnusable: It is missing, or no APK.
        """
        path = await self.locate(app_version_id)
        try:
            return await self.read(path)
        except OSError as error:
            raise self._missing(app_version_id, f"{path} is missing") from error

    async def locate(self, app_version_id: str) -> Path:
        """Return the file of an app version, which nobody has looked into.

        Raises:
            BuildUnusable: It is missing.
        """
        if is_url(self._template):
            return await self._fetch(app_version_id)
        if not self._template and self._ask_project is None:
            raise BuildUnusable(
                "BUILD_NOT_FOUND",
                f"no build for app version {app_version_id}: it is not registered, and this agent has neither a"
                " --build-source nor a workspace; use `qgjob builds upload` or --app, and submit again",
            )
        path = await self._ask_project() if self._ask_project and not self._template else self._path(app_version_id)
        if not await asyncio.to_thread(os.path.lexists, path):
            raise self._missing(app_version_id, f"{path} is missing")
        return path

    async def _fetch(self, app_version_id: str) -> Path:
        url = self._template.replace(PLACEHOLDER, quote(app_version_id, safe=""))
        try:
            return await self._downloads.get(url)
        except DownloadMissing as error:
            raise self._missing(app_version_id, str(error)) from error
        except OSError as error:
            failure = f"the build of app version {app_version_id} cannot be fetched: {error}"
            raise BuildUnusable("BUILD_SOURCE_FAILED", failure, Blame.HOST) from error

    def _missing(self, app_version_id: str, what: str) -> BuildUnusable:
        mend = "mend --build-source" if self._template else "mend the project's buildPath"
        return BuildUnusable(
            "BUILD_NOT_FOUND",
            f"no build for app version {app_version_id}: {what}; put it there, or {mend}, or give the lab the build"
            " with `qgjob builds upload` and submit again",
        )

    async def read(self, path: Path) -> Apk:
        """Return what an APK says of itself.

        Raises:
            OSError: It is not there.
            BuildUnusable: It is no APK.
        """
        state = await asyncio.to_thread(path.stat)
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._known:
            self._known[key] = await _read(path)
        return self._known[key]

    def _path(self, app_version_id: str) -> Path:
        if PLACEHOLDER in self._template and (
            "/" in app_version_id or "\\" in app_version_id or app_version_id.startswith(".")
        ):
            raise BuildUnusable("BUILD_NOT_FOUND", f"app version {app_version_id!r} cannot be part of a path")
        return self._workspace / self._template.replace(PLACEHOLDER, app_version_id)


async def _read(path: Path) -> Apk:
    if not await asyncio.to_thread(_is_apk, path):
        raise BuildUnusable("BUILD_INVALID", f"{path} is no APK; build it again")
    try:
        code, text = await capture(("aapt", "dump", "badging", str(path)), timeout_s=AAPT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        raise BuildUnusable("BUILD_INVALID", f"aapt cannot read {path}: {str(error) or 'it hangs'}") from error
    package, activity = _PACKAGE.search(text), _ACTIVITY.search(text)
    if code != 0 and package is None:
        raise BuildUnusable("BUILD_INVALID", f"{path} has no readable manifest; build it again")
    if package is None or activity is None:
        raise BuildUnusable("BUILD_INVALID", f"{path} has no package with an activity that can be launched")
    digest = await asyncio.to_thread(digest_of, path)
    return Apk(path=path, digest=digest, package=package[1], activity=activity[1])


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_apk(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "AndroidManifest.xml" in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
