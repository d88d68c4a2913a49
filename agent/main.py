"""The program `qgjob-agent`: parse, take the devices, run. What it runs is loaded when it is run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from agent.config import ConfigError
from agent.virtual_phone.errors import VirtualPhoneError
from qgjob.parameters import PlainCommand
from qgjob.program import print_release, run_program, stdout_width

MUST_BE_MENDED = 3
"""The exit code of a doctor who found something: the same as `qgjob doctor` has for the lab's fault."""

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

    from qgjob.diagnostics import set_up_diagnostics

    set_up_diagnostics()
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
        from agent.house import serve
        from agent.settings import read_config

        sys.exit(asyncio.run(serve(read_config(config, flags))))


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
    from agent.doctor import examine
    from agent.settings import read_config
    from qgjob.checkup import Finding, lines

    with _telling_errors():
        found = read_config(config, flags)
    checks = examine(found)
    for line in lines(checks, stdout_width()):
        print(line)  # noqa: T201 - the result
    sys.exit(MUST_BE_MENDED if any(check.finding is Finding.FAILED for check in checks) else 0)


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


def main() -> None:
    """Run the program."""
    # Before gRPC is loaded: it would write of its own between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run_program(app)
