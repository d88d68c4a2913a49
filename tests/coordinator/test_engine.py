"""The engine's turns under pressure: a full inbox, facts that wait, and a commit that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator import engine as engines
from coordinator.core.errors import Conflict, NotLeader, ShuttingDown
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    AttemptFinished,
    HeartbeatReceived,
    JobsSubmitted,
    LeaseAdopted,
    LeaseEcho,
)
from coordinator.core.model import SECOND_US, AgentId, AttemptId, AttemptOutcome, Now, SessionId, Settings
from coordinator.core.step import PutJob, SendWelcome
from coordinator.engine import Engine
from coordinator.sessions import Session, Sessions
from coordinator.space import Space
from coordinator.store import Store
from coordinator.story import Story
from tests.core.lab import START_WALL_US, emulator, spec

PATIENCE_S = 60.0


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.mono_us = 0

    def __call__(self) -> Now:
        return Now(mono_us=self.mono_us, wall_us=START_WALL_US + self.mono_us)


class EngineLab:
    """An engine whose turns are made by hand or by its own loop."""

    def __init__(self, directory: Path) -> None:
        self.store = Store.open(f"sqlite:///{directory / 'qgjob.db'}")
        self.leads_no_more = LeadsNoMore()
        self.sessions = Sessions(self.leads_no_more)
        self.clock = Clock()
        self.engine = Engine(
            store=self.store,
            sessions=self.sessions,
            settings=Settings(),
            clock=self.clock,
            story=Story(),
            space=Space(directory, min_free=0),
            check_leadership=self.leads_no_more,
        )

    def submitted(self, key: str = "k") -> JobsSubmitted:
        return JobsSubmitted(org_id="qualgent", key=key, payload_sha256="p", specs=(spec(),))

    def connected(self, name: str = "lab") -> tuple[Session, AgentConnected]:
        session = self.sessions.open()
        return session, AgentConnected(
            session=session.id,
            agent=AgentId(name),
            boot_id="b",
            version="1",
            host="h",
            devices=(emulator("emulator-1", name),),
        )


@pytest.fixture
def lab(tmp_path: Path) -> Any:  # noqa: ANN401 - a fixture that yields
    lab = EngineLab(tmp_path)
    yield lab
    lab.store.close()


class LeadsNoMore:
    """Says once that this coordinator leads no more."""

    def __init__(self) -> None:
        self.is_so = False

    def __call__(self) -> None:
        if self.is_so:
            raise NotLeader("another leads")


def failing(_writes: Sequence[object]) -> None:
    raise OSError("the disk is gone")


async def test_all_who_wait_are_told_when_a_commit_fails(lab: EngineLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the turn, those in the inbox, and those for whom the inbox had no room yet."""
    monkeypatch.setattr(engines, "MAX_INBOX", 2)
    monkeypatch.setattr(engines, "MAX_EVENTS_PER_TURN", 1)
    monkeypatch.setattr(lab.store, "commit", failing)
    calls = [asyncio.create_task(lab.engine.submit(lab.submitted(str(number)))) for number in range(5)]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(OSError, match="the disk is gone"):
            await lab.engine.run()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ShuttingDown] * 5
    assert lab.store.load().jobs == ()


