from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.grid import Grid, running_grid


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    """A coordinator without agents."""
    with running_grid(tmp_path) as grid:
        grid.coordinator()
        yield grid


@pytest.fixture(scope="session")
def empty_grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """A coordinator that keeps what it has, which is nothing: for tests of what is refused."""
    with running_grid(tmp_path_factory.mktemp("empty")) as grid:
        grid.coordinator()
        yield grid
