"""Speaks with BrowserStack's REST API: at its pace, and again where it refuses for a reason that passes.

Everything blocks, and is called from threads; whoever waits can give up. What BrowserStack answers is read liberally:
it is documented by examples only.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.browserstack.account import Account
from agent.browserstack.pace import Pace, pause, pause_after

REQUESTS_IN_A_SECOND = 90
UPLOADS_IN_A_MINUTE = 5
TIMEOUT_S = 60.0
"""So long a server may say nothing."""
UPLOAD_TIMEOUT_S = 900.0
PATIENCE_S = 60.0
"""How long a request is made again that is refused for a reason which passes."""
MOST_ANSWER_BYTES = 16 * 1_024 * 1_024
CHUNK_BYTES = 256 * 1_024
TOO_MANY = 429
UNAUTHORIZED = frozenset({401, 403})
NOT_FOUND = 404
MOST_SAID = 300


_TAG = re.compile(r"<[^<>]*>")


class CloudFailed(Exception):
    """BrowserStack did not do what it was asked; the sentence says why."""

    def __init__(self, message: str, status: int = 0, *, has_arrived: bool = True) -> None:
        """Take the sentence, the HTTP status if there was an answer, and whether the request may have arrived."""
        super().__init__(message)
        self.status = status
        self.has_arrived = has_arrived

    @property
    def is_refusal_of_credentials(self) -> bool:
        """Whether no other try can help before the operator has mended the credentials."""
        return self.status in UNAUTHORIZED

    @property
    def passes(self) -> bool:
        """Whether the same may be answered in a while."""
        return self.status in (0, TOO_MANY) or self.status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back for a request."""

    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an account may run at once, and what runs now."""

    running: int
    most: int
    queued: int = 0

    @property
    def has_room(self) -> bool:
        """Whether a session that is asked for now begins at once, and is not put into BrowserStack's own queue."""
        return self.running < self.most and not self.queued


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudDevice:
    """A device that BrowserStack offers."""

    name: str
    os_version: str
    platform: str = "android"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSession:
    """A session as BrowserStack keeps it; addresses are empty where there is nothing."""

    id: str
    name: str = ""
    status: str = ""
    device: str = ""
    os_version: str = ""
    browser_url: str = ""
    video_url: str = ""
    appium_logs_url: str = ""
    device_logs_url: str = ""


