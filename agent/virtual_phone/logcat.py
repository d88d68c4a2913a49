"""The phone's system log, which ``logcat`` shows."""

import asyncio
import datetime
from collections import deque
from collections.abc import AsyncIterator

MAX_LINES = 5000


class Logcat:
    """A ring of log lines in the ``threadtime`` format."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._written = 0
        self._grown = asyncio.Event()

    def write(self, pid: int, level: str, tag: str, message: str) -> None:
        """Add one line for each line of the message; `level` is one of V, D, I, W, E, F."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%m-%d %H:%M:%S.%f")[:-3]
        for line in message.splitlines():
            self._lines.append(f"{stamp} {pid:5d} {pid:5d} {level} {tag}: {line}")
            self._written += 1
        self._grown.set()

    def lines(self) -> list[str]:
        """Return the lines that are kept."""
        return list(self._lines)

    def clear(self) -> None:
        """Forget all lines."""
        self._lines.clear()

    async def follow(self) -> AsyncIterator[str]:
        """Yield the lines that are kept, then each new one; a reader that is too slow misses some."""
        seen = self._written - len(self._lines)
        while True:
            self._grown.clear()
            missing = min(self._written - seen, len(self._lines))
            seen = self._written
            for line in list(self._lines)[len(self._lines) - missing :]:
                yield line
            if seen == self._written:
                await self._grown.wait()
