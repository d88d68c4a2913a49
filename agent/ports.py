"""Ports of this host for what runs on its devices, each reserved for one device of one agent."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path


class PortsTaken(Exception):
    """There is no free port left; the sentence says of which."""


class DevicePorts:
    """A block of ports that follow each other, reserved on this host until it is released and its users are gone.

    Two agents that took the same one would not get an error: a forward is moved, and one test drives the device of the
    other.
    """

    def __init__(self, ports: range, count: int, slot: int, directory: Path | None = None) -> None:
        """Reserve a free block.

        Args:
            ports: Where blocks lie, one behind the other.
            count: Ports of a block.
            slot: The search begins where the block of this slot would be.
            directory: Of the locks; default: one that all agents of a user share.

        Raises:
            PortsTaken: All are taken.
        """
        folder = directory or Path(tempfile.gettempdir()) / f"qgjob-ports-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        firsts = ports[: len(ports) - count + 1 : count]
        for step in range(len(firsts)):
            first = firsts[(slot * 3 + step) % len(firsts)]
            block = tuple(range(first, first + count))
            descriptor = os.open(folder / f"{first}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _is_locked_now(descriptor) and all(map(_is_free, block)):
                self.numbers = block
                self.descriptor = descriptor
                return
            os.close(descriptor)
        raise PortsTaken(f"no port from {ports[0]} to {ports[-1]} is free")

    def release(self) -> None:
        """Give the ports back."""
        os.close(self.descriptor)


def free_port() -> int:
    """Return a port of this host that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
