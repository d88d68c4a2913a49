from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from coordinator.blobs import UNUSED_S, WRITE_BYTES, BlobStore
from coordinator.core.errors import DigestMismatch, InvalidRequest, UploadBroken
from tests.coordinator.conftest import MakeStorage

DATA = os.urandom(2 * WRITE_BYTES + 12_345)
DIGEST = hashlib.sha256(DATA).hexdigest()
CHUNK = 64 * 1_024


@pytest.fixture
def blobs(make_storage: MakeStorage, tmp_path: Path) -> BlobStore:
    return BlobStore(make_storage().shelf(), tmp_path / "parts")


async def upload(blobs: BlobStore, data: bytes = DATA, digest: str = DIGEST, *, until: int | None = None) -> int:
    """Upload from where it goes on, and return from where that was; break off at `until`."""
    async with blobs.receive(digest, len(data)) as receiver:
        if receiver is None:
            return len(data)
        begin = receiver.taken
        for offset in range(begin, len(data) if until is None else until, CHUNK):
            await receiver.take(offset, data[offset : offset + CHUNK])
        if until is None:
            await receiver.finish()
    return begin


async def whole(blobs: BlobStore, digest: str = DIGEST) -> bytes:
    found = b""
    while block := await blobs.read(digest, len(found), CHUNK):
        found += block
    return found


async def test_what_was_uploaded_is_read_back(blobs: BlobStore) -> None:
    assert await blobs.size(DIGEST) is None
    await upload(blobs)
    assert await blobs.size(DIGEST) == len(DATA)
    assert await whole(blobs) == DATA


async def test_upload_goes_on_where_an_earlier_one_broke_off(blobs: BlobStore) -> None:
    await upload(blobs, until=20 * CHUNK)
    assert await blobs.begun(DIGEST) == 20 * CHUNK
    assert await upload(blobs) == 20 * CHUNK
    assert await whole(blobs) == DATA


@pytest.mark.parametrize("kind", ["directory"])
async def test_upload_goes_on_after_the_coordinator_was_started_again(
    make_storage: MakeStorage, tmp_path: Path
) -> None:
    await upload(BlobStore(make_storage().shelf(), tmp_path / "parts"), until=20 * CHUNK)
    again = BlobStore(make_storage().shelf(), tmp_path / "parts")
    assert await upload(again) == 20 * CHUNK
    assert await whole(again) == DATA


@pytest.mark.parametrize("kind", ["directory"])
async def test_other_bytes_than_announced_are_dropped(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match="instead of"):
        await upload(blobs, data=b"x" + DATA[1:])
    assert await blobs.size(DIGEST) is None
    assert not list((tmp_path / "parts").iterdir())
    assert await upload(blobs) == 0


@pytest.mark.parametrize("kind", ["directory"])
async def test_chunk_that_is_there_already_is_skipped_and_a_gap_refused(blobs: BlobStore) -> None:
    async with blobs.receive(DIGEST, len(DATA)) as receiver:
        assert receiver is not None
        await receiver.take(0, DATA[:100])
        await receiver.take(50, DATA[50:200])
        assert receiver.taken == 200
        with pytest.raises(UploadBroken, match="200 bytes are there"):
            await receiver.take(201, b"x")
        with pytest.raises(InvalidRequest, match="announced"):
            await receiver.take(200, DATA)


@pytest.mark.parametrize("kind", ["directory"])
async def test_upload_that_ends_early_is_no_blob(blobs: BlobStore) -> None:
    async with blobs.receive(DIGEST, len(DATA)) as receiver:
        assert receiver is not None
        await receiver.take(0, DATA[:CHUNK])
        with pytest.raises(UploadBroken, match=f"after {CHUNK} of"):
            await receiver.finish()
    assert await blobs.size(DIGEST) is None


