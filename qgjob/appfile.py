"""What kind of app a file is, told from the file itself: an APK is for Android, an .ipa or a packed .app for iOS.

The folder `X.app` that Xcode makes for simulators is packed into one, so that the same folder gives the same bytes.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ANDROID = "android"
IOS = "ios"
APP_INFO = re.compile(r"^(?:Payload/)?[^/]+\.app/Info\.plist$")
"""Where an app of iOS says what it is: in an .ipa below Payload, in a packed folder at the top."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that an archive can hold."""


def platform_of(path: Path) -> str:
    """Return the platform of an app, empty where the file does not tell.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return platform_of_names(archive.namelist())
    except (ValueError, NotImplementedError, zipfile.BadZipFile):
        return ""


def platform_of_names(names: Iterable[str]) -> str:
    """Return the platform of an app that holds files of these names, empty where they do not tell."""
    for name in names:
        if name == "AndroidManifest.xml":
            return ANDROID
        if APP_INFO.match(name):
            return IOS
    return ""


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
