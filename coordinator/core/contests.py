"""Devices that an agent announces while another one has them: left out of its session, and its own once they are free.

A phone that was carried to another host may still run a test of the first agent, or may have one that nobody can rule
out. So it stays with the agent that has it: while a lease is on it, FENCING included, or while that agent is connected
and can use it. Whoever announced it next gets it in the very turn in which that ends. The claims are no records: each
session brings its own with Hello.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coordinator.core.fleet import Fleet
from coordinator.core.model import AgentId, DeviceConflict, DeviceFacts, DeviceId, DeviceState


class Contests:
    """The claims of all open sessions."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._claims: dict[DeviceId, dict[AgentId, DeviceFacts]] = {}
        """Who announces a device that another agent has; the first to do so is the next to have it."""
        self._changed: dict[DeviceId, None] = {}
        """Claimed devices that were put since they were looked at."""
        self._told: dict[AgentId, tuple[DeviceConflict, ...]] = {}
        self._untold: dict[AgentId, None] = {}

    def has(self, device: DeviceId, agent: AgentId) -> bool:
        """Whether a device is another agent's for now."""
        known = self._fleet.devices.get(device)
        if known is None or known.agent == agent:
            return False
        # A slot of a cloud is offline while its account is full, and its agent's all the same.
        is_usable = known.facts.is_usable or known.state is not DeviceState.OFFLINE
        return known.lease is not None or (is_usable and self._fleet.session_of(known.agent) is not None)

    def sift(self, agent: AgentId, devices: Iterable[DeviceFacts]) -> tuple[DeviceFacts, ...]:
        """Take in all that an agent announces, and return what of it the agent may have."""
        before = {device: None for device, claims in self._claims.items() if agent in claims}
        free: list[DeviceFacts] = []
        for facts in devices:
            if self.has(facts.id, agent):
                self._claims.setdefault(facts.id, {})[agent] = facts
                before.pop(facts.id, None)
                self._untold[agent] = None
            else:
                free.append(facts)
        for device in before:
            self._withdraw(device, agent)
        return tuple(free)

    def leave(self, agent: AgentId) -> None:
        """Forget what an agent announced whose session has ended."""
        for device in [device for device, claims in self._claims.items() if agent in claims]:
            self._withdraw(device, agent)
        self._told.pop(agent, None)
        self._untold.pop(agent, None)

    def _withdraw(self, device: DeviceId, agent: AgentId) -> None:
        claims = self._claims[device]
        del claims[agent]
        if not claims:
            del self._claims[device]
        self._untold[agent] = None

    def note_put(self, device: DeviceId) -> None:
        """Note that a device may have become free."""
        if device in self._claims:
            self._changed[device] = None

    def take_freed(self) -> Iterator[tuple[AgentId, DeviceFacts]]:
        """Yield the devices that have become free since, and who is to have each; they are put while this goes on."""
        while self._changed:
            device, _ = self._changed.popitem()
            claims = self._claims.get(device, {})
            self._untold.update(dict.fromkeys(claims))
            agent = next((agent for agent in claims if not self.has(device, agent)), None)
            if agent is not None:
                facts = claims[agent]
                self._withdraw(device, agent)
                yield agent, facts

    def take_news(self) -> Iterator[tuple[AgentId, tuple[DeviceConflict, ...]]]:
        """Yield the agents of which something has changed, and what they do not get."""
        while self._untold:
            agent, _ = self._untold.popitem()
            conflicts = self.of_agent(agent)
            if conflicts != self._told.get(agent, ()):
                self._told[agent] = conflicts
                yield agent, conflicts

    def of_agent(self, agent: AgentId) -> tuple[DeviceConflict, ...]:
        """Return what an agent announces and does not get, by device."""
        return tuple(
            DeviceConflict(device=device, owner=self._fleet.devices[device].agent)
            for device, claims in sorted(self._claims.items())
            if agent in claims
        )

    def of_device(self, device: DeviceId) -> tuple[AgentId, ...]:
        """Return the agents that announce a device which another one has."""
        return tuple(self._claims.get(device, ()))
