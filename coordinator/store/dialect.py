"""Everything in which SQLite and PostgreSQL differ: connections, upserts and what their errors mean."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ColumnElement, Engine, Table, create_engine, event, func, make_url, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from coordinator.store.errors import OutcomeUnknown, StoreBusy, StoreError, StoreFull, StoreUnreadable

READERS = 4
BUSY_TIMEOUT_S = 5.0
MIGRATION_IDLE_S = 60
"""How long a migration may stand still before PostgreSQL gives it up."""
LEADER_TTL_S = 10.0
"""How long a leader counts on leading after it has renewed its leadership, if it is not told otherwise."""
HISTORY_PATIENCE_S = 60.0
"""How long a server may take to answer somebody who reads a whole history."""
APPLICATION_ID = 0x51474A42
"""Marks a SQLite file as ours ("QGJB"); `file` and other programs can see it."""

Excluded = Mapping[str, ColumnElement[Any]]
Guard = Callable[[Any], ColumnElement[bool]]


def checked_url(text: str) -> URL:
    """Return the URL of a database.

    Raises:
        StoreUnreadable: It is malformed, names an unknown kind of database, or one in memory.
    """
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreUnreadable("the database URL cannot be read; use sqlite:///PATH or postgresql://...") from error
    match url.get_backend_name():
        case "sqlite":
            if url.database in (None, "", ":memory:") or url.query:
                raise StoreUnreadable(
                    "the database must be a plain file, so that what was accepted outlives the process; "
                    "use sqlite:///PATH"
                )
            return url.set(drivername="sqlite")
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise StoreUnreadable(f"databases of the kind {other!r} are not supported; use sqlite or postgresql")


def shown(url: URL) -> str:
    """Return how messages name a database: its file, or its URL without the password."""
    if url.get_backend_name() == "sqlite":
        return f"database {url.database}"
    return f"database {url.render_as_string(hide_password=True)}"


def writer_engine(url: URL, leader_ttl_s: float = LEADER_TTL_S) -> Engine:
    """Return an engine with one connection whose transactions hold the write lock from their begin."""
    pragmas = ("journal_mode=WAL", "synchronous=FULL")
    return _engine(url, size=1, begin="BEGIN IMMEDIATE", pragmas=pragmas, leader_ttl_s=leader_ttl_s)


def reader_engine(url: URL, leader_ttl_s: float = LEADER_TTL_S) -> Engine:
    """Return an engine with a few connections that cannot write; each transaction sees one state."""
    return _engine(url, size=READERS, begin="BEGIN", pragmas=("query_only=ON",), leader_ttl_s=leader_ttl_s)


def history_engine(url: URL) -> Engine:
    """Return an engine with one connection that was opened for reading alone.

    Raises:
        StoreUnreadable: There is no such file.
    """
    if url.get_backend_name() != "sqlite":
        engine = _postgresql_engine(url, 1, HISTORY_PATIENCE_S)
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    if not Path(str(url.database)).is_file():
        raise StoreUnreadable(f"there is no {shown(url)}")
    file = url.set(database=Path(str(url.database)).absolute().as_uri(), query={"mode": "ro", "uri": "true"})
    return _engine(file, size=1, begin="BEGIN", pragmas=("query_only=ON",), leader_ttl_s=HISTORY_PATIENCE_S)


def leader_engine(url: URL, leader_ttl_s: float) -> Engine:
    """Return an engine with one connection for single statements; on PostgreSQL each commits itself.

    A process that is stopped in mid-statement then keeps nobody from the leader row.
    """
    engine = _engine(url, size=1, begin="BEGIN IMMEDIATE", pragmas=(), leader_ttl_s=leader_ttl_s)
    return engine if url.get_backend_name() == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")


def _postgresql_engine(url: URL, size: int, leader_ttl_s: float) -> Engine:
    """Return an engine whose connections hold up neither us nor a successor for as long as leadership lasts.

    A coordinator that stands still within a transaction holds the lock on the counters, for which the next leader
    waits: PostgreSQL ends that transaction before the leadership has run out. A server that does not answer any more
    is given up as soon.
    """
    ttl_ms = int(leader_ttl_s * 1_000)
    patience = {
        "connect_timeout": max(2, math.ceil(leader_ttl_s)),
        "tcp_user_timeout": ttl_ms,
        "keepalives_idle": max(1, int(leader_ttl_s / 2)),
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    # What the operator's URL says, counts.
    arguments = {name: value for name, value in patience.items() if name not in url.query}
    engine = create_engine(url, pool_size=size, max_overflow=0, pool_pre_ping=True, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def limit_idleness(connection: Any, _record: object) -> None:  # noqa: ANN401 - a connection of psycopg
        connection.execute(f"SET idle_in_transaction_session_timeout = {ttl_ms // 2}")
        connection.commit()

    return engine


def lock_schema(connection: Any) -> None:  # noqa: ANN401 - a connection of either driver
    """Let nobody else bring the schema up to date until the transaction ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        # Between two migrations their files are loaded, which may take a while on a busy machine.
        connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{MIGRATION_IDLE_S}s'"))
        connection.execute(select(func.pg_advisory_xact_lock(APPLICATION_ID)))


