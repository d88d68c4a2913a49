"""One lock file a device: whoever holds it may use the device, and nobody else on this host."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Container
from pathlib import Path

from agent.core.model import DeviceFacts, DeviceId, DeviceKind


class DeviceBusy(Exception):
    """Another process of this host uses the device."""


def lock_directory() -> Path:
    """Return the host-wide folder of lock files, one for each user."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"qgjob-locks-{os.getuid()}"


def lock_name(facts: DeviceFacts, own: Container[DeviceId]) -> str:
    """Return what a device is called on this host by every agent, and in every life of its agent.

    Args:
        facts: The device.
        own: Devices that no other agent can see: the simulated ones, and emulators that this agent boots.
    """
    # The id of an emulator speaks of its agent; two agents that see the same one must meet at one lock. One that an
    # agent boots has another port, and so another name at adb, in the next life, while the last may still run on it.
    is_seen_by_all = facts.kind is DeviceKind.EMULATOR and facts.id not in own
    return facts.udid if is_seen_by_all else facts.id


class DeviceLock:
    """Held from `acquire` until `release`, or until the process is gone."""

    def __init__(self, device: str, directory: Path | None = None) -> None:
        folder = directory or lock_directory()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._device = device
        self._path = folder / f"{hashlib.sha256(device.encode()).hexdigest()[:32]}.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DeviceBusy: Somebody has it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise DeviceBusy(f"{self._device} is used by another agent on this host") from error
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """The held lock's file descriptor; a child that inherits it holds the lock as well."""
        assert self._descriptor is not None, f"the lock of {self._device} is not held"
        return self._descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
