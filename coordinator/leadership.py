"""Which coordinator leads. Of several that share a database one does; the others stand by.

A leader counts on leading for a while after it has renewed its leadership, by its own clock and from before it asked.
It asks that clock again before it tells anybody anything. A standby counts the same while from after it has seen the
last renewal, so it is always the later of the two, whatever either clock shows. No leadership that was lost comes back:
the process ends, and what it had in memory with it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog

from coordinator.core.errors import NotLeader
from coordinator.core.model import SECOND_US
from coordinator.store import LeaderRow, Reign, StoreError

RENEWAL_SHARE = 0.3
"""Of the leader TTL, between two renewals."""
POLL_SHARE = 0.1
"""Of the leader TTL, between two looks of a standby, and before a renewal that failed is tried again."""
MAX_POLL_S = 1.0

Answer = TypeVar("Answer")


def read_clock_s() -> float:
    """Read a clock that never jumps and does not stand still while the host sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Leadership(Protocol):
    """How the server asks whether it leads."""

    def leads(self) -> bool:
        """Whether anybody may be told anything now."""

    def check(self) -> None:
        """Make sure that this coordinator leads.

        Raises:
            NotLeader: It does not.
        """

    async def try_to_take(self) -> bool:
        """Lead, if nobody else does; return whether that is so."""

    async def win(self) -> None:
        """Stand by until this coordinator leads."""

    async def keep(self) -> None:
        """Go on leading.

        Raises:
            NotLeader: That is over.
        """

    async def release(self) -> None:
        """Let another lead at once, and ask no more. Nothing more may be told."""


class Sole:
    """Nobody else can open the database."""

    def leads(self) -> bool:
        """Lead."""
        return True

    def check(self) -> None:
        """Lead."""

    async def try_to_take(self) -> bool:
        """Lead."""
        return True

    async def win(self) -> None:
        """Lead."""

    async def keep(self) -> None:
        """Lead for ever."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Do nothing: the lock goes with the database."""


class Watch:
    """Judges by one clock whether the leader row may be taken."""

    def __init__(self, holder: str) -> None:
        """Take our own name in the row."""
        self._holder = holder
        self._seen: tuple[str, int] | None = None
        self._since_s = 0.0

    def may_take(self, reign: Reign, now_s: float) -> bool:
        """Whether nobody counts on leading any more.

        Args:
            reign: What the row says.
            now_s: The clock after that was read: the last renewal had begun by then.
        """
        if reign.is_free or reign.holder == self._holder:
            return True
        seen = (reign.holder, reign.term)
        if seen != self._seen:
            self._seen, self._since_s = seen, now_s
        return now_s - self._since_s >= reign.ttl_us / SECOND_US


class RowLeadership:
    """Whoever holds the leader row leads. All methods are called on the event loop's thread."""

    def __init__(
        self, row: LeaderRow, ttl_s: float, address: str, read_clock_s: Callable[[], float] = read_clock_s
    ) -> None:
        """Take the row, how long a renewal counts, where we can be reached, and the clock."""
        self._row = row
        self._ttl_s = ttl_s
        self._address = address
        self._read_clock_s = read_clock_s
        self._watch = Watch(row.holder)
        self._deadline_s = -math.inf
        """When we stop to count on leading."""
        self._leader = ""
        # A thread of its own: a renewal waits for no commit.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leadership")
        self._is_troubled = False
        self._out = structlog.get_logger("coordinator")

    def leads(self) -> bool:
        """Whether we lead at this moment."""
        return self._read_clock_s() < self._deadline_s

    def check(self) -> None:
        """Make sure that we lead.

        Raises:
            NotLeader: We do not.
        """
        if self.leads():
            return
        whom = f"{self._leader} does" if self._leader else "another one does, or will in a moment"
        raise NotLeader(f"this coordinator does not lead: {whom}", self._leader)

    async def try_to_take(self) -> bool:
        """Lead, if nobody else does; return whether that is so.

        Raises:
            StoreError: The database does not answer.
        """
        reign = await self._run(self._row.read)
        self._leader = reign.address
        if not self._watch.may_take(reign, self._read_clock_s()):
            return False
        asked_s = self._read_clock_s()
        if not await self._run(lambda: self._row.take(reign, self._address)):
            return False
        self._deadline_s = asked_s + self._ttl_s
        return True

    async def win(self) -> None:
        """Stand by until we lead, also through times in which the database does not answer."""
        is_ours = False
        while not is_ours:
            await asyncio.sleep(self._poll_s)
            try:
                is_ours = await self.try_to_take()
            except StoreError as error:
                self._tell_trouble("standby_cannot_see", error, "Nothing is taken over until the database answers")
            else:
                self._is_troubled = False

    async def keep(self) -> None:
        """Renew in time, for as long as that succeeds.

        Raises:
            NotLeader: It did not.
        """
        pause_s = self._ttl_s * RENEWAL_SHARE
        while True:
            await asyncio.sleep(pause_s)
            pause_s = self._ttl_s * RENEWAL_SHARE
            try:
                await self._renew()
            except (StoreError, TimeoutError) as error:
                self._tell_trouble("leadership_not_renewed", error, "It is tried again until it has run out")
                pause_s = self._poll_s
            else:
                self._is_troubled = False

    async def _renew(self) -> None:
        self._check_time()
        asked_s = self._read_clock_s()
        async with asyncio.timeout(self._deadline_s - asked_s):
            is_ours = await self._run(self._row.renew)
        if not is_ours:
            self._deadline_s = -math.inf
            raise NotLeader("another coordinator has taken over from this one")
        self._check_time()
        self._deadline_s = asked_s + self._ttl_s

    def _check_time(self) -> None:
        """Check that we have led all the time: what has run out is not taken up again.

        Raises:
            NotLeader: We have not.
        """
        if not self.leads():
            raise NotLeader(f"the leadership could not be renewed within {self._ttl_s:g} s")

    async def release(self) -> None:
        """Let another lead at once, and ask no more. Nothing more may be told."""
        may_be_ours = self._deadline_s != -math.inf
        self._deadline_s = -math.inf
        try:
            if may_be_ours:
                await self._run(self._row.release)
        except StoreError as error:
            self._out.warning("leadership_not_released", reason=str(error), story="It runs out by itself")
        # A question may still be under way, and its connection is about to be closed.
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def _poll_s(self) -> float:
        return min(MAX_POLL_S, self._ttl_s * POLL_SHARE)

    def _tell_trouble(self, event: str, error: Exception, story: str) -> None:
        """Tell the first of several troubles in a row."""
        if not self._is_troubled:
            self._out.error(event, reason=str(error) or "the database does not answer", story=story)
        self._is_troubled = True

    async def _run(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
