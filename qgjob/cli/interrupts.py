"""What Ctrl-C does: the first is a KeyboardInterrupt, the next ones must not fall into what that one has begun.

Raised in the middle of gRPC, an interrupt can leave a lock of gRPC held for good. The first one seldom does, for it
finds the program where it waits; a second one finds it where it ends its streams, or cancels jobs. `timeout` sends each
signal twice, and wrappers that hand Ctrl-C on to a child of their own group do as well.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from qgjob.cli.exits import Exit

SAME_S = 1.0
"""Interrupts that come so soon after the first belong to it."""


def heed_first_interrupt() -> None:
    """Raise KeyboardInterrupt once; a later Ctrl-C of somebody who will not wait ends the program at once, with 130.

    An interrupt that is ignored, as in the background of a script, stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _heeding_first())


@contextmanager
def heeding_as_interrupts(numbers: Iterable[int]) -> Iterator[None]:
    """Let other signals be interrupts as well, all of them and Ctrl-C counted together. An ignored one stays so."""
    ours = signal.getsignal(signal.SIGINT)
    interrupt = ours if callable(ours) else _heeding_first()
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeding_first() -> Callable[[int, FrameType | None], None]:
    first_s: float | None = None

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        nonlocal first_s
        if first_s is None:
            first_s = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - first_s > SAME_S:
            os._exit(Exit.INTERRUPTED)

    return interrupted
