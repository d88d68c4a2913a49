"""How long what a coordinator did not answer is tried again."""

from __future__ import annotations

import time

FIRST_DELAY_S = 0.2
MAX_DELAY_S = 3.0


class Patience:
    """How long something is tried again, with growing pauses: from its beginning, or the last sign of life."""

    def __init__(self, seconds: float, *, unproven_s: float | None = None, least_tries: int = 1) -> None:
        """Take the span, and the most of it for who never answered yet and may be a wrong address.

        However long a try takes, there are at least as many: one for each address.
        """
        self._seconds = seconds
        self._tries_left = least_tries - 1
        self._unproven_s = unproven_s
        self._since = time.monotonic()
        self._delay_s = FIRST_DELAY_S

    def renew(self) -> None:
        """Begin anew: there was a sign of life."""
        self._since = time.monotonic()
        self._delay_s = FIRST_DELAY_S
        self._unproven_s = None

    def extend(self, seconds: float) -> None:
        """Have at least so much: what answered last will be back."""
        self._seconds = max(self._seconds, seconds)
        if self._unproven_s is not None:
            self._unproven_s = max(self._unproven_s, seconds)

    @property
    def has_untried(self) -> bool:
        """Whether an address is left that was not tried."""
        return self._tries_left > 0

    def is_over(self) -> bool:
        """Whether nothing is left to try, or no time."""
        seconds = self._seconds if self._unproven_s is None else min(self._seconds, self._unproven_s)
        return self._tries_left <= 0 and time.monotonic() - self._since > seconds

    def wait(self, most_s: float | None = None) -> None:
        """Sleep until the next try, `most_s` at most; the pauses grow."""
        self._tries_left -= 1
        time.sleep(self._delay_s if most_s is None else min(self._delay_s, most_s))
        self._delay_s = min(MAX_DELAY_S, self._delay_s * 2)


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until a monotonic instant; None where there is none."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
