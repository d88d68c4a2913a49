"""Puts together the devices of an agent that are not simulated, and the tools that run tests on them."""

from __future__ import annotations

import contextlib
import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.android_devices import android_devices
from agent.appium import UIAUTOMATOR2, XCUITEST, AppiumFailed, Toolbox, install_driver
from agent.apple import check_xcode, ios_devices
from agent.blobs import BlobCache
from agent.browserstack.claims import Claims
from agent.builds import BuildSource
from agent.bundles import Bundles, BundleUnusable, NodePackages
from agent.cloud import account_of, cloud_slots
from agent.config import BROWSERSTACK, Config, ConfigError
from agent.core.model import DeviceFacts, DeviceKind
from agent.devices.bench import Discovery, RunnerMaker
from agent.downloads import Downloads
from agent.runners.appwright_project import TOOLBOX, ProjectUnusable, build_path, check_packages, check_project

OWN_PACKAGES = ""
"""Whose packages an agent without a workspace runs its own tools from: no organisation's."""


@dataclass(frozen=True, slots=True)
class RealDevices:
    """How they are found, and what runs tests on them."""

    discovery: Discovery
    emulators: list[DeviceFacts]
    """Those that the agent boots itself."""
    make: RunnerMaker
    claims: Claims | None = None
    """To uploads to the account of a cloud."""


async def real_devices(
    config: Config, blobs: BlobCache, bundles: BlobCache, stack: contextlib.AsyncExitStack
) -> RealDevices:
    """Look at the AppWright project and the tools of this host before the first test needs them.

    Args:
        config: How the agent runs.
        blobs: The registered builds.
        bundles: The test projects that came with their jobs.
        stack: Takes what is to be ended with the agent.

    Raises:
        ConfigError: Something is missing.
    """
    state_dir = config.state_dir.resolve()
    packages = NodePackages(state_dir / "packages", Toolbox(project=state_dir, state_dir=state_dir).environment())
    account = account_of(config.cloud) if config.cloud is not None else None
    tools = await _tools(config, state_dir, packages)
    packages.lend(tools.project)
    projects = Bundles(bundles, packages)
    downloads = Downloads(config.state_dir / "downloads")

    def source(provider: str, platform: str = "android") -> BuildSource:
        ask_project = functools.partial(build_path, tools, provider, platform) if tools.has_workspace else None
        return BuildSource(config.build_source, tools.project, ask_project, downloads)

    if account is not None:
        slots = cloud_slots(config, account, tools, source(BROWSERSTACK), blobs, projects)
        stack.callback(slots.gateway.close)
        return RealDevices(slots.discovery, [], slots.make, slots.claims)
    if config.ios is not None:
        providers = {DeviceKind.EMULATOR: "emulator", DeviceKind.DEVICE: "local-device"}
        sources = {kind: source(provider, "ios") for kind, provider in providers.items()}
        apples = ios_devices(config, tools, sources, blobs, projects)
        return RealDevices(apples.discovery, [], apples.make)
    androids = await android_devices(config, tools, source, blobs, projects, stack)
    return RealDevices(androids.discovery, androids.emulators, androids.make)


async def _tools(config: Config, state_dir: Path, packages: NodePackages) -> Toolbox:
    """Return the tools of this host: those of the workspace, else those that bundles are run with."""
    workspace = config.workspace.resolve() if config.workspace is not None else None
    try:
        if workspace is not None:
            check_project(workspace)
        if config.ios is not None:
            check_xcode()
        elif config.cloud is None:
            _check_programs()
        if workspace is None:
            project = (await packages.get(OWN_PACKAGES, TOOLBOX, OWN_PACKAGES)).parent
            check_packages(project)
        else:
            project = workspace
        tools = Toolbox(project=project, state_dir=state_dir, has_workspace=workspace is not None)
        if config.cloud is None:
            await install_driver(tools, UIAUTOMATOR2 if config.ios is None else XCUITEST)
    except (BundleUnusable, ProjectUnusable) as error:
        raise ConfigError(str(error)) from error
    except AppiumFailed as error:
        raise ConfigError(str(error), "is the package registry of npm reachable?") from error
    return tools


def _check_programs() -> None:
    for tool in ("adb", "aapt", "java"):
        if shutil.which(tool) is None:
            raise ConfigError(f"{tool} is not on PATH", "install the Android tools and a Java runtime")
