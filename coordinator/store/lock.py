"""The lock on a SQLite database: one coordinator at a time. On PostgreSQL the epoch decides who may write."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import URL

from coordinator.store.dialect import shown
from coordinator.store.errors import StoreInUse, StoreUnreadable


class DatabaseLock:
    """Held from its making until `release`, or until the process is gone, however it went."""

    def __init__(self, url: URL) -> None:
        """Take the lock of a SQLite database.

        Raises:
            StoreInUse: A living process holds it.
            StoreUnreadable: The lock file cannot be opened.
        """
        # Resolved, so that two names of one file are one lock. The file stays: to remove it would let two in.
        path = Path(f"{Path(str(url.database)).resolve()}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreUnreadable(f"{shown(url)}: its lock file cannot be opened: {error.strerror}") from error
        self._descriptor: int | None = descriptor
        try:
            _take(descriptor, url)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; a second time does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _take(descriptor: int, url: URL) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreInUse(f"{shown(url)} is in use by another coordinator") from error
    except OSError as error:
        raise StoreUnreadable(f"{shown(url)}: its lock file cannot be locked: {error.strerror}") from error
