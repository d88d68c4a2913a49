"""Forecasts for people, of which no more are made than may be paid for."""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.core.forecast import NO_FORECAST, Forecast, forecast
from coordinator.core.ledger import Ledger
from coordinator.core.model import SECOND_US, Now

LONGEST_COUNTED_QUEUE = 10_000
"""Places in the queue are counted for people up to this many waiting jobs."""
LASTS_US = SECOND_US
"""For so long a forecast counts while nothing changes."""
MOST_SHARE = 1 / 50
"""Of the time, that forecasts may take."""
MOST_SAVED_S = 0.05
"""What they may take at once after a quiet time."""


class Forecasts:
    """The newest forecast.

    Each goes through all devices and waiting jobs, and each submit asks for one: under load they would take more than
    everything else. While they have had their share of the time, the last one goes on to be told, which knows nothing
    of jobs that came later.
    """

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        """Take the clock by which a forecast's own cost is known."""
        self._clock_s = clock_s
        self.changes = 0
        """How often a forecast has foreseen something else of a job than the one before it."""
        self._newest = NO_FORECAST
        self._made_us = -LASTS_US
        self._is_current = False
        self._saved_s = MOST_SAVED_S
        self._counted_s = clock_s()

    def note_change(self) -> None:
        """Say that the queue or the lab has changed."""
        self._is_current = False

    def newest(self, ledger: Ledger, now: Now) -> Forecast:
        """Return how the waiting jobs stand; nothing of it when the queue is too long to be gone through for people."""
        began_s = self._clock_s()
        self._saved_s = min(MOST_SAVED_S, self._saved_s + (began_s - self._counted_s) * MOST_SHARE)
        self._counted_s = began_s
        is_current = self._is_current and now.mono_us - self._made_us <= LASTS_US
        if not is_current and self._saved_s > 0:
            is_short = len(ledger.queues) <= LONGEST_COUNTED_QUEUE
            found = forecast(ledger, now) if is_short else NO_FORECAST
            self.changes += found.outlooks != self._newest.outlooks
            self._newest = found
            self._made_us, self._is_current = now.mono_us, True
            self._saved_s -= self._clock_s() - began_s
        return self._newest
