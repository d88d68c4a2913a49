"""How devices are, and canaries, from end to end of the wire."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent import wire as agent_wire
from agent.core.events import AdoptLease
from agent.core.model import Account, DeviceFacts, DeviceId, DeviceKind, Vitals
from agent.core.step import ReportDevices
from coordinator import wire
from coordinator.core import model as m
from coordinator.core.events import DevicesReported
from coordinator.core.step import SendLease
from qgjob import resources
from tests.store.records import a_device, a_lease

SESSION = m.SessionId(1)


@pytest.mark.parametrize(
    "vitals",
    [
        Vitals(),
        Vitals(api_level=34, battery_percent=0, temperature_decidegrees=-50, free_bytes=0),
        Vitals(free_bytes=2**40),
    ],
)
def test_what_a_device_tells_of_itself_arrives_and_what_it_does_not_tell_stays_unknown(vitals: Vitals) -> None:
    facts = DeviceFacts(id=DeviceId("R58M"), kind=DeviceKind.DEVICE, vitals=vitals)
    event = wire.agent_event(SESSION, agent_wire.fact(ReportDevices(devices=(facts,))))
    assert isinstance(event, DevicesReported)
    (arrived,) = event.devices
    assert arrived.vitals == m.Vitals(
        api_level=vitals.api_level,
        battery_percent=vitals.battery_percent,
        temperature_decidegrees=vitals.temperature_decidegrees,
        free_bytes=vitals.free_bytes,
    )


def test_users_see_degrees_and_bytes_and_nothing_where_nothing_is_known() -> None:
    facts = replace(a_device().facts, vitals=m.Vitals(temperature_decidegrees=271, free_bytes=5))
    shown = resources.device(wire.device_out(replace(a_device(), facts=facts), job=None, utilisation_ppm=0))
    vitals = {name: shown[name] for name in ("api_level", "battery", "temperature", "storage_free")}
    assert vitals == {"api_level": None, "battery": None, "temperature": 27.1, "storage_free": 5}


@pytest.mark.parametrize("is_canary", [False, True])
def test_agent_learns_whether_a_lease_is_a_canary(is_canary: bool) -> None:
    lease = replace(a_lease(), is_canary=is_canary)
    command = agent_wire.command(wire.command(SendLease(session=SESSION, lease=lease, jobs=(), revoked=(), grace_us=0)))
    assert isinstance(command, AdoptLease)
    assert command.lease.is_canary is is_canary


def test_users_are_told_of_suspicion() -> None:
    device = replace(
        a_device(),
        state=m.DeviceState.QUARANTINED,
        hold=m.DeviceHold.SUSPICION,
        hold_reason="the phone went away",
    )
    shown = resources.device(wire.device_out(device, job=None, utilisation_ppm=0))
    assert (shown["state"], shown["reason"]) == ("quarantined", "the phone went away")


def test_held_device_that_is_away_is_shown_with_what_brings_it_back_first() -> None:
    facts = replace(a_device().facts, is_usable=False, reason="offline: plug it in again")
    device = replace(a_device(), facts=facts, hold=m.DeviceHold.SUSPICION, hold_reason="the phone went away")
    shown = resources.device(wire.device_out(device, job=None, utilisation_ppm=0))
    assert shown["reason"] == "offline: plug it in again; the phone went away"


def test_account_of_a_slot_arrives() -> None:
    told = Account(name="lab_user@cloud", sessions=5, others=2)
    facts = DeviceFacts(id=DeviceId("slot-1@lab"), kind=DeviceKind.BROWSERSTACK, account=told)
    event = wire.agent_event(SESSION, agent_wire.fact(ReportDevices(devices=(facts,))))
    assert isinstance(event, DevicesReported)
    (arrived,) = event.devices
    assert arrived.account == m.Account(name="lab_user@cloud", sessions=5, others=2)
    shown = wire.device_out(replace(a_device(), facts=arrived), job=None, utilisation_ppm=0)
    assert (shown.facts.account.sessions, shown.facts.account.others) == (5, 2)
