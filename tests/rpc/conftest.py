from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.core.model import Settings
from tests.rpc.grid import Grid


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[Grid]:
    """A coordinator that serves, with an empty database."""
    grid = Grid(tmp_path, Settings())
    await grid.start()
    yield grid
    await grid.stop()
