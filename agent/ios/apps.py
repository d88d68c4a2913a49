"""Apps of iOS on this host: files that are unpacked once each, because Apple's tools install folders.

Where a build is for simulators or for devices is told by the app itself; the other kind would refuse it.
"""

from __future__ import annotations

import asyncio
import os
import plistlib
import re
import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from agent.builds import BuildUnusable, digest_of
from qgjob.appfile import APP_INFO, pack_app

MOST_FILES = 100_000
MOST_BYTES = 8 * 1_024**3
KEPT_APPS = 10
"""Unpacked apps that are kept, but for those in use."""
_BUNDLE_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.-]{0,254}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class IosApp:
    """An app on this host."""

    folder: Path
    """Its X.app, unpacked."""
    digest: str
    """SHA-256 of the file that it was unpacked from."""
    bundle_id: str
    is_for_simulators: bool
    is_for_devices: bool


class IosApps:
    """The unpacked apps of this host, by the digest of their file. Everything is called on one event loop."""

    def __init__(self, directory: Path) -> None:
        """Use a directory, which is made when it is needed; what an earlier life unpacked is used."""
        self._directory = directory
        self._used: dict[str, str] = {}
        """Who uses which app."""
        self._turn = asyncio.Lock()

    async def get(self, build: Path, user: str) -> IosApp:
        """Return the app of a build; it stays while nobody asks for another as the same user.

        Raises:
            BuildUnusable: It is no app of iOS, or a broken one.
            OSError: It is not there, or the disk refuses.
        """
        async with self._turn:  # two devices that get a new build at once unpack it once
            app = await asyncio.to_thread(self._unpacked, build)
            self._used[user] = app.digest
            await asyncio.to_thread(self._evict)
        return app

    def _unpacked(self, build: Path) -> IosApp:
        if build.is_dir():
            with TemporaryDirectory(prefix="qgjob-") as folder:
                archive = Path(folder) / "app.zip"
                try:
                    pack_app(build, archive)
                except ValueError as error:
                    raise BuildUnusable("BUILD_INVALID", str(error)) from error
                return self._unpacked(archive)
        digest = digest_of(build)
        home = self._directory / digest
        if not home.is_dir():
            shutil.rmtree(home.with_suffix(".part"), ignore_errors=True)
            unpack_app(build, home.with_suffix(".part"))
            home.with_suffix(".part").rename(home)
        os.utime(home)
        return read_app(next(home.iterdir()), digest)

    def _evict(self) -> None:
        kept = set(self._used.values())
        homes = sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        unused = [home for home in homes if home.name not in kept]
        for home in unused[: max(0, len(unused) - KEPT_APPS)]:
            shutil.rmtree(home, ignore_errors=True)


def read_app(folder: Path, digest: str) -> IosApp:
    """Return what an unpacked app says of itself.

    Raises:
        BuildUnusable: Nothing that makes sense.
    """
    try:
        info = plistlib.loads((folder / "Info.plist").read_bytes())
        bundle_id, platforms = info["CFBundleIdentifier"], info.get("CFBundleSupportedPlatforms", [])
        is_sound = _BUNDLE_ID.match(bundle_id) is not None and (folder / info["CFBundleExecutable"]).is_file()
    except (OSError, ValueError, KeyError, TypeError, plistlib.InvalidFileException) as error:
        raise BuildUnusable("BUILD_INVALID", f"{folder.name} has no readable Info.plist; build it again") from error
    if not is_sound:
        raise BuildUnusable("BUILD_INVALID", f"{folder.name} names no bundle id, or no program; build it again")
    return IosApp(
        folder=folder,
        digest=digest,
        bundle_id=bundle_id,
        is_for_simulators="iPhoneSimulator" in platforms or not platforms,
        is_for_devices="iPhoneOS" in platforms or not platforms,
    )


def unpack_app(build: Path, into: Path) -> None:
    """Unpack the X.app of an .ipa or of a packed folder; links stay links, and what can be run stays so.

    Raises:
        BuildUnusable: There is no app in it, or something that does not belong there, or too much.
        OSError: The disk refuses.
    """
    try:
        with zipfile.ZipFile(build) as archive:
            entries = archive.infolist()
            root = _root(entries, build)
            ours = [entry for entry in entries if entry.filename.startswith(root) and not entry.is_dir()]
            if len(ours) > MOST_FILES or sum(entry.file_size for entry in ours) > MOST_BYTES:
                raise _invalid(build, f"it has over {MOST_FILES} files or {MOST_BYTES // 1_024**3} GiB")
            links = [entry for entry in ours if stat.S_ISLNK(entry.external_attr >> 16)]
            paths = {entry.filename: into / _inside(entry.filename, root, build) for entry in ours}
            for entry in ours:
                if entry not in links:
                    _extract(archive, entry, paths[entry.filename])
            for entry in links:  # last, so that nothing is written through one
                _link(archive, entry, paths[entry.filename], into, build)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _invalid(build, str(error)) from error


def _root(entries: list[zipfile.ZipInfo], build: Path) -> str:
    """Return what the names of the app's files begin with, as in `Payload/X.app/`."""
    found = next((entry.filename for entry in entries if APP_INFO.match(entry.filename)), None)
    if found is None:
        raise _invalid(build, "there is no X.app in it")
    return found.removesuffix("Info.plist")


def _inside(name: str, root: str, build: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _invalid(build, f"{name!r} lies outside of the app")
    return path.relative_to(PurePosixPath(root).parent)


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target)
    mode = entry.external_attr >> 16
    # An archive that was not made on a Unix says nothing of what can be run.
    path.chmod(0o755 if mode & 0o111 or not mode else 0o644)


def _link(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, into: Path, build: Path) -> None:
    target = archive.read(entry).decode(errors="replace")
    landing = Path(os.path.normpath(path.parent / target))
    if Path(target).is_absolute() or not landing.is_relative_to(into):
        raise _invalid(build, f"the link {entry.filename} leads out of the app")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _invalid(build: Path, why: str) -> BuildUnusable:
    return BuildUnusable("BUILD_INVALID", f"{build.name} is no app of iOS that can be used: {why}; build it again")
