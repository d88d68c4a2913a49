from __future__ import annotations

from dataclasses import replace

from coordinator.core.model import SECOND_US
from coordinator.forecasts import LASTS_US, MOST_SAVED_S, MOST_SHARE, Forecasts
from tests.core.lab import Lab, spec


class Ticking:
    """A clock that goes on by a step each time it is read."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def places(forecasts: Forecasts, lab: Lab) -> int:
    return len(forecasts.newest(lab.scheduler.ledger, lab.now).outlooks)


def test_change_is_seen_at_once_while_forecasts_are_cheap() -> None:
    lab, forecasts = Lab(), Forecasts(Ticking())
    for waiting in range(1, 20):
        lab.submit(spec())
        forecasts.note_change()
        assert places(forecasts, lab) == waiting


def test_forecasts_take_no_more_than_their_share_of_the_time() -> None:
    lab, clock = Lab(), Ticking()
    forecasts = Forecasts(clock)
    lab.submit(spec())
    clock.step_s = 2 * MOST_SAVED_S
    assert places(forecasts, lab) == 1
    clock.step_s = 0
    lab.submit(spec())
    forecasts.note_change()
    for _ in range(2):
        assert places(forecasts, lab) == 1, "it owes what the first one took beyond what was saved"
        clock.now_s += 0.6 * MOST_SAVED_S / MOST_SHARE
    assert places(forecasts, lab) == 2


def test_forecast_is_made_anew_after_a_while_though_nothing_changed() -> None:
    lab, forecasts = Lab(), Forecasts(Ticking())
    lab.submit(spec())
    first = forecasts.newest(lab.scheduler.ledger, lab.now)
    assert forecasts.newest(lab.scheduler.ledger, lab.now) is first
    later = replace(lab.now, mono_us=lab.now.mono_us + LASTS_US + SECOND_US)
    assert forecasts.newest(lab.scheduler.ledger, later) is not first


def test_forecast_that_is_made_anew_is_no_change_while_it_foresees_the_same() -> None:
    lab, forecasts = Lab(), Forecasts(Ticking())
    seen = []
    for waiting in (0, 1, 1, 2):
        if waiting > len(lab.scheduler.ledger.queues):
            lab.submit(spec())
        forecasts.note_change()
        assert places(forecasts, lab) == waiting
        seen.append(forecasts.changes)
    assert seen == [0, 1, 1, 2]
