"""The first Ctrl-C is a KeyboardInterrupt, its echoes are nothing, a later one ends the program at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from qgjob.cli.interrupts import SAME_S, heed_first_interrupt, heeding_as_interrupts


@pytest.fixture
def sigint() -> Iterator[None]:
    """A process as Python starts it; that of the tests gets its own handler back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint")
def test_second_interrupt_counts_once_it_is_no_echo_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    ends: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    monkeypatch.setattr(os, "_exit", ends.append)
    heed_first_interrupt()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    now_s += SAME_S
    signal.raise_signal(signal.SIGINT)
    assert ends == []
    now_s += 0.1
    signal.raise_signal(signal.SIGINT)
    assert ends == [130]


@pytest.mark.usefixtures("sigint")
def test_interrupt_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    heed_first_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("sigint")
def test_other_signals_that_interrupt_count_together_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(os, "_exit", ends.append)
    before = signal.getsignal(signal.SIGTERM)
    heed_first_interrupt()
    with heeding_as_interrupts([signal.SIGTERM]):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(time, "monotonic", lambda: 100.1 + SAME_S)
        signal.raise_signal(signal.SIGTERM)
    assert ends == [130]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("sigint")
def test_other_signals_interrupt_where_ctrl_c_is_ignored_unless_they_are_too() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding_as_interrupts([signal.SIGTERM, signal.SIGHUP]):
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, hup)
