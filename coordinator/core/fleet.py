"""Devices, agents, sessions and leases, with the indexes that decisions need."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict

from coordinator.core.accounts import Accounts
from coordinator.core.families import FamilyKey, Signature
from coordinator.core.model import (
    SECOND_US,
    Agent,
    AgentId,
    Device,
    DeviceId,
    DeviceState,
    Lane,
    Lease,
    LeaseId,
    SessionId,
)
from coordinator.core.pools import Pools

RESTING = frozenset({DeviceState.IDLE, DeviceState.QUARANTINED, DeviceState.DRAINING})
"""States of a device that its agent can use; one that is leased besides is not at rest."""

HOUR_US = 3600 * SECOND_US


def busy_after(device: Device, granted_us: int, wall_us: int) -> int:
    """Return a device's moving average of leased time in an hour after a lease from `granted_us` to now.

    The average decays linearly: a span of an hour replaces it whole.
    """
    idle_us = min(HOUR_US, max(0, granted_us - device.free_us)) if device.free_us else 0
    leased_us = min(HOUR_US, max(0, wall_us - granted_us))
    rested = device.busy_us * (HOUR_US - idle_us) // HOUR_US
    return rested * (HOUR_US - leased_us) // HOUR_US + leased_us


class Fleet:
    """What stands in the lab and who holds it."""

    def __init__(self) -> None:
        self.devices: dict[DeviceId, Device] = {}
        self.pools = Pools()
        self.accounts = Accounts(lambda agent: agent in self._sessions)
        self.agents: dict[AgentId, Agent] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self._devices_by_agent: defaultdict[AgentId, dict[DeviceId, None]] = defaultdict(dict)
        self._leases_by_agent: defaultdict[AgentId, dict[LeaseId, None]] = defaultdict(dict)
        self._sessions: dict[AgentId, SessionId] = {}
        self._senders: dict[SessionId, AgentId] = {}
        self._heard_us: dict[AgentId, int] = {}
        self._answering: dict[AgentId, None] = {}
        self._families: dict[LeaseId, FamilyKey] = {}
        self._leases_by_family: defaultdict[FamilyKey, dict[LeaseId, None]] = defaultdict(dict)
        self._deadlines: dict[LeaseId, int] = {}
        self._deadline_heap: list[tuple[int, LeaseId]] = []
        self.least_fence = 0
        """New devices have fences above it: one that was forgotten may come again, and its agent knows those it had."""

    # Sessions

    def open_session(self, agent: AgentId, session: SessionId, lab_us: int, *, answers_close: bool) -> SessionId | None:
        """Bind a session to an agent and return the one that it replaces."""
        replaced = self._sessions.get(agent)
        if answers_close:
            self._answering[agent] = None
        else:
            self._answering.pop(agent, None)
        self.hear(agent, lab_us)
        self._sessions[agent] = session
        self._senders[session] = agent
        return replaced

    def close_session(self, session: SessionId) -> AgentId | None:
        """Forget a session and return its agent; None for a session that was replaced before."""
        agent = self.agent_of(session)
        if agent is not None:
            del self._sessions[agent]
            del self._heard_us[agent]
        self._senders.pop(session, None)
        return agent

    def hear(self, agent: AgentId, lab_us: int) -> None:
        """Note that an agent with a session was heard."""
        self._heard_us[agent] = lab_us

    def answers_close(self, agent: AgentId) -> bool:
        """Whether an agent says when nothing of a closed lease is left."""
        return agent in self._answering

    def heard_us(self, agent: AgentId) -> int | None:
        """Return when an agent was heard last, in lab time; None without a session."""
        return self._heard_us.get(agent)

    def session_of(self, agent: AgentId) -> SessionId | None:
        """Return the agent's open session."""
        return self._sessions.get(agent)

    def agent_of(self, session: SessionId) -> AgentId | None:
        """Return the agent that a session belongs to, None when it was replaced or lost."""
        agent = self._senders.get(session)
        return agent if agent is not None and self._sessions.get(agent) == session else None

    def sender_of(self, session: SessionId) -> AgentId | None:
        """Return the agent that speaks in a session, a replaced one included, until its stream has ended."""
        return self._senders.get(session)

    # Devices

    def put_device(self, device: Device) -> None:
        """Insert or replace a device."""
        before = self.devices.get(device.id)
        if before is None or before.agent != device.agent:
            if before is not None:
                del self._devices_by_agent[before.agent][device.id]
            self._devices_by_agent[device.agent][device.id] = None
        self.devices[device.id] = device
        self.accounts.put(before, device)
        self.pools.put(device)

    def drop_device(self, device: Device) -> None:
        """Forget a device without a lease."""
        assert device.lease is None, f"{device.id} is forgotten with lease {device.lease}"
        del self.devices[device.id]
        del self._devices_by_agent[device.agent][device.id]
        self.accounts.drop(device)
        self.pools.drop(device.id)
        self.least_fence = max(self.least_fence, device.fence_number)

    def drop_agent(self, agent: AgentId) -> None:
        """Forget an agent without a session, devices and leases."""
        assert agent not in self._sessions, f"{agent} is forgotten while it is connected"
        assert not self.devices_of(agent), f"{agent} is forgotten, and its devices are not"
        del self.agents[agent]
        self._devices_by_agent.pop(agent, None)
        self._leases_by_agent.pop(agent, None)
        self._answering.pop(agent, None)
        self.accounts.forget(agent)

    def devices_of(self, agent: AgentId) -> list[Device]:
        """Return the devices that an agent announced last."""
        return [self.devices[device_id] for device_id in self._devices_by_agent.get(agent, ())]

    def fencing_of(self, agent: AgentId) -> list[Device]:
        """Return an agent's devices whose lease has expired, and whose work is not known to have stopped."""
        return [device for device in self.devices_of(agent) if device.state is DeviceState.FENCING]

    def is_at_rest(self, device: Device) -> bool:
        """Whether a device could be used, and nothing is done with it."""
        return device.state in RESTING and device.lease is None

    def serves(self, device: Device, signature: Signature, lane: Lane) -> bool:
        """Whether a device may run jobs of a pool that were submitted in a lane."""
        return self.pools.serves(device, signature, lane)

    # Leases

    def put_lease(self, lease: Lease) -> None:
        """Insert or replace a lease; a terminal one is forgotten."""
        if lease.is_live:
            self.leases[lease.id] = lease
            self._leases_by_agent[lease.agent][lease.id] = None
        else:
            self.leases.pop(lease.id, None)
            self._leases_by_agent[lease.agent].pop(lease.id, None)
            self._deadlines.pop(lease.id, None)
            self._forget_family(lease.id)

    def note_family(self, lease: LeaseId, family: FamilyKey) -> None:
        """Note which family a lease works for."""
        self._families[lease] = family
        self._leases_by_family[family][lease] = None

    def _forget_family(self, lease: LeaseId) -> None:
        family = self._families.pop(lease, None)
        if family is not None:
            held = self._leases_by_family[family]
            del held[lease]
            if not held:
                del self._leases_by_family[family]

    def family_of(self, lease: LeaseId) -> FamilyKey:
        """Return the family that a live lease works for."""
        return self._families[lease]

    def leases_in_turn(self, family: FamilyKey, most: int) -> list[Lease]:
        """Return so many live leases of a family at most, the first granted first; of more, others the next time."""
        held = self._leases_by_family.get(family, {})
        turn = list(itertools.islice(held, most))
        if len(turn) < len(held):
            for lease_id in turn:
                del held[lease_id]
                held[lease_id] = None
        return [self.leases[lease_id] for lease_id in turn]

    def leases_of(self, agent: AgentId) -> list[Lease]:
        """Return the live leases of an agent."""
        return [self.leases[lease_id] for lease_id in self._leases_by_agent.get(agent, ())]

    def renew(self, lease: LeaseId, deadline_us: int) -> None:
        """Let a lease live until `deadline_us`."""
        if lease not in self._deadlines:
            heapq.heappush(self._deadline_heap, (deadline_us, lease))
        self._deadlines[lease] = deadline_us

    def expiry_us(self, lease: LeaseId) -> int:
        """Return the deadline of a live lease, in lab time."""
        return self._deadlines[lease]

    def next_expiry(self) -> tuple[int, LeaseId] | None:
        """Return the earliest deadline of a live lease."""
        while self._deadline_heap:
            entry_us, lease = self._deadline_heap[0]
            deadline_us = self._deadlines.get(lease)
            if deadline_us == entry_us:
                return entry_us, lease
            heapq.heappop(self._deadline_heap)
            if deadline_us is not None:
                heapq.heappush(self._deadline_heap, (deadline_us, lease))
        return None
