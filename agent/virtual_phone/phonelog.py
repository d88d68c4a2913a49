"""What a phone writes down: a log for people and a package log for tests.

The package log has one JSON object a line: ``{"time", "event", "package", "version_code", "version_name", "sha256"}``
with an RFC 3339 time and an event of INSTALL, UNINSTALL, CLEAR or LAUNCH; a failed install is INSTALL_FAILED and has
a ``reason``. It is the phone's own truth about what was done to it.
"""

import datetime
import json
from enum import StrEnum
from pathlib import Path
from typing import TextIO

UNKNOWN = "UNKNOWN"
MAX_LOG_BYTES = 32 * 1024 * 1024
MAX_LINE_CHARACTERS = 2000


class PackageEvent(StrEnum):
    """What can happen to a package."""

    INSTALL = "INSTALL"
    INSTALL_FAILED = "INSTALL_FAILED"
    UNINSTALL = "UNINSTALL"
    CLEAR = "CLEAR"
    LAUNCH = "LAUNCH"


def _now() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class PhoneLog:
    """The phone's log file: a time, an event and what it is about, one line each.

    When the file has grown to its limit it is put aside as ``<name>.1`` and begun anew, so that a phone that runs for
    weeks cannot fill the disk. Without a path nothing is written.
    """

    def __init__(self, path: Path | None, *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = _open(path)

    def note(self, event: str, detail: str = "") -> None:
        """Write one line."""
        if self._file is None or self._path is None:
            return
        line = f"{event} {detail}".rstrip().replace("\n", "\\n")
        self._file.write(f"{_now()} {line[:MAX_LINE_CHARACTERS]}\n")
        if self._file.tell() > self._max_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = _open(self._path)

    def unknown(self, kind: str, detail: str) -> None:
        """Write down something that the phone was asked for and does not know."""
        self.note(UNKNOWN, f"{kind} {detail}")

    def close(self) -> None:
        """Close the file; later notes are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None


class PackageLog:
    """The package log file; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._file = _open(path)

    def record(
        self,
        event: PackageEvent,
        package: str,
        *,
        version_code: int | None = None,
        version_name: str | None = None,
        sha256: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Write one line; `sha256` is that of the APK, in hexadecimal digits."""
        if self._file is None:
            return
        entry: dict[str, str | int | None] = {"time": _now(), "event": event, "package": package}
        entry |= {"version_code": version_code, "version_name": version_name, "sha256": sha256}
        if reason is not None:
            entry["reason"] = reason
        self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        """Close the file; later records are dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path: Path | None) -> TextIO | None:
    if path is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", buffering=1)
