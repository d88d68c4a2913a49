"""The event loop around the machine, with runners and disks that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from agent.app import App
from agent.artifacts import ArtifactSpool
from agent.blobs import BlobCache
from agent.config import Config
from agent.core.events import AttemptEnded, Command, DevicesObserved, Event, PrepareStopped, Received, TellConflicts
from agent.core.model import (
    AgentId,
    AttemptId,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Fence,
    Installation,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    LeaseSpec,
    LogSummary,
    Outcome,
)
from agent.core.step import Action, PrepareDevice, StartAttempt, Step, StopAttempt, StopPreparing
from agent.devices.bench import CANNOT_BE_ENDED, Bench
from agent.devices.lock import DeviceLock
from agent.journal import Claim, Journal
from agent.runners.simulated import SimulatedRunner
from agent.spool import LogWriter, Spool

PHONE = DeviceId("phone")
KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))
BUILD = Installation(digest="d", is_new=True, duration_us=1)
JOB = LeasedJob(
    attempt_id=AttemptId(1), job_id=JobId(1), attempt_number=1, test="a.spec.ts", timeout_us=60_000_000, env=()
)
LEASE = LeaseSpec(key=KEY, revision=1, device_id=PHONE, org_id="q", app_version_id="v", jobs=(JOB,))


class Desk(App):
    """An agent whose actions are begun by hand and whose facts are looked at."""

    async def begin(self, *actions: Action) -> None:
        await self._follow(Step(actions=actions))

    async def next(self, kind: type[Event]) -> Event:
        while not isinstance(event := await asyncio.wait_for(self._inbox.get(), 60), kind):
            pass
        return event

    def hear(self, command: Command) -> None:
        self._tell(Received(session=1, command=command))

    async def ended(self) -> AttemptEnded:
        event = await self.next(AttemptEnded)
        assert isinstance(event, AttemptEnded)
        return event


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    blobs = BlobCache(tmp_path / "builds", ".apk", 1_000)

    def make(facts: DeviceFacts, _slot: int, _claim: Claim) -> SimulatedRunner:
        return SimulatedRunner(
            facts.id, blobs=blobs, install_s=60, test_s=60, truth=tmp_path / "truth", left_behind=tmp_path / "left"
        )

    config = Config(
        coordinators=("127.0.0.1:1",),
        name=AgentId("lab"),
        state_dir=tmp_path,
        simulate=(),
        sim_install_s=0,
        sim_test_s=0,
        drain_grace_s=0,
    )
    bench = Bench(make, lambda facts: facts.id, Journal(tmp_path / "processes"))
    await bench.claimed(DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR))
    with contextlib.closing(Spool(tmp_path)) as spool:
        yield Desk(config, "0", spool, bench, [], [blobs], ArtifactSpool(tmp_path / "artifacts"))
        await bench.close()


START = StartAttempt(device_id=PHONE, key=KEY, job=JOB, installation=BUILD)
STOP = StopAttempt(device_id=PHONE, key=KEY, attempt_id=JOB.attempt_id, grace_us=0)


async def begun(desk: Desk) -> None:
    """Let a lease begin, for the batch's story."""
    await desk.begin(PrepareDevice(lease=LEASE), StopPreparing(device_id=PHONE, key=KEY))
    await desk.next(PrepareStopped)


async def test_install_that_is_stopped_at_once_is_stopped(desk: Desk) -> None:
    await begun(desk)


async def test_stop_in_the_same_breath_as_the_start_is_not_lost(desk: Desk) -> None:
    await begun(desk)
    await desk.begin(START, STOP)
    assert (await desk.ended()).outcome is None


async def test_stop_that_comes_too_late_does_not_touch_the_next_run(desk: Desk) -> None:
    await begun(desk)
    await desk.begin(START, STOP)
    await desk.ended()
    await desk.begin(STOP, START)
    await asyncio.sleep(0)
    assert not desk._stops[PHONE].is_asked
    await desk.begin(STOP)
    await desk.ended()


