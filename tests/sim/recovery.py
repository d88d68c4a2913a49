"""I9: a coordinator that takes the database up knows what the one before it knew, but for the links that it had."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.ledger import Ledger
from coordinator.core.model import AgentState, DeviceState, LeaseState, Now, Settings, changed
from coordinator.core.scheduler import Scheduler
from tests.sim.database import Records


def recovered(records: Records, settings: Settings, now: Now) -> Ledger:
    """Return the state of a coordinator that starts now."""
    scheduler = Scheduler(settings, records.counters)
    scheduler.restore(
        jobs=records.live_jobs(),
        attempts=records.open_attempts(),
        leases=records.live_leases(),
        devices=list(records.devices.values()),
        agents=list(records.agents.values()),
        builds=list(records.builds.values()),
        expectations=list(records.expectations.values()),
        trials=list(records.trials.values()),
        crossings=list(records.crossings.values()),
        uploads=list(records.uploads.values()),
        now=now,
    )
    return scheduler.ledger


def durable(ledger: Ledger) -> dict[str, object]:
    """Return what of a state must outlive its process; links do not, nor when an agent was seen last."""
    fleet = ledger.fleet
    return {
        "jobs": ledger.jobs,
        "attempts": ledger.attempts,
        "builds": ledger.builds.versions,
        "counters": ledger.counters,
        "expectations": ledger.durations.known(),
        "trials": dict(ledger.trials.known),
        "crossings": dict(ledger.crossings.known),
        "uploads": dict(ledger.uploads.known),
        "queue": ledger.queues.in_order(),
        "queued": ledger.queued,
        "running": ledger.running,
        "leases": {lease.id: changed(lease, state=LeaseState.DISCONNECTED) for lease in fleet.leases.values()},
        "devices": {
            device.id: changed(device, state=DeviceState.OFFLINE) if fleet.is_at_rest(device) else device
            for device in fleet.devices.values()
        },
        "agents": {
            agent.id: changed(agent, seen_us=0, state=AgentState.DISCONNECTED)
            for agent in fleet.agents.values()
            if agent.state is not AgentState.STOPPED
        },
    }


def differences(ledger: Ledger, records: Records, settings: Settings, now: Now) -> Iterator[str]:
    """Yield what a new coordinator would know otherwise than the one that runs."""
    ours, theirs = durable(ledger), durable(recovered(records, settings, now))
    for name, value in ours.items():
        if value != theirs[name]:
            yield f"I9: {name} of a coordinator that starts now would be {theirs[name]}, not {value}"
