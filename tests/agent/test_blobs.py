"""The cache of blobs, against a coordinator that does what the test says."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from agent.blobs import BlobCache, BlobUnusable
from agent.core.model import Fence, LeaseId, LeaseKey
from agent.transfer import Transfer
from qgjob.v1 import blob_service_pb2, blob_service_pb2_grpc

CHUNK = 64 * 1_024
DATA = os.urandom(5 * CHUNK + 17)
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))
OTHER_KEY = LeaseKey(lease_id=LeaseId(2), fence=Fence(epoch=1, number=1))

FetchContext = grpc.aio.ServicerContext[blob_service_pb2.FetchBlobRequest, blob_service_pb2.FetchBlobResponse]


class StandIn(blob_service_pb2_grpc.BlobServiceServicer):
    """Has blobs, cuts streams where it is told to, and remembers what was asked."""

    def __init__(self) -> None:
        self.blobs = {DIGEST: DATA}
        self.asked: list[tuple[int, int]] = []
        """(lease, offset) of each fetch."""
        self.cuts: list[int] = []
        """The next stream breaks after so many chunks."""
        self.over: set[int] = set()
        """Leases that are over."""
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.was_asked = asyncio.Event()
        self.address = ""

    async def FindBlob(self, request: object, context: object) -> NoReturn:
        raise AssertionError("agents bring nothing")

    async def UploadBlob(self, request_iterator: object, context: object) -> NoReturn:
        raise AssertionError("agents bring nothing")

    async def FetchBlob(self, request: blob_service_pb2.FetchBlobRequest, context: FetchContext) -> None:  # type: ignore[override]
        self.asked.append((request.key.lease_id, request.offset))
        self.was_asked.set()
        await self.may_go_on.wait()
        if request.key.lease_id in self.over:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the lease is over")
        data = self.blobs.get(request.digest)
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        cut = self.cuts.pop(0) if self.cuts else None
        for number, offset in enumerate(range(request.offset, len(data), CHUNK)):
            if number == cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            chunk = blob_service_pb2.BlobChunk(offset=offset, data=data[offset : offset + CHUNK])
            await context.write(blob_service_pb2.FetchBlobResponse(chunk=chunk, size=len(data)))


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    server = grpc.aio.server()
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(stand_in, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stand_in.address = f"127.0.0.1:{port}"
    yield stand_in
    await server.stop(None)


@pytest.fixture
async def channel(stand_in: StandIn) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(stand_in.address) as channel:
        yield channel


@pytest.fixture
def cache(channel: grpc.aio.Channel, tmp_path: Path) -> BlobCache:
    return connected(channel, tmp_path / "builds")


def connected(channel: grpc.aio.Channel, directory: Path, most_bytes: int = 10**9) -> BlobCache:
    cache = BlobCache(directory, ".apk", most_bytes)
    cache.connect(Transfer(lambda: channel, "boot"))
    return cache


async def test_blob_is_fetched_once_and_found_again_in_a_later_life(
    stand_in: StandIn, channel: grpc.aio.Channel, cache: BlobCache, tmp_path: Path
) -> None:
    path = await cache.get(DIGEST, KEY, "phone")
    assert (path.read_bytes(), path.suffix) == (DATA, ".apk")
    await cache.get(DIGEST, OTHER_KEY, "tablet")
    await connected(channel, tmp_path / "builds").get(DIGEST, KEY, "phone")
    assert stand_in.asked == [(1, 0)]


async def test_ten_devices_that_want_a_blob_at_once_share_one_fetch(stand_in: StandIn, cache: BlobCache) -> None:
    stand_in.may_go_on.clear()
    wanting = [asyncio.create_task(cache.get(DIGEST, KEY, f"phone-{number}")) for number in range(10)]
    await stand_in.was_asked.wait()
    stand_in.may_go_on.set()
    assert {path.read_bytes() for path in await asyncio.gather(*wanting)} == {DATA}
    assert len(stand_in.asked) == 1


async def test_fetch_goes_on_where_it_was_cut(stand_in: StandIn, cache: BlobCache) -> None:
    stand_in.cuts = [2, 0, 1]
    assert (await cache.get(DIGEST, KEY, "phone")).read_bytes() == DATA
    assert [offset for _, offset in stand_in.asked] == [0, 2 * CHUNK, 2 * CHUNK, 3 * CHUNK]


async def test_fetch_that_was_given_up_goes_on_in_a_later_life(
    stand_in: StandIn, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / f"{DIGEST}.part").write_bytes(DATA[:CHUNK])
    path = await connected(channel, tmp_path / "builds").get(DIGEST, KEY, "phone")
    assert path.read_bytes() == DATA
    assert stand_in.asked == [(1, CHUNK)]


@dataclass(frozen=True)
class Read:
    digest: str


async def read(path: Path) -> Read:
    return Read(hashlib.sha256(path.read_bytes()).hexdigest())


async def test_file_that_is_read_as_another_is_fetched_anew_once(stand_in: StandIn, cache: BlobCache) -> None:
    (await cache.get(DIGEST, KEY, "phone")).write_bytes(b"rotten")
    assert await cache.read(DIGEST, KEY, "phone", read) == Read(DIGEST)
    assert await cache.read(DIGEST, KEY, "phone", read) == Read(DIGEST)
    assert stand_in.asked == [(1, 0)] * 2


async def test_part_that_went_bad_on_the_disk_is_fetched_anew(
    stand_in: StandIn, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds" / f"{DIGEST}.part").write_bytes(b"x" * CHUNK)
    path = await connected(channel, tmp_path / "builds").get(DIGEST, KEY, "phone")
    assert path.read_bytes() == DATA
    assert [offset for _, offset in stand_in.asked] == [CHUNK, 0]


async def test_bytes_that_are_not_the_blob_are_never_kept(stand_in: StandIn, cache: BlobCache, tmp_path: Path) -> None:
    stand_in.blobs[DIGEST] = b"something else"
    with pytest.raises(BlobUnusable) as failed:
        await cache.get(DIGEST, KEY, "phone")
    assert failed.value.failure.reason == "BUILD_FETCH_FAILED"
    assert not list((tmp_path / "builds").iterdir())


async def test_blob_that_the_coordinator_does_not_have_ends_the_job_with_what_to_do(cache: BlobCache) -> None:
    with pytest.raises(BlobUnusable, match="upload it again") as failed:
        await cache.get("e" * 64, KEY, "phone")
    assert failed.value.failure.reason == "BUILD_NOT_FOUND"


async def test_lease_that_is_over_ends_a_fetch_unless_another_allows_it(stand_in: StandIn, cache: BlobCache) -> None:
    stand_in.over = {1}
    stand_in.may_go_on.clear()
    first = asyncio.create_task(cache.get(DIGEST, KEY, "phone"))
    await stand_in.was_asked.wait()
    second = asyncio.create_task(cache.get(DIGEST, OTHER_KEY, "tablet"))
    await asyncio.sleep(0)
    stand_in.may_go_on.set()
    assert (await second).read_bytes() == DATA
    await first
    assert [lease for lease, _ in stand_in.asked] == [1, 2]
    stand_in.blobs["e" * 64] = DATA
    with pytest.raises(BlobUnusable, match="the lease was over"):
        await cache.get("e" * 64, KEY, "phone")


async def test_fetch_ends_with_the_last_who_waits_for_it(stand_in: StandIn, cache: BlobCache, tmp_path: Path) -> None:
    stand_in.may_go_on.clear()
    waiting = asyncio.create_task(cache.get(DIGEST, KEY, "phone"))
    await stand_in.was_asked.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    stand_in.may_go_on.set()
    assert (await cache.get(DIGEST, KEY, "phone")).read_bytes() == DATA


async def test_oldest_blobs_make_room_and_those_in_use_stay(
    stand_in: StandIn, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    cache = connected(channel, tmp_path / "builds", most_bytes=2 * len(DATA))
    digests = []
    for number in range(4):
        data = bytes([number]) + DATA[1:]
        digests.append(hashlib.sha256(data).hexdigest())
        stand_in.blobs[digests[-1]] = data
    first = await cache.get(digests[0], KEY, "phone")
    others = [await cache.get(digest, KEY, "tablet") for digest in digests[1:]]
    assert first.exists(), "it is in use"
    assert others[-1].exists()
    assert len(list((tmp_path / "builds").iterdir())) == 2
