"""Lays out test projects that came as bundles: unpacked with care, beside the Node packages of their lock file.

Packages are installed once for each organisation, lock file and release of Node, and shared by all attempts; the
project itself is a clean copy for each. Where the agent's own project has the same lock file, its packages are used.

Tests run as the agent's user, who may write to all of them. So packages are sealed when they are installed, made
read-only as far as that holds, and looked at before each attempt: what was changed since is never used again.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog

from agent.blobs import BlobCache
from agent.core.model import Blame, Failure, LeaseKey
from agent.process import capture
from agent.seals import make_read_only, remove, seal

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
NO_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})
"""What a file system says of a name that it cannot keep."""
UNPARSABLE = (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError)
"""What tarfile raises at headers that make no sense."""


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
                if entry.size < 0:  # it leads back to what was read before, again and again
                    raise _invalid(f"{entry.name} has less than nothing in it")
                size += entry.size
                if files > MOST_FILES or size > MOST_BYTES:
                    raise _invalid(f"it has over {MOST_FILES} files or {MOST_BYTES // 1_024**2} MiB")
                if not entry.isreg() and not entry.isdir():
                    raise _invalid(f"{entry.name} is no plain file")
                _lay_out(tar, entry, folder)
    except UNPARSABLE as error:
        raise _invalid(f"it cannot be read: {error}") from error


def _lay_out(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    """Make one file or folder of a bundle.

    By hand: the filters of tarfile that keep what comes from others inside came with Python 3.11.4 alone.
    """
    parts = PurePosixPath(entry.name.lstrip("/")).parts
    if ".." in parts:
        raise _invalid(f"{entry.name} would lie outside of it")
    path = folder.joinpath(*parts)
    try:
        (path if entry.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
        if entry.isdir():
            return
        content = tar.extractfile(entry)
        assert content is not None, "it is a plain file"
        with content, path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(0o755 if entry.mode & 0o100 else 0o644)
        os.utime(path, (entry.mtime, entry.mtime))
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise _invalid(f"{entry.name} is a file and a folder") from error
    except (ValueError, OverflowError) as error:  # of a name or a time that no file can have
        raise _invalid(f"{entry.name!r}: {error}") from error
    except OSError as error:
        if error.errno not in NO_NAMES:
            raise
        raise _invalid(f"{entry.name!r}: {error.strerror}") from error


def _invalid(why: str) -> BundleUnusable:
    return BundleUnusable("BUNDLE_INVALID", f"the bundle is refused: {why}", Blame.TEST)


@dataclass(slots=True)
class _Install:
    folder: Path
    task: asyncio.Task[Path]
    waiting: int = 0


def _untold() -> None:
    """Tell nobody."""


class NodePackages:
    """The installed packages of this host. Everything is called on one event loop."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        """Use a directory, which is made when it is needed.

        Args:
            directory: Where packages are installed; what an earlier life left is used if its seal holds.
            env: What npm may know of this host.
        """
        self._directory = directory
        self._env = env
        self._lender: Path | None = None
        self._lender_seal = ""
        self._installs: dict[str, _Install] = {}
        self._used: dict[str, str] = {}
        """Who uses which folder."""
        self._seals: dict[str, str] = {}
        """Folder -> its seal, as this life first saw it: no test can write a new one over it."""
        self._looking = asyncio.Lock()
        """Held while folders are chosen or removed."""
        self._release = ""

    def lend(self, project: Path) -> None:
        """Let the packages of the agent's own project serve all that have its lock file, while nobody changes them.

        Raises:
            OSError: They cannot be read.
        """
        self._lender, self._lender_seal = project, seal(project / "node_modules").digest

    async def get(self, org_id: str, project: Path, user: str, on_install: Callable[[], None] = _untold) -> Path:
        """Return the node_modules of a project; they stay while nobody asks for others as the same user.

        Args:
            org_id: Whose project it is.
            project: Its manifest and its lock file say which packages.
            user: Who runs with them: a device.
            on_install: Is called before they are waited for, where they are not there yet.

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
            lent = self._lender / "node_modules"
            if await asyncio.to_thread(_is_whole, lent, self._lender_seal):
                return lent
            self._lender = None
        return await self._installed(packages_key(org_id, lock, await self._node()), project, user, on_install)

    async def _node(self) -> str:
        if not self._release:
            _, text = await capture(("node", "--version"), env=self._env, timeout_s=30)
            self._release = text.strip()
        return self._release

    async def _installed(self, key: str, project: Path, user: str, on_install: Callable[[], None]) -> Path:
        async with self._looking:
            # Whoever asks has ended what it ran before: its old packages may go.
            self._used.pop(user, None)
            install = self._installs.get(key)
            folder = install.folder if install is not None else await asyncio.to_thread(self._find, key)
            if folder is None:
                folder = self._directory / f"{key}-{secrets.token_hex(4)}"
                install = self._installs[key] = _Install(folder, asyncio.create_task(self._install(folder, project)))
                install.task.add_done_callback(functools.partial(self._forget, key, install))
            self._used[user] = folder.name
        if install is None:
            return folder / "node_modules"
        on_install()
        # An install that nobody waits for any more is ended: its project may be gone by now.
        install.waiting += 1
        try:
            return await asyncio.shield(install.task)
        finally:
            install.waiting -= 1
            if not install.waiting:
                install.task.cancel()
                self._forget(key, install)

    def _forget(self, key: str, install: _Install, _task: object = None) -> None:
        if self._installs.get(key) is install:
            del self._installs[key]

    def _find(self, key: str) -> Path | None:
        """Return a folder whose packages are as they were installed, and note that it is used."""
        for done in self._directory.glob(f"{key}*/done"):
            folder = done.parent
            expected = self._seals.setdefault(folder.name, done.read_text(errors="replace"))
            if _is_whole(folder / "node_modules", expected):
                os.utime(done)
                return folder
            # Others may be running with them still: they go when nobody does.
            done.unlink()
        return None

    async def _install(self, folder: Path, project: Path) -> Path:
        began_s = time.monotonic()
        story = "installing Node packages, which takes minutes where npm has to fetch them"
        structlog.get_logger("agent").info("packages_installing", story=story, packages=folder.name[:12])
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
        self._seals[folder.name] = await asyncio.to_thread(_end, folder)
        story = f"installed Node packages in {time.monotonic() - began_s:.0f} s"
        structlog.get_logger("agent").info("packages_installed", story=story, packages=folder.name[:12])
        async with self._looking:
            await asyncio.to_thread(self._evict)
        return folder / "node_modules"

    def _evict(self) -> None:
        """Remove what is not whole, and of the others those that were used the longest ago."""
        kept = {*self._used.values(), *(install.folder.name for install in self._installs.values())}
        done = sorted(self._directory.glob("*/done"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        recent = {path.parent.name for path in done[:KEPT_INSTALLS]}
        for folder in self._directory.iterdir():
            if folder.name not in kept | recent:
                remove(folder)
                self._seals.pop(folder.name, None)


def _is_whole(modules: Path, expected: str) -> bool:
    """Return whether packages are as they were; tell the diagnostics if they are not."""
    try:
        found = seal(modules)
        if found.digest == expected:
            return True
        what = found.last_changed
    except OSError as error:
        what = str(error)
    structlog.get_logger("agent").warning(
        "packages_changed",
        story=f"Node packages are not as they were installed, and are not used again: {what}",
        packages=modules.parent.name[:12],
    )
    return False


def _begin(folder: Path, project: Path) -> None:
    """Lay out what npm needs; the project's own scripts are left out, for they want files that are not there."""
    folder.mkdir(parents=True, mode=0o700)
    manifest = json.loads((project / MANIFEST).read_bytes())
    manifest.pop("scripts", None)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    shutil.copy(project / LOCK_FILE, folder / LOCK_FILE)


def _end(folder: Path) -> str:
    """Seal what npm has installed, and return the seal."""
    modules = folder / "node_modules"
    modules.mkdir(exist_ok=True)  # npm makes none for a project without dependencies
    make_read_only(modules)
    digest = seal(modules).digest
    (folder / "done").write_text(digest)
    return digest


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


def link_packages(modules: Path, project: Path) -> None:
    """Give a project its packages, each through a link: what a run adds or removes beside them is its own."""
    own = project / "node_modules"
    own.mkdir()
    for entry in modules.resolve().iterdir():
        (own / entry.name).symlink_to(entry)


class Bundles:
    """Bundles of this host, and the packages that they run with."""

    def __init__(self, cache: BlobCache, packages: NodePackages) -> None:
        self._cache = cache
        self._packages = packages

    async def lay_out(
        self, org_id: str, digest: str, key: LeaseKey, user: str, folder: Path, on_install: Callable[[], None] = _untold
    ) -> None:
        """Make a folder a clean copy of a bundle, ready to run.

        Args:
            org_id: Whose bundle it is.
            digest: SHA-256 of the bundle.
            key: A lease that names it.
            user: Who runs it: a device.
            folder: Is made anew.
            on_install: Is called before its packages are waited for, where they are not there yet.

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
        if not (folder / "node_modules").exists():
            link_packages(await self._packages.get(org_id, folder, user, on_install), folder)
