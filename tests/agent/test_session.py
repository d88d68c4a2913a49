"""One try to talk to the coordinator: every end of it is told, whatever its cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import grpc
import pytest

from agent.core.events import Event, Received, SessionLost, SessionOpened
from agent.core.model import DeviceFacts, DeviceId, DeviceKind
from agent.core.step import Goodbye, Heartbeat, ReportDevices
from agent.session import Session, open_channel
from qgjob.access import Access
from qgjob.v1 import agent_service_pb2, agent_service_pb2_grpc

Request = agent_service_pb2.ConnectRequest
Response = agent_service_pb2.ConnectResponse
Context = grpc.aio.ServicerContext[Request, Response]


class Coordinator(agent_service_pb2_grpc.AgentServiceServicer):
    """Does with a session what a test wants."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.talk: Callable[[Context], Awaitable[None]] = self.listen
        self.port = 0

    async def Connect(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]  # it reads and writes through the context
        await self.talk(context)

    async def ListAgents(self, request: object, context: object) -> agent_service_pb2.ListAgentsResponse:
        raise NotImplementedError

    async def DrainAgent(self, request: object, context: object) -> agent_service_pb2.DrainAgentResponse:
        raise NotImplementedError

    async def ResumeAgent(self, request: object, context: object) -> agent_service_pb2.ResumeAgentResponse:
        raise NotImplementedError

    async def ForgetAgent(self, request: object, context: object) -> agent_service_pb2.ForgetAgentResponse:
        raise NotImplementedError

    async def listen(self, context: Context) -> None:
        while isinstance(request := cast("object", await context.read()), Request):
            self.heard.append(str(request.WhichOneof("event")))
            if self.heard[-1] == "goodbye":
                return


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    servicer = Coordinator()
    server = grpc.aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server)
    servicer.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer
    await server.stop(None)


class Line:
    """A session, and the facts that it posts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.session = Session(7, channel, self.events.put_nowait, lambda: 9)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.events.get(), 60)


@pytest.fixture
async def line(coordinator: Coordinator) -> AsyncIterator[Line]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        line = Line(channel)
        assert await line.next() == SessionOpened(session=7)
        yield line
        await line.session.finish(0)


async def test_commands_come_in_as_facts_of_this_session(coordinator: Coordinator) -> None:
    async def welcome(context: Context) -> None:
        await context.write(Response(welcome=agent_service_pb2.Welcome(cluster_id="c", epoch=3)))
        await coordinator.listen(context)

    coordinator.talk = welcome
    async with grpc.aio.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        line = Line(channel)
        await line.next()
        received = await line.next()
        assert isinstance(received, Received)
        assert received.session == 7
        await line.session.finish(0)


async def test_refusal_is_told_with_the_coordinators_words(coordinator: Coordinator) -> None:
    async def refuse(context: Context) -> None:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "an agent of this name is connected")

    coordinator.talk = refuse
    async with grpc.aio.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        line = Line(channel)
        lost = await line.next()
        while isinstance(lost, SessionOpened):
            lost = await line.next()
    assert lost == SessionLost(session=7, reason="ALREADY_EXISTS: an agent of this name is connected", jitter=9)


@pytest.mark.parametrize(
    ("code", "is_refused"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.PERMISSION_DENIED, True),
        (grpc.StatusCode.FAILED_PRECONDITION, True),
        (grpc.StatusCode.UNAVAILABLE, False),
    ],
)
async def test_only_what_a_human_must_mend_counts_as_a_refusal(
    coordinator: Coordinator, code: grpc.StatusCode, is_refused: bool
) -> None:
    async def refuse(context: Context) -> None:
        await context.abort(code, "no")

    coordinator.talk = refuse
    async with grpc.aio.insecure_channel(f"127.0.0.1:{coordinator.port}") as channel:
        line = Line(channel)
        lost = await line.next()
        while isinstance(lost, SessionOpened):
            lost = await line.next()
    assert isinstance(lost, SessionLost)
    assert lost.is_refused is is_refused


async def test_coordinator_that_is_not_there_is_told() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        lost = await Line(channel).next()
    assert isinstance(lost, SessionLost)
    assert lost.reason.startswith("UNAVAILABLE")


async def test_fact_that_cannot_be_sent_ends_the_session_instead_of_silencing_it(line: Line) -> None:
    half = DeviceFacts(id=DeviceId("half \ud83d"), kind=DeviceKind.DEVICE)
    line.session.put(ReportDevices(devices=(half,)))
    lost = await line.next()
    assert isinstance(lost, SessionLost)
    assert "an error of the agent's own" in lost.reason


async def test_closed_session_is_told_once(line: Line) -> None:
    line.session.close("the coordinator is silent")
    assert await line.next() == SessionLost(session=7, reason="the coordinator is silent", jitter=9)
    line.session.close("again")
    await line.session.finish(0)
    assert line.events.empty()


async def test_finish_sends_what_waits_and_loses_no_word_about_it(coordinator: Coordinator, line: Line) -> None:
    line.session.put(Heartbeat(sequence=1, leases=()))
    line.session.put(Goodbye(reason="done"))
    await line.session.finish(10)
    assert coordinator.heard == ["heartbeat", "goodbye"]
    assert line.events.empty()


async def test_token_that_cannot_be_read_loses_the_session_and_a_mended_one_opens_the_next(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    channel = open_channel(f"127.0.0.1:{coordinator.port}", Access(token_file=str(file)))
    lost = await Line(channel).next()
    assert isinstance(lost, SessionLost)
    assert lost.reason == f"cannot read {file}: No such file or directory"
    file.write_text("agent-token-0123456789")
    line = Line(channel)
    assert await line.next() == SessionOpened(session=7)
    await line.session.finish(0)
    await channel.close()


async def test_session_that_was_given_up_can_be_finished(line: Line) -> None:
    line.session.close("the coordinator is silent")
    await line.next()
    await line.session.finish(10)


@pytest.mark.parametrize("turns", range(1, 9))
async def test_finish_that_is_given_up_while_the_session_ends_is_given_up(line: Line, turns: int) -> None:
    finishing = asyncio.create_task(line.session.finish(0))
    for _ in range(turns):
        await asyncio.sleep(0)
    was_over = finishing.done()
    finishing.cancel()
    await asyncio.wait((finishing,))
    assert was_over or finishing.cancelled()
