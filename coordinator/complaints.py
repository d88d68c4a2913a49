"""What callers can bring about as often as they like, told to the operator seldom enough to leave the diagnostics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

COMPLAINT_INTERVAL_S = 60.0
"""Between two lines of diagnostics about the same."""


class Complaints:
    """Tells of an event once in a while, and how often it was."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a clock in seconds."""
        self._clock = clock
        self._told_s: dict[tuple[str, str], float] = {}
        self._untold: Counter[tuple[str, str]] = Counter()

    def add(self, event: str, about: str = "", **fields: object) -> None:
        """Tell of one, or count it among those that the next line tells of.

        Args:
            event: What happened.
            about: Of what kind there is a line of its own; one of a few, for each is remembered.
            fields: What else to say.
        """
        key = (event, about)
        self._untold[key] += 1
        now_s = self._clock()
        if now_s - self._told_s.get(key, -COMPLAINT_INTERVAL_S) < COMPLAINT_INTERVAL_S:
            return
        self._told_s[key] = now_s
        structlog.get_logger("coordinator").warning(event, count=self._untold.pop(key), **fields)
