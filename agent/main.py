"""The program `qgjob-agent`: parse, take the devices, run. What it runs is loaded when it is run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.config import (
    BROWSERSTACK,
    BUILD_CACHE_BYTES,
    BUNDLE_CACHE_BYTES,
    IOS_KEYS,
    Config,
    ConfigError,
    IosConfig,
    parse_cloud,
    parse_lanes,
    parse_orgs,
    read_toml,
)
from agent.core.model import ALL_LANES, AgentId, DeviceFacts, DeviceKind
from agent.devices.simulated import SimulatedDiscovery, parse_simulate, simulated_devices
from agent.virtual_phone.errors import VirtualPhoneError
from agent.virtual_phone.faults import parse_phone_faults
from qgjob.access import Access
from qgjob.errors import UsageError
from qgjob.parameters import PlainCommand
from qgjob.program import print_release, run_program, stdout_width
from qgjob.sizes import parse_size

if TYPE_CHECKING:
    import structlog

    from agent.app import App
    from agent.appium import Toolbox
    from agent.blobs import BlobCache
    from agent.browserstack.claims import Claims
    from agent.bundles import NodePackages
    from agent.devices.bench import Discovery, RunnerMaker
    from agent.journal import Claim
    from agent.runners.protocol import Runner
    from agent.spool import Spool

MUST_BE_MENDED = 3
"""The exit code of a doctor who found something: the same as `qgjob doctor` has for the lab's fault."""
OWN_PACKAGES = ""
"""Whose packages an agent without a workspace runs its own tools from: no organisation's."""
DEFAULT_COORDINATOR = "127.0.0.1:50051"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")

