"""Carries the machine's facts up and the coordinator's commands down: one stream, one reader, one writer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import grpc
import structlog

from agent import wire
from agent.core.events import Event, Received, SessionLost, SessionOpened
from agent.core.step import Send
from qgjob import links
from qgjob.access import Access, MetadataChannel
from qgjob.errors import ClientError, connection_fault
from qgjob.v1 import agent_service_pb2, agent_service_pb2_grpc

OUTBOX_LIMIT = 4_096
REFUSALS = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,  # of another release
    }
)
"""What stays so until a human has mended something."""

OPTIONS: Sequence[tuple[str, Any]] = (
    *links.CHANNEL,
    ("grpc.max_receive_message_length", 4 * 1_024 * 1_024),
    ("grpc.max_send_message_length", 4 * 1_024 * 1_024),
)

Call = grpc.aio.StreamStreamCall[agent_service_pb2.ConnectRequest, agent_service_pb2.ConnectResponse]


def open_channel(address: str, access: Access) -> grpc.aio.Channel:
    """Return a channel to a coordinator that sees a lost link and reconnects by itself."""
    credentials = access.credentials()
    if credentials is None:
        channel = grpc.aio.insecure_channel(address, options=OPTIONS)
    else:
        channel = grpc.aio.secure_channel(address, credentials, options=OPTIONS)
    return cast("grpc.aio.Channel", MetadataChannel(channel, access.metadata)) if access.has_token else channel


class Session:
    """One try to talk to the coordinator, from its opening to its loss."""

    def __init__(
        self, number: int, channel: grpc.aio.Channel, post: Callable[[Event], None], jitter: Callable[[], int]
    ) -> None:
        self._number = number
        self._channel = channel
        self._post = post
        self._jitter = jitter
        self._outbox: asyncio.Queue[Send] = asyncio.Queue(OUTBOX_LIMIT)
        self._reason = "the coordinator ended the session"
        self._is_refused = False
        self._task = asyncio.create_task(self._run())
        self._is_quiet = False

    def put(self, send: Send) -> None:
        """Queue a fact; an overflowing outbox ends the session, and Hello repeats what matters."""
        try:
            self._outbox.put_nowait(send)
        except asyncio.QueueFull:
            self.close("the coordinator does not read")

    def close(self, reason: str) -> None:
        """Give the session up."""
        self._reason = reason
        self._task.cancel()

    async def finish(self, timeout_s: float) -> None:
        """Send what waits, and end the stream."""
        self._is_quiet = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._outbox.join()
            # The coordinator ends the stream when it has read the goodbye; a cancel could overtake it.
            await asyncio.wait((self._task,), timeout=timeout_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            call: Call = agent_service_pb2_grpc.AgentServiceStub(self._channel).Connect()
        except ClientError as error:  # the token, which is read for each call
            self._lost(str(error), is_refused=True)
            return
        try:
            await self._converse(call)
        except asyncio.CancelledError:
            if not self._is_quiet:
                self._lost(self._reason)
            raise
        except grpc.aio.AioRpcError as error:
            self._end(error.code(), error.details() or "")
            self._lost(self._reason, is_refused=self._is_refused)
        except Exception as error:  # noqa: BLE001 - the top of a task: a session that dies unheard never comes back
            structlog.get_logger("agent").exception("session_broken")
            self._lost(f"an error of the agent's own: {error}")
        else:
            if not self._is_quiet:
                self._lost(self._reason, is_refused=self._is_refused)
        finally:
            call.cancel()

    def _lost(self, reason: str, *, is_refused: bool = False) -> None:
        self._post(SessionLost(session=self._number, reason=reason, jitter=self._jitter(), is_refused=is_refused))

    async def _converse(self, call: Call) -> None:
        await call.wait_for_connection()
        self._post(SessionOpened(session=self._number))
        reader = asyncio.create_task(self._read(call))
        writer = asyncio.create_task(self._write(call))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
            await reader
        finally:
            for task in (reader, writer):
                task.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)

    async def _read(self, call: Call) -> None:
        while True:
            message = await call.read()
            if not isinstance(message, agent_service_pb2.ConnectResponse):
                return await self._raise_status(call)
            command = wire.command(message)
            if command is not None:
                self._post(Received(session=self._number, command=command))

    async def _write(self, call: Call) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):  # the stream has ended; its reader says why
            while True:
                send = await self._outbox.get()
                await call.write(wire.fact(send))
                self._outbox.task_done()

    async def _raise_status(self, call: Call) -> None:
        """EOF says nothing; the status says why."""
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            self._end(code, await call.details() or "")

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        fault = connection_fault("the coordinator", details)
        self._reason = f"{code.name}: {details}" if fault is None else f"{fault}; {fault.hint}"
        self._is_refused = code in REFUSALS
