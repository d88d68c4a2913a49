"""The processes that run on the phone."""

import asyncio
from dataclasses import dataclass, field

FIRST_PROCESS_ID = 4001
_SYSTEM = {
    1: "init",
    212: "servicemanager",
    980: "system_server",
    1440: "com.android.systemui",
    1733: "com.android.launcher3",
}
_FIRST_UNPRIVILEGED = 900


@dataclass(eq=False, slots=True, kw_only=True)
class Process:
    """One process; `name` is that of its package, for an app; `ended` is set when it is gone."""

    pid: int
    name: str
    user: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class ProcessTable:
    """The running processes, at most one of a name."""

    def __init__(self) -> None:
        self._next_pid = FIRST_PROCESS_ID
        self._by_name = {
            name: Process(pid=pid, name=name, user="root" if pid < _FIRST_UNPRIVILEGED else "system")
            for pid, name in _SYSTEM.items()
        }

    def all(self) -> list[Process]:
        """Return the processes by their ids."""
        return sorted(self._by_name.values(), key=lambda process: process.pid)

    def find(self, name: str) -> Process | None:
        """Return the process of a name, or None."""
        return self._by_name.get(name)

    def find_pid(self, pid: int) -> Process | None:
        """Return the process with an id, or None."""
        return next((process for process in self._by_name.values() if process.pid == pid), None)

    def start(self, name: str, user_id: int) -> Process:
        """Return the process of a name, started if it does not run."""
        process = self._by_name.get(name)
        if process is None:
            process = Process(pid=self._next_pid, name=name, user=f"u0_a{user_id - 10000}")
            self._next_pid += 1
            self._by_name[name] = process
        return process

    def end(self, name: str) -> bool:
        """End the process of a name; False if there was none, or if it is the system's."""
        if name in _SYSTEM.values():
            return False
        process = self._by_name.pop(name, None)
        if process is not None:
            process.ended.set()
        return process is not None
