from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.store import Store

OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'qgjob.db'}"
    else:
        yield request.getfixturevalue("postgresql")


@pytest.fixture
def open_store(url: str) -> Iterator[OpenStore]:
    """Opens the database, as often as it is asked to."""
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(Store.open(url, leader_ttl_s=60.0))
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
