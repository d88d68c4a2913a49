"""Slots by the plan, and what the operator says of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.browserstack.client import Client
from agent.config import CloudConfig, ConfigError, parse_cloud
from agent.core.model import Account, AgentId, DeviceFacts, DeviceKind
from agent.devices.browserstack import BrowserStackDiscovery
from tests.browserstack.stand_in import StandIn

LAB = AgentId("lab")


class Looking:
    """What a discovery tells, one after the other."""

    def __init__(self, client: Client, most: int | None = None, own: int = 0) -> None:
        self.waiting: dict[str, str] = {}
        self._told: asyncio.Queue[tuple[DeviceFacts, ...]] = asyncio.Queue()
        discovery = BrowserStackDiscovery(client, lambda: own, lambda: self.waiting, LAB, most, 0.01)
        self._task = asyncio.create_task(discovery.run(self._told.put_nowait))

    async def next(self) -> tuple[DeviceFacts, ...]:
        return await asyncio.wait_for(self._told.get(), 60)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_plan_has_as_many_slots_as_sessions_and_follows_it(stand_in: StandIn, client: Client) -> None:
    looking = Looking(client)
    slots = await looking.next()
    assert [slot.id for slot in slots] == ["browserstack-1@lab", "browserstack-2@lab"]
    assert {(slot.kind, slot.model, slot.os_version, slot.usable) for slot in slots} == {
        (DeviceKind.BROWSERSTACK, "*", "*", True)
    }
    stand_in.parallels = 5
    assert len(await looking.next()) == 5
    stand_in.parallels = 0
    assert {slot.reason for slot in await looking.next()} == {"the plan of the account allows no session"}
    await looking.end()


async def test_sessions_of_others_are_told_apart_from_the_agents_own(stand_in: StandIn, client: Client) -> None:
    stand_in.foreign = 2
    looking = Looking(client, own=1)
    (slot, _) = await looking.next()
    assert slot.account == Account(name="lab_user@127.0.0.1", sessions=2, others=1)
    await looking.end()


async def test_slot_whose_run_waits_for_a_session_says_so_and_stays_usable(client: Client) -> None:
    looking = Looking(client)
    await looking.next()
    looking.waiting = {"browserstack-2@lab": "Tier limit exceeded"}
    one, two = await looking.next()
    assert (one.reason, two.reason, two.usable) == ("", "Tier limit exceeded", True)
    looking.waiting = {}
    assert [slot.reason for slot in await looking.next()] == ["", ""]
    await looking.end()


async def test_operator_may_use_fewer_than_the_plan_has(client: Client) -> None:
    looking = Looking(client, most=1)
    assert len(await looking.next()) == 1
    await looking.end()


async def test_outage_makes_slots_unusable_with_its_reason_and_they_come_back(
    stand_in: StandIn, client: Client
) -> None:
    looking = Looking(client)
    await looking.next()
    stand_in.is_out = True
    slots = await looking.next()
    assert len(slots) == 2
    assert [slot.reason for slot in slots] == ["BrowserStack answers 503: Service Unavailable"] * 2
    stand_in.is_out = False
    assert all(slot.usable for slot in await looking.next())
    await looking.end()


async def test_refused_credentials_show_as_the_reason_of_a_slot(stand_in: StandIn) -> None:
    looking = Looking(Client(replace(stand_in.account(), access_key="wrong")))
    (slot,) = await looking.next()
    assert not slot.usable
    assert slot.reason == "BrowserStack refuses the credentials; mend --browserstack-credentials"
    await looking.end()


def test_provider_brings_its_defaults() -> None:
    assert parse_cloud({}) is None
    assert parse_cloud({"provider": "browserstack"}) == CloudConfig(
        credentials="env",
        api_url="https://api-cloud.browserstack.com",
        hub_url="https://hub.browserstack.com/wd/hub",
        slots=None,
        poll_s=15.0,
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"provider": "sauce"}, "--provider sauce is unknown"),
        ({"browserstack_slots": 2}, "--browserstack-slots is for an agent of BrowserStack"),
        ({"provider": "browserstack", "virtual_phones": 2}, "--virtual-phones and --provider browserstack exclude"),
        ({"provider": "browserstack", "emulators": "a=1"}, "--emulators and --provider browserstack exclude"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_cloud(settings)
