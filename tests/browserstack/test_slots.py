"""Slots by the plan, and what the operator says of them."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.appium import Toolbox
from agent.blobs import BlobCache
from agent.browserstack.client import Client
from agent.builds import BuildSource
from agent.bundles import Bundles, NodePackages
from agent.cloud import cloud_slots
from agent.config import CloudConfig, Config, ConfigError, parse_cloud
from agent.core.model import Account, AgentId, DeviceFacts, DeviceKind
from agent.devices.browserstack import BrowserStackDiscovery
from agent.downloads import Downloads
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


def test_agent_that_shares_its_account_asks_only_for_its_part_of_what_a_second_allows(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.browserstack.client.REQUESTS_IN_A_SECOND", 4)
    cloud = CloudConfig(credentials="env", api_url=stand_in.url, hub_url=stand_in.url, slots=None, poll_s=15.0)
    config = Config(
        coordinators=("127.0.0.1:1",),
        name=LAB,
        state_dir=tmp_path,
        simulate=(),
        sim_install_s=0,
        sim_test_s=0,
        drain_grace_s=0,
        cloud=cloud,
    )
    tools = Toolbox(project=tmp_path, state_dir=tmp_path)
    source = BuildSource("", tmp_path, None, Downloads(tmp_path / "downloads"))
    blobs = BlobCache(tmp_path / "builds", ".apk", 1_000)
    bundles = Bundles(BlobCache(tmp_path / "bundles", ".tar", 1_000), NodePackages(tmp_path / "packages", {}))
    account = stand_in.account()
    slots = cloud_slots(config, account, tools, source, blobs, bundles)
    slots.claims.take((), ((account.name, 2),))
    begun = time.monotonic()
    for _ in range(3):
        slots.gateway.client.plan(threading.Event())
    assert time.monotonic() - begun > 0.99, "two of the four are the other agent's"
    slots.gateway.close()


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
