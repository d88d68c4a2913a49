"""Virtual phones for one agent: N phone processes and a private adb server that is connected to them.

::

    async with VirtualLab(2, directory) as lab:
        print(lab.adb_port, lab.names)

While it runs, ``control`` can let its phones misbehave.

Everything ends with the lab, and with the process that started it, even if that is killed.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.virtual_phone.adb_server import AdbServer
from agent.virtual_phone.children import Child
from agent.virtual_phone.daemon import LOOPBACK
from agent.virtual_phone.errors import FaultInvalid, LabFailed, VirtualPhoneError, require_tools
from agent.virtual_phone.lab_control import LabControl, Request

FIRST_PORT = 5601
START_SECONDS = 30.0
ANSWER_SECONDS = 10.0
RECONNECT_SECONDS = 1.0
DIRECTORY_NAME = "virtual-phones"
MODELS = ("Pixel_8", "Pixel_7a", "Galaxy_S24", "Galaxy_A54")


class PhoneProcess:
    """A phone that runs as a process of its own; use `start`."""

    def __init__(self, child: Child, *, serial: str, model: str, port: int, log_path: Path) -> None:
        self._child = child
        self._turn = asyncio.Lock()
        self._asked = 0
        self.serial = serial
        self.model = model
        self.port = port
        self.log_path = log_path

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        serial: str,
        model: str,
        first_port: int = 0,
        screens: Path | None = None,
        faults: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> "PhoneProcess":
        """Start a phone and wait until it listens.

        Args:
            directory: where its logs go; made if missing.
            serial: its serial number.
            model: its model.
            first_port: it takes the first free port from here on; 0 lets the system choose.
            screens: the file with the screens of its apps; the default app if None.
            faults: what is wrong with it from the start.
            options: more arguments of ``python -m agent.virtual_phone``.

        Raises:
            LabFailed: it did not come up.
        """
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        log_path = directory / f"{serial}.log"
        command = [sys.executable, "-m", "agent.virtual_phone", "--control", "--serial", serial, "--model", model]
        command += ["--log", str(log_path), "--package-log", str(_package_log_path(log_path))]
        command += ["--port", str(first_port), "--search"] if first_port else []
        command += ["--screens", str(screens)] if screens else []
        command += [word for fault in faults for word in ("--fault", fault)]
        child = await Child.start(
            f"phone {serial}", [*command, *options], diagnostics=directory / f"{serial}.stderr.log"
        )
        try:
            ready = json.loads(await child.read_line(START_SECONDS))
        except BaseException:
            await child.close()
            raise
        return cls(child, serial=serial, model=model, port=ready["port"], log_path=log_path)

    @property
    def udid(self) -> str:
        """What adb calls the phone."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._child.has_ended

    @property
    def package_log_path(self) -> Path:
        """The file with what was installed and started: one JSON object a line."""
        return _package_log_path(self.log_path)

    async def begin_fault(self, fault: str) -> None:
        """Begin a fault, such as ``offline=drop,seconds=5``; raises `FaultInvalid` or `LabFailed`."""
        await self._ask({"begin": fault})

    async def end_fault(self, kind: str) -> bool:
        """End a fault of a kind; False if the phone did not have it; raises `FaultInvalid` or `LabFailed`."""
        return bool((await self._ask({"end": kind}))["had_it"])

    async def query(self) -> dict[str, Any]:
        """Return what is in front, what is installed and which faults it has; raises `LabFailed`."""
        return await self._ask({"query": True})

    async def close(self) -> None:
        """End the phone. May be called again."""
        await self._child.close()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            self._asked += 1
            await self._child.write_line(json.dumps({**request, "id": self._asked}).encode())
            answer: dict[str, Any] = {}
            while answer.pop("id", None) != self._asked:  # an older one is the answer to who did not wait for it
                answer = json.loads(await self._child.read_line(ANSWER_SECONDS))
        if not answer.pop("ok"):
            raise FaultInvalid(answer["error"])
        return answer


