"""A job's log over HTTP: bytes, and events that are resumed where they broke."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from typing import Any

import httpx2
import pytest

from coordinator.http import logs
from coordinator.http.logs import Events
from coordinator.services import log as log_service
from coordinator.storage import Directory
from qgjob.v1 import job_pb2, log_pb2, log_service_pb2
from tests.http.grid import PATIENCE_S, HttpGrid, RunningJob, ServerSentEvent, events, services

FOLLOW = "/jobs/1/logs?follow=true"


@pytest.fixture
async def running(grid: HttpGrid) -> RunningJob:
    """Job 1, whose test runs and writes."""
    return await grid.running_job()


def attempt(number: int, log: str, event_id: str) -> ServerSentEvent:
    return ServerSentEvent("attempt", event_id, json.dumps({"attempt": number, "log": log}))


END = ServerSentEvent("end", "end", "{}")


async def followed(web: httpx2.AsyncClient, last_event_id: str = "", path: str = FOLLOW) -> list[ServerSentEvent]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with asyncio.timeout(PATIENCE_S), web.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [event async for event in events(answer)]


async def test_text_is_the_log_byte_for_byte(grid: HttpGrid, running: RunningJob) -> None:
    await running.write(b"one\r\n\xff\xfe two\n" * 5_000)
    answer = await grid.web.get("/jobs/1/logs")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.content == running.log
    assert (await grid.web.get("/jobs/1/logs?tail=2")).content == b"one\r\n\xff\xfe two\n"


SECOND_ONE, SECOND_TWO = "1970-01-01T00:00:01.000Z", "1970-01-01T00:00:02.345Z"


async def test_text_bears_times_where_they_are_asked_for_and_known(grid: HttpGrid, running: RunningJob) -> None:
    await running.write(b"untimed\n")
    await running.write(b"one\ntw", 1_000)
    await running.write(b"o\nthree\n", 2_345)
    stamped = f"untimed\n{SECOND_ONE} one\n{SECOND_ONE} two\n{SECOND_TWO} three\n".encode()
    assert (await grid.web.get("/jobs/1/logs?timestamps=true")).content == stamped
    assert (await grid.web.get("/jobs/1/logs?timestamps=true&tail=1")).text == f"{SECOND_TWO} three\n"
    assert (await grid.web.get("/jobs/1/logs")).content == running.log


async def test_events_bear_times_where_they_are_asked_for_and_known(grid: HttpGrid, running: RunningJob) -> None:
    path = f"{FOLLOW}&timestamps=true"
    await running.write(b"one\ntw", 1_000)
    await running.write(b"o\nthree\n", 2_345)
    await running.finish()
    told = await followed(grid.web, path=path)
    stamped = [f"{SECOND_ONE} one", f"{SECOND_ONE} two", f"{SECOND_TWO} three"]
    assert "\n".join(event.data for event in told if not event.name).split("\n") == stamped
    assert next(event.data for event in await followed(grid.web, "1:8", path)) == stamped[2]


async def test_log_of_a_job_that_waits_is_empty(grid: HttpGrid) -> None:
    await grid.post_jobs()
    answer = await grid.web.get("/jobs/1/logs")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_follower_gets_lines_as_they_come_and_its_end_when_the_log_closes(
    grid: HttpGrid, running: RunningJob
) -> None:
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", FOLLOW) as answer:
        arriving = events(answer)
        assert await anext(arriving) == attempt(1, "open", "1:0")
        await running.write(b"first\nsecond\nthe beg")
        assert await anext(arriving) == ServerSentEvent("", "1:13", "first\nsecond")
        await running.write(b"inning of the third\n")
        assert await anext(arriving) == ServerSentEvent("", "1:40", "the beginning of the third")
        await running.write(b"without an end")
        await running.finish()
        assert [event async for event in arriving] == [
            ServerSentEvent("", "1:54", "without an end"),
            attempt(1, "complete", "2:0"),
            END,
        ]


async def test_follower_of_a_waiting_job_is_answered_at_once(grid: HttpGrid) -> None:
    await grid.post_jobs()
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", FOLLOW) as answer:
        assert answer.status_code == 200
        await grid.web.delete("/jobs/1")
        assert [event async for event in events(answer)] == [END]


async def test_follower_who_accepts_text_gets_the_bare_bytes(grid: HttpGrid, running: RunningJob) -> None:
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", FOLLOW, headers={"Accept": "text/plain"}) as answer:
        arriving = answer.aiter_raw()
        await running.write(b"no line's end")
        assert await anext(arriving) == b"no line's end"
        await running.finish()
        assert [data async for data in arriving] == []


async def test_events_go_on_after_a_restart_without_losing_or_repeating_a_line(
    grid: HttpGrid, running: RunningJob
) -> None:
    await running.write(b"first\nsecond\nhalf a")
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx2.AsyncClient(base_url=grid.web.base_url, timeout=PATIENCE_S) as reader,
        reader.stream("GET", FOLLOW) as answer,
    ):
        arriving = events(answer)
        assert await anext(arriving) == attempt(1, "open", "1:0")
        last = await anext(arriving)
        assert last == ServerSentEvent("", "1:13", "first\nsecond")
        restarting = asyncio.create_task(grid.restart())
        with pytest.raises(httpx2.RemoteProtocolError):
            await anext(arriving)
    await restarting
    await running.write(b" line\nfourth\n")
    await running.close_log()
    async with grid.web.stream("GET", FOLLOW, headers={"Last-Event-ID": last.id}) as answer:
        assert await anext(events(answer)) == ServerSentEvent("", "1:32", "half a line\nfourth")


@pytest.mark.parametrize(
    ("last_event_id", "rest"),
    [
        (
            "1:0",
            [attempt(1, "open", "1:0"), ServerSentEvent("", "1:8", "one\ntwo"), attempt(1, "complete", "2:0"), END],
        ),
        ("1:4", [ServerSentEvent("", "1:8", "two"), attempt(1, "complete", "2:0"), END]),
        ("1:8", [attempt(1, "complete", "2:0"), END]),
        ("2:0", [END]),
    ],
)
async def test_each_id_leads_to_what_comes_after_it(
    grid: HttpGrid, running: RunningJob, last_event_id: str, rest: list[ServerSentEvent]
) -> None:
    await running.write(b"one\ntwo\n")
    await running.finish()
    assert await followed(grid.web, last_event_id) == rest


async def test_browser_that_comes_back_after_the_end_is_told_to_stop(grid: HttpGrid, running: RunningJob) -> None:
    await running.finish()
    answer = await grid.web.get(FOLLOW, headers={"Last-Event-ID": "end"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("last_event_id", ["x", "0:1", "1:-1", "1", f"1:{10**18}", f"{10**9}:0"])
async def test_id_that_was_never_given_out_is_refused(grid: HttpGrid, running: RunningJob, last_event_id: str) -> None:
    answer = await grid.web.get(FOLLOW, headers={"Last-Event-ID": last_event_id})
    assert (answer.status_code, answer.json()["fields"]) == (400, {"field": "Last-Event-ID"})


async def test_storage_that_does_not_answer_hides_the_log_for_a_moment_and_not_the_job(
    grid: HttpGrid, running: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.write(b"one\n")
    await grid.restart()

    def fail(*_: object) -> Any:  # noqa: ANN401 - it returns nothing
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Directory, "load", fail)
        answer = await grid.web.get("/jobs/1/logs")
        assert (answer.status_code, answer.json()["reason"]) == (503, "STORAGE_UNAVAILABLE")
        assert "retry-after" in answer.headers
        job = await grid.get("/jobs/1")
        assert [attempt["log"] for attempt in job["attempts"]] == ["open"]
    assert (await grid.web.get("/jobs/1/logs")).text == "one\n"


async def test_log_with_too_many_followers_refuses_one_more(
    grid: HttpGrid, running: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_service, "MAX_FOLLOWERS", 1)
    async with grid.web.stream("GET", FOLLOW) as answer:
        assert answer.status_code == 200
        second = await grid.web.get(FOLLOW)
        assert (second.status_code, second.json()["reason"]) == (429, "TOO_MANY_FOLLOWERS")


async def test_follower_who_goes_is_forgotten(grid: HttpGrid, running: RunningJob) -> None:
    async with grid.web.stream("GET", FOLLOW):
        assert grid.server._streams[logs.STREAM] == 1
    async with asyncio.timeout(PATIENCE_S):
        while grid.server._streams[logs.STREAM] or services(grid).logs.followers:
            await grid.web.get("/healthz")


async def test_quiet_stream_is_kept_alive_by_comments(
    grid: HttpGrid, running: RunningJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PING_INTERVAL_S", 0)
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", FOLLOW) as answer:
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                return
    raise AssertionError("the stream ended without a comment")


async def test_reader_who_does_not_read_holds_little_and_delays_nobody(grid: HttpGrid, running: RunningJob) -> None:
    size = 8 * 1_024 * 1_024
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1_024)
    slow.connect(("127.0.0.1", int(str(grid.server.http_address).rpartition(":")[2])))
    slow.sendall(b"GET /jobs/1/logs?follow=true HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\n\r\n")
    line = b"x" * 1_023 + b"\n"
    for _ in range(16):
        await running.write(line * 512)
    await running.finish()
    assert (await grid.web.get("/jobs/1/logs")).content == running.log
    server = grid.server._http._server if grid.server._http is not None else None
    assert server is not None
    held = [one.transport.get_write_buffer_size() for one in server.server_state.connections]
    assert 0 < max(held) < 256 * 1_024
    assert await asyncio.to_thread(_read_all, slow) >= size


def _read_all(reader: socket.socket) -> int:
    """Read until the last chunk of an answer."""
    read, tail = 0, b""
    reader.settimeout(PATIENCE_S)
    while not tail.endswith(b"0\r\n\r\n"):
        data = reader.recv(1_024 * 1_024)
        assert data, "the connection was cut"
        read += len(data)
        tail = (tail + data)[-16:]
    reader.close()
    return read


async def written(*pieces: bytes) -> list[bytes]:
    """Write pieces of a log as events, and return what was sent of them."""
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    form = Events(send, logs.Place())
    cut = log_pb2.LogCut(attempt_number=1, state=job_pb2.LOG_STATE_OPEN)
    await form.write(log_service_pb2.FollowLogsResponse(cut=cut))
    offset = 0
    for piece in pieces:
        chunk = log_pb2.LogChunk(offset=offset, data=piece)
        await form.write(log_service_pb2.FollowLogsResponse(chunk=chunk))
        offset += len(piece)
    return sent[1:]


async def test_what_ends_a_line_to_a_reader_of_events_never_ends_an_event() -> None:
    assert await written(b"10%\r20%\r\n\n data: x\n") == [b"id: 1:19\ndata: 10%\ndata: 20%\ndata: \ndata:  data: x\n\n"]


async def test_character_cut_by_a_chunk_is_whole_in_its_line() -> None:
    grinning = "😀\n".encode()
    assert await written(grinning[:2], grinning[2:]) == ["id: 1:5\ndata: 😀\n\n".encode()]


async def test_line_without_an_end_is_sent_in_parts_of_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LONGEST_LINE_BYTES", 8)
    text = ("ä" * 20).encode()
    sent = await written(text[:9], text[9:])
    assert b"\xef\xbf\xbd" not in b"".join(sent)
    assert b"".join(sent).decode().count("ä") >= 19
