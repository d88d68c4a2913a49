"""Puts together what serves the phones and emulators of adb, from what the operator configured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from agent.android import Adb
from agent.appium import Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.bundles import Bundles
from agent.config import Config, ConfigError
from agent.core.model import DeviceFacts, DeviceKind
from agent.devices.adb import AdbDiscovery, start_server
from agent.devices.bench import RunnerMaker
from agent.devices.emulators import OF_AGENTS, EmulatorPorts, emulator_devices
from agent.emulator import Emulator, Reset
from agent.journal import Claim
from agent.ports import PortsTaken
from agent.runners.appwright import AppwrightRunner
from agent.runners.appwright_care import Care, CareOptions
from agent.runners.appwright_device import DeviceStation
from agent.runners.emulator import EmulatorRunner
from agent.runners.protocol import Runner
from agent.virtual_phone.lab import DIRECTORY_NAME, LabOptions, VirtualLab


@dataclass(frozen=True, slots=True, kw_only=True)
class AndroidDevices:
    """How they are found, and what runs tests on them."""

    discovery: AdbDiscovery
    emulators: list[DeviceFacts]
    """Those that the agent boots itself."""
    make: RunnerMaker


async def android_devices(
    config: Config,
    tools: Toolbox,
    source: Callable[[str], BuildSource],
    blobs: BlobCache,
    bundles: Bundles,
    stack: contextlib.AsyncExitStack,
) -> AndroidDevices:
    """Return the phones and emulators of this host, its virtual phones started.

    Args:
        config: How the agent runs.
        tools: The tools of this host.
        source: Says where the builds of a provider are looked for that are not registered.
        blobs: The registered builds.
        bundles: The test projects that came with their jobs.
        stack: Takes what is to be ended with the agent.

    Raises:
        ConfigError: Its emulators have no ports.
    """
    try:
        ports = EmulatorPorts(sum(count for _, count in config.emulators))
    except PortsTaken as error:
        raise ConfigError(f"--emulators: {error}", "boot fewer emulators on this host") from error
    stack.callback(ports.release)
    emulators = emulator_devices(config.emulators, config.name, ports.consoles)
    ours = frozenset(facts.udid for facts in emulators)
    adb_port, discovery = config.adb_port, AdbDiscovery(config.name, config.adb_port, ignored=OF_AGENTS)
    if config.virtual_phones:
        options = LabOptions(screens=config.virtual_phone_screens, faults=config.virtual_phone_faults)
        directory = config.state_dir / DIRECTORY_NAME
        lab = await stack.enter_async_context(VirtualLab(config.virtual_phones, directory, options))
        adb_port, discovery = lab.adb_port, AdbDiscovery(config.name, lab.adb_port, lab.names)
    else:
        await start_server(adb_port)

    def make(facts: DeviceFacts, slot: int, claim: Claim) -> Runner:
        if facts.udid not in ours:
            return appwright(facts, slot, claim)
        port, avd = int(facts.udid.rpartition("-")[2]), facts.model
        directory = config.state_dir.resolve() / "emulators"
        adb, reset = Adb(facts.udid, adb_port), Reset(config.emulator_reset)
        emulator = Emulator(avd, port, adb, claim, reset, directory)
        return EmulatorRunner(emulator, appwright(facts, slot, claim), config.emulator_idle_s)

    def appwright(facts: DeviceFacts, slot: int, claim: Claim) -> Runner:
        provider = "emulator" if facts.kind is DeviceKind.EMULATOR else "local-device"
        adb = Adb(facts.udid, adb_port, claim)
        serial = facts.id if facts.kind is DeviceKind.DEVICE else None
        care = Care(adb, serial, CareOptions(may_restart=config.allow_reboot, removes_apps=config.remove_apps))
        station = DeviceStation(
            adb=adb,
            tools=tools,
            source=source(provider),
            blobs=blobs,
            slot=slot,
            provider=provider,
            claim=claim,
            care=care,
        )
        return AppwrightRunner(station=station, tools=tools, bundles=bundles, claim=claim)

    return AndroidDevices(discovery=discovery, emulators=emulators, make=make)
