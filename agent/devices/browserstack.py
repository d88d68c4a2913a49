"""The slots of a BrowserStack plan: as many as sessions may run at once, usable while BrowserStack answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

import structlog

from agent.browserstack.client import Client, CloudFailed
from agent.core.model import Account, AgentId, DeviceFacts, DeviceId, DeviceKind

WHATEVER_IS_ASKED_FOR = "*"
"""The model and the version of a slot: the device is chosen when the job is known."""
MOST_SLOTS = 1_000


class BrowserStackDiscovery:
    """Looks at the plan again and again."""

    def __init__(
        self,
        client: Client,
        own: Callable[[], int],
        waiting: Callable[[], Mapping[str, str]],
        agent: AgentId,
        most: int | None,
        poll_s: float,
    ) -> None:
        """Look at an account's plan.

        Args:
            client: The account.
            own: Says how many of the sessions in the plan may be this agent's.
            waiting: Says what the run in a slot waits for, if it waits for a session.
            agent: The name of this agent.
            most: How many slots this agent has at most; None for all of the plan.
            poll_s: How often the plan is looked at, in seconds.
        """
        self._client = client
        self._own = own
        self._waiting = waiting
        self._agent = agent
        self._most = most
        self._poll_s = poll_s
        self._count = min(most or 1, MOST_SLOTS)
        """Slots as last known: while BrowserStack does not answer they are shown with the reason."""
        self._account: Account | None = None
        self._trouble = ""

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of all slots, at once and after every change, for ever."""
        told: tuple[DeviceFacts, ...] | None = None
        given_up = threading.Event()
        try:
            while True:
                slots = await asyncio.to_thread(self._look, given_up)
                if slots != told:
                    told = slots
                    observed(slots)
                await asyncio.sleep(self._poll_s)
        finally:
            given_up.set()

    def _look(self, given_up: threading.Event) -> tuple[DeviceFacts, ...]:
        own = self._own()
        try:
            plan = self._client.plan(given_up, patience_s=0)
        except CloudFailed as error:
            self._tell(str(error))
            return self._slots(self._account, str(error))
        self._tell("")
        # A session that begins or ends while the plan is asked for is counted as ours, not as a stranger's.
        others = max(0, plan.running - max(own, self._own()))
        account = self._account = Account(name=self._client.account.name, sessions=plan.most, others=others)
        if not plan.most:
            return self._slots(account, "the plan of the account allows no session")
        self._count = min(plan.most, self._most or plan.most, MOST_SLOTS)
        return self._slots(account, "")

    def _tell(self, trouble: str) -> None:
        """Say once that BrowserStack cannot be asked, and once that it can again."""
        before, self._trouble = self._trouble, trouble
        if trouble and trouble != before:
            structlog.get_logger("agent").warning("cloud_unreachable", reason=trouble)
        elif before and not trouble:
            structlog.get_logger("agent").info("cloud_reachable", account=self._client.account.name)

    def _slots(self, account: Account | None, reason: str) -> tuple[DeviceFacts, ...]:
        waiting = self._waiting()
        ids = [DeviceId(f"browserstack-{number}@{self._agent}") for number in range(1, self._count + 1)]
        return tuple(
            DeviceFacts(
                id=slot,
                kind=DeviceKind.BROWSERSTACK,
                model=WHATEVER_IS_ASKED_FOR,
                os_version=WHATEVER_IS_ASKED_FOR,
                udid=f"browserstack-{number}",
                usable=not reason,
                reason=reason or waiting.get(slot, ""),
                account=account,
            )
            for number, slot in enumerate(ids, 1)
        )