@pytest.mark.parametrize("kind", ["directory"])
async def test_second_upload_of_a_blob_waits_for_the_first_and_sends_nothing(blobs: BlobStore) -> None:
    async with blobs.receive(DIGEST, len(DATA)) as receiver:
        assert receiver is not None
        second = asyncio.create_task(upload(blobs))
        await asyncio.sleep(0)
        for offset in range(0, len(DATA), CHUNK):
            await receiver.take(offset, DATA[offset : offset + CHUNK])
        await receiver.finish()
        assert not second.done()
    assert await second == len(DATA)


@pytest.mark.parametrize("kind", ["directory"])
async def test_upload_that_is_cancelled_while_it_writes_ends_when_that_is_written(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, writes = threading.Event(), asyncio.Event()
    loop, pwrite = asyncio.get_running_loop(), os.pwrite

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        loop.call_soon_threadsafe(writes.set)
        assert may_write.wait(20)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    uploading = asyncio.create_task(upload(blobs))
    await writes.wait()
    uploading.cancel()
    ended, _ = await asyncio.wait((uploading,), timeout=0.1)
    assert not ended, "its file may not be closed under a thread that writes"
    may_write.set()
    await asyncio.wait((uploading,))
    assert await blobs.begun(DIGEST) > 0
    await upload(blobs)
    assert await whole(blobs) == DATA


@pytest.mark.parametrize("kind", ["directory"])
async def test_part_that_is_longer_than_the_blob_is_begun_anew(blobs: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / DIGEST).write_bytes(b"x" * (len(DATA) + 1))
    assert await upload(blobs) == 0
    assert await whole(blobs) == DATA


async def nothing(_digests: Collection[str]) -> set[str]:
    return set()


async def all_of_them(digests: Collection[str]) -> Collection[str]:
    return digests


async def test_blob_that_nobody_names_is_dropped_once_it_is_old(make_storage: MakeStorage, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    await upload(BlobStore(make_storage().shelf(), parts))
    await upload(BlobStore(make_storage().shelf(), parts), b"other", hashlib.sha256(b"other").hexdigest(), until=5)
    store = BlobStore(make_storage().shelf(), parts)
    later_s = time.time() + UNUSED_S + 60

    async def only_ours(digests: Collection[str]) -> set[str]:
        return {DIGEST}.intersection(digests)

    assert await store.prune(nothing, now_s=time.time()) == 0
    assert await store.prune(only_ours, now_s=later_s) == 1
    assert not list(parts.iterdir())
    assert await whole(store) == DATA
    assert await store.prune(nothing, now_s=later_s) == 1
    assert await store.size(DIGEST) is None


@pytest.mark.parametrize("kind", ["directory"])
async def test_blob_that_was_found_just_now_is_kept_until_it_can_be_named(blobs: BlobStore) -> None:
    await upload(blobs)
    assert await blobs.prune(nothing, now_s=time.time() + UNUSED_S + 60) == 0


@pytest.mark.parametrize("kind", ["directory"])
async def test_blob_is_dropped_at_once_where_nobody_names_it_any_more(
    make_storage: MakeStorage, tmp_path: Path
) -> None:
    await upload(BlobStore(make_storage().shelf(), tmp_path / "parts"))
    blobs = BlobStore(make_storage().shelf(), tmp_path / "parts")
    assert await blobs.drop([DIGEST], all_of_them) == 0
    assert await blobs.drop([DIGEST], nothing) == 1
    assert await blobs.size(DIGEST) is None


@pytest.mark.parametrize("kind", ["directory"])
async def test_blob_is_not_dropped_while_somebody_is_about_to_name_it(blobs: BlobStore) -> None:
    await upload(blobs)
    named = set[str]()

    async def as_recorded(digests: Collection[str]) -> set[str]:
        return named.intersection(digests)

    async with blobs.found(DIGEST) as size:
        assert size == len(DATA)
        dropping = asyncio.create_task(blobs.drop([DIGEST], as_recorded))
        await asyncio.sleep(0)
        named.add(DIGEST)
    assert await dropping == 0
    assert await whole(blobs) == DATA
