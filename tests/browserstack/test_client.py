"""The client against the stand-in: what it reads, what it tries again, what it gives up."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.browserstack.client import Client, CloudDevice, CloudFailed, Plan, said_in
from agent.browserstack.pace import GivenUp
from tests.browserstack.stand_in import StandIn


def test_plan_counts_the_sessions_of_others(stand_in: StandIn, client: Client, never: threading.Event) -> None:
    stand_in.foreign = 1
    assert client.plan(never) == Plan(running=1, most=2)
    assert client.plan(never).has_room
    stand_in.foreign = 2
    assert not client.plan(never).has_room


def test_plan_in_whose_queue_somebody_waits_has_no_room() -> None:
    assert not Plan(running=1, most=5, queued=1).has_room


def test_devices_are_read(client: Client, never: threading.Event) -> None:
    assert CloudDevice(name="Google Pixel 8", os_version="14.0") in client.devices(never)


def test_error_that_passes_is_asked_again_and_one_that_stays_is_told(
    stand_in: StandIn, client: Client, never: threading.Event
) -> None:
    stand_in.failing["plan.json"] = 2
    assert client.plan(never).most == 2
    assert len(stand_in.requests) == 3
    stand_in.is_out = True
    with pytest.raises(CloudFailed, match="BrowserStack answers 503: Service Unavailable") as failed:
        Client(stand_in.account(), patience_s=0).plan(never)
    assert failed.value.passes


def test_refused_credentials_are_told_at_once_and_not_tried_again(stand_in: StandIn, never: threading.Event) -> None:
    wrong = replace(stand_in.account(), access_key="wrong")
    with pytest.raises(CloudFailed, match="refuses the credentials; mend --browserstack-credentials") as failed:
        Client(wrong).plan(never)
    assert failed.value.is_refusal_of_credentials
    assert not failed.value.passes
    assert stand_in.unauthorized == 1
    assert "wrong" not in str(failed.value)


def test_server_that_is_not_there_is_told_apart_from_one_that_may_have_heard(never: threading.Event) -> None:
    account = StandIn(url="http://127.0.0.1:9").account()  # the discard port: nobody listens
    with pytest.raises(CloudFailed, match=r"BrowserStack does not answer: .*refused") as failed:
        Client(account, patience_s=0).plan(never)
    assert not failed.value.has_arrived
    assert failed.value.passes


def test_wait_for_an_answer_can_be_given_up(stand_in: StandIn) -> None:
    stand_in.is_out = True
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(GivenUp):
        Client(stand_in.account(), patience_s=600).plan(given_up)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "Rate limit exceeded"}', "Rate limit exceeded"),
        (b'{"error": {"message": "[X] no"}}', "[X] no"),
        (b'{"value": {"error": "session not created", "message": "why"}}', "why"),
        (b'{"message": "No results found"}', "No results found"),
        (b"<html>\n out </html>", "out"),
        (b"[1]", ""),
        (b"", ""),
    ],
)
def test_sentence_of_an_error_is_found_wherever_it_stands(body: bytes, said: str) -> None:
    assert said_in(body) == said


def test_answer_without_end_is_not_taken_for_a_whole_one(
    stand_in: StandIn, client: Client, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.browserstack.client.MOST_ANSWER_BYTES", 10)
    with pytest.raises(CloudFailed, match="larger than 10 bytes"):
        client.devices(never)
    assert len(stand_in.requests) == 1


@pytest.fixture
def build(tmp_path: Path) -> Path:
    path = tmp_path / "app.apk"
    path.write_bytes(b"a build" * 100_000)
    return path


def test_upload_stops_when_nobody_waits_any_more(stand_in: StandIn, client: Client, build: Path) -> None:
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(GivenUp):
        client.upload(build, "x", given_up)
    assert not stand_in.uploads


def test_session_is_marked_and_read_back(
    stand_in: StandIn, client: Client, never: threading.Event, build: Path
) -> None:
    url = client.upload(build, "x", never)
    body = (
        b'{"capabilities": {"alwaysMatch": {"appium:app": "' + url.encode() + b'", "bstack:options":'
        b' {"deviceName": "Google Pixel 8", "osVersion": "14.0"}}}}'
    )
    client.ask("POST", f"{stand_in.url}/wd/hub/session", body, {})
    (session,) = stand_in.sessions
    client.mark(session, never, status="failed", reason="no")
    kept = client.session(session, never)
    assert (kept.status, kept.device, kept.os_version) == ("failed", "Google Pixel 8", "14.0")
    assert kept.video_url.endswith("/video")
    with pytest.raises(CloudFailed, match="404: Session not found"):
        client.session("nobody", never)
