"""Brings a database to the schema of this release, in one transaction."""

from __future__ import annotations

import uuid
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select

from coordinator.core.model import Counters
from coordinator.store import rows, tables
from coordinator.store.dialect import lock_schema, mark_as_ours
from coordinator.store.errors import SchemaTooNew, StoreUnreadable

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, name: str) -> None:
    """Make or bring up to date the tables, and fill those of one row.

    Args:
        connection: In a transaction that the caller commits.
        name: How messages call the database.

    Raises:
        SchemaTooNew: A newer release wrote it.
        StoreUnreadable: It holds tables of somebody else.
    """
    lock_schema(connection)
    config = check_schema(connection, name)
    mark_as_ours(connection)
    command.upgrade(config, "head")
    _fill(connection)


def check_schema(connection: Connection, name: str) -> Config:
    """Return how a database is brought up to date, if that can be.

    Args:
        connection: Any.
        name: How messages call the database.

    Raises:
        SchemaTooNew: A newer release wrote it.
        StoreUnreadable: It holds tables of somebody else.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = MigrationContext.configure(connection).get_current_heads()
    if not current and inspect(connection).get_table_names():
        raise StoreUnreadable(f"{name} holds tables that are not qgjob's; it was left as it is")
    if not known.issuperset(current):
        raise SchemaTooNew(
            f"{name} has schema {', '.join(current)}, which this release does not know: a newer release wrote it; "
            "start that one, or restore a backup"
        )
    return config


def is_current(connection: Connection) -> bool:
    """Whether a database has the schema of this release."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_heads()
    return tuple(newest) == MigrationContext.configure(connection).get_current_heads()


def is_led(connection: Connection) -> bool:
    """Whether a coordinator holds the leader row, or did so when it died."""
    if not inspect(connection).has_table(tables.leadership.name):
        return False
    return bool(connection.scalar(select(tables.leadership.c.holder)))


def _fill(connection: Connection) -> None:
    if connection.execute(select(tables.meta.c.id)).first() is None:
        values = {"id": 1, "cluster_id": uuid.uuid4().hex, "storage_id": uuid.uuid4().hex}
        connection.execute(insert(tables.meta), values)
    if connection.execute(select(tables.counters.c.id)).first() is None:
        connection.execute(insert(tables.counters), {"id": 1, **rows.counters_values(Counters())})
