"""Builds at BrowserStack: each is uploaded once, whichever agent comes first, and known there by its SHA-256.

BrowserStack forgets an app 30 days after it was used last. So it is asked now and then whether it still has one, and a
session that could not be made makes it be asked at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.browserstack.client import Client

TRUSTED_S = 3_600.0
"""How long BrowserStack is believed to have a build that it had."""


def custom_id_of(digest: str) -> str:
    """Return what a build is called at BrowserStack, by every agent of every lab."""
    return f"qgjob-{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedApp:
    """A build that BrowserStack has."""

    url: str
    """`bs://...`"""
    is_new: bool
    """Whether it had to be uploaded for this."""


@dataclass(slots=True)
class _Known:
    url: str
    since: float


class Apps:
    """The builds of one account. For many threads: those that want the same build share one upload."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with knowing of none; BrowserStack says which it has."""
        self._client = client
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def ensure(self, digest: str, path: Path, given_up: threading.Event) -> UploadedApp:
        """Return where BrowserStack has a build, uploaded now if it has it no more.

        Args:
            digest: SHA-256 of the build.
            path: Where it lies on this host.
            given_up: Set when nobody waits any more.

        Raises:
            CloudFailed: It cannot be brought there.
            OSError: It cannot be read.
            GivenUp: Nobody waits any more.
        """
        with self._guard:
            lock = self._locks.setdefault(digest, threading.Lock())
        with lock:
            known = self._known.get(digest)
            if known is not None and self._clock() - known.since < TRUSTED_S:
                return UploadedApp(url=known.url, is_new=False)
            custom_id = custom_id_of(digest)
            url = self._client.find_app(custom_id, given_up)
            is_new = url is None
            if url is None:
                url = self._client.upload(path, custom_id, given_up)
            self._known[digest] = _Known(url, self._clock())
            return UploadedApp(url=url, is_new=is_new)

    def doubt(self, digest: str) -> None:
        """Ask again before the build is used the next time."""
        self._known.pop(digest, None)
