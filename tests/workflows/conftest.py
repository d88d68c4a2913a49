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
