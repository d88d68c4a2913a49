"""Flags and agent.toml become one frozen config."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.browserstack.account import API_URL, FROM_ENVIRONMENT, HUB_URL
from agent.core.model import ALL_LANES, AgentId, DeviceKind, Lane
from qgjob.access import Access
from qgjob.channel import NO_ACCESS

KEYS = frozenset(
    {
        "coordinator",
        "name",
        "simulate",
        "sim_install_seconds",
        "sim_test_seconds",
        "state_dir",
        "drain_grace",
        "lanes",
        "orgs",
        "workspace",
        "build_source",
        "build_cache",
        "bundles_only",
        "adb_port",
        "virtual_phones",
        "virtual_phone_faults",
        "virtual_phone_screens",
        "allow_reboot",
        "remove_apps",
        "emulators",
        "emulator_reset",
        "emulator_idle",
        "ios",
        "simulators",
        "simulator_reset",
        "ios_team_id",
        "ios_wda_bundle_id",
        "provider",
        "browserstack_credentials",
        "browserstack_slots",
        "browserstack_poll",
        "browserstack_api",
        "browserstack_hub",
        "tls_ca",
        "tls_cert",
        "tls_key",
        "token_file",
        "insecure",
    }
)


BUILD_CACHE_BYTES = 10 * 1_024**3
BUNDLE_CACHE_BYTES = 1_024**3
MOST_SECONDS = 86_400.0
MOST_ORGS = 100
NUMBERS = {
    "sim_install_seconds": (0.0, MOST_SECONDS),
    "sim_test_seconds": (0.0, MOST_SECONDS),
    "drain_grace": (0.0, MOST_SECONDS),
    "adb_port": (1.0, 65_535.0),
    "virtual_phones": (0.0, 16.0),
    "emulator_idle": (0.0, MOST_SECONDS),
    "browserstack_slots": (1.0, 1_000.0),
    "browserstack_poll": (1.0, MOST_SECONDS),
}
"""Settings that are numbers, with the least and the most; all others are texts."""
SWITCHES = frozenset({"allow_reboot", "bundles_only", "insecure", "ios", "remove_apps"})
WHOLE_NUMBERS = frozenset({"adb_port", "browserstack_slots", "virtual_phones"})
BROWSERSTACK = "browserstack"
"""The provider whose sessions an agent serves instead of the devices of its host."""


class ConfigError(Exception):
    """The program was started with something that cannot work; the sentence says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Take the sentence, and what to do."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudConfig:
    """Whose sessions are served instead of the devices of this host."""

    credentials: str
    """`env`, or a file."""
    api_url: str
    hub_url: str
    slots: int | None = None
    """Sessions at most; None for all of the plan."""
    poll_s: float = 15.0
    """How often the plan is looked at."""


def parse_cloud(settings: Mapping[str, Any]) -> CloudConfig | None:
    """Return the cloud of `--provider`, None where there is none.

    Raises:
        ConfigError: It is unknown, or its options stand there without it.
    """
    provider = settings.get("provider")
    if provider is None:
        if given := next((key for key in settings if key.startswith(f"{BROWSERSTACK}_")), None):
            flag = f"--{given.replace('_', '-')}"
            raise ConfigError(f"{flag} is for an agent of BrowserStack", "add --provider browserstack")
        return None
    if provider != BROWSERSTACK:
        raise ConfigError(f"--provider {provider} is unknown", f"use {BROWSERSTACK}, or leave it out for adb's devices")
    for key in ("virtual_phones", "emulators"):
        if settings.get(key):
            flag = f"--{key.replace('_', '-')}"
            raise ConfigError(f"{flag} and --provider {BROWSERSTACK} exclude each other", "run two agents")
    slots = settings.get("browserstack_slots")
    return CloudConfig(
        credentials=str(settings.get("browserstack_credentials", FROM_ENVIRONMENT)),
        api_url=str(settings.get("browserstack_api", API_URL)),
        hub_url=str(settings.get("browserstack_hub", HUB_URL)),
        slots=None if slots is None else int(slots),
        poll_s=float(settings.get("browserstack_poll", 15.0)),
    )


