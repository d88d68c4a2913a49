"""Knows which logs must be new, so that nobody looks in the database for what cannot be there."""

from __future__ import annotations

from coordinator.core.model import AttemptId

MOST_ATTEMPTS = 64_000_000
"""Of one epoch, of which a bit each is kept: 8 MB. The logs of those after them are looked for."""


class NewLogs:
    """The attempts of this epoch whose logs were met: what an attempt of this epoch has, came after its begin."""

    def __init__(self) -> None:
        """Begin with none."""
        self._met = bytearray()

    def meet(self, attempt: AttemptId, first: AttemptId | None) -> bool:
        """Return whether a log cannot be there yet; from now on it can.

        Args:
            attempt: Whose log it is.
            first: No attempt from here on was before this epoch; None where that is not known.
        """
        if first is None or not 0 <= attempt - first < MOST_ATTEMPTS:
            return False
        place, bit = divmod(attempt - first, 8)
        if place >= len(self._met):
            self._met.extend(bytes(place + 1 - len(self._met)))
        is_new = not self._met[place] & 1 << bit
        self._met[place] |= 1 << bit
        return is_new
