"""Links to what BrowserStack keeps of sessions."""

from __future__ import annotations

import pytest

from agent.browserstack.client import CloudSession
from agent.core.model import ArtifactKind
from agent.runners.browserstack_links import MAX_URL, MOST_SESSIONS, links_to

BASE = "https://cloud.example/sessions"


def test_sessions_are_links_to_their_pages_videos_and_logs() -> None:
    links = list(
        links_to(
            [
                CloudSession(id="a1", video_url=f"{BASE}/a1/video", device_logs_url=f"{BASE}/a1/logs"),
                CloudSession(id="b2", browser_url=f"{BASE}/b2", appium_logs_url=f"{BASE}/b2/appium"),
            ]
        )
    )
    assert {one.kind for one in links} == {ArtifactKind.LINK}
    assert [(one.name, one.url) for one in links] == [
        ("sessions/a1/video.url", f"{BASE}/a1/video"),
        ("sessions/a1/device-log.url", f"{BASE}/a1/logs"),
        ("sessions/b2/session.url", f"{BASE}/b2"),
        ("sessions/b2/appium-log.url", f"{BASE}/b2/appium"),
    ]
    assert links[0].content == f"{BASE}/a1/video\n".encode()


@pytest.mark.parametrize(
    "url",
    ["", "http://a.example/", "javascript:alert(1)", "https://a.example/\n", "https://a.example/" + "x" * MAX_URL],
)
def test_what_is_no_address_to_send_people_to_is_no_link(url: str) -> None:
    assert not list(links_to([CloudSession(id="a1", video_url=url)]))


def test_only_the_first_sessions_of_a_run_get_links() -> None:
    sessions = [CloudSession(id=str(number), video_url=f"{BASE}/{number}") for number in range(MOST_SESSIONS + 1)]
    assert len(list(links_to(sessions))) == MOST_SESSIONS
