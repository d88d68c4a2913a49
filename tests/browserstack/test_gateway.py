"""What runs may ask of BrowserStack, and what they never see of it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from agent.browserstack import gateway as module
from agent.browserstack.client import Answer, Client
from agent.browserstack.gateway import Gateway, Visit
from tests.browserstack.stand_in import ACCESS_KEY, StandIn

APP = "bs://the-app"


@pytest.fixture
def gateway(stand_in: StandIn, client: Client) -> Iterator[Gateway]:
    stand_in.apps[APP] = {"app_url": APP, "custom_id": "x"}
    gateway = Gateway(client, room_poll_s=0.02)
    yield gateway
    gateway.close()


class Run:
    """A run, as Playwright's process would behave."""

    def __init__(self, gateway: Gateway, label: str = "job 1", has_said: threading.Event | None = None) -> None:
        self.lines: list[str] = []
        self.has_said = has_said or threading.Event()
        self.gateway = gateway
        self.visit = Visit(label, self._say, "slot")
        self.path = gateway.begin(self.visit)

    def _say(self, line: str) -> None:
        self.lines.append(line)
        self.has_said.set()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        url = f"{self.gateway.address}{self.path}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def session(self, device: str = "Google Pixel 8") -> tuple[int, Any]:
        options = {"deviceName": device, "osVersion": "14.0"}
        wish = {"capabilities": {"alwaysMatch": {"appium:app": APP, "bstack:options": options}}}
        return self.ask("POST", "/wd/hub/session", wish)

    def session_id(self) -> str:
        status, told = self.session()
        assert status == 200, told
        return str(told["value"]["sessionId"])


def at_once(work: Callable[[], tuple[int, Any]]) -> Callable[[], tuple[int, Any]]:
    """Begin some work; return how to wait for what comes of it."""
    results: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def result() -> tuple[int, Any]:
        thread.join(20)
        return results[0]

    return result


def test_run_without_credentials_gets_a_session_of_the_account(gateway: Gateway, stand_in: StandIn) -> None:
    run = Run(gateway)
    session = run.session_id()
    assert gateway.sessions_open == 1
    assert run.ask("DELETE", f"/wd/hub/session/{session}") == (200, {"value": None})
    assert gateway.sessions_open == 0
    (kept,) = gateway.end(run.path)
    assert (kept.id, kept.device) == (session, "Google Pixel 8")
    assert stand_in.unauthorized == 0


def test_session_waits_on_our_side_while_others_have_all_and_is_never_queued_at_browserstack(
    gateway: Gateway, stand_in: StandIn
) -> None:
    stand_in.foreign = 2
    run = Run(gateway)
    waiting = at_once(run.session)
    assert run.has_said.wait(10)
    assert run.lines[0] == "all 2 sessions of the BrowserStack plan are in use; waiting for one"
    assert gateway.waiting() == {"slot": "all 2 sessions of the BrowserStack plan are in use"}
    stand_in.foreign = 1
    status, _ = waiting()
    assert (status, stand_in.ever_queued, stand_in.most_running) == (200, 0, 2)


def test_two_runs_that_want_the_last_room_at_once_take_turns(gateway: Gateway, stand_in: StandIn) -> None:
    stand_in.foreign, stand_in.start_s = 1, 0.2
    has_said = threading.Event()
    runs = [Run(gateway, has_said=has_said), Run(gateway, has_said=has_said)]
    results = [at_once(run.session) for run in runs]
    assert has_said.wait(10)
    first, second = (0, 1) if runs[1].lines else (1, 0)
    status, told = results[first]()
    assert runs[first].ask("DELETE", f"/wd/hub/session/{told['value']['sessionId']}")[0] == status == 200
    assert results[second]()[0] == 200
    assert (stand_in.most_running, stand_in.ever_queued) == (2, 0)


def test_session_that_browserstack_ends_is_its_own_trouble_and_no_end_of_the_tests(
    gateway: Gateway, stand_in: StandIn
) -> None:
    run = Run(gateway)
    dropped = run.session_id()
    stand_in.drop(dropped)
    status, told = run.ask("GET", f"/wd/hub/session/{dropped}/source")
    assert (status, told["value"]["error"]) == (404, "invalid session id")
    assert run.visit.troubles == [f"BrowserStack ended session {dropped} in the middle of the test"]
    assert gateway.sessions_open == 0
    ended = run.session_id()
    run.ask("DELETE", f"/wd/hub/session/{ended}")
    run.ask("GET", f"/wd/hub/session/{ended}/source")
    assert len(run.visit.troubles) == 1, "the test ended that one itself"


