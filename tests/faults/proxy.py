"""A link that tests can spoil: a TCP proxy on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHUNK = 65_536
PATIENCE_S = 60.0


class _Link:
    """One connection through the proxy, both ways."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, *, is_stranded: bool) -> None:
        self.is_stranded = is_stranded
        self._writers = (near, far)

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


class Proxy:
    """Carries bytes to one address, until a test spoils that."""

    def __init__(self, upstream: str, seed: int) -> None:
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._is_severed = False
        self._delay_s = 0.0
        self._spoilt: str | None = None
        self.address = ""
        self.accepted = 0
        """How many connections there have been."""
        self.spoilt = 0
        """How many chunks were spoilt."""

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve while the context lasts."""
        thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE_S)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Reset every connection."""
        self._do(self._cut)

    def strand(self) -> None:
        """Let every connection stay open and carry nothing any more; new ones work."""
        self._do(self._strand)

    def sever(self) -> None:
        """Do the same to new connections as well, until `mend`."""
        self._do(self._sever)

    def mend(self) -> None:
        """End `sever`; what was stranded stays so."""
        self._is_severed = False

    def hold(self) -> None:
        """Carry nothing until `release`: what is sent comes late, as after a partition."""
        self._do(self._flowing.clear)

    def release(self) -> None:
        """End `hold`."""
        self._do(self._flowing.set)

    def delay(self, seconds: float) -> None:
        """Hold each chunk for so long."""
        self._delay_s = seconds

    def truncate(self) -> None:
        """Carry half of the next chunk and reset its connection: a frame ends in its middle."""
        self._spoilt = "truncated"

    def garble(self) -> None:
        """Put noise in the place of the next chunk."""
        self._spoilt = "garbled"

    def _do(self, change: Callable[[], object]) -> None:
        """Change something in the proxy's own thread, and wait until it is so."""
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(PATIENCE_S)

    async def _start(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _stop(self) -> None:
        self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> None:
        for link in self._links:
            link.close()

    def _strand(self) -> None:
        for link in self._links:
            link.is_stranded = True

    def _sever(self) -> None:
        self._is_severed = True
        self._strand()

    def _take(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(near, near_out))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            far, far_out = await asyncio.open_connection(self._host, self._port)
        except OSError:
            near_out.transport.abort()  # the coordinator is away: the caller sees what it would see without us
            return
        self.accepted += 1
        link = _Link(near_out, far_out, is_stranded=self._is_severed)
        self._links.add(link)
        ways = (self._pump(link, near, far_out), self._pump(link, far, near_out))
        pumps = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            link.close()

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await asyncio.sleep(self._delay_s)
            await self._flowing.wait()
            if link.is_stranded:
                continue
            spoilt, self._spoilt = self._spoilt, None
            if spoilt is not None:
                self.spoilt += 1
                data = data[: len(data) // 2] if spoilt == "truncated" else self._random.randbytes(len(data))
            sink.write(data)
            await sink.drain()
            if spoilt == "truncated":
                return
