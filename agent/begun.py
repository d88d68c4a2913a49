"""Which attempts have begun and have no result yet: a journal to which each is appended before anything of it runs.

To append a line durably is one sync. A new file needs two, one after the other, for its bytes and for its name, and
those stand between a free device and the start of its job. Attempts that begin together share a sync.

A line is `{"begun": 7, "key": {...}}` or `{"ended": 7}`. Ends are not synced: what ended an attempt is durable itself,
so one that is lost with the power makes the agent say again what the coordinator knows.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from agent.core.model import AttemptId, Fence, LeaseId, LeaseKey
from agent.disk import UNREADABLE, copy_aside, put_aside, sync_folder

MOST_BYTES = 1_024 * 1_024
"""About 9,000 attempts; then the journal is written anew, with those that are open."""
T = TypeVar("T")

# Not on every system; there a sync of the whole file does.
_sync = getattr(os, "fdatasync", os.fsync)


class BegunAttempts:
    """The journal of one agent, which has it to itself. All methods may be called from any thread.

    Raises:
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path, earlier: Path) -> None:
        """Read what earlier lives have left.

        Args:
            path: Of the journal.
            earlier: Folder in which earlier releases kept a file for each attempt.
        """
        self._path = path
        self._appending = threading.Lock()
        self._syncing = threading.Lock()
        """Taken before the other, where both are."""
        self._open, self._size, is_damaged = _read(path)
        left = dict(_of_earlier_release(earlier))
        self._open |= left
        self._descriptor = _open(path)
        self._synced = 0
        os.ftruncate(self._descriptor, self._size)
        if left or is_damaged:
            self._write_anew()
        sync_folder(path.parent)
        _clear(earlier)

    def close(self) -> None:
        """Leave the journal to another life."""
        os.close(self._descriptor)

    def open_attempts(self) -> dict[AttemptId, LeaseKey]:
        """Return the attempts that have begun and not ended, with the leases under which they ran."""
        with self._appending:
            return dict(sorted(self._open.items()))

    def begin(self, attempt: AttemptId, key: LeaseKey) -> None:
        """Return when it is durable that an attempt has begun.

        Raises:
            OSError: It cannot be written.
        """
        with self._appending:
            self._append(_begun_line(attempt, key))
            self._open[attempt] = key
            end = self._size
        with self._syncing:
            if self._synced < end:
                durable = self._size
                _sync(self._descriptor)
                self._synced = durable
            if self._size > MOST_BYTES:
                with self._appending:
                    self._write_anew()

    def end(self, attempt: AttemptId) -> None:
        """Note that nothing is open of an attempt; one that had not begun is no matter.

        Raises:
            OSError: It cannot be written; the attempt is still open.
        """
        with self._appending:
            if attempt in self._open:
                self._append(_line({"ended": attempt}))
                del self._open[attempt]

    def forget_all(self) -> None:
        """Drop every attempt, durably: their numbers mean others in another database."""
        with self._syncing, self._appending:
            self._open.clear()
            self._write_anew()

    def _append(self, line: bytes) -> None:
        try:
            _write(self._descriptor, line)
        except OSError:
            os.ftruncate(self._descriptor, self._size)  # half a line would spoil the next
            raise
        self._size += len(line)

    def _write_anew(self) -> None:
        """Replace the journal by one of what is open; what fails leaves a descriptor of the one that has the name."""
        data = b"".join(_begun_line(attempt, key) for attempt, key in self._open.items())
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        descriptor = _open(temporary)
        try:
            _write(descriptor, data)
            os.fsync(descriptor)
            temporary.replace(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        before, self._descriptor = self._descriptor, descriptor
        self._size = self._synced = len(data)
        os.close(before)
        sync_folder(self._path.parent)


def lease_key(value: dict[str, Any]) -> LeaseKey:
    """Return the lease key that `asdict` has made a mapping of.

    Raises:
        KeyError: It lacks something.
        TypeError: Something is no number.
    """
    fence = Fence(epoch=checked(value["fence"]["epoch"], int), number=checked(value["fence"]["number"], int))
    return LeaseKey(lease_id=LeaseId(checked(value["lease_id"], int)), fence=fence)


def checked(value: object, kind: type[T]) -> T:
    """Return a value that was read from a file.

    Raises:
        TypeError: It is of another kind.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _begun_line(attempt: AttemptId, key: LeaseKey) -> bytes:
    return _line({"begun": attempt, "key": asdict(key)})


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _read(path: Path) -> tuple[dict[AttemptId, LeaseKey], int, bool]:
    """Return what is open, the size of the lines that are whole, and whether one of them cannot be read.

    Then there is a copy of all for people to look at. The last line has no end if the write was cut off: nothing of
    that attempt has run.
    """
    data = path.read_bytes() if path.exists() else b""
    size = data.rfind(b"\n") + 1
    found: dict[AttemptId, LeaseKey] = {}
    damage: Exception | None = None
    for line in data[:size].splitlines():
        try:
            _take(found, json.loads(line))
        except UNREADABLE as error:
            damage = error
    if damage is not None:
        copy_aside(path, path.with_suffix(".broken"), damage)
    return found, size, damage is not None


def _take(found: dict[AttemptId, LeaseKey], value: dict[str, Any]) -> None:
    if "begun" in value:
        found[AttemptId(checked(value["begun"], int))] = lease_key(value["key"])
    else:
        found.pop(AttemptId(checked(value["ended"], int)), None)


def _of_earlier_release(folder: Path) -> Iterator[tuple[AttemptId, LeaseKey]]:
    """Yield the attempts that a release before the journal has left open, each in a file."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield AttemptId(int(path.stem)), lease_key(json.loads(path.read_bytes()))
        except UNREADABLE as error:
            put_aside(path, path.with_suffix(".broken"), error)


def _clear(folder: Path) -> None:
    """Remove the files whose attempts are in the journal now, and the folder if nothing else is in it."""
    if not folder.exists():
        return
    for path in (*folder.glob("*.json"), *folder.glob("*.new")):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
