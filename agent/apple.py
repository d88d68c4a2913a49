"""Puts together what serves the simulators and devices of a Mac, from what the operator configured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.appium import XCUITEST, AppiumServer, Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.bundles import Bundles
from agent.config import IOS_KEYS, Config, ConfigError, IosConfig
from agent.core.model import DeviceFacts, DeviceKind
from agent.devices.bench import RunnerMaker
from agent.devices.ios import IosDiscovery, parse_simulators_option
from agent.ios.apps import IosApps
from agent.ios.devicectl import Phone
from agent.ios.installs import Installs
from agent.ios.simctl import Simulator
from agent.ios.simulator import BootedSimulator, SimulatorReset
from agent.ios.xcrun import Xcrun
from agent.journal import Claim
from agent.runners.appwright import AppwrightRunner, slot_directory
from agent.runners.appwright_ios import IosStation, Signing
from agent.runners.emulator import EmulatorRunner
from agent.runners.protocol import Runner


def parse_ios(settings: Mapping[str, Any]) -> IosConfig | None:
    """Return how an agent of iOS runs, None where it is none.

    Raises:
        ConfigError: Something is unknown, or cannot be together.
    """
    if not settings.get("ios"):
        if given := next((key for key in IOS_KEYS if key in settings), None):
            raise ConfigError(f"--{given.replace('_', '-')} is for an agent of iOS", "add --ios")
        return None
    for key in ("virtual_phones", "emulators", "provider"):
        if settings.get(key):
            raise ConfigError(f"--{key.replace('_', '-')} and --ios exclude each other", "run two agents")
    reset = str(settings.get("simulator_reset", SimulatorReset.KEEP))
    if reset not in set(SimulatorReset):
        raise ConfigError(f"--simulator-reset {reset} is unknown", f"use {' or '.join(SimulatorReset)}")
    try:
        wanted = parse_simulators_option(str(settings["simulators"])) if settings.get("simulators") else ()
    except ValueError as error:
        raise ConfigError(str(error), "for example --simulators 'iPhone 15=2,iPad*'") from error
    return IosConfig(
        simulators=wanted,
        simulator_reset=reset,
        team_id=str(settings.get("ios_team_id", "")),
        wda_bundle_id=str(settings.get("ios_wda_bundle_id", "")),
    )


def check_xcode() -> None:
    """Look whether there are Apple's tools.

    Raises:
        ConfigError: There are not.
    """
    if shutil.which("xcrun") is None:
        raise ConfigError("xcrun is not on PATH, and --ios needs it", "install Xcode; --ios works on a Mac alone")


@dataclass(frozen=True, slots=True, kw_only=True)
class IosDevices:
    """How they are found, and what runs tests on them."""

    discovery: IosDiscovery
    make: RunnerMaker


def ios_devices(
    config: Config, tools: Toolbox, sources: dict[DeviceKind, BuildSource], blobs: BlobCache, bundles: Bundles
) -> IosDevices:
    """Return the simulators and devices of this host; nothing is asked yet.

    Args:
        config: How the agent runs.
        tools: The tools of this host.
        sources: Where the builds of simulators and of devices are looked for that are not registered.
        blobs: The registered builds.
        bundles: The test projects that came with their jobs.
    """
    assert config.ios is not None, "this agent is not for iOS"
    options = config.ios
    state_dir = tools.state_dir
    apps = IosApps(state_dir / "ios-apps")
    discovery = IosDiscovery(config.name, Xcrun(), options.simulators)

    def make(facts: DeviceFacts, slot: int, claim: Claim) -> Runner:
        xcrun = Xcrun(claim)
        is_simulator = facts.kind is DeviceKind.EMULATOR
        directory = slot_directory(tools, facts.udid)
        simulator = Simulator(facts.udid, xcrun)
        station = IosStation(
            target=simulator if is_simulator else Phone(facts.udid, xcrun),
            appium=AppiumServer(tools, slot, directory, claim, XCUITEST),
            directory=directory,
            source=sources[facts.kind],
            blobs=blobs,
            apps=apps,
            installs=Installs(state_dir / "ios-installs", facts.udid),
            signing=Signing(team_id=options.team_id, wda_bundle_id=options.wda_bundle_id),
        )
        runner = AppwrightRunner(station=station, tools=tools, bundles=bundles, claim=claim)
        if facts.udid not in discovery.ours:
            return runner
        booted = BootedSimulator(simulator, facts.id, SimulatorReset(options.simulator_reset))
        return EmulatorRunner(booted, runner, config.emulator_idle_s)

    return IosDevices(discovery=discovery, make=make)