IOS_KEYS = ("simulators", "simulator_reset", "ios_team_id", "ios_wda_bundle_id")
"""Settings that are for an agent of iOS alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IosConfig:
    """How the simulators and devices of a Mac are used."""

    simulators: tuple[tuple[str, int], ...] = ()
    """Names of those that the agent boots itself, and how many of each."""
    simulator_reset: str = "keep"
    team_id: str = ""
    """The Apple team that signs WebDriverAgent for devices."""
    wda_bundle_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How an agent runs."""

    coordinators: tuple[str, ...]
    name: AgentId
    state_dir: Path
    simulate: tuple[tuple[DeviceKind, int], ...]
    sim_install_s: float
    sim_test_s: float
    drain_grace_s: float
    lanes: tuple[Lane, ...] = ALL_LANES
    """The lanes whose jobs its devices run."""
    orgs: tuple[str, ...] = ()
    """The organisations whose jobs its devices run; none for all."""
    access: Access = NO_ACCESS
    """What is shown to the coordinator."""
    workspace: Path | None = None
    """The AppWright project; None where there is none."""
    is_for_bundles: bool = False
    """Whether bundles are run without a workspace."""
    build_source: str = ""
    build_cache_bytes: int = BUILD_CACHE_BYTES
    """Size of the registered builds that are kept, but for those in use."""
    adb_port: int = 5_037
    virtual_phones: int = 0
    """Virtual phones to run beside a private adb server; the phones of `adb_port` are then left alone."""
    virtual_phone_faults: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """What is wrong with them from the start, by their numbers counted from 0."""
    virtual_phone_screens: Path | None = None
    """The screens of their app; None for the app that comes with them."""
    emulators: tuple[tuple[str, int], ...] = ()
    """AVDs that the agent boots itself, and how many copies of each."""
    emulator_reset: str = "snapshot"
    emulator_idle_s: float = 600.0
    """How long an emulator is kept that nothing comes for."""
    ios: IosConfig | None = None
    """How the simulators and devices of a Mac are used, which take the place of adb's; None on all other agents."""
    allow_reboot: bool = False
    """Whether a device that does not get well otherwise may be restarted."""
    cloud: CloudConfig | None = None
    """The cloud whose slots are served instead of the devices of this host."""
    remove_apps: bool = False
    """Whether the app of a batch is uninstalled before another app is tested."""


def read_toml(path: Path | None) -> dict[str, Any]:
    """Return the keys of an agent.toml.

    Raises:
        ConfigError: It cannot be read, or holds a key that nobody knows.
    """
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}", "see docs/agent.md for an example") from error
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"{path}: {key} is no setting", f"settings are {', '.join(sorted(KEYS))}")
    for key, value in values.items():
        _check_kind(path, key, value)
    return values


def _check_kind(path: Path, key: str, value: object) -> None:
    """Refuse what a flag of this name would refuse too."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in SWITCHES:
        if not isinstance(value, bool):
            raise ConfigError(f"{path}: {key} = {value!r} is neither true nor false", f"write {key} = true")
    elif key not in NUMBERS:
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key} = {value!r} is no text", f'write {key} = "..."')
    elif not is_number or (key in WHOLE_NUMBERS and not isinstance(value, int)):
        kind = "whole number" if key in WHOLE_NUMBERS else "number"
        raise ConfigError(f"{path}: {key} = {value!r} is no {kind}", f"write {key} = 2")
    elif not NUMBERS[key][0] <= float(str(value)) <= NUMBERS[key][1]:
        least, most = NUMBERS[key]
        raise ConfigError(f"{path}: {key} = {value} is out of range", f"use {least:g} to {most:g}")


def parse_orgs(told: str) -> tuple[str, ...]:
    """Return the organisations of a list with commas.

    Raises:
        ConfigError: It names none, one twice, or more than a coordinator takes.
    """
    named = [name.strip() for name in told.split(",")]
    if not all(named) or len(set(named)) < len(named):
        raise ConfigError(f"--orgs: {told!r} names nothing, or something twice", "write for example --orgs acme,globex")
    if len(named) > MOST_ORGS:
        raise ConfigError(f"--orgs names {len(named)} organisations, and {MOST_ORGS} is the limit", "leave --orgs out")
    return tuple(named)


def parse_lanes(told: str) -> tuple[Lane, ...]:
    """Return the lanes of a list with commas, high first.

    Raises:
        ConfigError: One of them is none.
    """
    named = [lane.strip() for lane in told.split(",")]
    for name in named:
        if name not in tuple(Lane):
            raise ConfigError(f"--lanes: {name!r} is no lane", f"use {', '.join(Lane)}, or several with commas")
    return tuple(lane for lane in Lane if lane in named)
