"""Lays out test projects that came as bundles: unpacked with care, beside the Node packages of their lock file.

Packages are installed once for each organisation, lock file and release of Node, and shared by all attempts; the
project itself is a clean copy for each. Where the agent's own project has the same lock file, its packages are used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
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

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        """Use a directory, which is made when it is needed.

        Args:
            directory: Where packages are installed; what an earlier life left is used.
            env: What npm may know of this host.
        """
        self._directory = directory
        self._env = env
        self._lender: Path | None = None
        self._installs: dict[str, _Install] = {}
        self._used: dict[str, str] = {}
        """Who uses which packages."""
        self._release = ""

    def lend(self, project: Path) -> None:
        """Let the packages of the agent's own project serve all that have its lock file."""
        self._lender = project

    async def get(self, org_id: str, project: Path, user: str) -> Path:
        """Return the node_modules of a project; they stay while nobody asks for others as the same user.

        Raises:
            BundleUnusable: They cannot be had.
        """
        lock = await asyncio.to_thread(packages_of, project)
        if lock is None:
            raise BundleUnusable(
                "PROJECT_INVALID",
                f"the bundle has no {LOCK_FILE} beside a {MANIFEST}, or they are broken; run `npm install` and commit"
                " both",
                Blame.TEST,
            )
        if self._lender is not None and lock == await asyncio.to_thread(packages_of, self._lender):
            return self._lender / "node_modules"
        key = packages_key(org_id, lock, await self._node())
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
    """Lay out what npm needs; the project's own scripts are left out, for they want files that are not there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    manifest = json.loads((project / MANIFEST).read_bytes())
    manifest.pop("scripts", None)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    shutil.copy(project / LOCK_FILE, folder / LOCK_FILE)


def packages_of(project: Path) -> str | None:
    """Return what a project's lock file says of packages, whatever the project is called; None where it has none."""
    try:
        lock = json.loads((project / LOCK_FILE).read_bytes())
        is_project = isinstance(json.loads((project / MANIFEST).read_bytes()), dict)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(lock, dict) or not is_project:
        return None
    packages = lock.get("packages")
    own = packages.get("") if isinstance(packages, dict) else None
    for one in (lock, own):
        if isinstance(one, dict):
            one.pop("name", None)
            one.pop("version", None)
    return json.dumps(lock, sort_keys=True)


def packages_key(org_id: str, packages: str, node: str) -> str:
    """Return what a set of installed packages is kept under."""
    return hashlib.sha256("\0".join((org_id, packages, node)).encode()).hexdigest()[:32]


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
        unpacking = asyncio.create_task(asyncio.to_thread(unpack, bundle, folder))
        try:
            await asyncio.shield(unpacking)
        finally:
            # Who is stopped meanwhile must not leave a thread behind that writes into the next run's folder.
            await asyncio.wait((unpacking,))
        modules = folder / "node_modules"
        if not modules.exists():
            modules.symlink_to((await self._packages.get(org_id, folder, user)).resolve())
