"""The way by which tests reach BrowserStack: a port on loopback that adds the credentials, which tests never see.

A run gets an address of its own under it. Whatever it asks for goes through here, and so the rules of the account are
kept in one place, whatever a test does:

- A session is asked for only when the plan says that it would begin at once: never is one put into BrowserStack's own
  queue, where it would be dropped after 15 minutes. The run waits here instead, and its log says for what.
- A run has one session at a time; one that it left open is ended before the next one, and at the end of the run.
- Refusals that pass (too many requests, a server's error, the quota of a device) are tried again, after growing pauses.
- Only what a run needs is let through: the hub, its own sessions, media for the camera.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog

from agent.browserstack.client import Answer, Client, CloudFailed, CloudSession, Plan, said_in
from agent.browserstack.pace import GivenUp, pause, pause_after

MOST_BODY_BYTES = 64 * 1_024 * 1_024
HUB_TIMEOUT_S = 300.0
"""So long a device may take for one command."""
COMMAND_PATIENCE_S = 45.0
"""How long a command is made again that did not arrive; BrowserStack ends a session that hears nothing for 90 s."""
ROOM_POLL_S = 5.0
CLOSE_POLL_S = 0.1
ENDING_PATIENCE_S = 20.0
COUNTED_S = 5.0
"""How long a session that has ended may still stand in the plan."""
MOST_NAME = 255

_QUOTA = re.compile(
    r"TIER_LIMIT_EXCEEDED|QUEUE_SIZE_EXCEEDED|PARALLEL|parallel (tests|sessions)|sessions? .*in use|rate limit",
    re.IGNORECASE,
)
_SESSION_PATH = re.compile(r"^/app-automate/sessions/([A-Za-z0-9._-]{1,128})\.json$")
_HUB = "/wd/hub"
_NOT_REACHED = frozenset({429, 502, 503, 504})
"""With these a server in between says that the hub was not reached, or does not take it now."""
_STATUSES = {"passed": "passed", "failed": "failed", "timedOut": "failed", "interrupted": "failed"}


@dataclass(slots=True, eq=False)
class Visit:
    """One run, from its begin to its end: what it may do, and what it did."""

    label: str
    """How its sessions are named at BrowserStack."""
    say: Callable[[str], None]
    """Takes a line for the run's log; called from any thread."""
    slot: str = ""
    """Where it runs."""
    waits: str = ""
    """What it waits for before it can have a session; empty while it does not wait."""
    given_up: threading.Event = field(default_factory=threading.Event)
    sessions: list[str] = field(default_factory=list)
    """All that were begun."""
    open: str | None = None
    """The one that has not ended."""
    troubles: list[str] = field(default_factory=list)
    """What BrowserStack did not do, and no test is to blame for."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Gateway:
    """Serves the runs of one agent on one account."""

    def __init__(self, client: Client, room_poll_s: float = ROOM_POLL_S) -> None:
        """Listen; `close` ends it.

        Args:
            client: The account.
            room_poll_s: How often the plan is looked at while a session waits for room, in seconds.
        """
        self.client = client
        self._room_poll_s = room_poll_s
        self._visits: dict[str, Visit] = {}
        self._asking = threading.Lock()
        self._ended: deque[float] = deque()
        self._starting = 0
        """Sessions that were asked for and do not stand yet: two runs must not both take the last room."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(CLOSE_POLL_S,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def sessions_open(self) -> int:
        """How many sessions its runs have now."""
        return sum(1 for visit in list(self._visits.values()) if visit.open is not None)

    def waiting(self) -> dict[str, str]:
        """Return what the runs in each slot wait for that cannot have a session now."""
        return {visit.slot: visit.waits for visit in list(self._visits.values()) if visit.waits}

    @property
    def sessions_counted(self) -> int:
        """How many sessions that the plan may count are its runs': BrowserStack needs a moment to count one no more."""
        now = time.monotonic()
        while self._ended and now - self._ended[0] > COUNTED_S:
            self._ended.popleft()
        return self.sessions_open + len(self._ended)

    def close(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self, visit: Visit) -> str:
        """Let a run in; return the path under which it may ask."""
        token = secrets.token_hex(16)
        self._visits[token] = visit
        return f"/{token}"

    def end(self, path: str) -> tuple[CloudSession, ...]:
        """Let a run out: end the session that it left open, and return what BrowserStack keeps of all that it had."""
        visit = self._visits[path.lstrip("/")]
        visit.given_up.set()
        with visit.lock:
            if visit.open is not None:
                self._end_session(visit, visit.open)
        del self._visits[path.lstrip("/")]
        return tuple(self._kept(session) for session in visit.sessions)

    def _kept(self, session: str) -> CloudSession:
        try:
            return self.client.session(session, threading.Event())
        except CloudFailed as error:
            structlog.get_logger("agent").warning("cloud_session_unknown", session=session, reason=str(error))
            return CloudSession(id=session)

    # What runs ask

    def answer(self, method: str, path: str, body: bytes, content_type: str) -> Answer:
        """Do what a run asks, and return what it is told."""
        token, _, rest = path.lstrip("/").partition("/")
        visit, rest = self._visits.get(token), f"/{rest.partition('?')[0]}"
        if visit is None:
            return _refusal(404, "unknown command", "nothing is here")
        try:
            if rest.startswith(f"{_HUB}/session"):
                return self._hub(visit, method, rest.removeprefix(_HUB), body, content_type)
            return self._api(visit, method, rest, body, content_type)
        except GivenUp:
            return _refusal(500, "session not created", "the run was ended while it waited")
        except CloudFailed as error:
            visit.troubles.append(str(error))
            return _refusal(502, "unknown error", str(error))

    def _hub(self, visit: Visit, method: str, path: str, body: bytes, content_type: str) -> Answer:
        if path == "/session":
            with visit.lock:
                return self._new_session(visit, body)
        session = path.split("/")[2]
        if session not in visit.sessions:
            return _refusal(404, "invalid session id", f"session {session} is not of this run")
        answer = self._insist(visit, method, f"{self.client.account.hub_url}{path}", body, content_type)
        if method == "DELETE" and path == f"/session/{session}":
            # That it is known no more may be the answer to a second try, whose first one has ended it.
            if answer.status < 500 and visit.open == session:
                self._note_end(visit)
        elif visit.open == session and _says_ended(answer):
            visit.troubles.append(f"BrowserStack ended session {session} in the middle of the test")
            self._note_end(visit)
        return answer

    def _new_session(self, visit: Visit, body: bytes) -> Answer:
        if visit.open is not None:
            self._end_session(visit, visit.open)
        refusals = 0
        while True:
            pause(0, visit.given_up)
            plan = self._room(visit)
            answer = self._try_session(visit, body) if plan is None else None
            if isinstance(answer, Answer):
                visit.waits = ""
                return answer
            if isinstance(plan, Plan):
                refusals, wait_s = 0, self._room_poll_s
                visit.waits = f"all {plan.most} sessions of the BrowserStack plan are in use"
                visit.say(f"{visit.waits}; waiting for one")
            else:
                refusals += 1
                wait_s = pause_after(refusals, random.random())  # noqa: S311 - spreads tries, guards nothing
                visit.waits = str(answer or plan)
                visit.say(f"{visit.waits}; another try in {wait_s:.0f} s")
            pause(wait_s, visit.given_up)

    def _room(self, visit: Visit) -> Plan | str | None:
        """Take room for a session. Returns None if there was some, else the plan, or why it cannot be had now."""
        with self._asking:
            try:
                plan = self.client.plan(visit.given_up, patience_s=0)
            except CloudFailed as error:
                if not error.passes:
                    raise
                return str(error)
            if plan.running + self._starting >= plan.most or plan.queued:
                return plan
            self._starting += 1
            return None

    def _try_session(self, visit: Visit, body: bytes) -> Answer | str:
        """Ask for the session that there is room for. Returns the hub's answer, or why it is worth to ask again."""
        url, headers = f"{self.client.account.hub_url}/session", {"Content-Type": "application/json"}
        try:
            answer = self.client.ask("POST", url, body, headers, HUB_TIMEOUT_S)
        except CloudFailed as error:
            return str(error)
        finally:
            with self._asking:
                self._starting -= 1
        if answer.status in _NOT_REACHED:
            return f"BrowserStack answers {answer.status} to a session"
        if answer.status >= 400 and _QUOTA.search(said := said_in(answer.body)):
            return f"BrowserStack has no room for a session: {said}"
        session = _session_in(answer) if answer.status < 400 else None
        if session is not None:
            visit.sessions.append(session)
            visit.open = session
        return answer

    def _insist(self, visit: Visit, method: str, url: str, body: bytes, content_type: str) -> Answer:
        """Pass a request on, again where it was not taken for a reason that passes."""
        end, refusals = time.monotonic() + COMMAND_PATIENCE_S, 0
        while True:
            told = ""
            try:
                answer = self.client.ask(method, url, body or None, {"Content-Type": content_type}, HUB_TIMEOUT_S)
                if answer.status not in _NOT_REACHED:
                    return answer
                told = f"BrowserStack answers {answer.status}"
            except CloudFailed as error:
                told = str(error)
                if error.has_arrived:  # done twice it might be a second tap
                    end = 0.0
            if time.monotonic() > end:
                visit.troubles.append(told)
                return _refusal(502, "unknown error", told)
            refusals += 1
            pause(pause_after(refusals, random.random()), visit.given_up)  # noqa: S311 - as above

    def _api(self, visit: Visit, method: str, path: str, body: bytes, content_type: str) -> Answer:
        found = _SESSION_PATH.match(path)
        if found is not None and found[1] in visit.sessions and method == "GET":
            return self._insist(visit, "GET", f"{self.client.account.api_url}{path}", b"", content_type)
        if found is not None and found[1] in visit.sessions and method == "PUT":
            return self._mark(visit, found[1], body)
        if path == "/app-automate/upload-media" and method == "POST":
            return self._insist(visit, "POST", f"{self.client.account.api_url}{path}", body, content_type)
        return _refusal(403, "unknown command", f"a test may not ask BrowserStack for {method} {path}")

    def _mark(self, visit: Visit, session: str, body: bytes) -> Answer:
        """Name a session or say how it went. A test shall not fail because BrowserStack does not take that."""
        changes = _changes(visit, body)
        try:
            if changes:
                self.client.mark(session, visit.given_up, **changes)
        except CloudFailed as error:
            visit.say(f"the session at BrowserStack could not be marked: {error}")
        return Answer(status=200, body=json.dumps({"automation_session": changes}).encode())

    def _note_end(self, visit: Visit) -> None:
        visit.open = None
        self._ended.append(time.monotonic())

    def _end_session(self, visit: Visit, session: str) -> None:
        """End a session, for which somebody pays as long as it lives."""
        url = f"{self.client.account.hub_url}/session/{session}"
        end, refusals, told = time.monotonic() + ENDING_PATIENCE_S, 0, ""
        while time.monotonic() < end:
            try:
                answer = self.client.ask("DELETE", url, None, {})
            except CloudFailed as error:
                told = str(error)
            else:
                if answer.status not in _NOT_REACHED:
                    self._note_end(visit)
                    return
                told = f"BrowserStack answers {answer.status}"
            refusals += 1
            pause(pause_after(refusals, random.random()), threading.Event())  # noqa: S311 - as above
        self._note_end(visit)  # it hears nothing any more, and BrowserStack ends it for that
        structlog.get_logger("agent").warning("cloud_session_left", session=session, reason=told)


