"""Android devices, as an adb server sees them: found and lost as it tells, and as it is asked where it does not.

The adb server belongs to the user of the host: it is started when none runs, and never stopped.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import structlog

from agent.android import Adb
from agent.core.model import AgentId, DeviceFacts, DeviceId, DeviceKind
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


BOOTING = "it has not booted yet"
BOOT_POLL_S = 2.0


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
    ) -> None:
        """`names` are the udids to look at, with the names to give them; None means every device."""
        self._boot_poll_s = boot_poll_s
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
                is_booting = any(facts.reason == BOOTING for facts in self._known.values())
                done, _ = await asyncio.wait((change,), timeout=self._boot_poll_s if is_booting else None)
                if done:
                    told = change.result()
                    if told is None:
                        return
                    states = told
                    change = asyncio.ensure_future(anext(changes, None))
                observed(await self._facts(states))
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
            await changes.aclose()

    async def _facts(self, states: dict[str, str]) -> tuple[DeviceFacts, ...]:
        wanted = {udid: state for udid, state in states.items() if self._names is None or udid in self._names}
        found = await asyncio.gather(*(self._look(udid, state) for udid, state in wanted.items()))
        self._known = {facts.udid: facts for facts in found}
        return _without_twins(found)

    async def _look(self, udid: str, state: str) -> DeviceFacts:
        known = self._known.get(udid)
        if state != "device":
            fix = _FIXES.get(state, "see `adb devices`")
            blank = known or DeviceFacts(id=self._name(udid, ""), kind=self._kind(udid), udid=udid)
            return replace(blank, usable=False, reason=f"{state}: {fix}")
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
