"""Virtual time: a heap of things to come, one source of chance, and processes that can freeze and die."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

SECOND_US = 1_000_000
START_WALL_US = 1_700_000_000 * SECOND_US

Act = Callable[..., None]


class World:
    """Runs what was planned in the order of its time; what falls on the same instant in the order it was planned."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = 0
        self.wall_jump_us = 0
        """How far the wall clocks were put forward; monotonic clocks know nothing of it."""
        self.events = 0
        self._heap: list[tuple[int, int, Act, tuple[Any, ...]]] = []
        self._serial = 0

    @property
    def wall_us(self) -> int:
        return START_WALL_US + self.now_us + self.wall_jump_us

    def at(self, time_us: int, act: Act, *args: object) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (max(self.now_us, time_us), self._serial, act, args))

    def after(self, delay_us: int, act: Act, *args: object) -> None:
        self.at(self.now_us + delay_us, act, *args)

    def run_until(self, end_us: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            self.now_us, _, act, args = heapq.heappop(heap)
            self.events += 1
            act(*args)
        self.now_us = end_us

    def chance(self, percent: int) -> bool:
        return self.between(0, 99) < percent

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both possible."""
        return low + (self.random.getrandbits(32) * (high - low + 1) >> 32)


class Process:
    """Something that can be stopped (SIGSTOP), goes on where it was, and can be killed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_alive = True
        self.is_frozen = False
        self._backlog: list[tuple[Act, tuple[Any, ...]]] = []

    def hear(self, act: Act, *args: object) -> None:
        """Let something reach the process: at once, when it wakes, or never."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._backlog.append((act, args))
        else:
            act(*args)

    def later(self, delay_us: int, act: Act, *args: object) -> None:
        """Plan something that this process itself will do, if it still lives."""
        world = self.world
        world.at(world.now_us + delay_us, self.hear, act, *args)

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        backlog, self._backlog = self._backlog, []
        for act, args in backlog:
            self.hear(act, *args)

    def die(self) -> None:
        self.is_alive = False
        self._backlog.clear()
