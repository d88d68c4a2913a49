"""What this agent has started, written down before it runs, so that its next life can end what it left.

Every supervised command has an entry, durable before the command starts. An entry never stands for a number alone: the
supervisor is known by its pid and its start time, and whatever the command has started by a random mark in its
environment, or by the session that the supervisor opened, while that one is there to vouch for it. A process that has
cleared its environment is found by its supervisor only, which adopts it: if that one is killed with -9 as well, the
agent that started it still finds it in the session, and a later one does not. All this reads /proc; elsewhere than on
Linux an entry tells what ran, and nothing is ended by it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import structlog

from agent.disk import UNREADABLE, put_aside, replace_file

MARK = "QGJOB_RUN"
"""Name of the variable by which everything that a command starts can be told."""
PATIENCE_S = 5.0
SWEEP_S = 0.02
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One supervised command."""

    mark: str
    """Random: stands in the environment of everything that the command starts."""
    device: str
    """Whose lock it holds; empty for none."""
    what: str
    """For people, as in `attempt 7 (lease 3, fence 1.4)`."""
    supervisor: int
    """The supervisor's pid. It leads a session of its own, in which the command's process group lies."""
    start: int
    """When the supervisor started, in clock ticks since the host did."""
    boot: str
    """Which start of the host that was."""


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    session: int
    start: int
    is_zombie: bool


class Journal:
    """A folder with one file for each command that runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stays: dict[str, Entry] = {}
        """What this life has started and could not end, by its mark."""
        self._told: set[tuple[str, int]] = set()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def note(self, supervisor: int, mark: str, device: str, what: str) -> Entry:
        """Make the entry of a supervisor durable that was just started and is not reaped.

        Raises:
            OSError: It cannot be written; the command must not start.
        """
        process = _look(supervisor)
        start = process.start if process is not None else 0
        entry = Entry(mark=mark, device=device, what=what, supervisor=supervisor, start=start, boot=_host_start())
        replace_file(self._path(entry), asdict(entry))
        return entry

    def forget(self, entry: Entry) -> None:
        """Drop an entry of which nothing is left."""
        self._path(entry).unlink(missing_ok=True)
        self._stays.pop(entry.mark, None)

    def entries(self, device: str) -> list[Entry]:
        """Return what was started on a device and is not known to have ended."""
        return [entry for entry in self._all() if entry.device == device]

    def sweep(self) -> list[str]:
        """Drop, once at the start, what says nothing any more. Returns the devices that other entries tell of."""
        for path in self._directory.glob("*.new"):
            path.unlink()
        for entry in list(self._all()):
            if entry.boot != _host_start():
                self.forget(entry)
        return sorted({entry.device for entry in self._all()})

    def is_anything_left(self, device: str) -> bool:
        """Whether something that was started on a device is still there."""
        return any(_members(entry) for entry in self.entries(device))

    def _all(self) -> Iterator[Entry]:
        """Yield the entries; others are written and forgotten meanwhile."""
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield _entry(json.loads(path.read_bytes()))
            except FileNotFoundError:
                continue
            except UNREADABLE as error:
                put_aside(path, path.with_suffix(".broken"), error)

    def end_left(self, device: str) -> bool:
        """Kill what still runs of a device's entries. Returns whether nothing was left.

        For whoever has the device's lock in hand: a supervisor gives that up when all has ended, or by its death.
        """
        are_ended = [self._end(entry) for entry in self.entries(device)]
        return all(are_ended)

    def stays(self, device: str) -> bool:
        """Whether something that was started on a device in this life could not be ended."""
        return any(entry.device == device for entry in list(self._stays.values()))

    def end_stays(self, device: str) -> bool:
        """Try once more to end what could not be ended on a device. Returns whether nothing stays.

        What runs there now is left alone.
        """
        are_ended = [self._end(entry) for entry in list(self._stays.values()) if entry.device == device]
        return all(are_ended)

    def kill_supervisors(self, device: str) -> None:
        """Kill the supervisors of a device's entries, so that its lock falls free."""
        for entry in self.entries(device):
            for process in _members(entry):
                if process.pid == entry.supervisor:
                    _kill(process)

    def wait_until_ended(self, entry: Entry) -> bool:
        """Kill what a dead supervisor has left, and wait until it has ended. Returns whether it has."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._end(entry):
            if time.monotonic() > deadline:
                self._stays[entry.mark] = entry
                return False
            time.sleep(SWEEP_S)
        return True

    def _end(self, entry: Entry) -> bool:
        try:
            left = _members(entry)
        except (OSError, ValueError, IndexError) as error:
            # Not known to have ended, so it has not: whoever waits for it asks again.
            structlog.get_logger("agent").error("look_failed", of=entry.what, reason=str(error))
            return False
        for process in left:
            if (entry.mark, process.pid) not in self._told:
                self._told.add((entry.mark, process.pid))
                structlog.get_logger("agent").warning("left_process_killed", pid=process.pid, of=entry.what)
            _kill(process)
        if not left:
            self.forget(entry)
        return not left

    def _path(self, entry: Entry) -> Path:
        return self._directory / f"{entry.mark}.json"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to a device: its lock in hand, and the journal of what runs under it."""

    device: str
    lock: int
    """Descriptor of the held lock file."""
    journal: Journal


def new_mark() -> str:
    """Return a mark that nothing else bears."""
    return secrets.token_hex(16)


def _entry(value: dict[str, Any]) -> Entry:
    """Read an entry; what a newer release has added to it is no concern of this one."""
    known = {field.name: value[field.name] for field in fields(Entry)}
    for name in ("supervisor", "start"):
        if not isinstance(known[name], int):
            raise TypeError(f"{name} = {known[name]!r} is no whole number")
    return Entry(**known)


def _host_start() -> str:
    path = _PROC / "sys/kernel/random/boot_id"
    return path.read_text().strip() if path.exists() else ""


def _look(pid: int) -> _Process | None:
    try:
        # Bytes: the kernel cuts a name after 15 of them, in the middle of a letter if need be.
        words = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None  # it has ended, or there is no /proc
    return _Process(pid=pid, session=int(words[3]), start=int(words[19]), is_zombie=words[0] == b"Z")


def _members(entry: Entry) -> list[_Process]:
    """Return all that lives of an entry, its supervisor included."""
    if not _PROC.is_dir() or entry.boot != _host_start():
        return []
    processes = (_look(int(path.name)) for path in _PROC.iterdir() if path.name.isdecimal())
    return [one for one in processes if one is not None and not one.is_zombie and _is_of(one, entry)]


def _is_of(process: _Process, entry: Entry) -> bool:
    if process.start < entry.start:
        return False
    if process.session == entry.supervisor:
        leader = _look(entry.supervisor)
        # Without its leader a session is a mere number: then the mark has to tell.
        if leader is not None and leader.start == entry.start:
            return True
    try:
        environment = (_PROC / str(process.pid) / "environ").read_bytes()
    except OSError:
        return False  # it has ended, or is another user's
    return f"{MARK}={entry.mark}".encode() in environment.split(b"\0")


def _kill(process: _Process) -> None:
    """Kill the very process that was looked at; its number may be another's by now.

    One that became another user's may not be killed: it is still left, and the others go on being ended.
    """
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process.pid)
        try:
            now = _look(process.pid)
            if now is not None and now.start == process.start:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except PermissionError as error:
            structlog.get_logger("agent").error("left_process_not_killed", pid=process.pid, reason=error.strerror)
        finally:
            os.close(handle)
