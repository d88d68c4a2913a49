"""Puts together what serves the slots of a cloud, from what the operator configured."""

from __future__ import annotations

from dataclasses import dataclass

from agent.appium import Toolbox
from agent.blobs import BlobCache
from agent.browserstack.account import Account, AccountUnusable, read_account
from agent.browserstack.apps import Apps
from agent.browserstack.claims import Claims
from agent.browserstack.client import Client
from agent.browserstack.gateway import Gateway
from agent.builds import BuildSource
from agent.bundles import Bundles
from agent.config import BROWSERSTACK, CloudConfig, Config, ConfigError
from agent.core.model import DeviceFacts
from agent.devices.bench import Discovery, RunnerMaker
from agent.devices.browserstack import BrowserStackDiscovery
from agent.journal import Claim
from agent.runners.appwright import AppwrightRunner
from agent.runners.browserstack import Cloud, CloudStation, Offers
from agent.runners.protocol import Runner


def account_of(cloud: CloudConfig) -> Account:
    """Return the account of a cloud's provider.

    Raises:
        ConfigError: Its credentials cannot be had, or would not be safe.
    """
    try:
        return read_account(cloud.credentials, cloud.api_url, cloud.hub_url)
    except AccountUnusable as error:
        raise ConfigError(str(error), "see --browserstack-credentials") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSlots:
    """How the slots of an account are found, what runs tests on them, and what to close at the end."""

    discovery: Discovery
    make: RunnerMaker
    gateway: Gateway
    claims: Claims


def cloud_slots(
    config: Config, account: Account, tools: Toolbox, source: BuildSource, blobs: BlobCache, bundles: Bundles
) -> CloudSlots:
    """Return the slots of an account; nothing is asked yet."""
    assert config.cloud is not None, f"this agent is not for {BROWSERSTACK}"
    client = Client(account)
    gateway = Gateway(client)
    claims = Claims(account.name)
    claims.on_sharing(client.share_with)
    cloud = Cloud(client=client, apps=Apps(client, claims), gateway=gateway, offers=Offers(client))

    def make(facts: DeviceFacts, _slot: int, claim: Claim) -> Runner:
        station = CloudStation(facts.id, cloud, source, blobs)
        return AppwrightRunner(station=station, tools=tools, bundles=bundles, claim=claim)

    discovery = BrowserStackDiscovery(
        client,
        lambda: gateway.sessions_counted,
        gateway.waiting,
        config.name,
        config.cloud.slots,
        config.cloud.poll_s,
    )
    return CloudSlots(discovery=discovery, make=make, gateway=gateway, claims=claims)
