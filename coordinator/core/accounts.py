"""Accounts of clouds: how many sessions each has left, whichever agents ask for them.

Several agents may serve one account. Each sees all sessions that run there and knows its own; only here is it known
which of the others' are another agent's of this lab. A device with a lease counts as a session, whether it has one at
the moment or not: so leases alone never ask for more than the account allows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.core.model import Account, AgentId, Device, DeviceId


@dataclass(slots=True)
class _Kept:
    devices: dict[DeviceId, AgentId] = field(default_factory=dict)
    held: Counter[AgentId] = field(default_factory=Counter)
    """Devices with a lease of each agent."""
    told: dict[AgentId, Account] = field(default_factory=dict)
    """What each agent said of the account last."""
    was_full: bool = False


class Accounts:
    """All accounts of which devices are known."""

    def __init__(self, is_connected: Callable[[AgentId], bool]) -> None:
        """`is_connected` says whose word counts: what an agent said before it went away is old."""
        self._is_connected = is_connected
        self._kept: dict[str, _Kept] = {}
        self.has_new_members = False
        """Whether a device came to an account, or to another agent of it, since somebody set it to no."""

    def put(self, before: Device | None, device: Device) -> None:
        """Take in a device as it is now."""
        if device.facts.account is None and (before is None or before.facts.account is None):
            return  # as nearly all of them
        self.has_new_members |= _member(before) != _member(device)
        if before is not None:
            self._leave(before)
        if (account := device.facts.account) is not None:
            kept = self._kept.setdefault(account.name, _Kept())
            kept.devices[device.id] = device.agent
            kept.held[device.agent] += device.lease is not None
            if device.facts.is_usable and account.sessions:  # of one that is gone the facts are old
                kept.told[device.agent] = account

    def drop(self, device: Device) -> None:
        """Forget a device."""
        self._leave(device)

    def forget(self, agent: AgentId) -> None:
        """Forget what an agent without devices has said."""
        for kept in self._kept.values():
            kept.told.pop(agent, None)
            del kept.held[agent]

    def _leave(self, device: Device) -> None:
        account = device.facts.account
        if account is None:
            return
        kept = self._kept[account.name]
        del kept.devices[device.id]
        kept.held[device.agent] -= device.lease is not None
        if not kept.devices:
            del self._kept[account.name]

    def used(self, account: str) -> tuple[int, int]:
        """Return how many of an account's sessions are used by devices of this lab, and by others.

        Of what an agent sees beside its own sessions, the other agents' leases are this lab's. Should one of those have
        no session yet, somebody else's is taken for it; its agent then waits for room before it asks for one.
        """
        kept = self._kept[account]
        held = kept.held.total()
        strangers = (told.others - (held - kept.held[agent]) for agent, told in self._told(kept))
        return held, max(0, *strangers, 0)

    def most(self, account: str) -> int:
        """Return how many sessions an account allows at once, the least that its agents were told."""
        return min((told.sessions for _, told in self._told(self._kept[account])), default=0)

    def is_full(self, device: Device) -> bool:
        """Whether a device that has no lease cannot have one, because its account has no session left."""
        account = device.facts.account
        if account is None or account.name not in self._kept:
            return False
        kept = self._kept[account.name]
        ours, others = self.used(account.name)
        own = device.lease is not None and device.id in kept.devices
        return ours - own + others >= self.most(account.name)

    def turned(self) -> list[DeviceId]:
        """Return the devices of accounts that have become full, or are full no more, since this was asked last."""
        found: list[DeviceId] = []
        for name, kept in self._kept.items():
            ours, others = self.used(name)
            is_full = ours + others >= self.most(name)
            if is_full is not kept.was_full:
                kept.was_full = is_full
                found += kept.devices
        return found

    def of_agent(self, agent: AgentId) -> frozenset[str]:
        """Return the names of the accounts that an agent has devices of."""
        return frozenset(name for name, kept in self._kept.items() if agent in kept.devices.values())

    def sharers(self) -> dict[AgentId, tuple[tuple[str, int], ...]]:
        """Return, of each connected agent that has an account together with others, which, and with how many."""
        found: dict[AgentId, tuple[tuple[str, int], ...]] = {}
        for name, kept in sorted(self._kept.items()):
            agents = dict.fromkeys(agent for agent in kept.devices.values() if self._is_connected(agent))
            if len(agents) > 1:
                found.update({agent: (*found.get(agent, ()), (name, len(agents))) for agent in agents})
        return found

    def _told(self, kept: _Kept) -> list[tuple[AgentId, Account]]:
        return [(agent, told) for agent, told in kept.told.items() if self._is_connected(agent)]


def _member(device: Device | None) -> tuple[str, AgentId] | None:
    """Return which account a device adds an agent to."""
    account = device.facts.account if device is not None else None
    return (account.name, device.agent) if device is not None and account is not None else None
