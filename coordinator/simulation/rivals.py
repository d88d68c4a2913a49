"""What others do, for comparison. Each is the plain idea of its models, spared their real costs.

All are given more than their models have: a device that holds the build already is not installed again, and
longest-first knows the true durations.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque

from coordinator.core.model import AppKey, DeviceKind, Lane, Target
from coordinator.simulation.lab import Lab, LabDevice
from coordinator.simulation.model import TARGET_KINDS, Run

TARGETS_OF: dict[DeviceKind, tuple[Target, ...]] = {
    kind: tuple(target for target, kinds in TARGET_KINDS.items() if kind in kinds) for kind in DeviceKind
}


_Entry = tuple[int, int, int, Run]


class Rival(ABC):
    """Whatever asks for the next work of a device only when the device has none."""

    name = ""

    def __init__(self) -> None:
        self._lab: Lab

    @abstractmethod
    def put(self, runs: list[Run]) -> None:
        """Let jobs wait."""

    @abstractmethod
    def take(self, device: LabDevice) -> list[Run]:
        """Return what a free device shall do next, and let it wait no more."""

    def begin(self, lab: Lab) -> None:
        """Meet the lab."""
        self._lab = lab

    def submitted(self, runs: list[Run]) -> None:
        """Let jobs wait, and give free devices theirs."""
        self.put(runs)
        self._fill()

    def installed(self, device: int, run: Run, install_us: int) -> None:  # noqa: B027 - rivals decide nothing then
        """Do nothing: it decides nothing."""

    def started(self, device: int, run: Run) -> None:  # noqa: B027 - rivals decide nothing then
        """Do nothing: it decides nothing."""

    def ended(self, device: int, run: Run, *, is_stopped: bool) -> None:
        """Give the device its next work."""
        if self._lab.devices[device].is_idle:
            self._give(self._lab.devices[device])

    def went(self, device: int, lost: Run | None, left: list[Run]) -> None:
        """Let what was lost wait again."""
        self.put([lost, *left] if lost is not None else left)
        self._fill()

    def came(self, device: int) -> None:
        """Give the device its next work."""
        self._give(self._lab.devices[device])

    def woke(self) -> None:  # noqa: B027 - rivals decide nothing then
        """Do nothing: it asks for no wake."""

    def _fill(self) -> None:
        for device in self._lab.idle():
            self._give(device)

    def _give(self, device: LabDevice) -> None:
        runs = self.take(device)
        if runs:
            self._lab.give(device.number, runs)


class _Ordered(Rival):
    """One job at a time by some order, among those that a device can run."""

    def __init__(self) -> None:
        super().__init__()
        self._heaps: dict[Target, list[tuple[int, int, Run]]] = {target: [] for target in Target}

    @abstractmethod
    def rank(self, run: Run) -> int:
        """Return what is least for the job that goes first; ties go by age."""

    def put(self, runs: list[Run]) -> None:
        """Let jobs wait."""
        for run in runs:
            heapq.heappush(self._heaps[run.spec.target], (self.rank(run), run.number, run))

    def take(self, device: LabDevice) -> list[Run]:
        """Return the first job that the device can run."""
        heaps = [heap for target in TARGETS_OF[device.kind] if (heap := self._heaps[target])]
        if not heaps:
            return []
        return [heapq.heappop(min(heaps, key=lambda heap: heap[0][:2]))[2]]


class Fifo(_Ordered):
    """The oldest job first, one session each: Selenium Grid, Appium Device Farm."""

    name = "fifo"

    def rank(self, run: Run) -> int:
        """Return nothing but its age."""
        return 0


class LongestFirst(_Ordered):
    """The longest expected job first, one at a time: the order of Marathon."""

    name = "longest-first"

    def rank(self, run: Run) -> int:
        """Return how short it is."""
        return -run.duration_us


class FixedBatches(Rival):
    """Batches cut at submit, three queues, the first free device claims the first batch: a set-up over Celery."""

    name = "fixed-batches"
    size = 10

    def __init__(self) -> None:
        super().__init__()
        self._queues: dict[tuple[Lane, Target], deque[list[Run]]] = {}

    def put(self, runs: list[Run]) -> None:
        """Cut jobs into batches by build, target and lane."""
        groups: dict[tuple[AppKey, Target, Lane], list[Run]] = {}
        for run in runs:
            groups.setdefault((run.app, run.spec.target, run.spec.lane), []).append(run)
        for (_, target, lane), group in groups.items():
            queue = self._queues.setdefault((lane, target), deque())
            queue.extend(group[first : first + self.size] for first in range(0, len(group), self.size))

    def take(self, device: LabDevice) -> list[Run]:
        """Return the first batch of the highest lane."""
        for lane in Lane:
            queues = [queue for target in TARGETS_OF[device.kind] if (queue := self._queues.get((lane, target)))]
            if queues:
                return min(queues, key=lambda queue: queue[0][0].number).popleft()
        return []


class GreedySticky(Rival):
    """Whatever needs no install first, then the highest priority, then the oldest."""

    name = "greedy-sticky"

    def __init__(self) -> None:
        super().__init__()
        self._by_app: dict[tuple[Target, AppKey], list[_Entry]] = {}
        self._all: dict[Target, list[_Entry]] = {target: [] for target in Target}
        self._tickets: dict[int, int] = {}
        """Job -> what marks its entries that count."""
        self._next_ticket = 0

    def put(self, runs: list[Run]) -> None:
        """Let jobs wait."""
        for run in runs:
            self._next_ticket += 1
            self._tickets[run.number] = self._next_ticket
            entry = (-run.spec.priority, run.number, self._next_ticket, run)
            heapq.heappush(self._by_app.setdefault((run.spec.target, run.app), []), entry)
            heapq.heappush(self._all[run.spec.target], entry)

    def take(self, device: LabDevice) -> list[Run]:
        """Return the first job of the build that the device holds, else the first of all."""
        targets = TARGETS_OF[device.kind]
        warm = [self._by_app.get((target, device.holds), []) for target in targets] if device.holds is not None else []
        for heaps in (warm, [self._all[target] for target in targets]):
            live = [heap for heap in heaps if self._has_live(heap)]
            if live:
                run = heapq.heappop(min(live, key=lambda heap: heap[0][:2]))[3]
                del self._tickets[run.number]
                return [run]
        return []

    def _has_live(self, heap: list[_Entry]) -> bool:
        while heap and self._tickets.get(heap[0][1]) != heap[0][2]:
            heapq.heappop(heap)
        return bool(heap)


RIVALS: tuple[type[Rival], ...] = (Fifo, FixedBatches, GreedySticky, LongestFirst)
