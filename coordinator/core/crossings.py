"""Where tests did not pass: the same test on two devices is at fault itself; one that passes elsewhere was not.

The last failures only. They are durable with the results that they come from, so a restart takes nothing of the
evidence away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from coordinator.core.model import Crossing, DeviceId

REMEMBERED = 10_000
"""Subjects (tests and installs that failed) which are crossed; those of the longest ago are forgotten first."""


class Crossings:
    """By subject, the devices on which it failed since it passed last."""

    def __init__(self, put: Callable[[Crossing], None]) -> None:
        """`put` takes what has changed, to make it durable; one without places is forgotten."""
        self.known: OrderedDict[str, Crossing] = OrderedDict()
        """The one that failed last comes last."""
        self._put = put

    def restore(self, crossings: Iterable[Crossing]) -> None:
        """Take up what an earlier life knew."""
        for crossing in sorted(crossings, key=lambda crossing: crossing.note_us):
            self.known[crossing.subject] = crossing

    def failed(self, subject: str, device: DeviceId, wall_us: int, *, is_verdict: bool) -> tuple[DeviceId, ...]:
        """Note a failure and return the other devices on which the same failed.

        Args:
            subject: What failed.
            device: Where.
            wall_us: When.
            is_verdict: Whether it failed as tests do, and not by the lab's fault.
        """
        known = self.known.pop(subject, None)
        places = dict(known.places) if known is not None else {}
        others = tuple(place for place in places if place != device)
        places[device] = is_verdict
        noted = Crossing(subject=subject, places=tuple(places.items()), note_us=wall_us)
        self.known[subject] = noted
        self._put(noted)
        if len(self.known) > REMEMBERED:
            self._forget(next(iter(self.known)))
        return others

    def passed(self, subject: str, device: DeviceId) -> tuple[DeviceId, ...]:
        """Forget a subject that passed on a device, and return the only other one that gave a verdict against it.

        Nothing is returned where it failed on several, or here as well: such a test passes as it likes.
        """
        if subject not in self.known:
            return ()
        places = dict(self._forget(subject).places)
        if len(places) != 1 or device in places:
            return ()
        return tuple(place for place, is_verdict in places.items() if is_verdict)

    def _forget(self, subject: str) -> Crossing:
        known = self.known.pop(subject)
        self._put(Crossing(subject=subject))
        return known