def _package_log_path(log_path: Path) -> Path:
    return log_path.with_suffix(".packages.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """What the phones of a lab are like.

    Attributes:
        screens: the file with the screens of their apps; the default app if None.
        faults: what is wrong from the start, by the number of the phone, counted from 0.
        first_port: the first phone takes the first free port from here on, the next one the next.
        serial_prefix: the serial numbers are this and a number of four digits, counted from 1.
    """

    screens: Path | None = None
    faults: Mapping[int, Sequence[str]] | None = None
    first_port: int = FIRST_PORT
    serial_prefix: str = "VPHONE"


class VirtualLab:
    """Virtual phones and their adb server, as an asynchronous context manager."""

    def __init__(self, count: int, directory: Path, options: LabOptions | None = None) -> None:
        """Prepare a lab; nothing is started yet.

        Args:
            count: how many phones.
            directory: where logs and keys go; made if missing.
            options: what the phones are like.
        """
        self._count = count
        self._directory = directory
        self._options = options or LabOptions()
        self._server: AdbServer | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._control: LabControl | None = None
        self.phones: list[PhoneProcess] = []

    async def __aenter__(self) -> Self:
        """Start the lab; see `start`."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the lab."""
        await self.close()

    async def start(self) -> None:
        """Start phones and server and connect them; on failure, whatever had been started is ended.

        Raises:
            ToolMissing: ``adb`` or ``aapt`` is not installed.
            LabFailed: a phone or the server did not come up.
        """
        require_tools("adb", "aapt")
        try:
            self._server = await AdbServer.start(self._directory)
            for number in range(self._count):
                self.phones.append(await self._start_phone(number))
            for phone in self.phones:  # one by one: adb 29 may abort when it is told to connect twice at a time
                await self._server.connect(phone.udid)
            self._control = await LabControl.start(self._directory, self._obey)
        except BaseException:
            await self.close()
            raise
        self._keeper = asyncio.create_task(self._keep_connected())

    @property
    def adb_port(self) -> int:
        """The port of the private adb server."""
        if self._server is None:
            raise LabFailed("the lab is not running")
        return self._server.port

    @property
    def udids(self) -> list[str]:
        """What adb calls the phones, in the order of their numbers."""
        return [phone.udid for phone in self.phones]

    @property
    def names(self) -> dict[str, str]:
        """The names of the phones by their udids: ``virtual-1`` and so on."""
        return {phone.udid: f"virtual-{number}" for number, phone in enumerate(self.phones, 1)}

    def phone(self, name: str) -> PhoneProcess:
        """Return a phone by its name, serial number or udid; raises `LabFailed` if there is none."""
        for phone in self.phones:
            if name.partition("@")[0] in (self.names[phone.udid], phone.serial, phone.udid):
                return phone
        raise LabFailed(f"no phone {name}; there are {', '.join(self.names.values())}")

    async def states(self) -> dict[str, str]:
        """Return adb's state of each phone that its server knows."""
        if self._server is None:
            raise LabFailed("the lab is not running")
        return await self._server.states()

    async def _obey(self, request: Request) -> dict[str, Any]:
        match request:
            case {"list": True}:
                states = await self.states()
                return {"phones": [await self._describe(phone, states) for phone in self.phones]}
            case {"begin": str(fault), "phone": str(name)}:
                await self.phone(name).begin_fault(fault)
                return {}
            case {"end": str(kind), "phone": str(name)}:
                return {"had_it": await self.phone(name).end_fault(kind)}
            case _:
                raise LabFailed("a request is one of list, begin and end; the last two with a phone")

    async def _describe(self, phone: PhoneProcess, states: dict[str, str]) -> dict[str, Any]:
        facts = {"name": self.names[phone.udid], "serial": phone.serial, "udid": phone.udid}
        return {**facts, "state": states.get(phone.udid, "gone"), "faults": (await phone.query())["faults"]}

    async def close(self) -> None:
        """End everything. May be called again, and while starting."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        control, self._control = self._control, None
        if control is not None:
            await control.close()
        server, self._server = self._server, None
        closings = [phone.close() for phone in self.phones]
        closings += [server.close()] if server else []
        await asyncio.gather(*closings)

    async def _start_phone(self, number: int) -> PhoneProcess:
        options = self._options
        # Each phone looks further than the ones before, which hold their ports already.
        first_port = max((phone.port + 1 for phone in self.phones), default=options.first_port)
        return await PhoneProcess.start(
            self._directory,
            serial=f"{options.serial_prefix}{number + 1:04d}",
            model=MODELS[number % len(MODELS)],
            first_port=first_port if options.first_port else 0,
            screens=options.screens,
            faults=(options.faults or {}).get(number, ()),
        )

    async def _keep_connected(self) -> None:
        """Connect what adb has lost: a phone on a cable comes back by itself, one on a network does not.

        A server that has died is started again on its port, where all who use it look for it.
        """
        while True:
            await asyncio.sleep(RECONNECT_SECONDS)
            with contextlib.suppress(VirtualPhoneError, OSError, asyncio.IncompleteReadError):
                assert self._server is not None
                if self._server.has_ended:
                    await self._server.close()
                    self._server = await AdbServer.start(self._directory, port=self._server.port)
                known = await self._server.states()
                for phone in self.phones:
                    await self._reconnect(self._server, phone, known.get(phone.udid))

    async def _reconnect(self, server: AdbServer, phone: PhoneProcess, state: str | None) -> None:
        if phone.has_ended or state not in (None, "offline"):
            return
        if state == "offline":
            if not await _listens(phone.port):
                return  # the cable is pulled, and offline is what it should be called
            # It is back. The server would see that by itself, but only after ten seconds.
            await server.disconnect(phone.udid)
        await server.connect(phone.udid)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return True
