"""What the HTTP port takes at most: bodies, their time, connections; and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from coordinator.http import gate, logs, port, serving
from coordinator.server import Server
from coordinator.wire import MAX_MESSAGE_BYTES
from tests.http.grid import PATIENCE_S, HttpGrid

JSON = {"Content-Type": "application/json"}


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "with a length"])
async def test_body_that_is_too_large_is_a_problem(grid: HttpGrid, is_chunked: bool) -> None:
    size = MAX_MESSAGE_BYTES + 65_536
    content = pieces(size) if is_chunked else b" " * size
    answer = await grid.web.post("/jobs/submit", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert answer.headers["connection"] == "close"


async def test_body_that_does_not_come_is_not_waited_for(grid: HttpGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODY_TIMEOUT_S", 0.05)
    reader, writer = await connection(grid)
    writer.write(b"POST /jobs/submit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: 100\r\n\r\n{")
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def connection(grid: HttpGrid) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, number = str(grid.server.http_address).rpartition(":")
    return await asyncio.open_connection(host, int(number))


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], ids=["first", "second"])
async def test_header_that_does_not_come_is_not_waited_for(
    grid: HttpGrid, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    await grid.get("/healthz")  # so that what serves is loaded
    monkeypatch.setattr(serving, "HEADER_TIMEOUT_S", 0.05)
    reader, writer = await connection(grid)
    async with asyncio.timeout(PATIENCE_S):
        if before:
            writer.write(before)
            await reader.readuntil(b'{"status":"ok"}')
        writer.write(b"GET /jobs HTTP/1.1\r\nHost:")
        assert await reader.read() == b""
    writer.close()


async def test_request_that_takes_long_is_not_overdue(grid: HttpGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEADER_TIMEOUT_S", 0.01)
    monkeypatch.setattr(logs, "PING_INTERVAL_S", 0.05)
    await grid.post_jobs()
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", "/jobs/1/logs?follow=true") as answer:
        assert await anext(answer.aiter_raw()) == b": still here\n\n"


async def test_header_without_end_is_refused(grid: HttpGrid) -> None:
    reader, writer = await connection(grid)
    writer.write(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * (port.MAX_HEADER_BYTES + 1))
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_one_connection_too_many_is_answered_and_grpc_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "MAX_CONNECTIONS", 3)
    grid = HttpGrid(tmp_path)
    await grid.start()
    await grid.post_jobs()
    async with grid.web.stream("GET", "/jobs/1/logs?follow=true"), grid.web.stream("GET", "/jobs/1/logs?follow=true"):
        refused = await grid.web.get("/healthz")
        assert refused.status_code == 503
        assert (await grid.job(1)).id == 1
    await grid.stop()


async def test_far_too_many_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "MAX_CONNECTIONS", 10)
    grid = HttpGrid(tmp_path)
    await grid.start()
    await grid.get("/healthz")
    monkeypatch.setattr(serving, "HEADER_TIMEOUT_S", 2 * PATIENCE_S)
    silent = [await connection(grid) for _ in range(11)]
    reader, writer = await connection(grid)
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    for _, one in (*silent, (reader, writer)):
        one.close()
    await grid.stop()


async def test_coordinator_that_stops_answers_that_it_does(grid: HttpGrid) -> None:
    assert (await grid.web.get("/readyz")).json() == {"status": "ok"}
    grid.server.engine.stop()
    for path in ("/readyz", "/jobs"):
        answer = await grid.web.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (503, "SHUTTING_DOWN")
    assert (await grid.web.get("/healthz")).status_code == 200


async def test_port_that_cannot_be_served_ends_the_coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("fastapi")

    grid = HttpGrid(tmp_path)
    monkeypatch.setattr(Server, "_make_app", lambda _server: fail())
    await grid.start()
    with pytest.raises(ModuleNotFoundError, match="fastapi"):
        await grid.server.wait(asyncio.Event())
    await grid.stop()


async def test_stop_cuts_followers_off_and_gives_the_port_back(tmp_path: Path) -> None:
    grid = HttpGrid(tmp_path)
    await grid.start()
    await grid.post_jobs()
    async with asyncio.timeout(PATIENCE_S), grid.web.stream("GET", "/jobs/1/logs?follow=true") as answer:
        stopping = asyncio.create_task(grid.server.stop())
        with pytest.raises(httpx2.RemoteProtocolError):
            await answer.aread()
    await stopping
    address = str(grid.server.http_address)
    await grid.channel.close()
    again = port.HttpPort(address, None, lambda: pytest.fail("nobody asked for it"))
    again.close()
    await grid.web.aclose()
