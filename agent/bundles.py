"""Lays out test projects that came as bundles: unpacked with care, beside the Node packages of their lock file.

Packages are installed once for each organisation, lock file and release of Node, and shared by all attempts; the
project itself is a clean copy for each. Where the configured workspace has the very same lock file, its packages are
used.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.blobs import BlobCache
from agent.core.model import Blame, Failure, LeaseKey
from agent.process import capture

MOST_FILES = 20_000
MOST_BYTES = 1_024**3
LOCK_FILE = "package-lock.json"
MANIFEST = "package.json"
INSTALL_TIMEOUT_S = 600.0
KEPT_INSTALLS = 5
"""Sets of packages that are kept, but for those in use; one takes some 300 MB."""
NPM_OPTIONS = ("--no-audit", "--no-fund", "--no-progress", "--loglevel=error", "--fetch-retry-maxtimeout=10000")
MISTAKES = ("EUSAGE", "EJSONPARSE", "ETARGET", "E404", "EINTEGRITY", "ERESOLVE", "EBADENGINE")
"""What npm says when the project is wrong, and no other host would fare better."""
MOST_SAID = 300


class BundleUnusable(Exception):
    """A bundle cannot be run; carries why."""

    def __init__(self, reason: str, message: str, blame: Blame) -> None:
        """Take the reason and the sentence."""
        super().__init__(message)
        self.failure = Failure(reason=reason, message=message, blame=blame)


def unpack(bundle: Path, folder: Path) -> None:
    """Unpack a bundle into a folder, which is made anew.

    Raises:
        BundleUnusable: It holds something else than plain files inside, or too much.
        OSError: The disk refuses.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, size = 0, 0
    try:
        with tarfile.open(bundle, mode="r:") as tar:
            for entry in tar:
                files += 1
                size += entry.size
                if files > MOST_FILES or size > MOST_BYTES:
                    raise _invalid(f"it has over {MOST_FILES} files or {MOST_BYTES // 1_024**2} MiB")
                if not entry.isreg() and not entry.isdir():
                    raise _invalid(f"{entry.name} is no plain file")
                tar.extract(entry, folder, filter="data")
    except tarfile.FilterError as error:
        raise _invalid(str(error)) from error
    except tarfile.TarError as error:
        raise _invalid(f"it cannot be read: {error}") from error


def _invalid(why: str) -> BundleUnusable:
    return BundleUnusable("BUNDLE_INVALID", f"the bundle is refused: {why}", Blame.TEST)


@dataclass(slots=True)
class _Install:
    task: asyncio.Task[Path]
    waiting: int = 0


class NodePackages:
    """The installed packages of this host. Everything is called on one event loop."""

    def __init__(self, directory: Path, workspace: Path, env: dict[str, str]) -> None:
        """Use a directory, which is made when it is needed.

        Args:
            directory: Where packages are installed; what an earlier life left is used.
            workspace: The configured project, whose packages serve bundles with its lock file.
            env: What npm may know of this host.
        """
        self._directory = directory
        self._workspace = workspace
        self._env = env
        self._installs: dict[str, _Install] = {}
        self._used: dict[str, str] = {}
        """Who uses which packages."""
        self._release = ""

    async def get(self, org_id: str, project: Path, user: str) -> Path:
        """Return the node_modules of a project; they stay while nobody asks for others as the same user.

        Raises:
            BundleUnusable: They cannot be had.
        """
        lock = await asyncio.to_thread(_read, project / LOCK_FILE)
        if lock is None or not (project / MANIFEST).is_file():
            raise BundleUnusable(
                "PROJECT_INVALID",
                f"the bundle has no {LOCK_FILE} beside a {MANIFEST}; run `npm install` and commit both",
                Blame.TEST,
            )
        if lock == await asyncio.to_thread(_read, self._workspace / LOCK_FILE):
            return self._workspace / "node_modules"
        key = hashlib.sha256(b"\0".join((org_id.encode(), lock, (await self._node()).encode()))).hexdigest()[:32]
        self._used[user] = key
        return await self._installed(key, project)

    async def _node(self) -> str:
        if not self._release:
            _, text = await capture(("node", "--version"), env=self._env, timeout_s=30)
            self._release = text.strip()
        return self._release

    async def _installed(self, key: str, project: Path) -> Path:
        folder = self._directory / key
        if await asyncio.to_thread(_touch, folder / "done"):
            return folder / "node_modules"
        install = self._installs.get(key)
        if install is None:
            install = self._installs[key] = _Install(asyncio.create_task(self._install(folder, project)))
            install.task.add_done_callback(lambda _task: self._installs.pop(key, None))
        # An install that nobody waits for any more is ended: its project may be gone by now.
        install.waiting += 1
        try:
            return await asyncio.shield(install.task)
        finally:
            install.waiting -= 1
            if not install.waiting:
                install.task.cancel()

    async def _install(self, folder: Path, project: Path) -> Path:
        began_s = time.monotonic()
        await asyncio.to_thread(_begin, folder, project)
        command = ("npm", "ci", "--prefix", str(folder), *NPM_OPTIONS)
        try:
            code, text = await capture(command, env=self._env, timeout_s=INSTALL_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise BundleUnusable(
                "PACKAGES_FAILED", f"npm ci failed: {str(error) or 'it took too long'}", Blame.HOST
            ) from error
        if code != 0:
            said = " ".join(text.split())[:MOST_SAID]
            if any(mistake in text for mistake in MISTAKES):
                raise BundleUnusable("PROJECT_INVALID", f"npm ci refuses the bundle's packages: {said}", Blame.TEST)
            raise BundleUnusable("PACKAGES_FAILED", f"npm ci failed: {said}", Blame.HOST)
        (folder / "done").touch()
        story = f"installed Node packages in {time.monotonic() - began_s:.0f} s"
        structlog.get_logger("agent").info("packages_installed", story=story, packages=folder.name[:12])
        await asyncio.to_thread(self._evict)
        return folder / "node_modules"

    def _evict(self) -> None:
        kept = {*self._used.values(), *self._installs}
        done = sorted(self._directory.glob("*/done"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in done[KEPT_INSTALLS:]:
            if path.parent.name not in kept:
                shutil.rmtree(path.parent, ignore_errors=True)


def _begin(folder: Path, project: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    for name in (MANIFEST, LOCK_FILE):
        shutil.copy(project / name, folder / name)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _touch(path: Path) -> bool:
    """Note that packages are used, and return whether they are there, whole."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


class Bundles:
    """Bundles of this host, and the packages that they run with."""

    def __init__(self, cache: BlobCache, packages: NodePackages) -> None:
        self._cache = cache
        self._packages = packages

    async def lay_out(self, org_id: str, digest: str, key: LeaseKey, user: str, folder: Path) -> None:
        """Make a folder a clean copy of a bundle, ready to run.

        Args:
            org_id: Whose bundle it is.
            digest: SHA-256 of the bundle.
            key: A lease that names it.
            user: Who runs it: a device.
            folder: Is made anew.

        Raises:
            BlobUnusable: The bundle cannot be had.
            BundleUnusable: It cannot be run.
        """
        bundle = await self._cache.get(digest, key, user)
        await asyncio.to_thread(unpack, bundle, folder)
        modules = folder / "node_modules"
        if not modules.exists():
            modules.symlink_to((await self._packages.get(org_id, folder, user)).resolve())
