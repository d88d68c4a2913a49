"""Which database a data directory belongs to. Logs under another one's numbers would be shown as its own."""

from __future__ import annotations

import os
from pathlib import Path

from coordinator.config import ConfigError

FILE = "storage_id"


def claim(directory: Path, storage_id: str, *, may_be_new: bool) -> None:
    """Make sure that a data directory is the one of a database.

    Args:
        directory: Where the logs are.
        storage_id: Names the storage of the database.
        may_be_new: Whether a directory that bears no name yet may be given this one.

    Raises:
        ConfigError: It is another database's, or nobody's and must not become this one's.
    """
    path = directory / FILE
    try:
        found = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        found = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "it names the database that the logs belong to") from error
    if found == storage_id:
        return
    if found:
        raise ConfigError(
            f"the data directory {directory} belongs to another database: its storage is {found}, "
            f"that of the database is {storage_id}",
            "give the --data-dir of this database, or an empty one to a new database",
        )
    if not may_be_new:
        raise ConfigError(
            f"the data directory {directory} does not hold the logs of this database",
            f"give the --data-dir that its other coordinators use; if it is this one, write {storage_id} into {path}",
        )
    _write(path, storage_id)


def _write(path: Path, storage_id: str) -> None:
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(f"{storage_id}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", "is the data directory writable, is there space?"
        ) from error
