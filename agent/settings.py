"""Makes of the options and of agent.toml how an agent runs, and says what cannot be."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from agent.apple import parse_ios
from agent.config import (
    BUILD_CACHE_BYTES,
    IOS_KEYS,
    Config,
    ConfigError,
    IosConfig,
    parse_cloud,
    parse_lanes,
    parse_orgs,
    read_toml,
)
from agent.core.model import ALL_LANES, AgentId
from agent.devices.adb import DEFAULT_SERVER_PORT
from agent.devices.emulators import parse_emulators
from agent.devices.simulated import parse_simulate
from agent.virtual_phone.faults import parse_phone_faults
from qgjob.access import Access
from qgjob.errors import UsageError
from qgjob.sizes import parse_size

DEFAULT_COORDINATOR = "127.0.0.1:50051"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


def read_config(path: Path | None, flags: dict[str, Any]) -> Config:
    """Return how an agent runs.

    Args:
        path: Its agent.toml, if it has one.
        flags: What its options say, by the names that agent.toml has for them; they win. None stands for nothing.

    Raises:
        ConfigError: Something is unknown, malformed, or cannot be together.
    """
    return _config({**read_toml(path), **{key: value for key, value in flags.items() if value is not None}})


def _config(settings: dict[str, Any]) -> Config:
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