def test_session_whose_end_was_answered_too_badly_to_be_heard_was_still_ended_by_its_test(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(gateway)
    session = run.session_id()
    ask, lost = gateway.client.ask, [Answer(status=503, body=b"")]

    def lose_one(
        method: str, url: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float = 60.0
    ) -> Answer:
        answer = ask(method, url, body, headers, timeout_s)
        return lost.pop() if method == "DELETE" and lost else answer

    monkeypatch.setattr(gateway.client, "ask", lose_one)
    run.ask("DELETE", f"/wd/hub/session/{session}")
    assert (run.visit.troubles, gateway.sessions_open) == ([], 0)


@pytest.mark.parametrize("trouble", ["tier", "error", "outage"])
def test_session_that_is_refused_for_what_passes_is_tried_again(
    gateway: Gateway, stand_in: StandIn, trouble: str
) -> None:
    run = Run(gateway)
    if trouble == "tier":
        stand_in.tier_refusals = 2
    elif trouble == "error":
        stand_in.failing["plan.json"] = 2
    else:
        stand_in.is_out = True
    waiting = at_once(run.session)
    assert run.has_said.wait(10)
    stand_in.is_out = False
    assert waiting()[0] == 200
    assert not gateway.waiting()
    words = {"tier": "TIER_LIMIT_EXCEEDED", "error": "answers 500", "outage": "answers 503"}
    assert words[trouble] in run.lines[0]
    assert "another try in" in run.lines[0]


def test_session_that_cannot_be_is_refused_at_once_with_browserstacks_own_words(
    gateway: Gateway, stand_in: StandIn
) -> None:
    status, told = Run(gateway).session("Nokia 3310")
    assert status == 500
    assert "INVALID_OS_DEVICE_COMBO" in told["value"]["message"]
    assert not stand_in.sessions


def test_run_that_waits_for_a_session_is_let_go_when_it_is_ended(gateway: Gateway, stand_in: StandIn) -> None:
    stand_in.foreign = 2
    run = Run(gateway)
    waiting = at_once(run.session)
    assert run.has_said.wait(10)
    run.visit.given_up.set()
    status, told = waiting()
    assert (status, told["value"]["error"]) == (500, "session not created")
    assert gateway.end(run.path) == ()


def test_session_that_a_run_left_open_is_ended_before_its_next_and_at_its_end(
    gateway: Gateway, stand_in: StandIn
) -> None:
    run = Run(gateway)
    first, second = run.session_id(), run.session_id()
    assert not stand_in.sessions[first].is_open
    assert stand_in.sessions[second].is_open
    assert [kept.id for kept in gateway.end(run.path)] == [first, second]
    assert not stand_in.sessions[second].is_open
    assert run.ask("GET", "/wd/hub/status")[0] == 404, "a run that is over has no way in"


def test_command_that_did_not_arrive_is_made_again_and_one_that_may_have_is_not(
    gateway: Gateway, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(gateway)
    session = run.session_id()
    stand_in.is_out = True
    ending = at_once(lambda: run.ask("DELETE", f"/wd/hub/session/{session}"))
    stand_in.wait_for_requests("DELETE", 2)
    stand_in.is_out = False
    assert ending()[0] == 200
    assert not run.visit.troubles
    session = run.session_id()
    monkeypatch.setattr(module, "COMMAND_PATIENCE_S", 0.0)
    stand_in.is_out = True
    status, told = run.ask("GET", f"/wd/hub/session/{session}")
    assert (status, told["value"]["message"]) == (502, "BrowserStack answers 503")
    assert run.visit.troubles == ["BrowserStack answers 503"]
    stand_in.is_out = False


def test_details_of_a_session_are_asked_for_until_they_are_told(gateway: Gateway, stand_in: StandIn) -> None:
    run = Run(gateway)
    session = run.session_id()
    stand_in.is_out = True
    before = [one[0] for one in stand_in.requests].count("GET")
    asking = at_once(lambda: run.ask("GET", f"/app-automate/sessions/{session}.json"))
    stand_in.wait_for_requests("GET", before + 2)
    stand_in.is_out = False
    assert asking()[0] == 200
    assert not run.visit.troubles


def test_session_is_named_after_the_job_and_its_status_is_one_that_browserstack_knows(
    gateway: Gateway, stand_in: StandIn
) -> None:
    run = Run(gateway, "job 7: tests/login.spec.ts")
    session = run.session_id()
    path = f"/app-automate/sessions/{session}.json"
    assert run.ask("PUT", path, {"name": "logs in"})[0] == 200
    assert run.ask("PUT", path, {"status": "timedOut", "reason": "x" * 1_000})[0] == 200
    kept = stand_in.sessions[session]
    assert (kept.name, kept.status, kept.reason) == ("job 7: tests/login.spec.ts > logs in", "failed", "x" * 255)
    assert run.ask("PUT", path, {"status": "skipped"})[0] == 200
    assert run.ask("GET", path)[1]["automation_session"]["app_details"]["app_name"] == "app.apk"


def test_mark_that_is_not_taken_fails_no_test(gateway: Gateway, stand_in: StandIn) -> None:
    run = Run(gateway)
    session = run.session_id()
    stand_in.failing["sessions/"] = 1_000
    assert run.ask("PUT", f"/app-automate/sessions/{session}.json", {"status": "passed"})[0] == 200
    assert "could not be marked" in run.lines[-1]


def test_run_may_ask_for_nothing_but_its_own(gateway: Gateway, stand_in: StandIn) -> None:
    mine, other = Run(gateway), Run(gateway)
    foreign = other.session_id()
    before = len(stand_in.requests)
    assert mine.ask("DELETE", f"/wd/hub/session/{foreign}")[0] == 404
    assert mine.ask("GET", f"/app-automate/sessions/{foreign}.json")[0] == 403
    assert mine.ask("GET", "/app-automate/plan.json")[0] == 403
    assert mine.ask("DELETE", "/app-automate/app/delete/1")[0] == 403
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{gateway.address}/wd/hub/session", timeout=10, data=b"{}")
    assert len(stand_in.requests) == before, "nothing of it left this host"


def test_nothing_that_a_run_is_told_holds_the_key(gateway: Gateway) -> None:
    run = Run(gateway)
    told = [run.session(), run.session("Nokia"), run.ask("GET", "/app-automate/plan.json")]
    assert ACCESS_KEY not in json.dumps(told) + gateway.address + run.path + repr(gateway.client.account)