def _says_ended(answer: Answer) -> bool:
    """Whether the hub knows a session no more, though nobody here has ended it."""
    if answer.status != 404:
        return False
    try:
        return bool(json.loads(answer.body)["value"]["error"] == "invalid session id")
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _session_in(answer: Answer) -> str | None:
    try:
        session = json.loads(answer.body)["value"]["sessionId"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return session if isinstance(session, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", session) else None


def _changes(visit: Visit, body: bytes) -> dict[str, str]:
    """Return what a test says of its session in the words that BrowserStack knows."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    if isinstance(told.get("name"), str):
        return {"name": f"{visit.label} > {told['name']}"[:MOST_NAME]}
    status = _STATUSES.get(str(told.get("status")))
    if status is None:
        return {}
    reason = told.get("reason")
    return {"status": status, **({"reason": reason[:MOST_NAME]} if isinstance(reason, str) else {})}


def _refusal(status: int, error: str, message: str) -> Answer:
    """Return an answer that WebDriver and AppWright both read."""
    told = {"value": {"error": error, "message": message, "stacktrace": ""}}
    return Answer(status=status, body=json.dumps(told).encode())


def _handler(gateway: Gateway) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 600

        def _serve(self) -> None:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > MOST_BODY_BYTES or "Transfer-Encoding" in self.headers:
                self.close_connection = True
                self._write(_refusal(413, "invalid argument", "a body of at most 64 MiB is taken, its length told"))
                return
            body = self.rfile.read(int(length))
            content_type = self.headers.get("Content-Type") or "application/json"
            self._write(gateway.answer(self.command, self.path, body, content_type))

        def _write(self, answer: Answer) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            """Say nothing: what runs do is in their own logs."""

    return Handler
