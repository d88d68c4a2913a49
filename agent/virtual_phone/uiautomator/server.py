"""The HTTP side of the UiAutomator2 server, on the streams of a forwarded port."""

import asyncio
import http
import json
from dataclasses import dataclass

from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.phone import Phone
from agent.virtual_phone.transport import Stream
from agent.virtual_phone.uiautomator import router
from agent.virtual_phone.uiautomator.session import Body, CommandFailed, Json, Session

SERVER_PACKAGE = "io.appium.uiautomator2.server"
SERVER_PORT = 6790
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
_LOGGED_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    path: str
    body: Body


class _BadRequest(Exception):
    """What came is not HTTP, or not what this server takes."""


class UiAutomatorServer:
    """Serves the commands of one UiAutomator2 process."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._session = Session(phone)

    async def serve(self, stream: Stream) -> None:
        """Answer the requests of one connection until it ends."""
        while True:
            try:
                request = await _read_request(stream)
            except _BadRequest as error:
                self._phone.log.note("HTTP", f"bad request: {error}")
                await stream.write(_encode(400, {"error": "invalid argument", "message": str(error)}, None))
                return
            status, value = self._answer(request)
            await stream.write(_encode(status, value, self._session.id))

    def _answer(self, request: _Request) -> tuple[int, Json]:
        status: int = http.HTTPStatus.OK
        try:
            value = router.call(self._session, request.method, request.path, request.body)
        except CommandFailed as error:
            status = error.status
            value = {"error": error.error, "message": error.message, "stacktrace": ""}
        asked = json.dumps(request.body)[:_LOGGED_CHARACTERS]
        answered = json.dumps(value)[:_LOGGED_CHARACTERS]
        self._phone.log.note("UIA", f"{request.method} {request.path} {asked} -> {status} {answered}")
        return status, value


async def _read_request(stream: Stream) -> _Request:
    try:
        head = await stream.readuntil(b"\r\n\r\n", MAX_HEAD_BYTES)
    except asyncio.LimitOverrunError as error:
        raise _BadRequest("the head of the request is too long") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _BadRequest("not an HTTP/1 request")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "transfer-encoding" in headers:
        raise _BadRequest("chunked bodies are not taken")
    length = whole_number(headers.get("content-length", "0"))
    if length is None or length > MAX_BODY_BYTES:
        raise _BadRequest(f"content length {headers['content-length'][:20]}")
    return _Request(method=words[0], path=words[1], body=_read_body(await stream.readexactly(length)))


def _read_body(content: bytes) -> Body:
    if not content.strip():
        return {}
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _BadRequest("the body is not JSON") from error
    if not isinstance(body, dict):
        raise _BadRequest("the body is not an object")
    return body


def _encode(status: int, value: Json, session_id: str | None) -> bytes:
    body = json.dumps({"sessionId": session_id, "value": value}).encode()
    reason = http.HTTPStatus(status).phrase
    lines = (f"HTTP/1.1 {status} {reason}", "Content-Type: application/json", f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body