app = typer.Typer(
    name="qgjob-agent",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print_release("qgjob-agent")


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the release.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """The agent of a qgjob device lab: owns the devices of one machine and runs batches of tests on them."""


# What `run` and `doctor` both take.
CoordinatorOption = Annotated[
    str | None,
    typer.Option(help="HOST:PORT[,HOST:PORT] of the coordinator.", envvar="QGJOB_COORDINATOR", show_default=False),
]
NameOption = Annotated[
    str | None, typer.Option(help="Name of this agent, unique in the lab; default: the host's name.")
]
ConfigOption = Annotated[Path | None, typer.Option(help="agent.toml with the same keys as these options.")]
SimulateOption = Annotated[
    str | None, typer.Option(help="Simulated devices, as in emulator=3,device=1,browserstack=1.")
]
WorkspaceOption = Annotated[
    Path | None, typer.Option(help="AppWright project, with its node_modules; its tests run on devices of adb.")
]
BundlesOnlyOption = Annotated[
    bool | None,
    typer.Option("--bundles-only", help="Run bundles alone, without a --workspace; their tools are installed once."),
]
VirtualPhonesOption = Annotated[
    int | None, typer.Option(help="Virtual Android phones to run the workspace's tests on.", min=0, max=16)
]
TlsCaOption = Annotated[str | None, typer.Option(help="The coordinator's CA (PEM), or `system`; without it no TLS.")]
TlsCertOption = Annotated[
    str | None, typer.Option(help="Certificate of this agent, where the coordinator asks for one.")
]
TlsKeyOption = Annotated[str | None, typer.Option(help="Its key.")]
TokenFileOption = Annotated[
    str | None, typer.Option(help="File with this agent's token.", envvar="QGJOB_TOKEN_FILE", show_default=False)
]
InsecureOption = Annotated[bool | None, typer.Option("--insecure", help="Let the token leave this host without TLS.")]
IosOption = Annotated[
    bool | None, typer.Option("--ios", help="Use this Mac's iOS simulators and devices, and not adb's.")
]
SimulatorsOption = Annotated[
    str | None, typer.Option(help="Simulators to boot when work comes, and how many, as in 'iPhone 15=2,iPad*'.")
]
IosTeamOption = Annotated[str | None, typer.Option(help="Apple team that signs WebDriverAgent for iPhones and iPads.")]
AdbPortOption = Annotated[int | None, typer.Option(help="Port of the adb server; default: 5037.", min=1, max=65_535)]
ProviderOption = Annotated[
    str | None,
    typer.Option(help="`browserstack`: serve the sessions of an account there instead of this host's devices."),
]
BrowserStackCredentialsOption = Annotated[
    str | None,
    typer.Option(help="File with USERNAME:ACCESS_KEY, or `env` (default): BROWSERSTACK_USERNAME and _ACCESS_KEY."),
]
BrowserStackApiOption = Annotated[str | None, typer.Option(help="Address of its REST API, for tests and proxies.")]
BrowserStackHubOption = Annotated[str | None, typer.Option(help="Address of its hub, for tests and proxies.")]
EmulatorsOption = Annotated[
    str | None, typer.Option(help="AVDs to boot when work comes, and how many of each, as in Pixel_8=2,Tablet=1.")
]
BuildCacheOption = Annotated[
    str | None, typer.Option(help="Size of the registered builds that are kept here; default: 10GiB.")
]
StateDirOption = Annotated[
    Path | None, typer.Option(help="Spool of logs and results. Default: the user's state directory.")
]


@app.command(cls=PlainCommand)
def run(
    coordinator: CoordinatorOption = None,
    name: NameOption = None,
    config: ConfigOption = None,
    simulate: SimulateOption = None,
    sim_install_seconds: Annotated[
        float | None, typer.Option(help="How long a simulated install takes.", min=0)
    ] = None,
    sim_test_seconds: Annotated[float | None, typer.Option(help="How long a simulated test takes.", min=0)] = None,
    workspace: WorkspaceOption = None,
    bundles_only: BundlesOnlyOption = None,
    build_source: Annotated[
        str | None,
        typer.Option(
            help="Path or URL of an app version's build where none is registered, as in apps/{app_version_id}.apk; "
            "default: the project's own."
        ),
    ] = None,
    build_cache: BuildCacheOption = None,
    virtual_phones: VirtualPhonesOption = None,
    virtual_phone_faults: Annotated[
        str | None,
        typer.Option(help="What is wrong with virtual phones from the start, as in '1:unauthorized;2:storage_full'."),
    ] = None,
    virtual_phone_screens: Annotated[
        Path | None, typer.Option(help="TOML file with the screens of the virtual phones' app.")
    ] = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    insecure: InsecureOption = None,
    adb_port: AdbPortOption = None,
    allow_reboot: Annotated[
        bool | None, typer.Option("--allow-reboot", help="Restart a device that does not get well otherwise.")
    ] = None,
    remove_apps: Annotated[
        bool | None, typer.Option("--remove-apps", help="Uninstall an app before another one is tested.")
    ] = None,
    emulators: EmulatorsOption = None,
    emulator_reset: Annotated[
        str | None, typer.Option(help="Between batches: keep, snapshot (default: the AVD's saved state) or wipe.")
    ] = None,
    emulator_idle: Annotated[
        float | None, typer.Option(help="Seconds after which an idle emulator is ended; default: 600.", min=0)
    ] = None,
    provider: ProviderOption = None,
    browserstack_credentials: BrowserStackCredentialsOption = None,
    browserstack_slots: Annotated[
        int | None, typer.Option(help="Sessions at most; default: those of the plan.", min=1, max=1_000)
    ] = None,
    browserstack_poll: Annotated[
        float | None, typer.Option(help="Seconds between two looks at the plan; default: 15.", min=1)
    ] = None,
    browserstack_api: BrowserStackApiOption = None,
    browserstack_hub: BrowserStackHubOption = None,
    ios: IosOption = None,
    simulators: SimulatorsOption = None,
    simulator_reset: Annotated[
        str | None, typer.Option(help="Between batches: keep (default), or erase.", show_default=False)
    ] = None,
    ios_team_id: IosTeamOption = None,
    ios_wda_bundle_id: Annotated[
        str | None, typer.Option(help="Bundle id of WebDriverAgent, where the team may not use Appium's own.")
    ] = None,
    state_dir: StateDirOption = None,
    lanes: Annotated[
        str | None, typer.Option(help="Run only jobs of these lanes, as in high,normal; default: all.")
    ] = None,
    orgs: Annotated[
        str | None, typer.Option(help="Run only jobs of these organisations, as in acme,globex; default: all.")
    ] = None,
    drain_grace: Annotated[
        float | None, typer.Option(help="Seconds that running tests may take after SIGTERM.", min=0)
    ] = None,
) -> None:
    """Serve the devices of this machine. SIGTERM or Ctrl-C ends that; a second signal ends running tests."""
    import asyncio

    _set_up_diagnostics()
    flags = {
        "coordinator": coordinator,
        "name": name,
        "simulate": simulate,
        "sim_install_seconds": sim_install_seconds,
        "sim_test_seconds": sim_test_seconds,
        "state_dir": state_dir,
        "drain_grace": drain_grace,
        "lanes": lanes,
        "orgs": orgs,
        "workspace": workspace,
        "bundles_only": bundles_only,
        "build_source": build_source,
        "build_cache": build_cache,
        "adb_port": adb_port,
        "tls_ca": tls_ca,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "token_file": token_file,
        "insecure": insecure,
        "emulators": emulators,
        "emulator_reset": emulator_reset,
        "emulator_idle": emulator_idle,
        "ios": ios,
        "simulators": simulators,
        "simulator_reset": simulator_reset,
        "ios_team_id": ios_team_id,
        "ios_wda_bundle_id": ios_wda_bundle_id,
        "provider": provider,
        "browserstack_credentials": browserstack_credentials,
        "browserstack_slots": browserstack_slots,
        "browserstack_poll": browserstack_poll,
        "browserstack_api": browserstack_api,
        "browserstack_hub": browserstack_hub,
        "allow_reboot": allow_reboot,
        "remove_apps": remove_apps,
        "virtual_phones": virtual_phones,
        "virtual_phone_faults": virtual_phone_faults,
        "virtual_phone_screens": str(virtual_phone_screens) if virtual_phone_screens else None,
    }
    with _telling_errors():
        sys.exit(asyncio.run(_serve(_config(_settings(config, flags)))))


@app.command(cls=PlainCommand)
def doctor(
    coordinator: CoordinatorOption = None,
    name: NameOption = None,
    config: ConfigOption = None,
    simulate: SimulateOption = None,
    workspace: WorkspaceOption = None,
    bundles_only: BundlesOnlyOption = None,
    build_cache: BuildCacheOption = None,
    virtual_phones: VirtualPhonesOption = None,
    emulators: EmulatorsOption = None,
    adb_port: AdbPortOption = None,
    provider: ProviderOption = None,
    browserstack_credentials: BrowserStackCredentialsOption = None,
    browserstack_api: BrowserStackApiOption = None,
    browserstack_hub: BrowserStackHubOption = None,
    ios: IosOption = None,
    simulators: SimulatorsOption = None,
    ios_team_id: IosTeamOption = None,
    state_dir: StateDirOption = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    insecure: InsecureOption = None,
) -> None:
    """Look whether an agent could work here.

    Takes the options of `run`. Ends with 0 if it could, with 3 if something must be mended.
    """
    flags = {
        "coordinator": coordinator,
        "name": name,
        "simulate": simulate,
        "state_dir": state_dir,
        "workspace": workspace,
        "bundles_only": bundles_only,
        "adb_port": adb_port,
        "build_cache": build_cache,
        "virtual_phones": virtual_phones,
        "emulators": emulators,
        "ios": ios,
        "simulators": simulators,
        "ios_team_id": ios_team_id,
        "provider": provider,
        "browserstack_credentials": browserstack_credentials,
        "browserstack_api": browserstack_api,
        "browserstack_hub": browserstack_hub,
        "tls_ca": tls_ca,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "token_file": token_file,
        "insecure": insecure,
    }
    with _telling_errors():
        found = _config(_settings(config, flags))
    from agent.doctor import examine
    from qgjob.checkup import Finding, lines

    checks = examine(found)
    for line in lines(checks, stdout_width()):
        print(line)  # noqa: T201 - the result
    sys.exit(MUST_BE_MENDED if any(check.finding is Finding.FAILED for check in checks) else 0)


def _settings(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    return {**read_toml(config), **{key: value for key, value in flags.items() if value is not None}}


@contextlib.contextmanager
def _telling_errors() -> Iterator[None]:
    """Tell what cannot work as a line and a hint, and end with 2."""
    try:
        yield
    except VirtualPhoneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _config(settings: dict[str, Any]) -> Config:
    from platformdirs import user_state_path

    from agent.devices.adb import DEFAULT_SERVER_PORT
    from agent.devices.emulators import parse_emulators

    name = str(settings.get("name") or socket.gethostname())
    if not _NAME.match(name):
        raise ConfigError(f"--name {name!r} is no name", "use letters, digits, dots, dashes; at most 63")
    try:
        simulate = parse_simulate(settings["simulate"]) if settings.get("simulate") else {}
    except ValueError as error:
        raise ConfigError(str(error), "for example --simulate emulator=3,device=1") from error
    reset = str(settings.get("emulator_reset", "snapshot"))
    try:
        booted = parse_emulators(str(settings["emulators"]), reset) if settings.get("emulators") else ()
    except ValueError as error:
        raise ConfigError(str(error), "for example --emulators Pixel_8=2 --emulator-reset snapshot") from error
    cloud = parse_cloud(settings)
    faults = str(settings.get("virtual_phone_faults", ""))
    workspace = Path(settings["workspace"]) if settings.get("workspace") else None
    is_for_bundles = bool(settings.get("bundles_only"))
    if is_for_bundles and workspace is not None:
        raise ConfigError("--bundles-only and --workspace exclude each other", "an agent with a workspace runs both")
    if settings.get("virtual_phones") and workspace is None and not is_for_bundles:
        raise ConfigError("virtual phones have nothing to run", "add --workspace DIR with an AppWright project")
    if not simulate and workspace is None and not is_for_bundles:
        raise ConfigError(
            "this agent would have no device",
            "add --workspace DIR with an AppWright project, or --simulate emulator=2 to try the grid out",
        )
    addresses = tuple(address.strip() for address in str(settings.get("coordinator") or DEFAULT_COORDINATOR).split(","))
    for address in addresses:
        if not re.match(r"^[^:\s]+:\d{1,5}$|^\[[0-9a-fA-F:]+\]:\d{1,5}$", address):
            raise ConfigError(f"--coordinator {address} is not HOST:PORT", f"for example {DEFAULT_COORDINATOR}")
    access = _access(settings, addresses)
    state_dir = Path(settings.get("state_dir") or user_state_path("qgjob-agent") / name)
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make {state_dir}: {error.strerror}", "choose another --state-dir") from error
    return Config(
        coordinators=addresses,
        name=AgentId(name),
        state_dir=state_dir,
        simulate=tuple(simulate.items()),
        sim_install_s=float(settings.get("sim_install_seconds", 2.0)),
        sim_test_s=float(settings.get("sim_test_seconds", 1.0)),
        drain_grace_s=float(settings.get("drain_grace", 60.0)),
        lanes=parse_lanes(str(settings["lanes"])) if "lanes" in settings else ALL_LANES,
        orgs=parse_orgs(str(settings["orgs"])) if "orgs" in settings else (),
        access=access,
        workspace=workspace,
        is_for_bundles=is_for_bundles,
        build_source=str(settings.get("build_source", "")),
        build_cache_bytes=_build_cache_bytes(settings),
        adb_port=int(settings.get("adb_port", DEFAULT_SERVER_PORT)),
        virtual_phones=int(settings.get("virtual_phones", 0)),
        virtual_phone_faults=parse_phone_faults(faults, int(settings.get("virtual_phones", 0))) if faults else {},
        virtual_phone_screens=Path(screens) if (screens := settings.get("virtual_phone_screens")) else None,
        emulators=booted,
        ios=_ios(settings),
        emulator_reset=reset,
        emulator_idle_s=float(settings.get("emulator_idle", 600.0)),
        allow_reboot=bool(settings.get("allow_reboot", False)),
        remove_apps=bool(settings.get("remove_apps", False)),
        cloud=cloud,
    )


def _ios(settings: dict[str, Any]) -> IosConfig | None:
    if not any(key in settings for key in ("ios", *IOS_KEYS)):
        return None
    from agent.apple import parse_ios

    return parse_ios(settings)


def _build_cache_bytes(settings: dict[str, Any]) -> int:
    text = settings.get("build_cache")
    if text is None:
        return BUILD_CACHE_BYTES
    try:
        return parse_size(str(text))
    except ValueError as error:
        raise ConfigError(f"--build-cache {text} is not a size", "use for example 500MB or 20GiB") from error


def _access(settings: dict[str, Any], addresses: tuple[str, ...]) -> Access:
    """Return what is shown to the coordinators, after everything that it needs was read once."""
    access = Access(
        **{name: str(settings.get(name, "")) for name in ("tls_ca", "tls_cert", "tls_key", "token_file")},
        is_insecure=bool(settings.get("insecure", False)),
    )
    try:
        for address in addresses:
            access.check(address.rpartition(":")[0].strip("[]"))
        access.credentials()
        if access.has_token:
            access.metadata()
    except UsageError as error:
        raise ConfigError(str(error), error.hint) from error
    return access


async def _serve(config: Config) -> int:
    from importlib.metadata import version

    from agent.app import App
    from agent.artifacts import ArtifactSpool
    from agent.blobs import BlobCache
    from agent.devices.bench import Bench
    from agent.journal import Journal

    async with contextlib.AsyncExitStack() as stack:
        spool = stack.enter_context(contextlib.closing(_spool(config)))
        blobs = BlobCache(config.state_dir / "builds", ".apk", config.build_cache_bytes)
        bundles = BlobCache(config.state_dir / "bundles", ".tar", BUNDLE_CACHE_BYTES, "bundle")
        real = await _real(config, blobs, bundles, stack) if config.workspace or config.is_for_bundles else None
        simulated = simulated_devices(dict(config.simulate), config.name)
        names = {facts.id for facts in simulated}

        def make(facts: DeviceFacts, slot: int, claim: Claim) -> Runner:
            if facts.id in names or real is None:
                return _simulated_runner(config, blobs, facts)
            return real.make(facts, slot, claim)

        def lock_name(facts: DeviceFacts) -> str:
            # The id of an emulator speaks of its agent; two agents that see the same one must meet at one lock.
            is_local = facts.kind is DeviceKind.EMULATOR and facts.id not in names
            return facts.udid if is_local else facts.id

        discoveries: list[Discovery] = [SimulatedDiscovery(simulated)] if simulated else []
        if real is not None:
            discoveries += [real.discovery, *([SimulatedDiscovery(real.emulators)] if real.emulators else [])]
        bench = Bench(make, lock_name, Journal(config.state_dir / "processes"))
        artifacts = ArtifactSpool(config.state_dir / "artifacts")
        claims = real.claims if real is not None else None
        agent = App(config, version("qgjob"), spool, bench, discoveries, (blobs, bundles), artifacts, claims)
        _drain_on_signal(agent, config.drain_grace_s)
        told = f"agent={config.name} coordinator={','.join(config.coordinators)}"
        print(f"ready {told}", flush=True)  # noqa: T201 - the promised line on stdout
        await agent.run()
    return 0


def _spool(config: Config) -> Spool:
    from agent.spool import Spool, SpoolBusy

    try:
        return Spool(config.state_dir)
    except SpoolBusy as error:
        raise ConfigError(str(error), "stop that one, or give this one another --name or --state-dir") from error
    except OSError as error:
        raise ConfigError(
            f"cannot write to {config.state_dir}: {error.strerror}", "choose another --state-dir"
        ) from error


@dataclass(frozen=True, slots=True)
class _Real:
    """How Android devices are found, and what runs tests on them."""

    discovery: Discovery
    emulators: list[DeviceFacts]
    """Those that the agent boots itself."""
    make: RunnerMaker
    claims: Claims | None = None
    """To uploads to the account of a cloud."""


async def _real(config: Config, blobs: BlobCache, bundles: BlobCache, stack: contextlib.AsyncExitStack) -> _Real:
    """Look at the AppWright project and the tools of this host before the first test needs them.

    Raises:
        ConfigError: Something is missing.
    """
    from agent.android import Adb
    from agent.appium import Toolbox
    from agent.apple import ios_devices
    from agent.builds import BuildSource
    from agent.bundles import Bundles, NodePackages
    from agent.cloud import account_of, cloud_slots
    from agent.devices.adb import AdbDiscovery, start_server
    from agent.devices.emulators import OF_AGENTS, EmulatorPorts, emulator_devices
    from agent.downloads import Downloads
    from agent.emulator import Emulator, Reset
    from agent.ports import PortsTaken
    from agent.runners.appwright import AppwrightRunner
    from agent.runners.appwright_care import Care, CareOptions
    from agent.runners.appwright_device import DeviceStation
    from agent.runners.appwright_project import build_path
    from agent.runners.emulator import EmulatorRunner
    from agent.virtual_phone.lab import DIRECTORY_NAME, LabOptions, VirtualLab

    state_dir = config.state_dir.resolve()
    packages = NodePackages(state_dir / "packages", Toolbox(project=state_dir, state_dir=state_dir).environment())
    account = account_of(config.cloud) if config.cloud is not None else None
    tools = await _tools(config, state_dir, packages)
    packages.lend(tools.project)
    downloads = Downloads(config.state_dir / "downloads")

    def source(provider: str, platform: str = "android") -> BuildSource:
        ask_project = functools.partial(build_path, tools, provider, platform) if tools.has_workspace else None
        return BuildSource(config.build_source, tools.project, ask_project, downloads)

    if account is not None:
        slots = cloud_slots(config, account, tools, source(BROWSERSTACK), blobs, Bundles(bundles, packages))
        stack.callback(slots.gateway.close)
        return _Real(slots.discovery, [], slots.make, slots.claims)
    if config.ios is not None:
        providers = {DeviceKind.EMULATOR: "emulator", DeviceKind.DEVICE: "local-device"}
        sources = {kind: source(provider, "ios") for kind, provider in providers.items()}
        apples = ios_devices(config, tools, sources, blobs, Bundles(bundles, packages))
        return _Real(apples.discovery, [], apples.make)
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
        return AppwrightRunner(station=station, tools=tools, bundles=Bundles(bundles, packages), claim=claim)

    return _Real(discovery, emulators, make)


async def _tools(config: Config, state_dir: Path, packages: NodePackages) -> Toolbox:
    """Return the tools of this host: those of the workspace, else those that bundles are run with."""
    from agent.appium import UIAUTOMATOR2, XCUITEST, AppiumFailed, Toolbox, install_driver
    from agent.apple import check_xcode
    from agent.bundles import BundleUnusable
    from agent.runners.appwright_project import TOOLBOX, ProjectUnusable, check_packages, check_project

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


def _simulated_runner(config: Config, blobs: BlobCache, facts: DeviceFacts) -> Runner:
    from agent.runners.simulated import SimulatedRunner

    truth = config.state_dir / "device-truth.jsonl"
    return SimulatedRunner(
        facts.id,
        blobs=blobs,
        install_s=config.sim_install_s,
        test_s=config.sim_test_s,
        truth=truth,
        left_behind=config.state_dir / "simulated",
    )


def _drain_on_signal(agent: App, grace_s: float) -> None:
    import asyncio

    signals = 0

    def told() -> None:
        nonlocal signals
        signals += 1
        agent.drain(grace_s if signals == 1 else 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)


def _drop_empty(_logger: object, _name: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {name: value for name, value in fields.items() if value is not None}


def _set_up_diagnostics() -> None:
    import structlog

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    is_terminal = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ)
        if is_terminal
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event", "story"], drop_missing=True)
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_empty,
            *(() if is_terminal else (structlog.processors.format_exc_info,)),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Run the program."""
    # Before gRPC is loaded: it would write of its own between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run_program(app)
