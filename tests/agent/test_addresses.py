from __future__ import annotations

import random

import pytest

from agent.app import jitter
from agent.core.link import JITTER_RANGE


@pytest.mark.parametrize("addresses", [1, 2, 3])
def test_round_of_all_addresses_fits_into_one_window(addresses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "randrange", lambda stop: stop - 1)
    latest = sum(jitter(addresses) for _ in range(addresses))
    assert JITTER_RANGE - 2 * addresses <= latest < JITTER_RANGE
