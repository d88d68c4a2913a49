"""What has to be done to a database that was put back from a backup.

Its ids, epochs and fences begin again where the backup was taken, but agents may hold leases, results and logs of the
time after it that bear the same ids. Under a new name of the database they take them for another's, and forget them.
"""

from __future__ import annotations

from pathlib import Path

from coordinator.config import DATABASE, ConfigError, sqlite_in
from coordinator.store import Store


def begin_anew(data_dir: Path, database_url: str | None) -> None:
    """Give a database another name.

    Raises:
        ConfigError: There is no database in the data directory.
        StoreInUse: A coordinator runs on it.
        StoreError: It cannot be read or written.
    """
    if database_url is None and not (data_dir / DATABASE).is_file():
        raise ConfigError(
            f"there is no database in {data_dir}", "put the backup there first, or say where it is with --data-dir"
        )
    store = Store.open(database_url or sqlite_in(data_dir), is_sole=True)
    try:
        store.begin_new_cluster()
    finally:
        store.close()
