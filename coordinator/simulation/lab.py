"""The lab of a simulation: a clock that jumps from event to event, and devices that install and run.

What decides is a `Dispatcher`: the real scheduler or a rival. The lab tells it what happens, and it gives jobs to
devices and takes them back. There is no randomness in here: the same workload and dispatcher give the same outcome.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from coordinator.core.model import AppKey, DeviceKind
from coordinator.simulation.model import Fate, Outcome, Run, Workload


class Dispatcher(Protocol):
    """Who decides which device runs what."""

    name: str

    def begin(self, lab: Lab) -> None:
        """Meet the lab; all its devices are there."""

    def submitted(self, runs: list[Run]) -> None:
        """Take in jobs that were released just now."""

    def installed(self, device: int, run: Run, install_us: int) -> None:
        """Hear that a device holds a build; `install_us` is 0 where it did before."""

    def started(self, device: int, run: Run) -> None:
        """Hear that a test began."""

    def ended(self, device: int, run: Run, *, is_stopped: bool) -> None:
        """Hear that a test ran to its end, or was stopped because it was taken back."""

    def went(self, device: int, lost: Run | None, left: list[Run]) -> None:
        """Hear that a device is gone, and with it what ran on it and what was left for it to do."""

    def came(self, device: int) -> None:
        """Hear that a device is there again."""

    def woke(self) -> None:
        """Go on at a time that was asked for with `Lab.wake_at`."""


@dataclass(slots=True)
class LabDevice:
    """A device, what it holds and what it shall run."""

    number: int
    kind: DeviceKind
    holds: AppKey | None = None
    queue: list[Run] = field(default_factory=list)
    running: Run | None = None
    begin_us: int = 0
    """When the running test began."""
    is_installing: bool = False
    is_up: bool = True
    turn: int = 0
    """Rises with whatever makes an event that was planned for the device void."""

    @property
    def is_idle(self) -> bool:
        """Whether it could take work."""
        return self.is_up and self.running is None and not self.queue and not self.is_installing


class Lab:
    """Runs one workload under one dispatcher."""

    def __init__(self, workload: Workload, dispatcher: Dispatcher) -> None:
        self.workload = workload
        self.now_us = 0
        self.devices = [LabDevice(number=number, kind=kind) for number, kind in enumerate(workload.kinds)]
        self.outcome = Outcome(
            policy=dispatcher.name, workload=workload, fates=[Fate() for _ in range(len(workload.runs))]
        )
        self._dispatcher = dispatcher
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._wake_us: int | None = None
        self._left = len(workload.runs)

    def simulate(self) -> Outcome:
        """Run until every job has ended.

        Raises:
            AssertionError: Nothing happens any more, and jobs are left.
        """
        self._dispatcher.begin(self)
        self._plan_releases()
        for outage in self.workload.outages:
            device = self.devices[outage.device]
            self._at(outage.start_us, lambda device=device: self._lose(device))  # type: ignore[misc]
            self._at(outage.end_us, lambda device=device: self._bring_back(device))  # type: ignore[misc]
        while self._left:
            assert self._events, f"{self.outcome.policy}: {self._left} jobs of {self.workload.name} are never run"
            self.now_us, _, act = heapq.heappop(self._events)
            act()
        return self.outcome

    def wake_at(self, time_us: int) -> None:
        """Call the dispatcher's `woke` at a time; the last call counts."""
        self._wake_us = max(time_us, self.now_us)
        wanted_us = self._wake_us
        self._at(wanted_us, lambda: self._wake(wanted_us))

    def give(self, device: int, runs: list[Run]) -> None:
        """Let a device run jobs after those that it has."""
        one = self.devices[device]
        one.queue.extend(runs)
        self._go_on(one)

    def take_back(self, device: int, runs: list[Run]) -> None:
        """Take jobs that have not begun from a device."""
        gone = {run.number for run in runs}
        one = self.devices[device]
        one.queue = [run for run in one.queue if run.number not in gone]

    def stop(self, device: int, grace_us: int) -> None:
        """Let the running test end at the next boundary between tests, or when the grace is over."""
        one = self.devices[device]
        assert one.running is not None, f"device {device} runs nothing that could be stopped"
        run, ran_us = one.running, self.now_us - one.begin_us
        left_us = self._left_us(run)
        boundary_us = min(left_us, -(-max(1, ran_us) // run.test_us) * run.test_us) - ran_us
        one.turn += 1
        if ran_us + boundary_us >= left_us and boundary_us <= grace_us:
            self._later(one, boundary_us, lambda: self._end(one, is_stopped=False))
        else:
            self._later(one, min(boundary_us, grace_us), lambda: self._end(one, is_stopped=True))

    def idle(self) -> list[LabDevice]:
        """Return the devices that could take work, in their order."""
        return [device for device in self.devices if device.is_idle]

    # The clock

    def _at(self, time_us: int, act: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time_us, self._sequence, act))

    def _later(self, device: LabDevice, delay_us: int, act: Callable[[], None]) -> None:
        """Plan something of a device; it does not happen if the device does something else before."""
        turn = device.turn
        self._at(self.now_us + delay_us, lambda: act() if device.turn == turn else None)

    def _wake(self, wanted_us: int) -> None:
        if self._wake_us == wanted_us:
            self._wake_us = None
            self._dispatcher.woke()

    def _plan_releases(self) -> None:
        groups: dict[int, list[Run]] = {}
        for run in self.workload.runs:
            groups.setdefault(run.release_us, []).append(run)
        for release_us, runs in groups.items():
            self._at(release_us, lambda runs=runs: self._dispatcher.submitted(runs))  # type: ignore[misc]

    # Devices

    def _go_on(self, device: LabDevice) -> None:
        """Begin the next job of a device, with an install before it where the device holds another build."""
        if not device.queue or not device.is_up or device.running is not None or device.is_installing:
            return
        run = device.queue[0]
        device.turn += 1
        if device.holds == run.app:
            self._begin(device, 0)
            return
        install_us = self.workload.install_us[run.app]
        device.is_installing = True
        device.holds = None
        self._later(device, install_us, lambda: self._installed(device, run, install_us))

    def _installed(self, device: LabDevice, run: Run, install_us: int) -> None:
        device.is_installing = False
        device.holds = run.app
        self.outcome.installs += 1
        self.outcome.install_us += install_us
        if device.queue and device.queue[0].app == run.app:
            self._begin(device, install_us)
        else:
            self._dispatcher.installed(device.number, run, install_us)
            self._go_on(device)

    def _begin(self, device: LabDevice, install_us: int) -> None:
        run = device.running = device.queue.pop(0)
        device.begin_us = self.now_us
        device.turn += 1
        fate = self.outcome.fates[run.number]
        if fate.start_us < 0:
            fate.start_us = self.now_us
        self._later(device, self._left_us(run), lambda: self._end(device, is_stopped=False))
        self._dispatcher.installed(device.number, run, install_us)
        self._dispatcher.started(device.number, run)

    def _left_us(self, run: Run) -> int:
        """Return how long a run takes, without the tests that it has done."""
        return max(0, run.duration_us - self.outcome.fates[run.number].done * run.test_us)

    def _end(self, device: LabDevice, *, is_stopped: bool) -> None:
        run = device.running
        assert run is not None
        device.running = None
        device.turn += 1
        ran_us = self.now_us - device.begin_us
        self.outcome.busy_us += ran_us
        fate = self.outcome.fates[run.number]
        if is_stopped:
            fate.stops += 1
            ended = ran_us // run.test_us
            fate.done += ended
            self.outcome.lost_us += ran_us - ended * run.test_us
        else:
            assert not fate.is_done, f"job {run.number} ran to its end twice"
            fate.end_us = self.now_us
            self._left -= 1
        self._dispatcher.ended(device.number, run, is_stopped=is_stopped)
        self._go_on(device)

    def _lose(self, device: LabDevice) -> None:
        lost = device.running
        if lost is not None:
            fate = self.outcome.fates[lost.number]
            # A fault of the lab begins a spec anew.
            self.outcome.lost_us += self.now_us - device.begin_us + fate.done * lost.test_us
            fate.stops += 1
            fate.done = 0
        device.turn += 1
        device.running, device.is_installing, device.holds, device.is_up = None, False, None, False
        left, device.queue = device.queue, []
        self._dispatcher.went(device.number, lost, left)

    def _bring_back(self, device: LabDevice) -> None:
        device.is_up = True
        self._dispatcher.came(device.number)
