"""The client's uploads against a real coordinator: resumed after a restart, refused with what to do."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.core.model import Settings
from qgjob.client import Client
from qgjob.client.patience import Patience
from qgjob.errors import ClientError, Unreachable, UsageError
from qgjob.uploads import CHUNK_BYTES, upload_file
from qgjob.v1.blob_service_pb2 import FindBlobResponse, UploadBlobRequest
from tests.rpc.grid import Grid


@pytest.fixture
def build(tmp_path: Path) -> Path:
    path = tmp_path / "app.apk"
    path.write_bytes(os.urandom(4 * 1_024 * 1_024 + 5))
    return path


async def test_upload_sends_a_file_once_and_tells_how_far_it_is(grid: Grid, build: Path) -> None:
    told: list[tuple[int, int]] = []
    with Client(grid.address) as client:
        blob = await asyncio.to_thread(upload_file, client, build, lambda sent, size: told.append((sent, size)))
        again = await asyncio.to_thread(upload_file, client, build)
    assert blob.digest == hashlib.sha256(build.read_bytes()).hexdigest()
    assert (blob.was_there, again.was_there) == (False, True)
    assert told[0] == (CHUNK_BYTES, blob.size)
    assert told[-1] == (blob.size, blob.size)
    assert [sent for sent, _ in told] == sorted(sent for sent, _ in told)


async def test_upload_goes_on_after_the_coordinator_went_away_in_its_middle(tmp_path: Path, build: Path) -> None:
    grid = Grid(tmp_path / "data", Settings())
    (tmp_path / "data").mkdir()
    await grid.start()
    address = grid.address
    half_way, is_back = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def tell(sent: int, size: int) -> None:
        seen.append(sent)
        if sent > size // 2 and not half_way.is_set():
            loop.call_soon_threadsafe(half_way.set)
            asyncio.run_coroutine_threadsafe(is_back.wait(), loop).result(60)

    with Client(address) as client:
        uploading = asyncio.create_task(asyncio.to_thread(upload_file, client, build, tell))
        await half_way.wait()
        await grid.stop()
        grid.listen = address
        await grid.start()
        is_back.set()
        blob = await uploading
    find = (await asyncio.to_thread(_find, address, blob.digest, blob.size)).complete
    await grid.stop()
    assert find
    assert sum(1 for sent in seen if sent <= blob.size // 4) <= blob.size // 4 // CHUNK_BYTES + 1, "it began anew"


def _find(address: str, digest: str, size: int) -> FindBlobResponse:
    with Client(address) as client:
        return client.find_blob(digest, size)


async def test_file_that_cannot_be_an_upload_is_refused_with_what_to_do(grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "empty.apk").touch()
    with Client(grid.address) as client:
        for name, words in (
            ("empty.apk", "is empty"),
            ("nowhere.apk", "cannot read .*: No such file"),
            (".", "cannot read"),
        ):
            with pytest.raises(UsageError, match=words):
                await asyncio.to_thread(upload_file, client, tmp_path / name)


async def test_upload_without_room_is_refused_and_says_how_much_is_missing(
    grid: Grid, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid.server._space, "_read_free", lambda _path: 1_000_000)
    monkeypatch.setattr(grid.server._space, "_looked_s", -100.0)
    with Client(grid.address) as client, pytest.raises(ClientError, match="the upload has no room") as refusal:
        await asyncio.to_thread(upload_file, client, build)
    assert refusal.value.reason == "STORAGE_FULL"


class BreakingClient(Client):
    """Its uploads break off at once; each finds as much there as it is told."""

    def __init__(self, offsets: list[int]) -> None:
        super().__init__("127.0.0.1:1")
        self.offsets = offsets

    def find_blob(self, digest: str, size: int) -> FindBlobResponse:
        return FindBlobResponse(offset=self.offsets.pop(0))

    def send_blob(self, messages: Iterator[UploadBlobRequest]) -> None:
        raise Unreachable("the link broke")


def test_upload_is_given_up_when_it_comes_no_further_for_long(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(Patience, "is_over", lambda _patience: len(waits) == 2)
    monkeypatch.setattr(Patience, "wait", lambda _patience: waits.append(1))
    monkeypatch.setattr(Patience, "renew", lambda _patience: waits.clear())
    with BreakingClient([0, 0, CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES]) as client:
        with pytest.raises(Unreachable, match="the link broke"):
            upload_file(client, build)
        assert client.offsets == []
