"""Puts an agent together and serves, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from importlib.metadata import version
from typing import TYPE_CHECKING

from agent.app import App
from agent.artifacts import ArtifactSpool
from agent.blobs import BlobCache
from agent.config import BUNDLE_CACHE_BYTES, Config, ConfigError
from agent.core.model import DeviceFacts
from agent.devices.bench import Bench, Discovery
from agent.devices.lock import lock_name
from agent.devices.simulated import SimulatedDiscovery, simulated_devices
from agent.journal import Claim, Journal
from agent.runners.protocol import Runner
from agent.runners.simulated import SimulatedRunner
from agent.spool import Spool, SpoolBusy

if TYPE_CHECKING:
    from agent.real_devices import RealDevices


async def serve(config: Config) -> int:
    """Serve the devices of this host, and return the exit code.

    Raises:
        ConfigError: Something that it needs is missing.
    """
    async with contextlib.AsyncExitStack() as stack:
        spool = stack.enter_context(contextlib.closing(_spool(config)))
        blobs = BlobCache(config.state_dir / "builds", ".apk", config.build_cache_bytes)
        bundles = BlobCache(config.state_dir / "bundles", ".tar", BUNDLE_CACHE_BYTES, "bundle")
        real = await _real(config, blobs, bundles, stack)
        simulated = simulated_devices(dict(config.simulate), config.name)
        names = {facts.id for facts in simulated}

        def make(facts: DeviceFacts, slot: int, claim: Claim) -> Runner:
            if facts.id in names or real is None:
                return _simulated_runner(config, blobs, facts)
            return real.make(facts, slot, claim)

        discoveries: list[Discovery] = [SimulatedDiscovery(simulated)] if simulated else []
        if real is not None:
            discoveries += [real.discovery, *([SimulatedDiscovery(real.emulators)] if real.emulators else [])]
        own = names | ({facts.id for facts in real.emulators} if real is not None else set())
        bench = Bench(make, lambda facts: lock_name(facts, own), Journal(config.state_dir / "processes"))
        artifacts = ArtifactSpool(config.state_dir / "artifacts")
        claims = real.claims if real is not None else None
        agent = App(config, version("qgjob"), spool, bench, discoveries, (blobs, bundles), artifacts, claims)
        _drain_on_signal(agent, config.drain_grace_s)
        told = f"agent={config.name} coordinator={','.join(config.coordinators)}"
        print(f"ready {told}", flush=True)  # noqa: T201 - the promised line on stdout
        await agent.run()
    return 0


async def _real(
    config: Config, blobs: BlobCache, bundles: BlobCache, stack: contextlib.AsyncExitStack
) -> RealDevices | None:
    """Return the devices that are not simulated; what they need is loaded only where there are some."""
    if config.workspace is None and not config.is_for_bundles:
        return None
    from agent.real_devices import real_devices

    return await real_devices(config, blobs, bundles, stack)


def _spool(config: Config) -> Spool:
    try:
        return Spool(config.state_dir)
    except SpoolBusy as error:
        raise ConfigError(str(error), "stop that one, or give this one another --name or --state-dir") from error
    except OSError as error:
        raise ConfigError(
            f"cannot write to {config.state_dir}: {error.strerror}", "choose another --state-dir"
        ) from error


def _simulated_runner(config: Config, blobs: BlobCache, facts: DeviceFacts) -> Runner:
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
    signals = 0

    def told() -> None:
        nonlocal signals
        signals += 1
        agent.drain(grace_s if signals == 1 else 0)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
