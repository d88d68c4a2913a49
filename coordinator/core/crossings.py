"""Where tests did not pass: the same test on two devices is at fault itself; one that passes elsewhere was not.

The last failures only, in memory: after a restart the evidence is gathered anew, and what was concluded is durable.
"""

from __future__ import annotations

from collections import OrderedDict

from coordinator.core.model import DeviceId

REMEMBERED = 10_000
"""Subjects (tests and installs that failed) which are crossed."""


class Crossings:
    """By subject, the devices on which it failed since it passed last."""

    def __init__(self) -> None:
        self._failed_on: OrderedDict[str, dict[DeviceId, bool]] = OrderedDict()

    def failed(self, subject: str, device: DeviceId, *, is_verdict: bool) -> tuple[DeviceId, ...]:
        """Note a failure and return the other devices on which the same failed.

        Args:
            subject: What failed.
            device: Where.
            is_verdict: Whether it failed as tests do, and not by the lab's fault.
        """
        places = self._failed_on.setdefault(subject, {})
        self._failed_on.move_to_end(subject)
        others = tuple(place for place in places if place != device)
        places[device] = is_verdict
        if len(self._failed_on) > REMEMBERED:
            self._failed_on.popitem(last=False)
        return others

    def passed(self, subject: str, device: DeviceId) -> tuple[DeviceId, ...]:
        """Forget a subject that passed on a device, and return the only other one that gave a verdict against it.

        Nothing is returned where it failed on several, or here as well: such a test passes as it likes.
        """
        places = self._failed_on.pop(subject, {})
        if len(places) != 1 or device in places:
            return ()
        return tuple(place for place, is_verdict in places.items() if is_verdict)
