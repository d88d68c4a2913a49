"""AgentService: the agents' sessions, and the list of agents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, cast

import grpc

from coordinator import wire
from coordinator.core.errors import InvalidRequest, NotFound, VersionUnsupported
from coordinator.core.events import AgentDisconnected, AgentDrainRequested, AgentForgetRequested
from coordinator.core.model import AgentId
from coordinator.core.releases import misfit
from coordinator.core.step import Send, SendWelcome
from coordinator.engine import Engine
from coordinator.sessions import Session, Sessions
from qgjob.v1 import agent_pb2, agent_service_pb2, agent_service_pb2_grpc

HELLO_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 1.0

ConnectContext = grpc.aio.ServicerContext[agent_service_pb2.ConnectRequest, agent_service_pb2.ConnectResponse]


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """One reader and one writer for each agent's stream."""

    def __init__(self, engine: Engine, sessions: Sessions, cluster_id: str, version: str) -> None:
        self._engine = engine
        self._sessions = sessions
        self._cluster_id = cluster_id
        self._version = version
        self._farewells: set[asyncio.Task[None]] = set()

    async def Connect(self, request_iterator: object, context: ConnectContext) -> None:  # type: ignore[override]  # it reads and writes through the context
        """Hold an agent's session until one side ends it."""
        hello = await self._read_hello(context)
        session = self._sessions.open()
        is_goodbye = False
        try:
            await self._engine.submit(wire.agent_connected(session.id, hello, self._cluster_id))
            is_goodbye = await self._converse(session, context)
        finally:
            self._sessions.forget(session)
            self._say_farewell(session, is_goodbye)

    async def _read_hello(self, context: ConnectContext) -> agent_service_pb2.Hello:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await _next(context)
        except TimeoutError as error:
            raise InvalidRequest("hello", "no Hello came in time") from error
        if first is None or first.WhichOneof("event") != "hello":
            raise InvalidRequest("hello", "the first message of a session must be Hello")
        if first.hello.protocol != wire.PROTOCOL:
            raise VersionUnsupported(
                f"agent {first.hello.version} speaks protocol {first.hello.protocol}, this coordinator"
                f" {self._version} speaks {wire.PROTOCOL}; install the same release on both",
                accepted=wire.PROTOCOL,
            )
        reason = misfit(self._version, first.hello.version)
        if reason is not None:
            raise VersionUnsupported(reason, accepted=self._version)
        return first.hello

    async def _converse(self, session: Session, context: ConnectContext) -> bool:
        """Read and write until one of the two ends. Returns whether the agent said goodbye."""
        out = _Writer(session, context, self._message)
        reader = asyncio.create_task(self._read(session, context))
        writer = asyncio.create_task(out.run())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                return reader.result()
            await writer
            return False
        finally:
            await _ended(reader)
            try:
                await out.finish_write(writer)
            finally:
                await _ended(writer)

    async def _read(self, session: Session, context: ConnectContext) -> bool:
        while (message := await _next(context)) is not None:
            if message.WhichOneof("event") == "goodbye":
                return True
            await self._engine.post(wire.agent_event(session.id, message))
        return False

    def _message(self, send: Send) -> agent_service_pb2.ConnectResponse:
        if isinstance(send, SendWelcome):
            return wire.welcome(self._cluster_id, self._engine.epoch, self._engine.settings, self._version)
        return wire.command(send)

    def _say_farewell(self, session: Session, is_goodbye: bool) -> None:
        """Tell the engine that a session has ended, in a task that outlives a cancelled call."""
        event = AgentDisconnected(session=session.id, is_goodbye=is_goodbye)

        async def tell() -> None:
            with contextlib.suppress(Exception):
                await self._engine.post(event)

        task = asyncio.get_running_loop().create_task(tell())
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    async def ListAgents(
        self, request: agent_service_pb2.ListAgentsRequest, context: object = None
    ) -> agent_service_pb2.ListAgentsResponse:
        """Return a page of agents by name."""
        size = wire.page_size(request.page_size, wire.MAX_PAGE)
        agents = self._engine.scheduler.ledger.fleet.agents
        ids = [agent_id for agent_id in sorted(agents) if agent_id > request.page_token]
        token = ids[size - 1] if len(ids) > size else ""
        return agent_service_pb2.ListAgentsResponse(
            agents=[self._agent_out(agent_id) for agent_id in ids[:size]], next_page_token=token
        )

    async def DrainAgent(
        self, request: agent_service_pb2.DrainAgentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> agent_service_pb2.DrainAgentResponse:
        """Keep new work off all devices of an agent."""
        agent_id = AgentId(request.agent_id)
        await self._engine.submit(
            AgentDrainRequested(agent=agent_id, is_draining=True, is_interrupting=request.interrupt)
        )
        return agent_service_pb2.DrainAgentResponse(agent=self._agent_out(agent_id))

    async def ResumeAgent(
        self, request: agent_service_pb2.ResumeAgentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> agent_service_pb2.ResumeAgentResponse:
        """Let a drained agent work again."""
        agent_id = AgentId(request.agent_id)
        await self._engine.submit(AgentDrainRequested(agent=agent_id, is_draining=False))
        return agent_service_pb2.ResumeAgentResponse(agent=self._agent_out(agent_id))

    async def ForgetAgent(
        self, request: agent_service_pb2.ForgetAgentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> agent_service_pb2.ForgetAgentResponse:
        """Forget an agent that will not come back, and its devices."""
        agent_id = AgentId(request.agent_id)
        if agent_id not in self._engine.scheduler.ledger.fleet.agents:
            raise NotFound("agent", agent_id)
        last = self._agent_out(agent_id)
        await self._engine.submit(AgentForgetRequested(agent=agent_id))
        return agent_service_pb2.ForgetAgentResponse(agent=last)

    def _agent_out(self, agent_id: AgentId) -> agent_pb2.Agent:
        ledger = self._engine.scheduler.ledger
        return wire.agent_out(
            ledger.fleet.agents[agent_id],
            devices=len(ledger.fleet.devices_of(agent_id)),
            leases=len(ledger.fleet.leases_of(agent_id)),
            conflicts=ledger.contests.of_agent(agent_id),
        )


async def _next(context: ConnectContext) -> agent_service_pb2.ConnectRequest | None:
    """Return the next message, None at the end of the stream (for which the stubs know no type)."""
    message = cast("object", await context.read())
    return message if isinstance(message, agent_service_pb2.ConnectRequest) else None


class _Writer:
    """Writes what an agent is sent.

    gRPC takes no status while a write is under way, and the agent would never hear how its session ended: so the last
    write is waited for. To guard each by a task of its own would cost more than the write.
    """

    def __init__(
        self,
        session: Session,
        context: ConnectContext,
        message: Callable[[Send], agent_service_pb2.ConnectResponse],
    ) -> None:
        self._session = session
        self._context = context
        self._message = message
        self._is_writing = False
        self._is_ending = False

    async def run(self) -> None:
        """Write until this side ends the session, which raises why."""
        while not self._is_ending:
            send = await self._session.next()
            self._is_writing = True
            await self._context.write(self._message(send))
            self._is_writing = False

    async def finish_write(self, running: asyncio.Task[None]) -> None:
        """Write nothing more; wait for the write that is under way, but no longer than a moment."""
        self._is_ending = True
        if self._is_writing:
            await asyncio.wait((running,), timeout=WRITE_TIMEOUT_S)


async def _ended(task: asyncio.Task[Any]) -> None:
    """End a task, whatever came of it: how the session ended is known by now."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
