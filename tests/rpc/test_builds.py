"""Builds over the wire: uploads that are resumed, registrations that jobs keep, fetches that leases allow."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import grpc
import pytest

from agent.blobs import BlobCache
from agent.core.model import Fence, LeaseId, LeaseKey
from agent.transfer import Transfer
from coordinator.blobs import BlobStore
from coordinator.services import blob as blob_service
from coordinator.services.chunks import blocks
from qgjob.v1 import agent_service_pb2, blob_service_pb2, build_pb2, build_service_pb2, device_pb2, job_pb2, lease_pb2
from tests.rpc.grid import Grid, phone, refusal, seconds, spec

DATA = os.urandom(300_000)
CHUNK = 64 * 1_024


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def messages(data: bytes, digest: str, offset: int = 0) -> AsyncIterator[blob_service_pb2.UploadBlobRequest]:
    request = blob_service_pb2.UploadBlobRequest
    yield request(begun=blob_service_pb2.UploadBegun(digest=digest, size=len(data)))
    for begin in range(offset, len(data), CHUNK):
        yield request(chunk=blob_service_pb2.BlobChunk(offset=begin, data=data[begin : begin + CHUNK]))


async def upload(grid: Grid, data: bytes = DATA) -> str:
    await grid.blobs.UploadBlob(messages(data, digest_of(data)))
    return digest_of(data)


async def register(
    grid: Grid, digest: str, *, replace: bool = False, version: str = "xyz123", platform: str = ""
) -> build_pb2.Build:
    request = build_service_pb2.RegisterBuildRequest(
        org_id="qualgent",
        app_version_id=version,
        digest=digest,
        file_name="app.apk",
        replace=replace,
        platform=platform,
    )
    return (await grid.builds.RegisterBuild(request)).build


async def fetch(
    grid: Grid, lease: lease_pb2.LeaseSpec, digest: str, *, offset: int = 0, boot_id: str = "boot-1"
) -> bytes:
    request = blob_service_pb2.FetchBlobRequest(key=lease.key, boot_id=boot_id, digest=digest, offset=offset)
    found = b""
    async for piece in grid.blobs.FetchBlob(request):
        assert piece.chunk.offset == offset + len(found)
        assert len(piece.chunk.data) <= CHUNK
        found += piece.chunk.data
    return found


async def test_upload_that_broke_off_is_resumed_and_the_same_bytes_are_sent_once(grid: Grid) -> None:
    digest = digest_of(DATA)
    find = blob_service_pb2.FindBlobRequest(digest=digest, size=len(DATA))
    call = grid.blobs.UploadBlob()
    sent = [message async for message in messages(DATA, digest)][:3]
    for message in sent:
        await call.write(message)
    await call.done_writing()
    code, _, info = await refusal(call)
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPLOAD_BROKEN")
    found = await grid.blobs.FindBlob(find)
    assert (found.complete, found.offset) == (False, 2 * CHUNK)
    await grid.blobs.UploadBlob(messages(DATA, digest, found.offset))
    assert (await grid.blobs.FindBlob(find)).complete


async def test_upload_of_other_bytes_than_announced_is_refused(grid: Grid) -> None:
    code, sentence, info = await refusal(grid.blobs.UploadBlob(messages(DATA, digest_of(b"other"))))
    assert (code, info.reason) == (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH")
    assert digest_of(DATA) in sentence


async def test_blob_that_is_too_large_is_refused_before_it_is_sent(grid: Grid) -> None:
    request = blob_service_pb2.FindBlobRequest(digest=digest_of(DATA), size=5 * 1_024**3)
    code, sentence, info = await refusal(grid.blobs.FindBlob(request))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BLOB_TOO_LARGE")
    assert "4096 MiB is the limit" in sentence


async def test_digest_that_is_no_sha256_is_refused(grid: Grid) -> None:
    for digest in ("", "../../etc/passwd", "A" * 64):
        code, _, _ = await refusal(grid.blobs.FindBlob(blob_service_pb2.FindBlobRequest(digest=digest, size=1)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        code, _, _ = await refusal(grid.blobs.UploadBlob(messages(b"x", digest)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_another_binary_under_the_same_name_is_refused_unless_it_shall_replace(grid: Grid) -> None:
    first, second = await upload(grid), await upload(grid, b"another build")
    assert (await register(grid, first)).size == len(DATA)
    assert (await register(grid, first)).digest == first, "the same again is fine"
    request = build_service_pb2.RegisterBuildRequest(org_id="qualgent", app_version_id="xyz123", digest=second)
    code, sentence, info = await refusal(grid.builds.RegisterBuild(request))
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "BUILD_REGISTERED")
    assert first[:16] in sentence
    assert (await register(grid, second, replace=True)).digest == second


async def test_blob_that_was_never_uploaded_cannot_be_registered(grid: Grid) -> None:
    request = build_service_pb2.RegisterBuildRequest(org_id="qualgent", app_version_id="xyz123", digest="e" * 64)
    code, _, info = await refusal(grid.builds.RegisterBuild(request))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def test_accepted_job_keeps_its_build_when_another_replaces_it_and_after_a_restart(grid: Grid) -> None:
    first, second = await upload(grid), await upload(grid, b"another build")
    await register(grid, first)
    (old,) = await grid.submit(spec(), request_id="one")
    await register(grid, second, replace=True)
    (new,) = await grid.submit(spec(), request_id="two")
    await grid.restart()
    assert [(await grid.job(job)).build_digest for job in (old, new)] == [first, second]
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    assert [job.job_id for job in lease.jobs] == [old], "two builds share no batch"
    assert lease.build_digest == first
    listed = (await grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest())).builds
    assert [(build.digest, build.HasField("install_time")) for build in listed] == [(second, False)]


async def test_app_versions_that_are_the_same_binary_share_a_batch(grid: Grid) -> None:
    digest = await upload(grid)
    await register(grid, digest, version="1.0-rc")
    await register(grid, digest, version="1.0")
    jobs = await grid.submit(spec(app_version_id="1.0-rc"), spec(app_version_id="1.0"), request_id="one")
    agent = grid.agent()
    await agent.hello(phone())
    assert [job.job_id for job in (await agent.lease()).jobs] == jobs


async def test_agent_fetches_what_its_lease_names_from_any_offset_and_nothing_else(grid: Grid) -> None:
    named, other = await upload(grid), await upload(grid, b"another build")
    await register(grid, named)
    await grid.submit(spec(), request_id="one")
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    assert await fetch(grid, lease, named) == DATA
    assert await fetch(grid, lease, named, offset=200_001) == DATA[200_001:]
    for wrong in (fetch(grid, lease, other), fetch(grid, lease, named, boot_id="boot-2")):
        code, _, info = await refusal(wrong)
        assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    await agent.finish(lease, lease.jobs[0].attempt_id)
    await agent.say(lease_released=agent_service_pb2.LeaseReleased(key=lease.key))
    await agent.hear("close_lease")
    code, _, info = await refusal(fetch(grid, lease, named))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_FENCED")


async def test_build_reaches_ten_agents_once_each_whatever_their_devices_ask(
    grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[int]()

    def counted(store: BlobStore, digest: str, offset: int) -> AsyncGenerator[tuple[int, bytes], None]:
        sent.append(offset)
        return blocks(store, digest, offset)

    monkeypatch.setattr(blob_service, "blocks", counted)
    digest = await upload(grid)
    await register(grid, digest)
    names = [f"host-{number}" for number in range(10)]
    phones = [f"{slot}@{name}" for name in names for slot in ("a", "b")]
    await grid.submit(*(spec(selector={"id": name}) for name in phones), request_id="one")
    found = await asyncio.gather(*(fetched_by_both_phones(grid, name, digest, tmp_path / name) for name in names))
    assert set(found) == {digest}
    assert sent == [0] * 10


async def fetched_by_both_phones(grid: Grid, name: str, digest: str, directory: Path) -> str:
    """Be an agent of which two phones want a build at once, and one once more; return the SHA-256 that they got."""
    agent = grid.agent()
    await agent.hello(phone(f"a@{name}"), phone(f"b@{name}"), agent_id=name, boot_id=name)
    cache = BlobCache(directory, ".apk", len(DATA))
    cache.connect(Transfer(lambda: grid.channel, name))
    asked = [((await agent.lease()).key, slot) for slot in ("a", "b")]
    keys = [(LeaseKey(lease_id=LeaseId(key.lease_id), fence=fence_of(key)), slot) for key, slot in asked]
    paths = await asyncio.gather(*(cache.get(digest, key, slot) for key, slot in keys))
    paths.append(await cache.get(digest, *keys[0]))
    (path,) = set(paths)
    return digest_of(path.read_bytes())


def fence_of(key: lease_pb2.LeaseKey) -> Fence:
    return Fence(epoch=key.fence.epoch, number=key.fence.number)


async def test_device_that_holds_a_registered_build_is_warm_for_it_by_digest(grid: Grid) -> None:
    digest = await upload(grid)
    await register(grid, digest, version="1.0-rc")
    await register(grid, digest, version="1.0")
    await grid.submit(spec(app_version_id="1.0-rc"), request_id="one")
    agent = grid.agent()
    await agent.hello(phone("a"), phone("b"))
    first = await agent.lease()
    installed = agent_service_pb2.BuildInstalled(key=first.key, digest=digest, duration=seconds(5), installed=True)
    await agent.say(build_installed=installed)
    await agent.finish(first, first.jobs[0].attempt_id, build_digest=digest)
    (job,) = await grid.submit(spec(app_version_id="1.0"), request_id="two")
    assert (await agent.lease()).device_id == first.device_id
    assert (await grid.job(job)).state == job_pb2.JOB_STATE_ASSIGNED


async def test_bundle_is_fetched_under_the_lease_of_a_job_that_names_it(grid: Grid) -> None:
    bundle = await upload(grid)
    other = await upload(grid, b"another bundle")
    await grid.submit(spec(bundle_digest=bundle), spec("tests/other.spec.ts"), request_id="one")
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    assert [job.bundle_digest for job in lease.jobs] == [bundle, ""], "bundles may differ within a batch"
    assert await fetch(grid, lease, bundle) == DATA
    code, _, _ = await refusal(fetch(grid, lease, other))
    assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_job_whose_bundle_was_never_uploaded_is_refused(grid: Grid) -> None:
    code, _, info = await refusal(grid.submit(spec(bundle_digest="e" * 64), request_id="one"))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    code, _, info = await refusal(grid.submit(spec(bundle_digest="../etc"), request_id="one"))
    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "bundle_digest")


async def test_platform_of_a_build_is_stored_and_an_unknown_one_is_refused(grid: Grid) -> None:
    digest = await upload(grid)
    assert (await register(grid, digest, platform="ios")).platform == "ios"
    listed = await grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest())
    assert [(build.platform, build.device_kind) for build in listed.builds] == [("ios", 0)]
    told = build_service_pb2.RegisterBuildRequest(
        org_id="qualgent",
        app_version_id="xyz123",
        digest=digest,
        platform="ios",
        device_kind=device_pb2.DEVICE_KIND_DEVICE,
    )
    await grid.builds.RegisterBuild(told)
    listed = await grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest())
    assert [build.device_kind for build in listed.builds] == [device_pb2.DEVICE_KIND_DEVICE]
    told.device_kind = device_pb2.DEVICE_KIND_BROWSERSTACK
    _, sentence, _ = await refusal(grid.builds.RegisterBuild(told))
    assert sentence == "device_kind 3 is no kind that builds are for; use emulator or device"
    request = build_service_pb2.RegisterBuildRequest(
        org_id="qualgent", app_version_id="x", digest=digest, platform="symbian"
    )
    _, sentence, _ = await refusal(grid.builds.RegisterBuild(request))
    assert sentence == "platform 'symbian' is unknown; use android or ios"
