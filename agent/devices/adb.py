"""Android devices, as an adb server sees them: found and lost as it tells, and as it is asked where it does not.

The adb server belongs to the user of the host: it is started when none runs, and never stopped.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import structlog

from agent.android import Adb
from agent.core.model import NO_VITALS, AgentId, DeviceFacts, DeviceId, DeviceKind, Vitals
from agent.devices.reconnections import Reconnections
from agent.health import read_vitals
from agent.process import capture

DEFAULT_SERVER_PORT = 5_037
RETRY_S = 2.0
START_TIMEOUT_S = 20.0
LOOK_AGAIN_S = 1.0
PROPERTIES = ("ro.product.model", "ro.build.version.release", "ro.serialno", "sys.boot_completed")

_LENGTH_DIGITS = 4
_FIXES = {
    "unauthorized": "unlock the phone and allow USB debugging from this computer",
    "offline": "plug it in again, or run `adb reconnect offline`",
    "no permissions": "add a udev rule for the phone, then plug it in again",
    "recovery": "it is in recovery; restart it",
    "sideload": "it waits for a sideload; restart it",
    "bootloader": "it is in its bootloader; restart it",
}


def fix_of(state: str) -> str:
    """Return what mends a device in a state of adb's."""
    return _FIXES.get(state, "see `adb devices`")


BOOTING = "it has not booted yet"
BOOT_POLL_S = 2.0
VITALS_S = 60.0
"""How old what is shown of a device's battery and storage may become."""
LOOKS_AT_ONCE = 4
COARSE_BYTES = 64 * 1_024 * 1_024


class AdbUnavailable(Exception):
    """There is no adb on this host, or its server cannot be reached."""


def parse_devices(text: str) -> dict[str, str]:
    """Return udid -> state of a `track-devices-l` message."""
    states: dict[str, str] = {}
    for line in text.splitlines():
        udid, _, rest = line.partition(" " if "\t" not in line else "\t")
        rest = rest.strip()
        state = "no permissions" if rest.startswith("no permissions") else rest.split(" ", 1)[0]
        if udid and state:
            states[udid] = state
    return states


async def track(server_port: int) -> AsyncGenerator[dict[str, str]]:
    """Yield udid -> state, at once and after every change, until the server goes away.

    adb 29 keeps some changes to itself: a phone on the network that cannot be reached any more, and one that goes on
    from offline to unauthorized. So the server is also asked, each second in which it told nothing.

    Raises:
        OSError: The server cannot be reached.
        AdbUnavailable: It refuses.
    """
    reader, writer = await _request(server_port, b"host:track-devices-l")
    states: dict[str, str] = {}
    try:
        while True:
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    told = await _read_states(reader)
            except TimeoutError:
                told = await _list(server_port)
                if told == states:
                    continue
            states = told
            yield states
    except asyncio.IncompleteReadError:
        return
    finally:
        writer.close()


async def _list(server_port: int) -> dict[str, str]:
    reader, writer = await _request(server_port, b"host:devices-l")
    try:
        return await _read_states(reader)
    finally:
        writer.close()


async def _request(server_port: int, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server_port)
    try:
        writer.write(b"%04x%s" % (len(request), request))
        await writer.drain()
        if await reader.readexactly(4) != b"OKAY":
            raise AdbUnavailable(f"the adb server on port {server_port} does not tell of its devices")
    except asyncio.IncompleteReadError as error:
        writer.close()
        raise AdbUnavailable(f"the adb server on port {server_port} went away") from error
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _read_states(reader: asyncio.StreamReader) -> dict[str, str]:
    length = int(await reader.readexactly(_LENGTH_DIGITS), 16)
    return parse_devices((await reader.readexactly(length)).decode(errors="replace"))


