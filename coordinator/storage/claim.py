"""Which database a storage belongs to. Logs under another one's numbers would be shown as its own."""

from __future__ import annotations

from coordinator.config import ConfigError
from coordinator.storage.protocol import Storage


def claim(storage: Storage, storage_id: str, *, may_be_new: bool) -> None:
    """Make sure that a storage is the one of a database, and give its name to a new one.

    Takes and raises what `check` does.
    """
    if not check(storage, storage_id, may_be_new=may_be_new):
        return
    try:
        storage.write_storage_id(storage_id)
    except OSError as error:
        where = storage.where_storage_id()
        raise ConfigError(
            f"{where} cannot be written: {error.strerror or error}", "is it writable, is there space?"
        ) from error


def check(storage: Storage, storage_id: str, *, may_be_new: bool) -> bool:
    """Return whether a storage is new, and make sure that it is the one of a database if it is not.

    Args:
        storage: Where the logs are.
        storage_id: Names the storage of the database.
        may_be_new: Whether a storage that bears no name yet may be given this one.

    Raises:
        ConfigError: It is another database's, or nobody's and must not become this one's.
    """
    where = storage.where_storage_id()
    try:
        found = storage.read_storage_id()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where} cannot be read: {error}", "it names the database that the logs belong to"
        ) from error
    if found == storage_id:
        return False
    if found:
        raise ConfigError(
            f"the {storage} belongs to another database: its storage is {found}, that of the database is {storage_id}",
            "give the --data-dir or --storage of this database, or an empty one to a new database",
        )
    if not may_be_new:
        raise ConfigError(
            f"the {storage} does not hold the logs of this database",
            "give the --data-dir or --storage that its other coordinators use; "
            f"if it is this one, write {storage_id} into {where}",
        )
    return True