async def test_what_was_committed_is_told_to_nobody_once_the_leadership_is_over(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = lab.store.commit

    def commit_slowly(writes: Sequence[Any]) -> None:
        commit(writes)
        lab.leads_no_more.is_so = any(isinstance(write, PutJob) for write in writes)

    monkeypatch.setattr(lab.store, "commit", commit_slowly)
    session, hello = lab.connected()
    turning = asyncio.create_task(lab.engine.run())
    async with asyncio.timeout(PATIENCE_S):
        await lab.engine.submit(hello)
        assert isinstance(await session.next(), SendWelcome)
        with pytest.raises(ShuttingDown):
            await lab.engine.submit(lab.submitted())
        with pytest.raises(NotLeader):
            await turning
        with pytest.raises(NotLeader):
            await session.next()
    assert len(lab.store.load().leases) == 1


async def test_bug_of_our_own_commits_nothing_of_its_turn(lab: EngineLab, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = lab.engine.scheduler.handle

    def breaking(event: Any, now: Now) -> Any:  # noqa: ANN401 - any event
        step = handle(event, now)
        if event.key == "broken":
            raise KeyError("a bug after half of the work")
        return step

    monkeypatch.setattr(lab.engine.scheduler, "handle", breaking)
    calls = [asyncio.create_task(lab.engine.submit(lab.submitted(key))) for key in ("fine", "broken")]
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(KeyError):
            await lab.engine.run()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ShuttingDown] * 2
    assert lab.store.load().jobs == ()


async def running(lab: EngineLab, story: Callable[[], Any]) -> None:
    """Let the engine turn while a story is told."""
    turning = asyncio.create_task(lab.engine.run())
    async with asyncio.timeout(PATIENCE_S):
        await story()
        lab.engine.stop()
        await turning


async def until_it_ends(session: Session) -> None:
    while True:
        await session.next()


async def test_refused_fact_ends_the_session_that_brought_it(lab: EngineLab) -> None:
    async def story() -> None:
        owner, hello = lab.connected("owner")
        await lab.engine.submit(hello)
        second, hello = lab.connected("second")
        await lab.engine.post(replace(hello, agent=AgentId("owner"), boot_id="another"))
        with pytest.raises(Conflict, match="an agent named owner is connected"):
            await until_it_ends(second)
        await lab.engine.post(HeartbeatReceived(session=owner.id, sequence=1, leases=()))
        kinds = {type(await owner.next()).__name__ for _ in range(2)}
        assert kinds == {"SendWelcome", "SendHeartbeatAcknowledged"}

    await running(lab, story)


async def test_heartbeat_that_waits_in_the_inbox_saves_its_lease(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "MAX_EVENTS_PER_TURN", 1)

    async def story() -> None:
        session, hello = lab.connected()
        await lab.engine.submit(hello)
        await lab.engine.submit(lab.submitted())
        lease = next(iter(lab.engine.scheduler.ledger.fleet.leases.values()))
        echo = LeaseEcho(lease=lease.id, fence=lease.fence, revision=lease.revision)
        await lab.engine.submit(LeaseAdopted(session=session.id, echo=echo))
        for _ in range(29):
            lab.clock.mono_us += SECOND_US
            await lab.engine.submit(AgentDisconnected(session=SessionId(0)))
        await lab.engine.post(AgentDisconnected(session=SessionId(0)))
        await lab.engine.post(HeartbeatReceived(session=session.id, sequence=1, leases=(echo,)))
        lab.clock.mono_us += 2 * SECOND_US
        await lab.engine.submit(AgentDisconnected(session=SessionId(0)))
        assert lease.id in lab.engine.scheduler.ledger.fleet.leases

    await running(lab, story)


async def test_stopped_engine_refuses_what_comes_later(lab: EngineLab) -> None:
    await running(lab, lambda: lab.engine.submit(lab.submitted()))
    with pytest.raises(ShuttingDown):
        await lab.engine.submit(lab.submitted("later"))
    assert len(lab.store.load().jobs) == 1


async def test_lease_of_an_attempt_is_known_until_newer_ones_have_ended(
    lab: EngineLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "REMEMBERED_LEASES", 2)
    session, hello = lab.connected()
    running = asyncio.create_task(lab.engine.run())
    async with asyncio.timeout(PATIENCE_S):
        await lab.engine.submit(hello)
        leases = []
        for number in range(1, 4):
            await lab.engine.submit(lab.submitted(str(number)))
            lease = lab.engine.known_lease(AttemptId(number))
            assert lease is not None
            leases.append((lease.id, lease.fence))
            ended = AttemptFinished(
                session=session.id,
                lease=lease.id,
                fence=lease.fence,
                attempt=AttemptId(number),
                outcome=AttemptOutcome.PASSED,
            )
            await lab.engine.submit(ended)
        known = [lab.engine.known_lease(AttemptId(number)) for number in range(1, 5)]
        lab.engine.stop()
        await running
    assert [lease and (lease.id, lease.fence) for lease in known] == [None, *leases[1:], None]