def _engine(url: URL, *, size: int, begin: str, pragmas: tuple[str, ...], leader_ttl_s: float) -> Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return _postgresql_engine(url, size, leader_ttl_s)
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            # The driver shall begin no transactions of its own.
            connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreUnreadable(f"the driver of {shown(url)} is missing; install qgjob[postgres]") from error

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in (*pragmas, "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event hands in a connection
        connection.exec_driver_sql(begin)

    return engine


def refuse_foreign_file(url: URL) -> None:
    """Look into an existing SQLite file before anything is changed in it.

    Raises:
        StoreUnreadable: It is damaged, or some other program's.
    """
    if url.get_backend_name() != "sqlite":
        return
    path = Path(str(url.database))
    if not path.exists():
        return
    with translated(url), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        has_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
    if mark != APPLICATION_ID and (mark or has_tables):
        raise StoreUnreadable(f"{shown(url)} is not a database of qgjob; it was left as it is")


def mark_as_ours(connection: Any) -> None:  # noqa: ANN401 - a connection of either driver
    """Write our mark into a SQLite file, within the transaction that makes the tables."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")


def upsert(
    backend: str, table: Table, key: tuple[str, ...], values: tuple[str, ...], guard: Guard | None = None
) -> Any:  # noqa: ANN401 - two unrelated Insert classes
    """Return an insert of `key` and `values` that replaces the values of a row that has the key already.

    Args:
        backend: "sqlite" or "postgresql".
        table: Where to.
        key: Columns that identify a row.
        values: The other columns.
        guard: Makes, of the row that was to be inserted, the condition under which it replaces the one that is there.
    """
    insert = sqlite.insert if backend == "sqlite" else postgresql.insert
    statement: Any = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={name: statement.excluded[name] for name in values},
        where=None if guard is None else guard(statement.excluded),
    )


@contextmanager
def translated(url: URL, *, is_commit: bool = False) -> Iterator[None]:
    """Turn what the drivers raise into our errors.

    Raises:
        StoreError: With the database's name and what the driver said.
    """
    try:
        yield
    except DBAPIError as error:
        raise _meaning(url, error.orig, is_lost=is_commit and error.connection_invalidated) from error
    except sqlite3.Error as error:
        raise _meaning(url, error, is_lost=False) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{shown(url)}: {error}") from error


_SQLITE_MEANINGS: Mapping[int, type[StoreError]] = {
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_BUSY: StoreBusy,
    sqlite3.SQLITE_LOCKED: StoreBusy,
    sqlite3.SQLITE_NOTADB: StoreUnreadable,
    sqlite3.SQLITE_CORRUPT: StoreUnreadable,
    sqlite3.SQLITE_CANTOPEN: StoreUnreadable,
    sqlite3.SQLITE_READONLY: StoreUnreadable,
}
_POSTGRESQL_MEANINGS: Mapping[str, type[StoreError]] = {
    "": StoreUnreadable,
    "53100": StoreFull,
    "55P03": StoreBusy,
    "57014": StoreBusy,
    "3D000": StoreUnreadable,
    "28000": StoreUnreadable,
    "28P01": StoreUnreadable,
}


def _meaning(url: URL, error: BaseException | None, *, is_lost: bool) -> StoreError:
    if is_lost:
        return OutcomeUnknown(f"{shown(url)}: the connection was lost while the commit was under way: {error}")
    meaning: type[StoreError] = StoreError
    if isinstance(error, sqlite3.Error):
        # The low byte is the primary code; the rest says more about the same.
        meaning = _SQLITE_MEANINGS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, StoreError)
    else:
        # No SQLSTATE: the server was never reached.
        meaning = _POSTGRESQL_MEANINGS.get(getattr(error, "sqlstate", None) or "", StoreError)
    return meaning(f"{shown(url)}: {error}")
