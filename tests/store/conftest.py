from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from coordinator.store import Store
from coordinator.store.dialect import checked_url
from tests.postgresql import running_postgresql

OpenStore = Callable[[], Store]


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A server on which the suite may make and drop databases: the one of QGJOB_TEST_POSTGRESQL_URL, or its own."""
    given = os.environ.get("QGJOB_TEST_POSTGRESQL_URL")
    if given:
        yield given
        return
    with running_postgresql() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'qgjob.db'}"
    else:
        yield request.getfixturevalue("postgresql")


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[str]:
    """An empty database on PostgreSQL."""
    name = f"qgjob_{uuid.uuid4().hex}"
    server = create_engine(checked_url(postgresql_url), isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.url.set(database=name).render_as_string(hide_password=False)
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        server.dispose()


@pytest.fixture
def open_store(url: str) -> Iterator[OpenStore]:
    """Opens the database, as often as it is asked to."""
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(Store.open(url))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """A store in its first epoch."""
    store = open_store()
    store.start_epoch()
    return store
