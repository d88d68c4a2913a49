"""Streams between hosts and coordinators, as gRPC gives them, and worse.

A stream is in order and loses nothing: what is held up comes late, or the stream breaks, and each side notices that in
its own time. In raw weather single messages vanish, are doubled and overtake each other all the same, because the
protocol promises to bear it. Only what opens a session and the list of devices are spared: nothing repeats them, so
they do rest on the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tests.sim.plan import Direction, Weather
from tests.sim.world import SECOND_US, Process, World

KEEPALIVE_US = (8 * SECOND_US, 17 * SECOND_US)
"""After which time a silent peer counts as gone: 8 s until the ping, 8 s for its answer, less where one is due."""
CONNECT_TIMEOUT_US = (2 * SECOND_US, 8 * SECOND_US)
RESET_US = 20_000
LATE_US = 3 * SECOND_US


class End(Protocol):
    """What sits at one end of a stream."""

    def received(self, stream: Stream, message: object) -> None: ...

    def broken(self, stream: Stream) -> None: ...


class Side:
    """One end of a stream, and the process behind it."""

    def __init__(self, process: Process, end: End) -> None:
        self.process = process
        self.end = end
        self.is_open = True
        self.last_us = 0
        """When the last message arrives here that is on its way."""


class Stream:
    """Two ends, one at a host and one at a coordinator."""

    def __init__(self, network: Network, host: str, client: Side, server: Side) -> None:
        self.host = host
        self.client = client
        self.server = server
        self._network = network

    def send_up(self, message: object, *, is_spared: bool = False) -> None:
        self._network.send(self, Direction.UP, message, is_spared)

    def send_down(self, message: object, *, is_spared: bool = False) -> None:
        self._network.send(self, Direction.DOWN, message, is_spared)

    def to(self, direction: Direction) -> Side:
        return self.server if direction is Direction.UP else self.client

    def close(self, side: Side) -> None:
        """End the stream from one side: the other sees it when word gets through, or when its keepalive gives up."""
        if not side.is_open:
            return
        side.is_open = False
        other = Direction.DOWN if side is self.server else Direction.UP
        self._network.tell_broken(self, other)

    def notice_break(self, side: Side) -> None:
        """Let one side find out that the stream is gone; its host then tells the other."""
        if side.is_open:
            self.close(side)
            side.process.hear(side.end.broken, self)


class Network:
    """All links. A link is down in a direction until the time that `cut` has set."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self._cut_until: dict[tuple[str, Direction], int] = {}
        self._streams: dict[Stream, None] = {}

    def be_calm(self) -> None:
        """Let messages arrive from now on."""
        self._weather = Weather()

    # Streams

    def connect(self, host: str, client: Side, server: Side | None, opened: Callable[[Stream], None]) -> None:
        """Open a stream to a coordinator that listens; without one, or through a cut, the attempt fails in time."""
        if server is None:
            client.process.later(RESET_US, self._refuse, client)
        elif self._blocked_until(host, Direction.BOTH) > self._world.now_us or server.process.is_frozen:
            client.process.later(self._world.between(*CONNECT_TIMEOUT_US), self._refuse, client)
        else:
            stream = Stream(self, host, client, server)
            self._streams[stream] = None
            client.process.later(2 * self._delay_us(), self._open, stream, opened)

    def _refuse(self, client: Side) -> None:
        if client.is_open:
            client.is_open = False
            client.end.broken(Stream(self, "", client, client))

    def _open(self, stream: Stream, opened: Callable[[Stream], None]) -> None:
        if not stream.server.process.is_alive:
            stream.notice_break(stream.client)
        elif stream.client.is_open:
            opened(stream)

    def send(self, stream: Stream, direction: Direction, message: object, is_spared: bool) -> None:
        is_up = direction is Direction.UP
        sender, side = (stream.client, stream.server) if is_up else (stream.server, stream.client)
        if not sender.is_open:
            return
        world = self._world
        leaves_us = world.now_us
        if self._cut_until:
            leaves_us = max(leaves_us, self._cut_until.get((stream.host, direction), 0))
        is_ordered = is_spared or not self._weather.is_raw
        for _ in range(1 if is_ordered else self._copies()):
            arrival_us = leaves_us + self._delay_us()
            if arrival_us >= side.last_us:
                side.last_us = arrival_us
            elif is_ordered:
                arrival_us = side.last_us
            world.plan(arrival_us, None, self._deliver, (stream, side, message))

    def _deliver(self, stream: Stream, side: Side, message: object) -> None:
        if not side.is_open:
            return
        if side.process.is_awake:
            side.end.received(stream, message)
        else:
            side.process.hear(self._hand_over, stream, side, message)

    def _hand_over(self, stream: Stream, side: Side, message: object) -> None:
        if side.is_open:
            side.end.received(stream, message)

    def _copies(self) -> int:
        """Return how often a message arrives in raw weather."""
        if self._world.chance(self._weather.lost):
            return 0
        return 2 if self._world.chance(self._weather.doubled) else 1

    def _delay_us(self) -> int:
        delay_us = self._world.between(500, self._weather.longest_delay_us)
        return delay_us + LATE_US if self._weather.late and self._world.chance(self._weather.late) else delay_us

    # Faults

    def cut(self, host: str, direction: Direction, for_us: int) -> None:
        """Let nothing through for a while; both ends of a stream notice by their keepalive if it lasts."""
        end_us = self._world.now_us + for_us
        ways = (Direction.UP, Direction.DOWN) if direction is Direction.BOTH else (direction,)
        for way in ways:
            self._cut_until[host, way] = max(end_us, self._cut_until.get((host, way), 0))
        for stream in self._open_streams():
            if stream.host == host:
                self._give_up_after(stream, stream.client, for_us)
                self._give_up_after(stream, stream.server, for_us)

    def miss(self, process: Process, for_us: int) -> None:
        """Let the peers of a process that freezes notice by their keepalive if it lasts."""
        for stream in self._open_streams():
            if stream.server.process is process:
                self._give_up_after(stream, stream.client, for_us)
            elif stream.client.process is process:
                self._give_up_after(stream, stream.server, for_us)

    def _give_up_after(self, stream: Stream, side: Side, for_us: int) -> None:
        patience_us = self._world.between(*KEEPALIVE_US)
        if patience_us < for_us:
            self._world.after(patience_us, stream.notice_break, side)

    def forget(self, process: Process) -> None:
        """Break the streams of a process that has died."""
        for stream in self._open_streams():
            for side in (stream.client, stream.server):
                if side.process is process:
                    stream.close(side)

    def break_all(self) -> None:
        for stream in self._open_streams():
            for side in (stream.client, stream.server):
                self._world.after(self._world.between(0, RESET_US), stream.notice_break, side)

    def tell_broken(self, stream: Stream, direction: Direction) -> None:
        """Carry the news that the far side of a stream has ended."""
        blocked_us = self._blocked_until(stream.host, direction) - self._world.now_us
        side = stream.to(direction)
        delay_us = self._delay_us()
        if blocked_us > 0:
            delay_us = min(blocked_us + delay_us, self._world.between(*KEEPALIVE_US))
        arrival_us = max(self._world.now_us + delay_us, side.last_us if blocked_us <= 0 else 0)
        self._world.at(arrival_us, stream.notice_break, side)

    def _open_streams(self) -> list[Stream]:
        for stream in list(self._streams):
            if not (stream.client.is_open or stream.server.is_open):
                del self._streams[stream]
        return list(self._streams)

    def _blocked_until(self, host: str, direction: Direction) -> int:
        if direction is Direction.BOTH:
            return max(self._blocked_until(host, Direction.UP), self._blocked_until(host, Direction.DOWN))
        return self._cut_until.get((host, direction), 0)
