from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.http.grid import HttpGrid


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[HttpGrid]:
    """A coordinator that serves both ports, with an empty database."""
    grid = HttpGrid(tmp_path)
    await grid.start()
    yield grid
    await grid.stop()
