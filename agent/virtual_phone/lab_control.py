"""The way into a running lab: a listener on the loopback interface, and those who ask it.

The lab writes the listener's port and a secret to ``control.json`` in its directory, readable by its owner only, so
whoever may read the lab's files may also speak to it. A connection carries one request and one answer, each a line of
JSON. Requests are ``{"list": true}``, ``{"begin": "FAULT", "phone": "NAME"}`` and ``{"end": "KIND", "phone": "NAME"}``.
"""

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

from agent.virtual_phone.daemon import LOOPBACK
from agent.virtual_phone.errors import LabFailed, VirtualPhoneError

FILE_NAME = "control.json"
MAX_LINE_BYTES = 64 * 1024
REQUEST_SECONDS = 30.0

Request = dict[str, Any]
Obey = Callable[[Request], Awaitable[dict[str, Any]]]


class LabControl:
    """The listener of a lab; use `start`."""

    def __init__(self, path: Path, obey: Obey) -> None:
        self._path = path
        self._obey = obey
        self._secret = secrets.token_hex(16)
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(cls, directory: Path, obey: Obey) -> Self:
        """Listen on a free port.

        Args:
            directory: where `control.json` goes.
            obey: does what a request asks and returns the answer, or raises a `VirtualPhoneError`.
        """
        control = cls(directory / FILE_NAME, obey)
        control._server = await asyncio.start_server(control._serve, LOOPBACK, 0, limit=MAX_LINE_BYTES)
        port = control._server.sockets[0].getsockname()[1]
        _write_private(control._path, json.dumps({"port": port, "secret": control._secret}))
        return control

    async def close(self) -> None:
        """Stop listening. May be called again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # who asked is gone, or never asked
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._answer(reader)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            request = json.loads(await reader.readline())
            if not isinstance(request, dict):
                raise LabFailed("a request is an object")
            if not secrets.compare_digest(str(request.pop("secret", "")).encode(), self._secret.encode()):
                raise LabFailed("wrong secret")
            return {"ok": True, **await self._obey(request)}
        except (ValueError, RecursionError) as error:
            return {"ok": False, "error": f"not JSON: {error}"}
        except VirtualPhoneError as error:
            return {"ok": False, "error": str(error)}


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


async def ask(directory: Path, request: Request) -> dict[str, Any]:
    """Send a request to the lab that runs in a directory and return its answer; raises `LabFailed`."""
    try:
        where = json.loads((directory / FILE_NAME).read_bytes())
        reader, writer = await asyncio.open_connection(LOOPBACK, where["port"], limit=MAX_LINE_BYTES)
    except (OSError, ValueError, KeyError) as error:
        raise LabFailed(
            f"no virtual phones run in {directory}; name the folder of another agent by --state-dir ({error})"
        ) from error
    try:
        writer.write(json.dumps({**request, "secret": where["secret"]}).encode() + b"\n")
        async with asyncio.timeout(REQUEST_SECONDS):
            answer: dict[str, Any] = json.loads(await reader.readline())
    except (OSError, ValueError, TimeoutError) as error:
        raise LabFailed(f"the virtual phones in {directory} do not answer ({error})") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not answer.pop("ok"):
        raise LabFailed(answer["error"])
    return answer