class Client:
    """One account's way to the API. For many threads, who share its pace."""

    def __init__(self, account: Account, patience_s: float = PATIENCE_S) -> None:
        """Make requests for an account; nothing is asked yet."""
        self.account = account
        self._patience_s = patience_s
        self._requests = Pace(REQUESTS_IN_A_SECOND, 1.0)
        self._uploads = Pace(UPLOADS_IN_A_MINUTE, 60.0)

    def share_with(self, agents: int) -> None:
        """Leave the other agents of the account their part of what it may ask in a second.

        Args:
            agents: How many serve it, this one included.
        """
        self._requests.allow(max(1, REQUESTS_IN_A_SECOND // max(1, agents)))

    # What is asked

    def plan(self, given_up: threading.Event, patience_s: float | None = None) -> Plan:
        """Return the plan as it is now.

        Raises:
            CloudFailed: It cannot be had.
        """
        told = self._object(self._get("plan.json", given_up, patience_s), "plan.json")
        mine = _number(told, "parallel_sessions_max_allowed")
        team = _number(told, "team_parallel_sessions_max_allowed", mine)
        return Plan(
            running=_number(told, "parallel_sessions_running", 0),
            most=min(mine, team) if team else mine,
            queued=_number(told, "queued_sessions", 0),
        )

    def devices(self, given_up: threading.Event) -> tuple[CloudDevice, ...]:
        """Return the devices that are offered.

        Raises:
            CloudFailed: They cannot be had.
        """
        told = self._get("devices.json", given_up)
        found = [_device(one) for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        if not found:
            raise CloudFailed("BrowserStack names no device in devices.json")
        return tuple(found)

    def find_app(self, custom_id: str, given_up: threading.Event) -> str | None:
        """Return the `bs://` address of the last upload under an id, if BrowserStack still has it.

        Raises:
            CloudFailed: It cannot be asked.
        """
        try:
            told = self._get(f"recent_apps/{quote(custom_id, safe='')}", given_up)
        except CloudFailed as error:
            if error.status == NOT_FOUND:
                return None
            raise
        entries = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        # The id is asked for; should an answer hold others as well, they are another build's.
        urls = [str(one.get("app_url", "")) for one in entries if one.get("custom_id", custom_id) == custom_id]
        return next((url for url in urls if url.startswith("bs://")), None)

    def upload(self, path: Path, custom_id: str, given_up: threading.Event) -> str:
        """Upload a build, in one try, and return its `bs://` address.

        Raises:
            CloudFailed: BrowserStack does not take it.
            OSError: It cannot be read.
            GivenUp: Nobody waits any more.
        """
        form = _Form(path, custom_id)
        self._uploads.wait(given_up)
        headers = {"Content-Type": form.content_type, "Content-Length": str(form.size)}
        whither = f"{self._base}/upload"
        answer = self._checked(self._send("POST", whither, form.chunks(given_up), headers, UPLOAD_TIMEOUT_S))
        told = self._object(_json(answer, "upload"), "upload")
        url = told.get("app_url")
        if not isinstance(url, str) or not url.startswith("bs://"):
            raise CloudFailed(f"BrowserStack took the build, and names no address of it: {_said(answer)}")
        return url

    def session(self, session_id: str, given_up: threading.Event) -> CloudSession:
        """Return what is kept of a session.

        Raises:
            CloudFailed: It cannot be had.
        """
        told = self._object(self._get(f"sessions/{quote(session_id, safe='')}.json", given_up), "the session")
        kept = told.get("automation_session")
        return _session(session_id, kept if isinstance(kept, dict) else {})

    def mark(self, session_id: str, given_up: threading.Event, **changes: str) -> None:
        """Set the `name`, or the `status` (passed or failed) and the `reason`, of a session.

        Raises:
            CloudFailed: It is not taken.
        """
        body = json.dumps(changes).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{self._base}/sessions/{quote(session_id, safe='')}.json"
        self._checked(self._until_answered(lambda: self._paced("PUT", url, body, headers), given_up, self._patience_s))

    # How it is asked

    @property
    def _base(self) -> str:
        return f"{self.account.api_url}/app-automate"

    def _get(self, path: str, given_up: threading.Event, patience_s: float | None = None) -> Any:  # noqa: ANN401 - JSON
        patience_s = self._patience_s if patience_s is None else patience_s
        answer = self._until_answered(lambda: self._paced("GET", f"{self._base}/{path}"), given_up, patience_s)
        return _json(answer, path)

    def _paced(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        self._requests.wait(threading.Event())
        return self._send(method, url, body, headers or {}, TIMEOUT_S)

    def _until_answered(self, send: Callable[[], Answer], given_up: threading.Event, patience_s: float) -> Answer:
        """Send until there is an answer that stays the same, at the longest for a while."""
        end, refusals = time.monotonic() + patience_s, 0
        while True:
            try:
                return self._checked(send())
            except CloudFailed as error:
                refusals += 1
                wait_s = pause_after(refusals, random.random())  # noqa: S311 - spreads tries, guards nothing
                if not error.passes or time.monotonic() + wait_s > end:
                    raise
            pause(wait_s, given_up)

    def _checked(self, answer: Answer) -> Answer:
        if answer.status in UNAUTHORIZED:
            told = "BrowserStack refuses the credentials; mend --browserstack-credentials"
            raise CloudFailed(told, answer.status)
        if answer.status >= 400:
            raise CloudFailed(f"BrowserStack answers {answer.status}: {_said(answer)}", answer.status)
        return answer

    def ask(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Make one request, whatever is answered, with the account's credentials and at its pace.

        Raises:
            CloudFailed: There is no answer.
        """
        self._requests.wait(threading.Event())
        return self._send(method, url, body, headers, timeout_s)

    def _send(
        self, method: str, url: str, body: bytes | Iterator[bytes] | None, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        told = {**headers, "Authorization": self.account.authorization}
        request = urllib.request.Request(url, data=body, headers=told, method=method)  # noqa: S310 - see `Account`
        try:
            with _OPENER.open(request, timeout=timeout_s) as answer:
                return _answer(answer.status, answer)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            has_arrived = not isinstance(reason, ConnectionRefusedError | socket.gaierror)
            message = f"BrowserStack does not answer: {reason or type(error).__name__}"
            raise CloudFailed(message, has_arrived=has_arrived) from error

    @staticmethod
    def _object(told: object, what: str) -> dict[str, Any]:
        if not isinstance(told, dict):
            raise CloudFailed(f"BrowserStack's answer for {what} makes no sense")
        return told


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The credentials go to no other host than the one that the operator named."""

    def redirect_request(self, *_: object) -> None:
        """Leave a redirect as it is: an answer that is no success."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def _answer(status: int, source: Any) -> Answer:  # noqa: ANN401 - an answer or an error of urllib
    try:
        body = source.read(MOST_ANSWER_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        raise CloudFailed(f"BrowserStack's answer broke off: {error}") from error
    if len(body) > MOST_ANSWER_BYTES:
        raise CloudFailed(f"BrowserStack's answer is larger than {MOST_ANSWER_BYTES} bytes", status)
    return Answer(status=status, body=body, content_type=source.headers.get("Content-Type") or "application/json")


def _json(answer: Answer, what: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise CloudFailed(f"BrowserStack's answer for {what} is no JSON: {_said(answer)}") from error


def said_in(body: bytes) -> str:
    """Return the sentence in an answer, wherever it stands there; empty if there is none."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(_TAG.sub(" ", body.decode("utf-8", "replace")).split())[:MOST_SAID]
    return " ".join(_sentence(told).split())[:MOST_SAID]


def _sentence(told: object) -> str:
    if isinstance(told, str):
        return told
    found = (_sentence(told.get(key)) for key in ("message", "value", "error")) if isinstance(told, dict) else iter(())
    return next((text for text in found if text), "")


def _said(answer: Answer) -> str:
    return said_in(answer.body) or "no reason given"


def _number(told: dict[str, Any], name: str, default: int | None = None) -> int:
    value = told.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise CloudFailed(f"BrowserStack's plan has no {name}")
    return value


def _device(told: dict[str, Any]) -> CloudDevice:
    name, version, platform = (str(told.get(key) or "") for key in ("device", "os_version", "os"))
    return CloudDevice(name=name, os_version=version, platform=platform.lower())


def _session(session_id: str, told: dict[str, Any]) -> CloudSession:
    texts = {one.name: str(told.get(one.name) or "") for one in fields(CloudSession) if one.name != "id"}
    return CloudSession(id=session_id, **texts)


class _Form:
    """A multipart form with a file, which is read while it is sent."""

    def __init__(self, path: Path, custom_id: str) -> None:
        boundary = f"qgjob-{random.getrandbits(128):032x}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._path = path
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="custom_id"\r\n\r\n{custom_id}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{custom_id}.apk"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.size = len(self._head) + path.stat().st_size + len(self._tail)

    def chunks(self, given_up: threading.Event) -> Iterator[bytes]:
        yield self._head
        with self._path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                pause(0, given_up)
                yield data
        yield self._tail
