"""A real coordinator that kills itself with -9 at a chosen point around a commit. Only tests start it.

python -m tests.faults.fatal_coordinator POINT COUNT serve ...

It dies when it comes to the point for the COUNTth time. Everything else is the real program: the point is in a
subclass of the store or the engine that is put in the place of the real one, so nothing in production can trip it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

import sqlalchemy

from coordinator import house, main, server
from coordinator.core.logfile import LogWrite
from coordinator.core.step import Write
from coordinator.engine import Engine
from coordinator.store import Store

LONGEST_COMMIT_S = 0.004


def die() -> None:
    """End as by a loss of power of this process alone."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon() -> None:
    """Die at some moment of the time that a COMMIT takes."""
    threading.Timer(random.Random(os.getpid()).uniform(0, LONGEST_COMMIT_S), die).start()


class Countdown:
    """Acts at one visit of all."""

    def __init__(self, visits: int, act: Callable[[], None]) -> None:
        self._left = visits
        self._act = act

    def visit(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


def put_in_place(module: ModuleType, name: str, substitute: type) -> None:
    """Let the coordinator be built with another class, which must be known there under this name."""
    assert name in vars(module), f"{module.__name__} has no {name}: the point would never be reached"
    setattr(module, name, substitute)


def before_commit(visits: int) -> None:
    """Nothing of the turn is in the database."""
    countdown = Countdown(visits, die)

    class FatalStore(Store):
        def commit(self, writes: Sequence[Write]) -> None:
            countdown.visit()
            super().commit(writes)

    put_in_place(server, "Store", FatalStore)


def within_commit(visits: int) -> None:
    """All is written, and COMMIT was not said."""
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", Countdown(visits, die).visit)


def during_commit(visits: int) -> None:
    """COMMIT was said; whether it happened is left to chance."""
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", Countdown(visits, die_soon).visit)


def after_commit(visits: int) -> None:
    """The turn is durable, and the engine does not know it yet."""
    countdown = Countdown(visits, die)

    class FatalStore(Store):
        def commit(self, writes: Sequence[Write]) -> None:
            super().commit(writes)
            countdown.visit()

    put_in_place(server, "Store", FatalStore)


def before_send(visits: int) -> None:
    """The engine knows that the turn is durable, and has told nobody."""
    countdown = Countdown(visits, die)

    class FatalEngine(Engine):
        def _deliver(self, *turn: object) -> None:
            countdown.visit()
            super()._deliver(*turn)  # type: ignore[arg-type]

    put_in_place(house, "Engine", FatalEngine)


def after_log(visits: int) -> None:
    """What became of a log is durable, and its agent was not told."""
    countdown = Countdown(visits, die)

    class FatalStore(Store):
        def put_logs(self, writes: Sequence[LogWrite]) -> None:
            super().put_logs(writes)
            countdown.visit()

    put_in_place(server, "Store", FatalStore)


POINTS = {
    point.__name__: point
    for point in (before_commit, within_commit, during_commit, after_commit, before_send, after_log)
}

if __name__ == "__main__":
    POINTS[sys.argv[1]](int(sys.argv[2]))
    del sys.argv[1:3]
    main.main()
