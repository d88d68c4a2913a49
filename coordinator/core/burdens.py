"""How much a pool has before it: what another device for one of its families is measured by.

One more device costs an install. That is well spent where a family's devices would end after the others of its pool;
where they would end before them, the next device has something better to do. So a family gets another one only while
each of its devices would still have `Rules.split_percent` of what each device of the pool has before it.

Both sides count jobs that wait and jobs that are leased: to give work out, or to take it back, tips no scales.
"""

from __future__ import annotations

from coordinator.core.model import MAX_PRIORITY


class Burden:
    """The expected work of a pool by submitted priority, and the devices that could do it."""

    __slots__ = ("_work_us", "devices")

    def __init__(self) -> None:
        self._work_us = [0] * (MAX_PRIORITY + 1)
        self.devices = 0
        """Those that are in use or could be, in whichever lanes and whomever they have failed."""

    def add(self, priority: int, change_us: int) -> None:
        """Note work that came, or less than nothing for work that is done or cancelled."""
        self._work_us[priority] += change_us

    def is_reached(self, each_us: int, priority: int, percent: int) -> bool:
        """Whether `each_us` for a device is at least a share of what each device of the pool has before it.

        Of that only counts what was submitted with at least a priority: the rest comes after it.
        """
        return each_us * self.devices * 100 >= sum(self._work_us[priority:]) * percent
