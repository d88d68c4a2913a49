"""The phone's files, held in memory up to a limit."""

import errno
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

DEFAULT_CAPACITY_BYTES = 1024 * 1024 * 1024
STANDARD_DIRECTORIES = (
    "/",
    "/data",
    "/data/app",
    "/data/local",
    "/data/local/tmp",
    "/mnt",
    "/proc",
    "/proc/net",
    "/sdcard",
    "/sdcard/Android",
    "/sdcard/Download",
    "/sdcard/Movies",
    "/sdcard/Pictures",
    "/storage",
    "/storage/emulated",
    "/storage/emulated/0",
    "/system",
    "/system/bin",
)


class StorageFull(OSError):
    """There is no room left for what is being written."""

    def __str__(self) -> str:
        return "No space left on device"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file: its permission bits, time of change in epoch seconds, and content."""

    permissions: int
    changed_at: int
    content: bytes

    @property
    def mode(self) -> int:
        """The mode word of a regular file with these permissions."""
        return stat.S_IFREG | self.permissions


class FileStore:
    """Files by absolute path. ``/storage/emulated/0`` is what ``/sdcard`` points to."""

    def __init__(self, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self.is_declared_full = False
        self._files: dict[str, StoredFile] = {}
        self._directories = set(STANDARD_DIRECTORIES)
        self._used_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What `df` calls used."""
        return self.capacity_bytes if self.is_declared_full else self._used_bytes

    @property
    def free_bytes(self) -> int:
        """What may still be written."""
        return self.capacity_bytes - self.used_bytes

    def write(self, path: str, content: bytes, *, permissions: int = 0o644, changed_at: int | None = None) -> None:
        """Create or replace a file and the directories above it; raises `StorageFull`, then nothing has changed."""
        path = _normal(path)
        if path in self._directories:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        replaced = self._files.get(path)
        growth = len(content) - (len(replaced.content) if replaced else 0)
        if growth > self.free_bytes:
            raise StorageFull
        when = int(time.time()) if changed_at is None else changed_at
        self._files[path] = StoredFile(permissions=permissions & 0o7777, changed_at=when, content=content)
        self._used_bytes += growth
        self.make_directory(str(PurePosixPath(path).parent))

    def get(self, path: str) -> StoredFile | None:
        """Return a file, or None if there is none at the path."""
        return self._files.get(_normal(path))

    def is_directory(self, path: str) -> bool:
        """Whether a directory is at the path."""
        return _normal(path) in self._directories

    def exists(self, path: str) -> bool:
        """Whether a file or a directory is at the path."""
        return self.get(path) is not None or self.is_directory(path)

    def make_directory(self, path: str) -> None:
        """Create a directory and those above it."""
        normal = PurePosixPath(_normal(path))
        self._directories.update(str(directory) for directory in (normal, *normal.parents))

    def remove(self, path: str) -> bool:
        """Delete a file; False if there was none."""
        removed = self._files.pop(_normal(path), None)
        if removed is not None:
            self._used_bytes -= len(removed.content)
        return removed is not None

    def remove_tree(self, path: str) -> None:
        """Delete a directory with everything below it."""
        normal = _normal(path)
        for name in [name for name in self._files if name.startswith(normal + "/")]:
            self.remove(name)
        self._directories = {name for name in self._directories if name != normal and not name.startswith(normal + "/")}

    def children(self, path: str) -> Iterator[str]:
        """Yield the names in a directory, sorted."""
        parent = PurePosixPath(_normal(path))
        names = {PurePosixPath(name).name for name in (*self._files, *self._directories) if _is_child(name, parent)}
        yield from sorted(names)

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that a shell pattern stands for, sorted; empty if there are none."""
        normal = _normal(pattern)
        return sorted(
            name
            for name in (*self._files, *self._directories)
            if _has_same_depth(name, normal) and _match(name, normal)
        )


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    normal = "/" + "/".join(parts)
    for alias in ("/storage/emulated/0", "/storage/self/primary", "/mnt/sdcard"):
        if normal == alias or normal.startswith(alias + "/"):
            return "/sdcard" + normal.removeprefix(alias)
    return normal


def _is_child(name: str, parent: PurePosixPath) -> bool:
    child = PurePosixPath(name)
    return child.parent == parent and child != parent


def _has_same_depth(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/")


def _match(name: str, pattern: str) -> bool:
    return PurePosixPath(name).match(pattern)
