"""Bytes that are no message: the caller's mistake, told to the caller, and to the operator without a flood."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from structlog.testing import capture_logs

from coordinator.complaints import COMPLAINT_INTERVAL_S, Complaints
from tests.rpc.grid import PATIENCE_S, Grid, error_info, spec

NO_MESSAGE = b"\xff\xff\xff\xff"
CALLS = ("/qgjob.v1.JobService/GetJob", "/qgjob.v1.QueueService/GetQueueStatus")
DOWN = ("/qgjob.v1.JobService/WatchJobs", "/qgjob.v1.LogService/FollowLogs")
BOTH_WAYS = ("/qgjob.v1.AgentService/Connect", "/qgjob.v1.LogService/AppendLogs")


async def end_of(grid: Grid, method: str) -> tuple[grpc.StatusCode, ErrorInfo]:
    """Call a method with bytes that are no message, and return how the call ended."""
    call: grpc.aio.Call
    if method in CALLS:
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = grid.channel.unary_unary(method)
        call = unary(NO_MESSAGE)
    elif method in DOWN:
        down: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = grid.channel.unary_stream(method)
        call = down(NO_MESSAGE)
    else:
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = grid.channel.stream_stream(method)()
        await stream.write(NO_MESSAGE)
        call = stream
    async with asyncio.timeout(PATIENCE_S):
        return await call.code(), error_info(await call.trailing_metadata())


@pytest.mark.parametrize("method", [*CALLS, *DOWN, *BOTH_WAYS])
async def test_bytes_that_are_no_message_are_refused_as_the_callers_mistake(grid: Grid, method: str) -> None:
    with capture_logs() as told:
        code, info = await end_of(grid, method)
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    (line,) = [line for line in told if line["log_level"] in ("warning", "error")]
    assert (line["event"], line["method"]) == ("message_unreadable", method)
    assert await grid.submit(spec()) == [1]


async def test_flood_of_them_is_one_line_for_each_method(grid: Grid) -> None:
    with capture_logs() as told:
        for method in (*CALLS, *BOTH_WAYS) * 5:
            await end_of(grid, method)
    assert [line["method"] for line in told if line["event"] == "message_unreadable"] == [*CALLS, *BOTH_WAYS]


def test_next_line_tells_how_many_there_were() -> None:
    times_s = (0.0, 1.0, 2.0, COMPLAINT_INTERVAL_S)
    complaints = Complaints(iter(times_s).__next__)
    with capture_logs() as told:
        for _ in times_s:
            complaints.add("message_unreadable", "/Get")
    assert [line["count"] for line in told] == [1, 3]
