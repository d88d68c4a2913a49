"""This agent's claims to uploads: a build is brought to the account only with leave of the coordinator.

The coordinator gives each claim to one agent at a time, and says to the others where the build is as soon as that has
brought it. Where it knows of no claims, being of an earlier release, every leave is this agent's own.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agent.core.model import MICROSECONDS, DeviceId, UploadClaim, UploadStatus

MAY_LOOK = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldAddress:
    """Where a build was, by the word of an agent."""

    url: str
    """`bs://...`"""
    since: float
    """When that was, on the clock of the claims."""


@dataclass(slots=True)
class _Kept:
    claim: UploadClaim
    slots: dict[str, None] = field(default_factory=dict)
    status: UploadStatus | None = None
    told_at: float = 0.0
    told: ToldAddress | None = None
    """The last address, though what was told since may hold none."""
    is_overtaken: bool = False
    """Whether another agent has had the claim since this one began to look."""


class Claims:
    """The claims to builds at one account. Everything runs on one event loop."""

    def __init__(self, account: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Claim nothing; until the coordinator says otherwise, no leave is needed."""
        self._account = account
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._numbers = itertools.count(1)
        self._is_shared = False
        self._news = asyncio.Event()
        self._state: Callable[[tuple[UploadClaim, ...]], None] = _state_nowhere
        self._sharing: Callable[[int], None] = _share_nothing

    def connect(self, state: Callable[[tuple[UploadClaim, ...]], None]) -> None:
        """Let `state` bring all claims to the coordinator after each change."""
        self._state = state

    def on_sharing(self, sharing: Callable[[int], None]) -> None:
        """Let `sharing` hear how many agents serve the account, this one included."""
        self._sharing = sharing

    # What the coordinator says

    def share(self, *, is_shared: bool) -> None:
        """Note whether the coordinator gives leave."""
        self._is_shared = is_shared
        self._tell_news()

    def take(self, statuses: tuple[UploadStatus, ...], sharers: tuple[tuple[str, int], ...]) -> None:
        """Note how the claims stand, and with how many other agents the account is shared."""
        found = {(one.account, one.digest, one.number): one for one in statuses}
        for digest, kept in self._kept.items():
            kept.status = found.get((self._account, digest, kept.claim.number))
            kept.told_at = self._clock()
            kept.told = _address(kept) or kept.told
            if kept.status is not None and kept.status.holder and kept.status.turn < MAY_LOOK:
                kept.is_overtaken = True
        self._sharing(dict(sharers).get(self._account, 1))
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # What slots want

    @contextmanager
    def waiting(self, digest: str, slot: str) -> Iterator[None]:
        """Claim a build while a slot waits for it; the claim ends with the last of its slots."""
        kept = self._kept.get(digest)
        if kept is None:
            claim = UploadClaim(account=self._account, digest=digest, number=next(self._numbers))
            kept = self._kept[digest] = _Kept(claim)
        kept.slots[slot] = None
        self._state_all()
        try:
            yield
        finally:
            del kept.slots[slot]
            if not kept.slots:
                del self._kept[digest]
            self._state_all()

    async def look(self, digest: str, oldest: float, doubted: str) -> ToldAddress | None:
        """Wait for leave to look whether the account has a build, or for the word that another agent brought it.

        Args:
            digest: The build; a slot waits for it.
            oldest: On the clock of the claims: since when an address must have been good.
            doubted: An address that is not good any more.

        Returns:
            Where the build is; None with leave to look.
        """
        kept = self._kept[digest]
        while self._is_shared:
            told = _address(kept)
            if told is not None and told.since >= oldest and told.url != doubted:
                return told
            if kept.status is not None and kept.status.turn >= MAY_LOOK:
                break
            await self._news.wait()
        return None

    def begin_look(self, digest: str) -> float:
        """Note that the account is asked now for a build for which a slot waits; returns the time of the claims."""
        self._kept[digest].is_overtaken = False
        return self._clock()

    async def next_turn(self, digest: str, looked: float) -> ToldAddress | None:
        """Wait for leave to begin one more upload, or for the word that another agent has brought the build meanwhile.

        Args:
            digest: The build; a slot waits for it.
            looked: When the account did not have it, as `begin_look` told.

        Returns:
            Where the build has been since; None with leave to upload it.
        """
        kept = self._kept[digest]
        kept.claim = replace(kept.claim, turn=kept.claim.turn + 1)
        self._state_all()
        while self._is_shared:
            if kept.told is not None and kept.told.since >= looked:
                return kept.told
            if kept.status is not None and kept.status.turn >= kept.claim.turn:
                break
            await self._news.wait()
        return None

    def is_overtaken(self, digest: str) -> bool:
        """Whether another agent has had the claim since this one began to look: it may have begun an upload."""
        return self._kept[digest].is_overtaken

    def found(self, digest: str, url: str) -> None:
        """Say where a build is for which a slot waits."""
        kept = self._kept[digest]
        kept.claim = replace(kept.claim, url=url)
        self._state_all()

    def _state_all(self) -> None:
        self._state(
            tuple(
                replace(kept.claim, devices=tuple(DeviceId(slot) for slot in kept.slots))
                for kept in self._kept.values()
            )
        )


def _address(kept: _Kept) -> ToldAddress | None:
    status = kept.status
    if status is None or not status.url:
        return None
    return ToldAddress(url=status.url, since=kept.told_at - status.url_age_us / MICROSECONDS)


def _state_nowhere(_: tuple[UploadClaim, ...]) -> None:
    """Nobody is there who could hear of a claim."""


def _share_nothing(_: int) -> None:
    """Nobody asks with how many the account is shared."""
