"""What kind of app a file is, told from the file itself: an APK is for Android, an .ipa or a packed .app for iOS.

The folder `X.app` that Xcode makes for simulators is packed into one, so that the same folder gives the same bytes.
"""

from __future__ import annotations

import os
import plistlib
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

ANDROID = "android"
IOS = "ios"
APP_INFO = re.compile(r"^(?:Payload/)?[^/]+\.app/Info\.plist$")
"""Where an app of iOS says what it is: in an .ipa below Payload, in a packed folder at the top."""

MOST_INFO_BYTES = 4 * 1_024 * 1_024

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that an archive can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFile:
    """What a file tells of the app in it."""

    platform: str = ""
    """Empty where the file does not tell."""
    kind: str = ""
    """`emulator` or `device`, where it was built for one of them alone; else empty."""


def read_app_file(path: Path) -> AppFile:
    """Return what a file tells of the app in it; nothing where it is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name == "AndroidManifest.xml":
                    return AppFile(platform=ANDROID)
                if APP_INFO.match(name):
                    return AppFile(platform=IOS, kind=_kind(archive, name))
    except (ValueError, NotImplementedError, zipfile.BadZipFile):
        pass
    return AppFile()


def _kind(archive: zipfile.ZipFile, name: str) -> str:
    if archive.getinfo(name).file_size > MOST_INFO_BYTES:
        return ""
    try:
        platforms = tuple(plistlib.loads(archive.read(name))["CFBundleSupportedPlatforms"])
    except (ValueError, KeyError, TypeError, ExpatError, zipfile.BadZipFile, plistlib.InvalidFileException):
        return ""  # whoever installs it says what is wrong
    return {("iPhoneSimulator",): "emulator", ("iPhoneOS",): "device"}.get(platforms, "")


def pack_app(folder: Path, archive: Path) -> None:
    """Pack the folder of an app of iOS; links stay links, and what can be run stays so.

    Raises:
        OSError: It cannot be read, or the archive not be written.
        ValueError: It is no app.
    """
    if folder.suffix != ".app" or not (folder / "Info.plist").is_file():
        raise ValueError(f"{folder} is no app of iOS: it has no Info.plist, or its name does not end with .app")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in _entries(folder):
            state = path.lstat()
            entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whose modes it holds
            if path.is_symlink():
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                packed.writestr(entry, os.readlink(path))
            else:
                mode = 0o755 if state.st_mode & 0o111 else 0o644
                entry.external_attr = (stat.S_IFREG | mode) << 16
                packed.writestr(entry, path.read_bytes())


def _entries(folder: Path) -> Iterator[Path]:
    """Yield files and links below a folder, in an order that is always the same; a link is never followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _entries(path)
        else:
            yield path
