from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agent.browserstack import pace
from agent.browserstack.client import Client
from tests.browserstack.stand_in import StandIn, running_stand_in


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses after refusals: their lengths have a test of their own."""
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A BrowserStack with a plan of two parallels."""
    with running_stand_in(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def client(stand_in: StandIn) -> Client:
    """A client with the right credentials that gives up soon."""
    return Client(stand_in.account(), patience_s=2)


@pytest.fixture
def never() -> threading.Event:
    """Somebody waits for the answer."""
    return threading.Event()
