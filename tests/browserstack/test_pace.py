"""How fast BrowserStack is asked."""

from __future__ import annotations

import threading

import pytest

from agent.browserstack import pace
from agent.browserstack.pace import GivenUp, Pace, pause_after


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_span_ever_sees_more_than_it_may() -> None:
    clock = Clock()
    line = Pace(5, 60.0, clock)
    turns = []
    for _ in range(12):
        turns.append(clock.now + line.book())
        clock.now += 1
    assert turns[:5] == [100, 101, 102, 103, 104]
    assert turns[5:10] == [160, 161, 162, 163, 164]
    assert all(later - earlier >= 60 for earlier, later in zip(turns, turns[5:], strict=False))


def test_line_that_is_behind_its_pace_makes_nobody_wait() -> None:
    clock = Clock()
    line = Pace(1, 60.0, clock)
    assert line.book() == 0
    clock.now += 61
    assert line.book() == 0


def test_line_that_may_let_fewer_pass_counts_those_that_have_passed() -> None:
    clock = Clock()
    line = Pace(4, 60.0, clock)
    for _ in range(4):
        line.book()
        clock.now += 1
    line.allow(2)
    assert clock.now + line.book() == 162
    line.allow(4)
    assert line.book() == 0


def test_wait_for_a_turn_can_be_given_up() -> None:
    line, given_up = Pace(1, 3_600.0), threading.Event()
    line.book()
    given_up.set()
    with pytest.raises(GivenUp):
        line.wait(given_up)


def test_pauses_grow_up_to_their_bound_and_are_spread_over_their_last_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_PAUSE_S", 1.0)
    assert [pause_after(refusals, 0) for refusals in (1, 2, 3, 4, 5, 6, 100)] == [1, 2, 4, 8, 16, 30, 30]
    assert pause_after(3, 1) == 2
