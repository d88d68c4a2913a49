"""Builds at BrowserStack: each is uploaded once, whichever agent comes first, and known there by its SHA-256.

Slots of this agent that want the same build share one upload, and so do the agents of an account, by their claims.
BrowserStack forgets an app 30 days after it was used last. So it is asked now and then whether it still has one, and a
session that could not be made makes it be asked at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.browserstack.claims import Claims
from agent.browserstack.client import Client, CloudFailed
from agent.browserstack.pace import off_loop, pause_after

TRUSTED_S = 3_600.0
"""How long BrowserStack is believed to have a build that it had."""
UPLOAD_PATIENCE_S = 180.0
"""How long an upload is tried again: three times the minute in which others may have used up the account's uploads."""


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
    """The builds of one account. Everything runs on one event loop; what blocks is done off it."""

    def __init__(self, client: Client, claims: Claims, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with knowing of none; BrowserStack and the other agents say which it has.

        Args:
            client: The account.
            claims: Whose turn it is to upload, by the same clock.
            clock: Seconds of a monotonic clock.
        """
        self._client = client
        self._claims = claims
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._doubted: dict[str, str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, digest: str, path: Path, slot: str) -> UploadedApp:
        """Return where BrowserStack has a build, uploaded now if it has it no more.

        Args:
            digest: SHA-256 of the build.
            path: Where it lies on this host.
            slot: The slot that wants it.

        Raises:
            CloudFailed: It cannot be brought there.
            OSError: It cannot be read.
        """
        if (known := self._trusted(digest)) is not None:
            return known
        with self._claims.waiting(digest, slot):
            async with self._locks.setdefault(digest, asyncio.Lock()):
                return self._trusted(digest) or await self._bring(digest, path)

    def doubt(self, digest: str) -> None:
        """Ask again before the build is used the next time."""
        if (known := self._known.pop(digest, None)) is not None:
            self._doubted[digest] = known.url

    def _trusted(self, digest: str) -> UploadedApp | None:
        known = self._known.get(digest)
        if known is None or self._clock() - known.since >= TRUSTED_S:
            return None
        return UploadedApp(url=known.url, is_new=False)

    async def _bring(self, digest: str, path: Path) -> UploadedApp:
        told = await self._claims.look(digest, self._clock() - TRUSTED_S, self._doubted.get(digest, ""))
        if told is not None:
            self._known[digest] = _Known(told.url, told.since)
            return UploadedApp(url=told.url, is_new=False)
        app = await self._find_or_upload(digest, path)
        self._known[digest] = _Known(app.url, self._clock())
        self._doubted.pop(digest, None)
        self._claims.found(digest, app.url)
        return app

    async def _find_or_upload(self, digest: str, path: Path) -> UploadedApp:
        """Look for the build before each upload: one whose answer got lost may have arrived."""
        custom_id, refusals, end = custom_id_of(digest), 0, self._clock() + UPLOAD_PATIENCE_S
        while True:
            looked = self._claims.begin_look(digest)
            url = await self._find(custom_id)
            if url is not None:
                return UploadedApp(url=url, is_new=refusals > 0)
            asked = self._clock()
            if (told := await self._claims.next_turn(digest, looked)) is not None:
                return UploadedApp(url=told.url, is_new=False)
            end += self._clock() - asked  # to wait for leave is no try
            if self._claims.is_overtaken(digest) and (url := await self._find(custom_id)) is not None:
                return UploadedApp(url=url, is_new=False)  # the other one gave up, and its upload had arrived
            try:
                url = await off_loop(lambda given_up: self._client.upload(path, custom_id, given_up))
            except CloudFailed as error:
                refusals += 1
                wait_s = pause_after(refusals, random.random())  # noqa: S311 - spreads tries, guards nothing
                if not error.passes or self._clock() + wait_s > end:
                    raise
                await asyncio.sleep(wait_s)
            else:
                return UploadedApp(url=url, is_new=True)

    async def _find(self, custom_id: str) -> str | None:
        return await off_loop(lambda given_up: self._client.find_app(custom_id, given_up))
