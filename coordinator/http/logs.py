"""A job's log over HTTP: as text, or as server-sent events that can be resumed.

Events of a log: lines without a name, whose id is where the next ones begin; `attempt`, when a try's log begins or is
closed; `end`, after which nothing comes. Whoever shows the id `end` again gets 204, at which browsers stop asking.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from coordinator.core.errors import InvalidRequest
from coordinator.services.log import LogService
from qgjob.resources import word
from qgjob.stamps import Stamper
from qgjob.v1 import job_pb2, log_pb2, log_service_pb2

PING_INTERVAL_S = 15.0
"""Between two comments that keep proxies from taking a quiet log for a dead connection."""
LONGEST_LINE_BYTES = 64 * 1_024
"""A line that is longer comes in several events."""
END_ID = "end"
STREAM = "HTTP logs"
"""What these streams are counted as."""

_ID = re.compile(r"([1-9]\d{0,8}):(\d{1,18})")
_LINE_END = re.compile("\r\n|\r|\n")

SendBody = Callable[[bytes], Awaitable[None]]
Message = log_service_pb2.FollowLogsResponse


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a job's log to go on."""

    attempt: int = 0
    offset: int = 0

    @classmethod
    def parse(cls, event_id: str) -> Place:
        """Return the place that the id of an event names.

        Raises:
            InvalidRequest: It is not an id of ours.
        """
        match = _ID.fullmatch(event_id)
        if match is None:
            raise InvalidRequest("Last-Event-ID", "Last-Event-ID is not one that this service gave out")
        return cls(int(match.group(1)), int(match.group(2)))


def _stamped(stamper: Stamper | None, offset: int, data: bytes, marks: Sequence[log_pb2.LogMark]) -> bytes:
    """Return bytes as they are, or with the times of their lines."""
    if stamper is None:
        return data
    return stamper.feed(offset, data, ((mark.offset, mark.time.ToDatetime(UTC)) for mark in marks))


class Text:
    """A log byte for byte; with a stamper, the time before each line."""

    media_type = "text/plain; charset=utf-8"
    ping = b""

    def __init__(self, send: SendBody, stamper: Stamper | None = None) -> None:
        """Take what sends bytes, and what stamps lines, if anything does."""
        self._send = send
        self._stamper = stamper

    async def write(self, message: Message) -> None:
        """Send what a message of the follower holds."""
        chunk = message.chunk
        if message.WhichOneof("piece") == "chunk":
            await self._send(_stamped(self._stamper, chunk.offset, chunk.data, chunk.marks))
        elif self._stamper is not None:
            self._stamper.begin()

    async def end(self) -> None:
        """Say nothing: the body ends."""


class Events:
    """A log as server-sent events of whole lines."""

    media_type = "text/event-stream; charset=utf-8"
    ping = b": still here\n\n"

    def __init__(self, send: SendBody, place: Place, stamper: Stamper | None = None) -> None:
        """Take what sends bytes, where the reader goes on, and what stamps lines, if anything does."""
        self._send = send
        self._stamper = stamper
        self._place = place
        self._attempt = 0
        self._offset = 0
        """Where the unsent bytes begin."""
        self._unsent = b""
        self._marks: list[log_pb2.LogMark] = []
        """Of bytes that were not sent, and those that follow."""

    async def write(self, message: Message) -> None:
        """Send what a message of the follower holds, as far as its lines are whole."""
        if message.WhichOneof("piece") == "chunk":
            self._marks += message.chunk.marks
            await self._write_lines(message.chunk.offset, message.chunk.data)
        else:
            await self._write_state(message.cut.attempt_number, message.cut.state)

    async def _write_lines(self, offset: int, data: bytes) -> None:
        if not self._unsent:
            self._offset = offset
        self._unsent += data
        size = self._unsent.rfind(b"\n") + 1
        if not size and len(self._unsent) >= LONGEST_LINE_BYTES:
            size = _end_of_character(self._unsent)
        await self._send_lines(size)

    async def _send_lines(self, size: int) -> None:
        if not size:
            return
        lines, self._unsent = self._unsent[:size], self._unsent[size:]
        lines = _stamped(self._stamper, self._offset, lines, self._marks)
        self._marks.clear()
        self._offset += size
        await self._send(event(lines.decode(errors="replace"), event_id=f"{self._attempt}:{self._offset}"))

    async def _write_state(self, attempt: int, state: int) -> None:
        await self._send_lines(len(self._unsent))
        if self._stamper is not None:
            self._stamper.begin()
        if state == job_pb2.LOG_STATE_OPEN:
            self._attempt = attempt
            if self._place.attempt == attempt and self._place.offset:
                return  # told before the connection broke
            event_id = f"{attempt}:0"
        else:
            event_id = f"{attempt + 1}:0"
        told = json.dumps({"attempt": attempt, "log": word(job_pb2.LogState, state)})
        await self._send(event(told, event_id=event_id, name="attempt"))

    async def end(self) -> None:
        """Tell that nothing more comes."""
        await self._send(event("{}", event_id=END_ID, name="end"))


def event(text: str, *, event_id: str, name: str = "") -> bytes:
    """Return a server-sent event. What ends a line in it, if only a carriage return, is a line's end to its reader."""
    lines = _LINE_END.split(text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    head = f"event: {name}\n" if name else ""
    data = "".join(f"data: {line}\n" for line in lines)
    return f"{head}id: {event_id}\n{data}\n".encode()


def _end_of_character(data: bytes) -> int:
    """Return the size of the longest part that ends with a whole character of UTF-8, or all of what is none."""
    for back in range(1, 4):
        first = data[-back]
        if first & 0xC0 == 0xC0:
            return len(data) - back
        if first & 0x80 == 0:
            break
    return len(data)


class LogResponse(Response):
    """Follows a log for one reader, who pulls: it is read no faster than it is taken."""

    def __init__(
        self,
        logs: LogService,
        request: log_service_pb2.FollowLogsRequest,
        *,
        place: Place | None,
        streams: Counter[str],
        stopping: asyncio.Event,
    ) -> None:
        """Prepare to follow.

        Args:
            logs: What is followed.
            request: What of it.
            place: Where the events go on; None for text.
            streams: Counts who reads.
            stopping: Set when the coordinator stops; readers are cut off then, and come back.
        """
        super().__init__()
        self._logs = logs
        self._request = request
        self._place = place
        self._streams = streams
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the log until it ends, its reader goes, or the coordinator stops."""

        async def send_body(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        stamper = Stamper() if self._request.timestamps else None
        form = Text(send_body, stamper) if self._place is None else Events(send_body, self._place, stamper)
        begun = asyncio.Event()
        following = asyncio.create_task(self._follow(form, send, begun))
        others = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._stopping.wait())]
        pinging = asyncio.create_task(_ping(send_body, form.ping, begun)) if form.ping else None
        self._streams[STREAM] += 1
        try:
            await asyncio.wait((following, *others), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()
        finally:
            self._streams[STREAM] -= 1
            tasks = [task for task in (following, *others, pinging) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, form: Text | Events, send: Send, begun: asyncio.Event) -> None:
        async def begin() -> None:
            headers = [(b"content-type", form.media_type.encode()), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            begun.set()

        await self._logs.follow(self._request, form.write, begin)
        await form.end()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Return when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ping(send_body: SendBody, ping: bytes, begun: asyncio.Event) -> None:
    await begun.wait()  # a body before its head is refused, and nothing would be sent after it
    while True:
        await asyncio.sleep(PING_INTERVAL_S)
        await send_body(ping)