async def test_disk_that_takes_no_log_ends_the_attempt_instead_of_holding_the_device(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_attempt: AttemptId, _key: LeaseKey) -> None:
        raise OSError(28, "No space left on device")

    await begun(desk)
    monkeypatch.setattr(desk._spool, "open_log", full)
    await desk.begin(START)
    ended = await desk.ended()
    assert ended.failure is not None
    assert (ended.outcome, ended.failure.reason, ended.log) == (Outcome.ERRORED, "AGENT_ERROR", LogSummary())
    assert "No space left" in ended.failure.message


async def test_log_whose_end_is_lost_is_told_with_the_hash_of_what_was_written(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_attempt: AttemptId, writer: LogWriter) -> LogSummary:
        writer.close()
        raise OSError(5, "Input/output error")

    await begun(desk)
    monkeypatch.setattr(desk._spool, "end_log", fail)
    await desk.begin(START, STOP)
    log = (await desk.ended()).log
    written = (tmp_path / "logs" / f"{JOB.attempt_id}.log").read_bytes()
    assert written
    assert log == LogSummary(size=len(written), sha256=hashlib.sha256(written).hexdigest())


async def test_devices_that_somebody_else_holds_are_asked_for_until_they_can_be_had(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.app.RECLAIM_S", 0.01)
    other = DeviceLock("other", tmp_path / f"qgjob-locks-{os.getuid()}")
    other.acquire()
    facts = DeviceFacts(id=DeviceId("other"), kind=DeviceKind.EMULATOR)
    offering = asyncio.create_task(desk._keep_offering())
    desk._devices_seen(0, (facts,))
    for _ in range(2):
        seen = await desk.next(DevicesObserved)
        assert isinstance(seen, DevicesObserved)
        assert not seen.devices[0].usable
    other.release()
    while await desk.next(DevicesObserved) != DevicesObserved(devices=(facts,)):
        pass
    offering.cancel()


async def test_device_is_out_of_use_before_the_end_is_told_of_a_run_that_left_something(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(desk)
    desk._observed[0] = (DeviceFacts(id=PHONE, kind=DeviceKind.EMULATOR),)
    monkeypatch.setattr(desk._bench._journal, "stays", lambda _device: True)
    monkeypatch.setattr(desk._bench._journal, "end_stays", lambda _device: False)
    await desk.begin(START, STOP)
    told: list[Event] = []
    while not told or not isinstance(told[-1], AttemptEnded):
        told.append(await asyncio.wait_for(desk._inbox.get(), 60))
    before = told[-2]
    assert isinstance(before, DevicesObserved)
    assert [(facts.usable, facts.reason) for facts in before.devices] == [(False, CANNOT_BE_ENDED)]


async def test_what_earlier_lives_left_is_ended_before_devices_are_looked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Watching:
        async def run(self, _observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
            order.append("looks for devices")
            desk.drain(0)

    monkeypatch.setattr(desk, "_discoveries", [Watching()])
    monkeypatch.setattr(desk._bench, "end_left", lambda: order.append("ends what is left"))
    await asyncio.wait_for(desk.run(), 60)
    assert order == ["ends what is left", "looks for devices"]


async def test_device_that_another_agent_has_is_told_once_and_so_is_the_end_of_that(desk: Desk) -> None:
    with capture_logs() as told:
        desk._out = structlog.get_logger("agent")
        for owner in ("lab-1", "lab-1", "lab-3"):
            desk.hear(TellConflicts(owners=((PHONE, owner),)))
        desk.hear(TellConflicts(owners=()))
    assert [(one["event"], one.get("owner")) for one in told] == [
        ("device_conflict", "lab-1"),
        ("device_conflict", "lab-3"),
        ("device_conflict_over", None),
    ]
    assert told[0]["story"].startswith("DEVICE_CONFLICT: agent lab-1 has phone;")
