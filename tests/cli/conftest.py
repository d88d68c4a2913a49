from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.coordinator_stand_in import StandIn, running_stand_in


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A coordinator that does what the test says."""
    with running_stand_in() as stand_in:
        yield stand_in
