"""Simulated devices: `--simulate emulator=3,device=1,browserstack=1`."""

from __future__ import annotations

from collections.abc import Callable

from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind

MAX_SIMULATED = 1_000

_MODELS = {
    DeviceKind.EMULATOR: ("Pixel 8 (simulated)", "14"),
    DeviceKind.DEVICE: ("Galaxy S23 (simulated)", "13"),
    DeviceKind.BROWSERSTACK: ("BrowserStack slot (simulated)", "14"),
}


def parse_simulate(text: str) -> dict[DeviceKind, int]:
    """Read `kind=count,kind=count`.

    Raises:
        ValueError: It is malformed; the text says what is allowed.
    """
    counts: dict[DeviceKind, int] = {}
    for part in text.split(","):
        kind, separator, count = part.strip().partition("=")
        if kind not in set(DeviceKind) or not separator or not count.isdecimal():
            raise ValueError(f"--simulate {text}: {part!r} is not kind=count; kinds are {', '.join(DeviceKind)}")
        counts[DeviceKind(kind)] = int(count)
    if sum(counts.values()) > MAX_SIMULATED:
        raise ValueError(f"--simulate {text}: more than {MAX_SIMULATED} devices")
    return counts


class SimulatedDiscovery:
    """Devices that are there from the start and never go away."""

    def __init__(self, devices: list[DeviceFacts]) -> None:
        self._devices = devices

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of the devices, once."""
        observed(tuple(self._devices))


def simulated_devices(counts: dict[DeviceKind, int], agent: AgentId) -> list[DeviceFacts]:
    """Return the facts of simulated devices; their names are local to the agent."""
    return [
        DeviceFacts(
            id=DeviceId(f"{kind}-{number}@{agent}"),
            kind=kind,
            model=_MODELS[kind][0],
            os_version=_MODELS[kind][1],
            udid=f"{kind}-{number}",
            labels=(("simulated", "true"),),
        )
        for kind, count in counts.items()
        for number in range(1, count + 1)
    ]
