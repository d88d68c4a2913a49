from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from coordinator.core.logfile import LogPart, LogRecord
from coordinator.core.model import ALL_LANES
from coordinator.core.step import PutAgent, PutAttempt, PutDevice, PutJob, PutLease
from coordinator.store import SchemaTooNew, Store, StoreUnreadable
from coordinator.store.dialect import checked_url, writer_engine
from coordinator.store.schema import MIGRATIONS
from coordinator.store.tables import metadata
from tests.store.conftest import OpenStore
from tests.store.records import a_device, a_job, a_lease, an_agent, an_attempt


def test_migrations_make_what_the_tables_say(url: str, open_store: OpenStore) -> None:
    open_store()
    engine = writer_engine(checked_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_migrations_make_to_the_letter_what_the_tables_say_in_sqlite(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path / 'migrated.db'}").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'made.db'}")
    metadata.create_all(engine)
    engine.dispose()
    migrated, made = sqlite_schema(tmp_path / "migrated.db"), sqlite_schema(tmp_path / "made.db")
    migrated.pop("alembic_version")
    assert migrated == made


def sqlite_schema(path: Path) -> dict[str, list[str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: normalised(sql) for name, sql in rows}


def normalised(sql: str) -> list[str]:
    """The order of constraints means nothing."""
    parts = sql.replace("(", " ").replace(")", " ").split(",")
    return sorted(" ".join(part.split()) for part in parts)


NEWER_COLUMNS = (
    ("agents", "is_draining"),
    ("devices", "hold"),
    ("devices", "hold_reason"),
    ("jobs", "kept"),
    ("devices", "vitals"),
    ("devices", "marks"),
    ("devices", "relapses"),
    ("leases", "is_canary"),
    ("agents", "lanes"),
    ("agents", "orgs"),
    ("jobs", "secrets"),
    ("devices", "app_is_registered"),
    ("jobs", "build_digest"),
    ("jobs", "bundle_digest"),
    ("leases", "build_digest"),
    ("builds", "size"),
    ("builds", "file_name"),
    ("builds", "register_us"),
    ("builds", "platform"),
    ("builds", "device_kind"),
    ("leases", "install_end_us"),
    ("attempts", "install_end_us"),
    ("attempts", "install_us"),
    ("test_results", "begin_us"),
    ("jobs", "can_spill"),
    ("devices", "account"),
    ("devices", "is_forgotten"),
)
NEWER_TABLES = (
    "log_parts",
    "log_ends",
    "leadership",
    "expectations",
    "artifacts",
    "trials",
    "crossings",
    "earlier_failures",
    "uploads",
)


def test_database_of_an_earlier_release_keeps_what_it_holds(url: str, open_store: OpenStore, store: Store) -> None:
    started = replace(an_attempt(), start_us=5)
    store.commit([PutAgent(an_agent()), PutDevice(a_device()), PutJob(a_job())])
    store.commit([PutLease(a_lease()), PutAttempt(started)])
    store.close()
    engine = writer_engine(checked_url(url))
    with engine.begin() as connection:
        for table, column in NEWER_COLUMNS:
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        for table in NEWER_TABLES:
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    newer = open_store()
    assert newer.list_agents() == [replace(an_agent(), lanes=ALL_LANES, orgs=())]
    assert newer.list_devices() == [a_device()]
    assert newer.log_of(started.id) == LogRecord(parts=(LogPart(attempt=started.id, epoch=0, start=0),))


def test_migrations_are_part_of_the_package() -> None:
    assert (MIGRATIONS / "env.py").is_file()
    assert list((MIGRATIONS / "versions").glob("v0001_*.py"))


def test_database_of_a_newer_release_is_refused_and_left_alone(url: str, open_store: OpenStore, store: Store) -> None:
    engine = writer_engine(checked_url(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match=r"9999.*newer release"):
        open_store()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_two_databases_have_two_names(tmp_path: Path) -> None:
    stores = [Store.open(f"sqlite:///{tmp_path / name}") for name in ("a.db", "b.db")]
    assert stores[0].cluster_id != stores[1].cluster_id
    assert stores[0].storage_id != stores[1].storage_id
    for store in stores:
        store.close()


def test_sqlite_survives_loss_of_power(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    with store._writer.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    store.close()


def test_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnreadable, match=r"other\.db is not a database of qgjob"):
        Store.open(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_tables_of_another_program_are_refused(url: str) -> None:
    engine = writer_engine(checked_url(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE photos (id INTEGER)"))
    with pytest.raises(StoreUnreadable, match="not"):
        Store.open(url)
    engine.dispose()


def test_garbage_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "garbage.db"
    path.write_bytes(b"this is no database" * 1_000)
    with pytest.raises(StoreUnreadable, match=r"garbage\.db"):
        Store.open(f"sqlite:///{path}")


def test_damaged_pages_are_reported_by_name(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    store = Store.open(f"sqlite:///{path}")
    store.start_epoch()
    store.commit([PutJob(a_job(number)) for number in range(1, 500)])
    store.close()
    content = bytearray(path.read_bytes())
    content[8_192:] = b"\xa5" * (len(content) - 8_192)
    path.write_bytes(content)
    with pytest.raises(StoreUnreadable, match=r"damaged\.db"):
        Store.open(f"sqlite:///{path}").load()


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreadable, match="nowhere"):
        Store.open(f"sqlite:///{tmp_path / 'nowhere' / 'qgjob.db'}")


def test_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "qgjob.db").touch()
    Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}").close()


@pytest.mark.parametrize(
    "url",
    ["", "no url", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "sqlite:///x.db?mode=memory"],
)
def test_urls_that_cannot_hold_what_was_accepted_are_refused(url: str) -> None:
    with pytest.raises(StoreUnreadable):
        Store.open(url)


def test_messages_never_show_a_password() -> None:
    with pytest.raises(StoreUnreadable) as refusal:
        Store.open("postgresql://lab:hunter2@127.0.0.1:1/qgjob")
    assert "hunter2" not in str(refusal.value)
