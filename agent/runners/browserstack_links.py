"""Links to what BrowserStack keeps of the sessions of a run: each becomes an artifact that leads there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agent.artifacts import LeftBehind
from agent.browserstack.client import CloudSession
from agent.core.model import ArtifactKind

MOST_SESSIONS = 100
"""Of a run whose videos and logs get links of their own: all are in its file of sessions."""
MAX_URL = 1_024
"""The coordinator takes no longer one."""
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?/[!-~]*")


def links_to(sessions: Sequence[CloudSession]) -> Iterator[LeftBehind]:
    """Yield where the pages, videos and logs of sessions are; what is no address to send people to is left out."""
    for session in sessions[:MOST_SESSIONS]:
        for name, url in (
            ("session", session.browser_url),
            ("video", session.video_url),
            ("appium-log", session.appium_logs_url),
            ("device-log", session.device_logs_url),
        ):
            if len(url) <= MAX_URL and _URL.fullmatch(url) is not None:
                path, content = f"sessions/{session.id}/{name}.url", f"{url}\n".encode()
                yield LeftBehind(name=path, kind=ArtifactKind.LINK, content=content, url=url)
