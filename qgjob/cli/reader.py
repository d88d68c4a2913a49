"""Notices that whoever reads our stdout has gone, while there is nothing to write: a watch, the log of a quiet test."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qgjob.cli.exits import Exit
from qgjob.cli.terminal import STDOUT


@contextmanager
def needed_reader() -> Iterator[None]:
    """Do something that only reads and shows, for as long as there is somebody to show it to.

    Where stdout is a pipe whose other end is closed, the program ends at once: with 0, as after a write that fails.
    """
    if not stat.S_ISFIFO(os.fstat(STDOUT).st_mode):
        yield
        return
    watch = _Watch()
    watch.start()
    try:
        yield
    finally:
        watch.stop()


class _Watch(threading.Thread):
    """Waits for the end of stdout's reader, and ends the program then.

    From this thread, not by an exception in the main one: that would come in the middle of anything, also where gRPC
    swallows it and the watch would go on. What is shown needs no clearing up, and nobody could be told more.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True, name="reader of stdout")
        self._told_to_end, self._tell_to_end = os.pipe()

    def run(self) -> None:
        poll = select.poll()
        # No event is asked for: that the other end is closed is told always.
        poll.register(STDOUT, 0)
        poll.register(self._told_to_end, select.POLLIN)
        if STDOUT in dict(poll.poll()):
            os._exit(Exit.OK)

    def stop(self) -> None:
        os.write(self._tell_to_end, b"!")
        self.join()
        os.close(self._tell_to_end)
        os.close(self._told_to_end)
