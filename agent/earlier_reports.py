"""Fetches what earlier attempts of a job left to be merged, whichever agent ran them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog

from agent import wire
from agent.core.model import AgentId, AttemptId, LeaseKey
from qgjob.errors import ClientError
from qgjob.v1 import artifact_service_pb2, artifact_service_pb2_grpc

PATIENCE_S = 60.0
"""So long is waited for a report that may still come: its agent uploads it after the verdict, as this one does."""
PAUSE_S = 2.0
CALL_TIMEOUT_S = 60.0
MOST_BYTES = 256 * 1_024 * 1_024
"""Of all reports together."""


class EarlierReports:
    """Asks the coordinator of the moment."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel], agent: AgentId) -> None:
        """Take the way to the coordinator, and who asks."""
        self._channel = channel
        self._agent = agent

    async def fetch(self, attempt: AttemptId, key: LeaseKey, folder: Path) -> list[Path]:
        """Return the reports of the attempts before one, the oldest first, as files in a folder.

        What does not come in time is left out, for the rest is of use without it.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + PATIENCE_S
        while True:
            files, awaited = list[Path](), True
            try:
                files, awaited = await self._fetch(attempt, key, folder)
            except grpc.aio.AioRpcError as error:
                if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
                    return []
                structlog.get_logger("agent").debug("earlier_reports_put_off", attempt=attempt, reason=error.details())
            except ClientError as error:  # the token, which is read for each call
                structlog.get_logger("agent").warning("earlier_reports_put_off", attempt=attempt, reason=str(error))
            if not awaited or loop.time() > until_s:
                return files
            await asyncio.sleep(PAUSE_S)

    async def _fetch(self, attempt: AttemptId, key: LeaseKey, folder: Path) -> tuple[list[Path], bool]:
        """Return the files that are there, and whether others may still come."""
        request = artifact_service_pb2.FetchEarlierReportsRequest(
            key=wire.key_out(key), agent_id=self._agent, attempt_id=attempt
        )
        stub = artifact_service_pb2_grpc.ArtifactServiceStub(self._channel())
        reports: dict[int, bytearray] = {}
        is_awaited = False
        size = 0
        async for message in stub.FetchEarlierReports(request, timeout=CALL_TIMEOUT_S):
            is_awaited = is_awaited or bool(message.awaited)
            size += len(message.chunk.data)
            if size > MOST_BYTES:
                break
            if message.attempt_number:
                reports.setdefault(message.attempt_number, bytearray()).extend(message.chunk.data)
        return await asyncio.to_thread(_write, folder, reports), is_awaited


def _write(folder: Path, reports: dict[int, bytearray]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, data in sorted(reports.items()):
        path = folder / f"attempt-{number}.zip"
        path.write_bytes(data)
        files.append(path)
    return files
