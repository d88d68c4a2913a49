"""Artifacts over the wire: who may bring them, where they go on, and how people get them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from qgjob.artifacts import download
from qgjob.client import Client
from qgjob.errors import LabError, NotFound, UsageError
from qgjob.v1 import artifact_pb2, artifact_service_pb2, blob_service_pb2, job_pb2, lease_pb2
from qgjob.v1.artifact_pb2 import Artifact
from tests.rpc.grid import AgentOnTheWire, Grid, phone, refusal, spec
from tests.rpc.test_builds import CHUNK, digest_of

DATA = os.urandom(200_000)
Offer = artifact_service_pb2.OfferArtifactRequest


async def attempted(grid: Grid, agent: AgentOnTheWire | None = None) -> lease_pb2.LeaseSpec:
    """Let a job run to its end, and return the lease under which it did."""
    await grid.submit(spec(), request_id="one")
    agent = agent or grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    await agent.finish(lease, lease.jobs[0].attempt_id)
    return lease


def offer(lease: lease_pb2.LeaseSpec, name: str = "junit.xml", data: bytes = DATA, **fields: object) -> Offer:
    known: dict[str, object] = {
        "key": lease.key,
        "agent_id": "lab",
        "attempt_id": lease.jobs[0].attempt_id,
        "name": name,
        "kind": artifact_pb2.ARTIFACT_KIND_JUNIT,
        "content_type": "application/xml",
        "size": len(data),
        "digest": digest_of(data),
        **fields,
    }
    return Offer(**known)  # type: ignore[arg-type]


async def messages(
    begun: Offer, data: bytes = DATA, offset: int = 0
) -> AsyncIterator[artifact_service_pb2.UploadArtifactRequest]:
    yield artifact_service_pb2.UploadArtifactRequest(begun=begun)
    for begin in range(offset, len(data), CHUNK):
        chunk = blob_service_pb2.BlobChunk(offset=begin, data=data[begin : begin + CHUNK])
        yield artifact_service_pb2.UploadArtifactRequest(chunk=chunk)


async def listed(grid: Grid, job: int = 1) -> list[artifact_pb2.Artifact]:
    return list((await grid.artifacts.ListArtifacts(artifact_service_pb2.ListArtifactsRequest(job_id=job))).artifacts)


async def test_upload_that_broke_off_goes_on_where_it_was_and_is_listed_once_it_is_whole(grid: Grid) -> None:
    lease = await attempted(grid)
    begun = offer(lease)
    call = grid.artifacts.UploadArtifact()
    for message in [message async for message in messages(begun)][:3]:
        await call.write(message)
    await call.done_writing()
    code, _, info = await refusal(call)
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "UPLOAD_BROKEN")
    assert await listed(grid) == []
    answer = await grid.artifacts.OfferArtifact(begun)
    assert (answer.stored, answer.offset) == (False, 2 * CHUNK)
    await grid.artifacts.UploadArtifact(messages(begun, offset=answer.offset))
    (artifact,) = await listed(grid)
    assert (artifact.attempt_number, artifact.name, artifact.size) == (1, "junit.xml", len(DATA))
    assert artifact.HasField("create_time")


async def test_bytes_that_are_stored_are_recorded_without_being_sent(grid: Grid) -> None:
    lease = await attempted(grid)
    await grid.artifacts.UploadArtifact(messages(offer(lease)))
    assert (await grid.artifacts.OfferArtifact(offer(lease, "copy.xml"))).stored
    assert (await grid.artifacts.OfferArtifact(offer(lease))).stored, "the same again is fine"
    assert [artifact.name for artifact in await listed(grid)] == ["copy.xml", "junit.xml"]


LINK = {"kind": artifact_pb2.ARTIFACT_KIND_LINK, "name": "sessions/a1/video.url", "data": b"https://a.example/v\n"}


async def test_link_is_listed_with_its_address(grid: Grid) -> None:
    lease = await attempted(grid)
    begun = offer(lease, **LINK, url="https://a.example/v")  # type: ignore[arg-type]
    await grid.artifacts.UploadArtifact(messages(begun, b"https://a.example/v\n"))
    (artifact,) = await listed(grid)
    assert (artifact.kind, artifact.url) == (artifact_pb2.ARTIFACT_KIND_LINK, "https://a.example/v")


async def test_address_that_leads_nowhere_or_belongs_to_no_link_is_refused(grid: Grid) -> None:
    lease = await attempted(grid)
    refused: list[Offer] = [
        offer(lease, **LINK, url=url)  # type: ignore[arg-type]
        for url in ("", "http://a.example/", "javascript:x", "https://a.example/\n", "https://a/" + "x" * 1_024)
    ]
    for wrong in (*refused, offer(lease, url="https://a.example/v")):
        code, _, info = await refusal(grid.artifacts.OfferArtifact(wrong))
        assert (code, info.reason, info.metadata["field"]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            "url",
        )


async def test_link_whose_bytes_lead_elsewhere_is_refused(grid: Grid) -> None:
    lease = await attempted(grid)
    wrong = offer(lease, **LINK, url="https://b.example/v")  # type: ignore[arg-type]
    code, message, info = await refusal(grid.artifacts.OfferArtifact(wrong))
    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "digest")
    assert "not its url and a newline" in message


async def test_name_that_is_taken_by_other_bytes_is_refused(grid: Grid) -> None:
    lease = await attempted(grid)
    await grid.artifacts.UploadArtifact(messages(offer(lease)))
    code, _, info = await refusal(grid.artifacts.UploadArtifact(messages(offer(lease, data=b"other"), b"other")))
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ARTIFACT_RECORDED")


async def test_only_who_ran_the_attempt_under_its_fence_may_bring_what_it_left(grid: Grid) -> None:
    lease = await attempted(grid)
    key = lease.key
    later = lease_pb2.LeaseKey(
        lease_id=key.lease_id, fence=lease_pb2.Fence(epoch=key.fence.epoch, number=key.fence.number + 1)
    )
    for wrong, reason in (
        (offer(lease, key=later), "LEASE_FENCED"),
        (offer(lease, key=lease_pb2.LeaseKey(lease_id=99, fence=key.fence)), "LEASE_FENCED"),
        (offer(lease, agent_id="other"), "LEASE_FENCED"),
        (offer(lease, attempt_id=99), "NOT_FOUND"),
    ):
        for call in (grid.artifacts.OfferArtifact(wrong), grid.artifacts.UploadArtifact(messages(wrong, b""))):
            _, _, info = await refusal(call)
            assert info.reason == reason
    assert await listed(grid) == []


async def test_what_comes_after_the_lease_is_over_and_the_coordinator_started_again_is_kept(grid: Grid) -> None:
    lease = await attempted(grid)
    await grid.restart()
    await grid.artifacts.UploadArtifact(messages(offer(lease)))
    assert [artifact.name for artifact in await listed(grid)] == ["junit.xml"]


async def test_malformed_offers_are_refused_with_the_field_that_is_wrong(grid: Grid) -> None:
    lease = await attempted(grid)
    for field, value in (
        ("name", "../../etc/cron.d/x"),
        ("name", "a\nb"),
        ("content_type", "text/html\r\nSet-Cookie: a"),
        ("digest", "../etc"),
        ("size", 0),
    ):
        code, _, info = await refusal(grid.artifacts.OfferArtifact(offer(lease, **{field: value})))  # type: ignore[arg-type]
        assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    code, _, info = await refusal(grid.artifacts.OfferArtifact(offer(lease, size=2**40)))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BLOB_TOO_LARGE")


async def test_artifact_without_room_is_refused_and_stays_with_its_agent(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await attempted(grid)
    monkeypatch.setattr(grid.server._space, "_read_free", lambda _path: 1_000_000)
    monkeypatch.setattr(grid.server._space, "_looked_s", -100.0)
    _, sentence, info = await refusal(grid.artifacts.OfferArtifact(offer(lease)))
    assert info.reason == "STORAGE_FULL"
    assert "the upload has no room" in sentence


async def test_artifacts_of_many_pages_come_in_order_and_in_pieces_from_any_byte(grid: Grid) -> None:
    lease = await attempted(grid)
    await grid.artifacts.UploadArtifact(messages(offer(lease)))
    for number in range(4):
        assert (await grid.artifacts.OfferArtifact(offer(lease, f"copies/{number}.xml"))).stored
    names, token = [], ""
    while True:
        request = artifact_service_pb2.ListArtifactsRequest(job_id=1, page_size=2, page_token=token)
        page = await grid.artifacts.ListArtifacts(request)
        names += [artifact.name for artifact in page.artifacts]
        token = page.next_page_token
        if not token:
            break
    assert names == [*(f"copies/{number}.xml" for number in range(4)), "junit.xml"]
    wanted = artifact_service_pb2.FetchArtifactRequest(job_id=1, attempt_number=1, name="junit.xml", offset=70_001)
    found = b""
    async for piece in grid.artifacts.FetchArtifact(wanted):
        assert piece.chunk.offset == 70_001 + len(found)
        found += piece.chunk.data
    assert found == DATA[70_001:]


async def test_unknown_jobs_names_and_places_are_refused(grid: Grid) -> None:
    await attempted(grid)
    code, _, _ = await refusal(grid.artifacts.ListArtifacts(artifact_service_pb2.ListArtifactsRequest(job_id=99)))
    assert code is grpc.StatusCode.NOT_FOUND
    bad = artifact_service_pb2.ListArtifactsRequest(job_id=1, page_token="elsewhere")
    code, _, _ = await refusal(grid.artifacts.ListArtifacts(bad))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    with Client(grid.address) as client, pytest.raises(NotFound, match="there is no artifact") as missing:
        await asyncio.to_thread(lambda: list(client.fetch_artifact(1, 1, "junit.xml")))
    assert "qgjob artifacts list" in missing.value.hint


async def test_client_downloads_what_is_missing_and_keeps_what_is_there(grid: Grid, tmp_path: Path) -> None:
    lease = await attempted(grid)
    for name, data in (("junit.xml", DATA), ("shots/1.png", b"png")):
        await grid.artifacts.UploadArtifact(messages(offer(lease, name, data), data))
    folder = tmp_path / "out"
    with Client(grid.address) as client:
        found = (await asyncio.to_thread(client.list_artifacts, 1)).artifacts
        paths = await asyncio.to_thread(download, client, 1, found, folder)
        assert [path.relative_to(folder).as_posix() for path in paths] == [
            "attempt-1/junit.xml",
            "attempt-1/shots/1.png",
        ]
        assert paths[0].read_bytes() == DATA
        before = paths[0].stat().st_mtime_ns
        paths[1].write_bytes(b"other")
        await asyncio.to_thread(download, client, 1, found, folder)
    assert paths[0].stat().st_mtime_ns == before, "what is there with its bytes is not fetched again"
    assert paths[1].read_bytes() == b"png"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["1.png", "junit.xml"]


async def test_client_writes_nothing_outside_of_its_folder(grid: Grid, tmp_path: Path) -> None:
    lease = await attempted(grid)
    await grid.artifacts.UploadArtifact(messages(offer(lease)))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "attempt-1").symlink_to(tmp_path / "elsewhere")
    with Client(grid.address) as client:
        found = (await asyncio.to_thread(client.list_artifacts, 1)).artifacts
        with pytest.raises(UsageError, match="leads out of"):
            await asyncio.to_thread(download, client, 1, found, tmp_path / "out")
        for name in ("../up", "/etc/x", "a/../../b", "a\\..\\b"):
            with pytest.raises(LabError, match="no safe path"):
                download(client, 1, [Artifact(attempt_number=1, name=name)], tmp_path / "new")
    assert not list((tmp_path / "elsewhere").iterdir())


async def test_agent_gets_what_earlier_attempts_left_to_be_merged_and_hears_what_may_still_come(
    grid: Grid,
) -> None:
    await grid.submit(spec(retries=2), request_id="one")
    agent = grid.agent()
    await agent.hello(phone())
    leases = []
    for _ in range(3):
        lease = await agent.lease()
        await agent.finish(lease, lease.jobs[0].attempt_id, job_pb2.ATTEMPT_OUTCOME_FAILED)
        leases.append(lease)
    blob: dict[str, Any] = {"kind": artifact_pb2.ARTIFACT_KIND_BLOB_REPORT, "content_type": "application/zip"}
    await grid.artifacts.UploadArtifact(messages(offer(leases[0], "blob.zip", **blob)))
    await grid.artifacts.UploadArtifact(messages(offer(leases[2], "blob.zip", b"own", **blob), b"own"))
    key = leases[2].key
    request = artifact_service_pb2.FetchEarlierReportsRequest(
        key=key, agent_id="lab", attempt_id=leases[2].jobs[0].attempt_id
    )
    told = [message async for message in grid.artifacts.FetchEarlierReports(request)]
    assert list(told[0].awaited) == [2]
    assert {message.attempt_number for message in told[1:]} == {1}
    assert b"".join(message.chunk.data for message in told[1:]) == DATA
    request.agent_id = "other"
    with pytest.raises(grpc.aio.AioRpcError, match="did not run under lease"):
        [message async for message in grid.artifacts.FetchEarlierReports(request)]
