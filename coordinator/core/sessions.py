"""The sessions of agents: who is connected, what they hold, and which devices they have.

Hello and every heartbeat say which leases an agent holds. Both sides are brought to agree on each, in either direction;
a device whose lease ran out is free once nothing of it is left.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.dispatch import Dispatcher
from coordinator.core.errors import (
    Conflict,
)
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    DevicesReported,
    HeartbeatReceived,
    LeaseAdopted,
    LeaseClosed,
    LeaseEcho,
    UploadsClaimed,
)
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    Agent,
    AgentId,
    AgentState,
    AttemptOutcome,
    Device,
    DeviceFacts,
    DeviceState,
    Lease,
    LeaseId,
    LeaseState,
    Now,
    RevokeReason,
    SessionId,
    changed,
)
from coordinator.core.reports import Reports
from coordinator.core.step import (
    CloseSession,
    SendConflicts,
    SendHeartbeatAcknowledged,
    SendUploads,
    SendWelcome,
)
from coordinator.core.transitions import moved_lease


class Sessions:
    """Takes in what agents say of themselves."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, reports: Reports) -> None:
        """Take the state, who gives out more work, and who takes in the results that come with Hello."""
        self._ledger = ledger
        self._settings = ledger.settings
        self._dispatcher = dispatcher
        self._reports = reports

    def connect(self, event: AgentConnected, now: Now, lab_us: int) -> None:
        """Take in the Hello of an agent: its results, its leases and its devices."""
        ledger = self._ledger
        self._refuse_second_agent(event, lab_us)
        replaced = ledger.fleet.open_session(event.agent, event.session, lab_us, answers_close=event.answers_close)
        if replaced is not None:
            ledger.send(CloseSession(session=replaced, why="the agent opened a new session"))
        known = ledger.fleet.agents.get(event.agent)
        ledger.uploads.greet(event.agent)
        if known is not None and known.boot_id != event.boot_id:
            ledger.uploads.state(event.agent, (), now)  # another process: what the one before began has ended with it
        self._ledger.put_agent(
            Agent(
                id=event.agent,
                state=AgentState.CONNECTED,
                boot_id=event.boot_id,
                version=event.version,
                host=event.host,
                seen_us=now.wall_us,
                connect_us=now.wall_us,
                is_draining=known is not None and known.is_draining,
                # What a process says of itself once holds for its life: leases are counted by it.
                lanes=known.lanes if known is not None and known.boot_id == event.boot_id else event.lanes,
                orgs=known.orgs if known is not None and known.boot_id == event.boot_id else event.orgs,
            )
        )
        ledger.name_orgs()
        ledger.send(SendWelcome(session=event.session))
        for result in event.results:
            self._reports.attempt_finished(result, now)
        for lease in ledger.fleet.leases_of(event.agent):
            if event.is_stranger or lease.boot_id != event.boot_id:
                ledger.close_lease(lease, LeaseState.EXPIRED, "the agent was started again", now)
        self._sync(event.session, event.agent, event.leases, now, lab_us)
        ledger.contests.leave(event.agent)
        self._update_devices(event.agent, event.devices, event.leases, now)

    def _refuse_second_agent(self, event: AgentConnected, lab_us: int) -> None:
        agent = self._ledger.fleet.agents.get(event.agent)
        heard_us = self._ledger.fleet.heard_us(event.agent)
        if agent is None or agent.boot_id == event.boot_id or heard_us is None:
            return
        if lab_us - heard_us < 2 * self._settings.heartbeat_us:
            raise Conflict(
                f"an agent named {agent.id} is connected from {agent.host}; stop it or give this one another --name",
                id=agent.id,
            )

    def disconnect(self, event: AgentDisconnected, now: Now, lab_us: int) -> None:
        """Note that the stream of an agent has ended."""
        ledger = self._ledger
        agent_id = ledger.fleet.close_session(event.session)
        if agent_id is None:
            return
        ledger.contests.leave(agent_id)
        ledger.uploads.leave(agent_id, None if event.is_goodbye else lab_us + self._settings.lease_ttl_us, now)
        state = AgentState.STOPPED if event.is_goodbye else AgentState.DISCONNECTED
        self._ledger.put_agent(changed(ledger.fleet.agents[agent_id], state=state, seen_us=now.wall_us))
        for lease in ledger.fleet.leases_of(agent_id):
            if event.is_goodbye:
                ledger.close_lease(lease, LeaseState.RELEASED, "the agent said goodbye", now)
            else:
                ledger.put_lease(moved_lease(lease, LeaseState.DISCONNECTED))
        if event.is_goodbye:
            self._confirm_stopped(agent_id, ())
        for device in ledger.fleet.devices_of(agent_id):
            if ledger.fleet.is_at_rest(device):
                ledger.put_device(changed(device, state=DeviceState.OFFLINE))

    def heartbeat(self, event: HeartbeatReceived, now: Now, lab_us: int) -> None:
        """Take in what an agent says of its leases."""
        agent_id = self._ledger.fleet.agent_of(event.session)
        if agent_id is None:
            return
        self._ledger.fleet.agents[agent_id] = changed(self._ledger.fleet.agents[agent_id], seen_us=now.wall_us)
        self._ledger.fleet.hear(agent_id, lab_us)
        self._ledger.send(SendHeartbeatAcknowledged(session=event.session, sequence=event.sequence))
        self._sync(event.session, agent_id, event.leases, now, lab_us)
        if self._ledger.fleet.answers_close(agent_id):
            self._ask_to_close(event.session, agent_id, event.leases)
        else:
            # An agent of an older release: nothing better will come of it.
            self._confirm_stopped(agent_id, event.leases)

    def _sync(
        self, session: SessionId, agent_id: AgentId, echoes: tuple[LeaseEcho, ...], now: Now, lab_us: int
    ) -> None:
        """Bring both sides to agree on every lease of an agent."""
        ledger = self._ledger
        echoed: dict[LeaseId, None] = {}
        for echo in echoes:
            lease = ledger.live_lease(echo.lease, echo.fence)
            if lease is None or lease.agent != agent_id:
                self._reports.send_spent(session, echo.lease, echo.fence)
                continue
            echoed[lease.id] = None
            self._apply_echo(lease, echo, now, lab_us)
        for lease in ledger.fleet.leases_of(agent_id):
            if lease.id not in echoed:
                ledger.send_lease(lease)

    def _apply_echo(self, lease: Lease, echo: LeaseEcho, now: Now, lab_us: int) -> None:
        ledger = self._ledger
        ledger.fleet.renew(lease.id, lab_us + self._settings.lease_ttl_us)
        device = ledger.fleet.devices[lease.device]
        if device.state is DeviceState.RESERVED:
            ledger.put_device(changed(device, state=DeviceState.LEASED))
        settled = LeaseState.REVOKING if lease.revoked else LeaseState.ACTIVE
        if lease.state is not settled:
            ledger.put_lease(moved_lease(lease, settled))
        for attempt_id in echo.started:
            attempt = ledger.attempts.get(attempt_id)
            if attempt is not None and attempt.lease == lease.id and attempt_id not in echo.finished:
                self._reports.start(attempt, now)
        if echo.revision < lease.revision:
            ledger.send_lease(ledger.fleet.leases[lease.id])
            return
        begun = {*echo.started, *echo.finished}
        for attempt_id, reason in lease.revoked:
            if attempt_id not in begun:
                outcome = AttemptOutcome.CANCELLED if reason is RevokeReason.CANCEL else AttemptOutcome.RELEASED
                ledger.end_attempt(ledger.attempts[attempt_id], outcome, None, now)
        self._dispatcher.settle(lease.id, now)

    def adopt(self, event: LeaseAdopted, now: Now, lab_us: int) -> None:
        """Take in that an agent has taken up a lease as it is now."""
        lease = self._reports.held_lease(event.session, event.echo.lease, event.echo.fence)
        if lease is not None:
            self._apply_echo(lease, event.echo, now, lab_us)

    def report_devices(self, event: DevicesReported, now: Now) -> None:
        """Take in what an agent says of its devices."""
        agent_id = self._ledger.fleet.agent_of(event.session)
        if agent_id is None:
            return
        self._update_devices(agent_id, event.devices, None, now)

    def _update_devices(
        self, agent_id: AgentId, facts: tuple[DeviceFacts, ...], echoes: tuple[LeaseEcho, ...] | None, now: Now
    ) -> None:
        facts = self._ledger.contests.sift(agent_id, facts)
        for one in facts:
            self._announce(agent_id, one, now)
        announced = {one.id for one in facts}
        for device in self._ledger.fleet.devices_of(agent_id):
            if device.id not in announced:
                self._unplug(device)
        if echoes is not None:
            self._confirm_stopped(agent_id, echoes)

    def _announce(self, agent_id: AgentId, told: DeviceFacts, now: Now) -> None:
        """Take in what an agent says of a device that it may have."""
        ledger = self._ledger
        agent = ledger.fleet.agents[agent_id]
        one = changed(told, lanes=agent.lanes, orgs=agent.orgs)
        known = ledger.fleet.devices.get(one.id)
        if known is None:
            ledger.free_device(
                Device(
                    facts=one,
                    agent=agent_id,
                    state=DeviceState.OFFLINE,
                    fence_number=ledger.fleet.least_fence,
                    seen_us=now.wall_us,
                )
            )
            return
        # The facts that are known already keep the device where it stands among the idle ones.
        facts = known.facts if known.facts == one else one
        ledger.apply_hold(changed(known, facts=facts, agent=agent_id, seen_us=now.wall_us))

    def settle_contests(self, now: Now) -> None:
        """Give devices that have become free to those who announced them meanwhile, and tell what they do not get."""
        for agent_id, facts in self._ledger.contests.take_freed():
            self._announce(agent_id, facts, now)
        for agent_id, conflicts in self._ledger.contests.take_news():
            session = self._ledger.fleet.session_of(agent_id)
            if session is not None:
                self._ledger.send(SendConflicts(session=session, agent=agent_id, conflicts=conflicts))

    def claim_uploads(self, event: UploadsClaimed, now: Now) -> None:
        """Take in which builds an agent would bring to its accounts; others have no say in an account."""
        agent_id = self._ledger.fleet.agent_of(event.session)
        if agent_id is not None:
            served = self._ledger.fleet.accounts.of_agent(agent_id)
            claims = tuple(claim for claim in event.claims if claim.key.account in served)
            self._ledger.uploads.state(agent_id, claims, now)

    def settle_uploads(self, now: Now, lab_us: int) -> None:
        """Give leave to upload to whoever is next, and tell agents what has changed for them."""
        uploads, accounts = self._ledger.uploads, self._ledger.fleet.accounts
        uploads.settle(now, lab_us)
        is_changed, accounts.has_new_members = accounts.has_new_members, False
        for agent_id, statuses, sharers in uploads.take_news(accounts.sharers, is_changed):
            session = self._ledger.fleet.session_of(agent_id)
            if session is not None:
                self._ledger.send(SendUploads(session=session, statuses=statuses, sharers=sharers, told_us=now.wall_us))

    def _unplug(self, device: Device) -> None:
        gone = replace(device.facts, is_usable=False, reason="its agent does not see it")
        state = DeviceState.OFFLINE if self._ledger.fleet.is_at_rest(device) else device.state
        unplugged = replace(device, facts=gone, state=state)
        if unplugged != device:
            self._ledger.put_device(unplugged)

    def _confirm_stopped(self, agent_id: AgentId, echoes: tuple[LeaseEcho, ...]) -> None:
        """Free the FENCING devices whose expired lease the agent does not hold, and cannot take up any more.

        Hello says so: what was offered before it went to a stream that the agent has given up. A heartbeat does not: it
        may have left before an offer arrived that was on its way.
        """
        held = {echo.lease for echo in echoes}
        for device in self._ledger.fleet.fencing_of(agent_id):
            if device.lease not in held:
                self._ledger.free_device(device)

    def _ask_to_close(self, session: SessionId, agent_id: AgentId, echoes: tuple[LeaseEcho, ...]) -> None:
        """Ask again for the answers that FENCING devices wait for; those whose lease is echoed were just asked for."""
        fencing = self._ledger.fleet.fencing_of(agent_id)
        held = {echo.lease for echo in echoes} if fencing else frozenset()
        for device in fencing:
            if device.lease not in held:
                self._ledger.ask_to_close(session, device)

    def closed(self, event: LeaseClosed) -> None:
        """Free a FENCING device by its agent's word on the very lease that it waits for."""
        device = self._ledger.fleet.devices.get(event.device)
        if device is None or device.agent != self._ledger.fleet.sender_of(event.session):
            return
        if device.state is DeviceState.FENCING and device.lease == event.lease:
            self._ledger.free_device(device)
