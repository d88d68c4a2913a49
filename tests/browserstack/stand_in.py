"""A stand-in for BrowserStack App Automate on loopback: the REST API, and a hub whose sessions run on virtual phones.

It keeps the rules that the documentation names: Basic auth, five uploads a minute, sessions up to the plan, a queue
beyond it, the error texts. What goes wrong is asked for by the test: an outage, slow uploads, refusals, sessions of
somebody else. It writes down what a test wants to know afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agent.browserstack.account import Account
from agent.virtual_phone.badging import Badging, read_badging
from agent.virtual_phone.packages import InstallOptions
from agent.virtual_phone.phone import Phone, PhoneIdentity
from agent.virtual_phone.uiautomator import router
from agent.virtual_phone.uiautomator.session import CommandFailed, Session

USERNAME, ACCESS_KEY = "lab_user", "s3cretKeyOfTheLab"
DEVICES = (
    {"os": "android", "os_version": "13.0", "device": "Samsung Galaxy S23", "realMobile": True},
    {"os": "android", "os_version": "13.0", "device": "Google Pixel 7", "realMobile": True},
    {"os": "android", "os_version": "14.0", "device": "Google Pixel 8", "realMobile": True},
    {"os": "ios", "os_version": "17", "device": "iPhone 15", "realMobile": True},
)
QUEUE_FULL = (
    "All parallel tests are currently in use, including the queued tests. Please wait to finish or upgrade your plan"
    " to add more sessions"
)
TIER = "[BROWSERSTACK_TIER_LIMIT_EXCEEDED] Tier limit exceeded for device"


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: object) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


@dataclass
class KeptSession:
    """What BrowserStack keeps of a session."""

    id: str
    app_url: str
    device: str
    os_version: str
    capabilities: dict[str, Any]
    name: str = ""
    status: str = "running"
    reason: str = ""
    is_open: bool = True
    session: Session | None = None
    heard: float = field(default_factory=time.monotonic)
    """When the last command came for it."""


@dataclass
class StandIn:
    """One account's BrowserStack."""

    parallels: int = 2
    foreign: int = 0
    """Sessions of somebody else on the same account that run now."""
    upload_s: float = 0.0
    takes_uploads: threading.Event = field(default_factory=threading.Event)
    """Whether uploads come to their end; those that come before wait."""
    idle_s: float = 90.0
    """A session that hears nothing for so long is ended."""
    start_s: float = 0.0
    """How long a session takes to begin."""
    is_out: bool = False
    """Whether all requests are answered with 503."""
    tier_refusals: int = 0
    """So many sessions are refused for the quota of their device."""
    failing: dict[str, int] = field(default_factory=dict)
    """Part of a path -> how many requests for it are answered with 500."""
    uploads_a_minute: int = 5
    refuses_builds: bool = False
    """Whether no build is good enough."""
    refused_uploads: int = 0
    url: str = ""
    apps: dict[str, dict[str, str]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    media: list[bytes] = field(default_factory=list)
    sessions: dict[str, KeptSession] = field(default_factory=dict)
    uploads: list[float] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    most_running: int = 0
    queued: int = 0
    ever_queued: int = 0
    unauthorized: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    badgings: dict[bytes, Badging] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take uploads at once."""
        self.takes_uploads.set()

    def account(self) -> Account:
        """The account that is let in."""
        return Account(username=USERNAME, access_key=ACCESS_KEY, api_url=self.url, hub_url=f"{self.url}/wd/hub")

    @property
    def running(self) -> int:
        """Sessions that run, of whomever."""
        self._end_idle()
        return self.foreign + sum(1 for one in self.sessions.values() if one.is_open)

    def _end_idle(self) -> None:
        for one in list(self.sessions.values()):
            if one.is_open and time.monotonic() - one.heard > self.idle_s:
                self.drop(one.id)

    def drop(self, session: str) -> None:
        """End a session from BrowserStack's side, as it does with one that hears nothing."""
        with self.changed:
            self.sessions[session].is_open = False
            self.changed.notify_all()

    def wait_for_requests(self, method: str, count: int) -> None:
        """Wait until so many requests of a method have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: [one[0] for one in self.requests].count(method) >= count, timeout=60)

    def note_upload(self) -> None:
        """Let somebody else have uploaded something just now."""
        self.uploads.append(time.monotonic())

    def wait_for_refused_upload(self) -> None:
        """Wait until an upload was refused for its pace."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.refused_uploads, timeout=60)

    def forget_apps(self) -> None:
        """Let all apps expire."""
        self.apps.clear()

    # Requests

    def answer(self, method: str, path: str, headers: Message, body: bytes) -> tuple[int, object]:
        with self.changed:
            self.requests.append((method, path))
            self.changed.notify_all()
        if self.is_out:
            raise Refused(503, b"<html>Service Unavailable</html>")
        given = headers.get("Authorization", "")
        wanted = "Basic " + base64.b64encode(f"{USERNAME}:{ACCESS_KEY}".encode()).decode()
        if given != wanted:
            self.unauthorized += 1
            raise Refused(401, b"HTTP Basic: Access denied.\n")
        for part, left in self.failing.items():
            if left and part in path:
                self.failing[part] -= 1
                raise Refused(500, {"error": "Internal server error"})
        if path.startswith("/wd/hub/"):
            return 200, {"value": self._hub(method, path.removeprefix("/wd/hub"), json.loads(body or b"{}"))}
        return 200, self._api(method, path.removeprefix("/app-automate/"), headers, body)

    def _api(self, method: str, path: str, headers: Message, body: bytes) -> object:
        match method, path.split("/"):
            case "GET", ["plan.json"]:
                return self._plan()
            case "GET", ["devices.json"]:
                return DEVICES
            case "POST", ["upload"]:
                return self._upload(headers["Content-Type"], body)
            case "POST", ["upload-media"]:
                self.media.append(_parts(headers["Content-Type"] or "", body)["file"])
                return {"media_url": f" media://{len(self.media)} "}
            case "GET", ["recent_apps", custom_id]:
                found = [app for app in self.apps.values() if app["custom_id"] == custom_id]
                return found or {"message": "No results found"}
            case _, ["sessions", name]:
                kept = self.sessions.get(name.removesuffix(".json"))
                if kept is None:
                    raise Refused(404, {"error": {"message": "Session not found"}})
                return self._session(kept, method, body)
            case _:
                raise Refused(404, {"error": {"message": f"no {method} {path}"}})

    def _plan(self) -> object:
        return {
            "automate_plan": "App Automate",
            "parallel_sessions_running": min(self.running, self.parallels),
            "team_parallel_sessions_max_allowed": self.parallels,
            "parallel_sessions_max_allowed": self.parallels,
            "queued_sessions": self.queued,
            "queued_sessions_max_allowed": max(5, self.parallels),
        }

    def _upload(self, content_type: str, body: bytes) -> object:
        now = time.monotonic()
        with self.changed:
            if self.refuses_builds:
                raise Refused(422, {"error": "Invalid app"})
            if sum(1 for at in self.uploads if now - at < 60) >= self.uploads_a_minute:
                self.refused_uploads += 1
                self.changed.notify_all()
                raise Refused(429, {"error": "Rate limit exceeded"})
            self.uploads.append(now)
        parts = _parts(content_type, body)
        content = parts["file"]
        threading.Event().wait(self.upload_s)
        assert self.takes_uploads.wait(300)
        app_id = hashlib.sha1(content + str(now).encode()).hexdigest()
        custom_id = parts["custom_id"].decode().strip()
        app = {"app_url": f"bs://{app_id}", "custom_id": custom_id, "app_name": f"{custom_id}.apk"}
        self.contents[app["app_url"]] = content
        self.apps[app["app_url"]] = {**app, "uploaded_at": "2026-11-01 10:00:00 UTC"}
        return {**app, "shareable_id": f"{USERNAME}/{custom_id}"}

    def _session(self, kept: KeptSession, method: str, body: bytes) -> object:
        if method == "PUT":
            changes = json.loads(body)
            if changes.get("status", "passed") not in ("passed", "failed"):
                raise Refused(422, {"error": {"message": "Invalid status"}})
            for name in ("name", "status", "reason"):
                setattr(kept, name, changes.get(name, getattr(kept, name)))
        base = f"https://app-automate.browserstack.com/sessions/{kept.id}"
        session = {
            "name": kept.name,
            "status": kept.status,
            "reason": kept.reason,
            "hashed_id": kept.id,
            "os": "android",
            "os_version": kept.os_version,
            "device": kept.device,
            "browser_url": base,
            "public_url": f"{base}?auth_token=for-anybody",
            "video_url": f"{base}/video",
            "appium_logs_url": f"{base}/appiumlogs",
            "device_logs_url": f"{base}/devicelogs",
            "app_details": {"app_url": kept.app_url, "app_name": "app.apk"},
        }
        return {"automation_session": session}

    # The hub

    def _hub(self, method: str, path: str, body: dict[str, Any]) -> object:
        if path == "/session":
            return self._begin(body["capabilities"]["alwaysMatch"])
        self._end_idle()
        kept = self.sessions.get(path.split("/")[2])
        if kept is None or not kept.is_open:
            raise Refused(404, _error("invalid session id", "session is either terminated or not started"))
        if method == "DELETE" and path == f"/session/{kept.id}":
            self.drop(kept.id)
            return None
        kept.heard = time.monotonic()
        if kept.session is None:
            kept.session = self._phone(kept)
        return _command(kept.session, method, path.replace(kept.id, str(kept.session.id)), body)

    def _begin(self, capabilities: dict[str, Any]) -> object:
        options = capabilities["bstack:options"]
        wanted = (options["deviceName"], options["osVersion"])
        if not any((one["device"], one["os_version"]) == wanted for one in DEVICES):
            raise Refused(500, _error("session not created", f"[BROWSERSTACK_INVALID_OS_DEVICE_COMBO] {wanted}"))
        if capabilities["appium:app"] not in self.apps:
            raise Refused(500, _error("session not created", "[BROWSERSTACK_INVALID_APP_URL] The app is not found"))
        if self.tier_refusals:
            self.tier_refusals -= 1
            raise Refused(500, _error("session not created", f"{TIER} '{wanted[0]}'"))
        with self.changed:
            self._find_room()
            kept = KeptSession(uuid.uuid4().hex, capabilities["appium:app"], *wanted, capabilities)
            kept.name = options.get("sessionName", "")
            self.sessions[kept.id] = kept
            self.most_running = max(self.most_running, self.running)
        threading.Event().wait(self.start_s)
        told = {"platformName": "android", "appium:automationName": "UiAutomator2", "appium:deviceName": wanted[0]}
        return {"sessionId": kept.id, "capabilities": told}

    def _find_room(self) -> None:
        """Wait in the queue where all parallels are in use."""
        if self.running < self.parallels:
            return
        if self.queued >= max(5, self.parallels):
            raise Refused(500, _error("session not created", QUEUE_FULL))
        self.queued += 1
        self.ever_queued += 1
        is_there = self.changed.wait_for(lambda: self.running < self.parallels, timeout=900)
        self.queued -= 1
        if not is_there:
            raise Refused(500, _error("session not created", "[BROWSERSTACK_QUEUE_TIMEOUT] dropped from the queue"))

    def _phone(self, kept: KeptSession) -> Session:
        """Boot the phone of a session with its app in front, as the hub does."""

        async def read(content: bytes) -> Badging:
            if content not in self.badgings:
                self.badgings[content] = await read_badging(content)
            return self.badgings[content]

        release = kept.os_version.partition(".")[0]
        phone = Phone(PhoneIdentity(model=kept.device, release=release), read=read)
        options = InstallOptions(grants_permissions=True)
        installed = asyncio.run(phone.packages.install(self.contents[kept.app_url], options))
        phone.tap_icon(installed.name)
        session = Session(phone)
        session.begin()
        return session


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the parts of a multipart form by their names."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    parts: dict[str, bytes] = {}
    for part in form.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts[str(part.get_param("name", header="content-disposition"))] = content
    return parts


def _command(session: Session, method: str, path: str, body: dict[str, Any]) -> object:
    """Do what Appium's driver does with a command before the phone hears it."""
    if path.endswith("/displayed"):
        path = path.removesuffix("/displayed") + "/attribute/displayed"
    try:
        value = router.call(session, method, path, body)
    except CommandFailed as error:
        raise Refused(error.status, _error(error.error, error.message)) from error
    return value == "true" if path.endswith("/attribute/displayed") else value


def _error(error: str, message: str) -> object:
    return {"value": {"error": error, "message": message, "stacktrace": ""}}


@contextmanager
def running_stand_in(stand_in: StandIn) -> Iterator[StandIn]:
    """A stand-in that is gone at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                status, answer = stand_in.answer(self.command, self.path, self.headers, body)
            except Refused as refused:
                status, answer = refused.status, refused.body
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
