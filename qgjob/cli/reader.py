"""Notices that whoever reads our stdout has gone, while there is nothing to write: a watch, the log of a quiet test."""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from qgjob.cli.terminal import STDOUT, ReaderGone


@contextmanager
def needed_reader() -> Iterator[None]:
    """Do something for as long as there is somebody who reads it; for the main thread.

    Raises:
        ReaderGone: Stdout is a pipe, and its other end was closed.
    """
    if not stat.S_ISFIFO(os.fstat(STDOUT).st_mode):
        yield
        return
    is_gone = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        # Stderr may be a pipe as well, whose reader nobody needs.
        if is_gone.is_set():
            raise ReaderGone

    watch = _Watch(is_gone)
    before = signal.signal(signal.SIGPIPE, leave)
    watch.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)
        watch.stop()


class _Watch(threading.Thread):
    """Waits for the end of stdout's reader, and wakes the main thread with the signal that a write would bring."""

    def __init__(self, is_gone: threading.Event) -> None:
        super().__init__(daemon=True, name="reader of stdout")
        self._is_gone = is_gone
        self._told_to_end, self._tell_to_end = os.pipe()

    def run(self) -> None:
        poll = select.poll()
        # No event is asked for: that the other end is closed is told always.
        poll.register(STDOUT, 0)
        poll.register(self._told_to_end, select.POLLIN)
        if STDOUT in dict(poll.poll()):
            self._is_gone.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGPIPE)

    def stop(self) -> None:
        os.write(self._tell_to_end, b"!")
        self.join()
        os.close(self._tell_to_end)
        os.close(self._told_to_end)
