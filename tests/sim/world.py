"""Virtual time: a heap of things to come, one source of chance, and processes that can freeze and die."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
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
        self._heap: list[tuple[int, int, Process | None, Act, tuple[Any, ...]]] = []
        self._serial = 0

    @property
    def wall_us(self) -> int:
        return START_WALL_US + self.now_us + self.wall_jump_us

    def at(self, time_us: int, act: Act, *args: object) -> None:
        self.plan(time_us, None, act, args)

    def after(self, delay_us: int, act: Act, *args: object) -> None:
        self.plan(self.now_us + delay_us, None, act, args)

    def plan(self, time_us: int, process: Process | None, act: Act, args: tuple[Any, ...]) -> None:
        """Plan what happens by itself, or what a process hears."""
        self._serial += 1
        if time_us < self.now_us:  # a call of max() would be one more for each event
            time_us = self.now_us
        heappush(self._heap, (time_us, self._serial, process, act, args))

    def run_until(self, end_us: int) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end_us:
            self.now_us, _, process, act, args = heappop(heap)
            self.events += 1
            if process is None or process.is_awake:
                act(*args)
            else:
                process.hear(act, *args)
        self.now_us = end_us

    def chance(self, percent: int) -> bool:
        return self.random.getrandbits(32) * 100 >> 32 < percent

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both possible."""
        return low + (self.random.getrandbits(32) * (high - low + 1) >> 32)


class Process:
    """Something that can be stopped (SIGSTOP), goes on where it was, and can be killed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_alive = True
        self.is_frozen = False
        self.is_awake = True
        """Whether it is alive and not frozen."""
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
        world.plan(world.now_us + delay_us, self, act, args)

    def at(self, time_us: int, act: Act, *args: object) -> None:
        """Plan something that this process itself will do at a time, if it still lives."""
        self.world.plan(time_us, self, act, args)

    def freeze(self) -> None:
        self.is_frozen = True
        self.is_awake = False

    def thaw(self) -> None:
        self.is_frozen = False
        self.is_awake = self.is_alive
        backlog, self._backlog = self._backlog, []
        for act, args in backlog:
            self.hear(act, *args)

    def die(self) -> None:
        self.is_alive = self.is_awake = False
        self._backlog.clear()
