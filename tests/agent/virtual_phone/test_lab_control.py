"""The way into a running lab: who may, and what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from agent.virtual_phone.daemon import LOOPBACK
from agent.virtual_phone.errors import LabFailed
from agent.virtual_phone.lab_control import FILE_NAME, MAX_LINE_BYTES, LabControl, Request, ask


async def echo(request: Request) -> dict[str, Any]:
    if "fail" in request:
        raise LabFailed("as asked")
    return {"got": request}


async def say(directory: Path, line: bytes) -> dict[str, Any]:
    port = json.loads((directory / FILE_NAME).read_text())["port"]
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(line)
        writer.write_eof()
        answer: dict[str, Any] = json.loads(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()
    return answer


async def test_request_is_answered_without_its_secret(tmp_path: Path) -> None:
    control = await LabControl.start(tmp_path, echo)
    try:
        assert await ask(tmp_path, {"list": True}) == {"got": {"list": True}}
        with pytest.raises(LabFailed, match="as asked"):
            await ask(tmp_path, {"fail": True})
    finally:
        await control.close()


async def test_only_the_owner_may_read_the_secret(tmp_path: Path) -> None:
    control = await LabControl.start(tmp_path, echo)
    try:
        assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600
    finally:
        await control.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"list": true}\n', "wrong secret"),
        (b'{"list": true, "secret": "x"}\n', "wrong secret"),
        (b'{"list": true, "secret": ["\xc3\xa9"]}\n', "wrong secret"),
        (b"[]\n", "a request is an object"),
        (b"", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"[" * 50_000 + b"\n", "not JSON"),
    ],
)
async def test_stranger_is_refused_and_the_lab_goes_on(tmp_path: Path, line: bytes, said: str) -> None:
    control = await LabControl.start(tmp_path, echo)
    try:
        answer = await say(tmp_path, line)
        assert answer["ok"] is False
        assert said in answer["error"]
        assert await ask(tmp_path, {"list": True})
    finally:
        await control.close()


async def test_line_without_end_is_not_waited_for(tmp_path: Path) -> None:
    control = await LabControl.start(tmp_path, echo)
    try:
        with contextlib.suppress(ConnectionError):  # the answer may be lost with what was left unread
            assert (await say(tmp_path, b"x" * (2 * MAX_LINE_BYTES)))["ok"] is False
        assert await ask(tmp_path, {"list": True})
    finally:
        await control.close()


async def test_lab_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabFailed, match=f"no virtual phones run in {tmp_path}; name the folder"):
        await ask(tmp_path, {"list": True})
    control = await LabControl.start(tmp_path, echo)
    stale = (tmp_path / FILE_NAME).read_text()
    await control.close()
    (tmp_path / FILE_NAME).write_text(stale)  # as after a kill -9
    with pytest.raises(LabFailed, match="no virtual phones run"):
        await ask(tmp_path, {"list": True})
