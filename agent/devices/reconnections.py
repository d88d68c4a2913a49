"""When to let adb drop and find again a device that it calls offline: a few times, with waits that double."""

from __future__ import annotations

FIRST_WAIT_S = 5.0
MOST_TRIES = 5


class Reconnections:
    """Of one device, from the moment at which it was seen offline."""

    def __init__(self, now_s: float) -> None:
        self._tries = 0
        self._due_s = now_s + FIRST_WAIT_S

    @property
    def are_left(self) -> bool:
        """Whether there will be another try."""
        return self._tries < MOST_TRIES

    def wait_s(self, now_s: float) -> float:
        """Return how long it is until the next try."""
        return max(0.0, self._due_s - now_s)

    def take(self, now_s: float) -> bool:
        """Take the next try if it is due."""
        if not self.are_left or now_s < self._due_s:
            return False
        self._tries += 1
        self._due_s = now_s + FIRST_WAIT_S * 2**self._tries
        return True
