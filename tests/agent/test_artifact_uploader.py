"""The uploader of artifacts against a real coordinator that goes away, is full, or does not want them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import artifact_uploader
from agent.artifact_uploader import ArtifactUploader
from agent.artifacts import ArtifactSpool, LeftBehind
from agent.core.model import AgentId, ArtifactKind, AttemptId, Fence, LeaseId, LeaseKey
from agent.session import open_channel
from coordinator.core.model import Settings
from qgjob.channel import NO_ACCESS
from qgjob.v1 import lease_pb2
from tests.rpc.grid import PATIENCE_S, Grid
from tests.rpc.test_artifacts import attempted, listed

BIG = os.urandom(3_000_000)


@dataclass
class Bench:
    """An attempt that has ended, what it left, and an uploader at work."""

    grid: Grid
    lease: lease_pb2.LeaseSpec
    spool: ArtifactSpool
    uploader: ArtifactUploader
    folder: Path

    def keep(self, *, fence_number: int | None = None, **files: bytes) -> None:
        key = self.lease.key
        number = key.fence.number if fence_number is None else fence_number
        left = []
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
            left.append(LeftBehind(path=self.folder / name, name=name, kind=ArtifactKind.OTHER))
        lease = LeaseKey(lease_id=LeaseId(key.lease_id), fence=Fence(epoch=key.fence.epoch, number=number))
        attempt = AttemptId(self.lease.jobs[0].attempt_id)
        assert self.spool.keep(attempt, lease, left, []) == []
        self.uploader.note()

    async def names(self) -> list[str]:
        await asyncio.wait_for(self.uploader.flushed(), PATIENCE_S)
        return [artifact.name for artifact in await listed(self.grid)]


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(artifact_uploader, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(artifact_uploader, "MAX_DELAY_S", 0.1)
    (tmp_path / "data").mkdir()
    grid = Grid(tmp_path / "data", Settings())
    await grid.start()
    lease = await attempted(grid)
    spool = ArtifactSpool(tmp_path / "spool")

    grid.listen = grid.address
    channel = open_channel(grid.address, NO_ACCESS)
    uploader = ArtifactUploader(spool, lambda: channel, AgentId("lab"))
    running = asyncio.create_task(uploader.run())
    yield Bench(grid, lease, spool, uploader, tmp_path)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await channel.close()
    await grid.stop()


async def test_what_was_kept_reaches_the_coordinator_and_leaves_the_disk(bench: Bench) -> None:
    bench.keep(a=b"one", b=BIG, c=b"one")
    assert await bench.names() == ["a", "b", "c"]
    assert list(bench.spool.parcels()) == []


async def test_upload_goes_on_after_the_coordinator_was_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    half_way, is_back = asyncio.Event(), asyncio.Event()
    messages = artifact_uploader._Reader.messages

    async def slow(
        self: artifact_uploader._Reader, offer: artifact_uploader.Offer, offset: int
    ) -> AsyncIterator[object]:
        async for message in messages(self, offer, offset):
            sent.append(message.chunk.offset)
            yield message
            if message.chunk.offset > len(BIG) // 2 and not half_way.is_set():
                half_way.set()
                await is_back.wait()

    monkeypatch.setattr(artifact_uploader._Reader, "messages", slow)
    bench.keep(a=BIG)
    await asyncio.wait_for(half_way.wait(), PATIENCE_S)
    await bench.grid.restart()
    is_back.set()
    assert await bench.names() == ["a"]
    early = [offset for offset in sent if 0 < offset <= len(BIG) // 4]
    assert len(early) <= len(BIG) // 4 // artifact_uploader.CHUNK_BYTES, "it began anew"


async def test_coordinator_without_room_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    space = bench.grid.server._space
    is_refused = asyncio.Event()

    def none_free(_path: Path) -> int:
        return 1_000_000

    with monkeypatch.context() as patch:
        patch.setattr(space, "_read_free", none_free)
        patch.setattr(space, "_look_interval_s", 0.0)
        put_off = bench.uploader._out.debug

        def note(event: str, **fields: object) -> None:
            is_refused.set()
            put_off(event, **fields)

        patch.setattr(bench.uploader._out, "debug", note)
        bench.keep(a=b"one")
        await asyncio.wait_for(is_refused.wait(), PATIENCE_S)
        assert [parcel.files[0].name for parcel in bench.spool.parcels()] == ["a"]
    monkeypatch.setattr(space, "_look_interval_s", 0.0)
    assert await bench.names() == ["a"]


async def test_what_is_refused_for_good_is_dropped_and_the_rest_goes_on(bench: Bench) -> None:
    bench.keep(fence_number=99, a=b"one")
    assert await bench.names() == []
    assert list(bench.spool.parcels()) == []
    bench.keep(b=b"two")
    assert await bench.names() == ["b"]


async def test_file_that_changed_after_it_was_kept_is_dropped_and_the_rest_goes_on(bench: Bench) -> None:
    note, bench.uploader.note = bench.uploader.note, lambda: None  # type: ignore[method-assign]
    bench.keep(x=b"right", y=b"fine")
    (parcel,) = bench.spool.parcels()
    parcel.path(parcel.files[0]).write_bytes(b"wrong")
    note()
    assert await bench.names() == ["y"]
    assert list(bench.spool.parcels()) == []
