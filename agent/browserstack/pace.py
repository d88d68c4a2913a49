"""How fast BrowserStack may be asked: so many requests in a span, and a growing pause after each refusal."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


Result = TypeVar("Result")


class GivenUp(Exception):
    """Nobody waits for the answer any more."""


class Pace:
    """Lets so many pass in any span; the rest wait their turn. For many threads."""

    def __init__(self, most: int, span_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Let `most` pass in `span_s` seconds."""
        self._most = most
        self._span_s = span_s
        self._clock = clock
        self._passed: deque[float] = deque()
        self._lock = threading.Lock()

    def allow(self, most: int) -> None:
        """Let another number pass in each span from now on."""
        with self._lock:
            self._most = most

    def book(self) -> float:
        """Take the next place in the line; return the seconds until its turn."""
        with self._lock:
            now = turn = self._clock()
            while len(self._passed) > self._most:
                self._passed.popleft()
            if len(self._passed) == self._most:
                turn = max(now, self._passed.popleft() + self._span_s)
            self._passed.append(turn)
            return turn - now

    def wait(self, given_up: threading.Event) -> None:
        """Wait for a turn.

        Raises:
            GivenUp: The wait was given up.
        """
        pause(self.book(), given_up)


async def off_loop(request: Callable[[threading.Event], Result]) -> Result:
    """Make a request that blocks off the event loop; whoever stops to wait for it stops the asking."""
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(request, given_up)
    finally:
        given_up.set()


def pause(seconds: float, given_up: threading.Event) -> None:
    """Let time pass.

    Raises:
        GivenUp: The wait was given up.
    """
    if given_up.wait(seconds) if seconds > 0 else given_up.is_set():
        raise GivenUp


def pause_after(refusals: int, share: float) -> float:
    """Return how long to wait after so many refusals in a row, in seconds: twice as long each time.

    Args:
        refusals: How many, from 1.
        share: Random, 0 to 1: the last half of the pause is cut by it, so that many do not come back at once.
    """
    whole_s: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(refusals - 1, 16))
    return whole_s * (1 - share / 2)