class AdbDiscovery:
    """Turns what the adb server tells into facts about devices."""

    def __init__(
        self,
        agent: AgentId,
        server_port: int = DEFAULT_SERVER_PORT,
        names: dict[str, str] | None = None,
        boot_poll_s: float = BOOT_POLL_S,
        vitals_s: float = VITALS_S,
        ignored: frozenset[str] = frozenset(),
    ) -> None:
        """Look for devices.

        Args:
            agent: The name of this agent.
            server_port: Where the adb server is.
            names: The udids to look at, with the names to give them; None means every device.
            boot_poll_s: How often a device that boots is looked at.
            vitals_s: How often a device is asked how it is.
            ignored: The udids that somebody else takes care of.
        """
        self._ignored = ignored
        self._boot_poll_s = boot_poll_s
        self._vitals_s = vitals_s
        self._vitals_due = 0.0
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._reconnections: dict[str, Reconnections] = {}
        self._agent = agent
        self._port = server_port
        self._names = names
        self._known: dict[str, DeviceFacts] = {}

    async def run(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell of all devices, at once and after every change, for ever."""
        while True:
            try:
                await self._follow(observed)
            except (OSError, AdbUnavailable, ValueError) as error:
                structlog.get_logger("agent").warning("adb_unreachable", port=self._port, reason=str(error))
            observed(_without_twins([_lost(facts) for facts in self._known.values()]))
            await asyncio.sleep(RETRY_S)
            if self._names is None:  # the server of virtual phones is started and ended with them
                await start_server(self._port)

    async def _follow(self, observed: Callable[[tuple[DeviceFacts, ...]], None]) -> None:
        """Tell until the server goes away. adb is silent when a device has booted: only that is looked for."""
        changes = track(self._port)
        change = asyncio.ensure_future(anext(changes, None))
        states: dict[str, str] = {}
        try:
            while True:
                done, _ = await asyncio.wait((change,), timeout=self._patience_s())
                if done:
                    told = change.result()
                    if told is None:
                        return
                    states = told
                    change = asyncio.ensure_future(anext(changes, None))
                await self._reconnect(states)
                observed(await self._facts(states))
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            await changes.aclose()

    def _patience_s(self) -> float | None:
        """Return how long to wait for a change before looking all the same; None for ever."""
        waits = [self._boot_poll_s] if any(facts.reason == BOOTING for facts in self._known.values()) else []
        if any(facts.usable for facts in self._known.values()):
            waits.append(max(0.0, self._vitals_due - time.monotonic()))
        waits += [one.wait_s(time.monotonic()) for one in self._reconnections.values() if one.are_left]
        return min(waits, default=None)

    async def _reconnect(self, states: dict[str, str]) -> None:
        """Let adb drop and find again what it calls offline: now and then that is all it takes."""
        offline = [udid for udid, state in self._wanted(states).items() if state == "offline"]
        self._reconnections = {
            udid: self._reconnections.get(udid) or Reconnections(time.monotonic()) for udid in offline
        }
        for udid, reconnections in self._reconnections.items():
            if reconnections.take(time.monotonic()):
                code, text = await Adb(udid, self._port).run("reconnect")
                structlog.get_logger("agent").info("device_reconnecting", udid=udid, code=code, answer=text.strip())

    def _wanted(self, states: dict[str, str]) -> dict[str, str]:
        known = ((udid, state) for udid, state in states.items() if udid not in self._ignored)
        return {udid: state for udid, state in known if self._names is None or udid in self._names}

    async def _facts(self, states: dict[str, str]) -> tuple[DeviceFacts, ...]:
        is_due = time.monotonic() >= self._vitals_due
        if is_due:
            self._vitals_due = time.monotonic() + self._vitals_s
        looks = (self._look(udid, state, is_due=is_due) for udid, state in self._wanted(states).items())
        found = await asyncio.gather(*looks)
        self._known = {facts.udid: facts for facts in found}
        return _without_twins(found)

    async def _look(self, udid: str, state: str, *, is_due: bool) -> DeviceFacts:
        async with self._looks:
            facts = await self._seen(udid, state)
            is_new = facts.usable and facts.vitals == NO_VITALS
            if not facts.usable or not (is_due or is_new):
                return facts
            vitals = await read_vitals(Adb(udid, self._port))
        return replace(facts, vitals=_coarse(vitals)) if vitals is not None else facts

    async def _seen(self, udid: str, state: str) -> DeviceFacts:
        known = self._known.get(udid)
        if state != "device":
            blank = known or DeviceFacts(id=self._name(udid, ""), kind=self._kind(udid), udid=udid)
            return replace(blank, usable=False, reason=f"{state}: {fix_of(state)}")
        if known is not None and known.usable:
            return known
        properties = await _properties(Adb(udid, self._port))
        return DeviceFacts(
            id=self._name(udid, properties["ro.serialno"]),
            kind=self._kind(udid),
            model=properties["ro.product.model"],
            os_version=properties["ro.build.version.release"],
            udid=udid,
            usable=properties["sys.boot_completed"] == "1",
            reason="" if properties["sys.boot_completed"] == "1" else BOOTING,
        )

    def _kind(self, udid: str) -> DeviceKind:
        return _kind(udid) if self._names is None else DeviceKind.EMULATOR

    def _name(self, udid: str, serial: str) -> DeviceId:
        """Return the device's id: a phone's serial, or a name that is local to this agent."""
        if self._names is not None:
            return DeviceId(f"{self._names[udid]}@{self._agent}")
        if _kind(udid) is DeviceKind.EMULATOR:
            return DeviceId(f"{udid}@{self._agent}")
        return DeviceId(serial or udid)


def _kind(udid: str) -> DeviceKind:
    return DeviceKind.EMULATOR if re.match(r"^emulator-\d+$", udid) else DeviceKind.DEVICE


def _without_twins(found: Sequence[DeviceFacts]) -> tuple[DeviceFacts, ...]:
    """Return one entry a device: a phone on cable and network at once is seen twice. One that can be used wins."""
    devices: dict[DeviceId, DeviceFacts] = {}
    for facts in found:
        known = devices.get(facts.id)
        if known is None or (facts.usable and not known.usable):
            devices[facts.id] = facts
    return tuple(devices.values())


def _coarse(vitals: Vitals) -> Vitals:
    """Return the vitals so that small changes are none: each is told to the coordinator and written down there."""
    free, temperature = vitals.free_bytes, vitals.temperature_decidegrees
    return replace(
        vitals,
        free_bytes=None if free is None else free // COARSE_BYTES * COARSE_BYTES,
        temperature_decidegrees=None if temperature is None else round(temperature / 10) * 10,
    )


def _lost(facts: DeviceFacts) -> DeviceFacts:
    return replace(facts, usable=False, reason="offline: the adb server is gone; it is being looked for")


async def _properties(adb: Adb) -> dict[str, str]:
    script = "; ".join(f"getprop {name}" for name in PROPERTIES)
    code, text = await adb.run("shell", script)
    values = [line.strip() for line in text.splitlines()] if code == 0 else []
    values += [""] * (len(PROPERTIES) - len(values))
    return dict(zip(PROPERTIES, values, strict=False))


async def start_server(port: int) -> None:
    """Start the adb server of a port if none runs there."""
    adb = shutil.which("adb")
    if adb is None:
        return
    try:
        await capture((adb, "-P", str(port), "start-server"), timeout_s=START_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        structlog.get_logger("agent").warning("adb_not_started", port=port, reason=str(error))
