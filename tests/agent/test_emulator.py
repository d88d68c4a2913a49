"""Emulators that the agent boots itself: a stand-in for the program, real adb, and a virtual phone behind it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent import emulator as emulators
from agent.android import Adb
from agent.devices.lock import DeviceLock
from agent.emulator import BOOT_TIMEOUT_S, Emulator, EmulatorFailed, Reset
from agent.journal import Claim, Journal
from agent.virtual_phone.adb_server import AdbServer
from tests.agent.emulator_stand_in import install_stand_in

pytestmark = [pytest.mark.android_tools, pytest.mark.asyncio(loop_scope="module")]


class Bay:
    """One emulator, its lock, and what the stand-in was called with."""

    def __init__(self, directory: Path, adb_port: int, program: Path) -> None:
        self.directory = directory
        self.program = program
        self.port = free_pair()
        self.adb = Adb(f"emulator-{self.port}", adb_port)
        self.lock = DeviceLock(self.adb.udid, directory / "locks")
        self.lock.acquire()
        self.claim = Claim(self.adb.udid, self.lock.descriptor, Journal(directory / "processes"))
        self.made: list[Emulator] = []

    def emulator(self, reset: Reset = Reset.KEEP, adb_port: int | None = None) -> Emulator:
        adb = Adb(self.adb.udid, adb_port or self.adb.server_port)
        self.made.append(Emulator("Pixel_8", self.port, adb, self.claim, reset, self.directory / "emulators"))
        return self.made[-1]

    def phone(self) -> int:
        """The process of the phone behind the emulator."""
        (found,) = (
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and f"--serial\0EMU{self.port + 1}\0" in command_line(entry)
        )
        return found

    def calls(self) -> list[list[str]]:
        path = self.program.with_name("calls")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def fails(self) -> None:
        """Let the next emulator end at once."""
        self.program.with_name("fails").touch()

    def hangs(self, does_hang: bool) -> None:
        """Say whether the next emulator never boots."""
        path = self.program.with_name("hangs")
        path.touch() if does_hang else path.unlink(missing_ok=True)


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""  # it has ended


def free_pair() -> int:
    """Return an even port that is free, as is the next; none that the system gives to whoever connects to somewhere."""
    for even in random.sample(range(20_000, 30_000, 2), 100):
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", even))
                two.bind(("127.0.0.1", even + 1))
            except OSError:
                continue
            return even
    raise AssertionError("no two free ports beside each other")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def adb_port(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    server = await AdbServer.start(tmp_path_factory.mktemp("adb"))
    yield server.port
    await server.close()


@pytest_asyncio.fixture(loop_scope="module")
async def bay(tmp_path: Path, adb_port: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bay]:
    program = install_stand_in(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(emulators, "BOOT_POLL_S", 0.05)
    bay = Bay(tmp_path, adb_port, program)
    yield bay
    for emulator in bay.made:
        await emulator.stop()
    bay.lock.release()


async def test_emulator_is_booted_headless_once_and_ended_with_nothing_left(bay: Bay) -> None:
    emulator = bay.emulator()
    assert bay.calls() == []
    await emulator.boot()
    await emulator.boot()
    (call,) = bay.calls()
    assert call[:3] == ["@Pixel_8", "-port", str(bay.port)]
    assert {"-no-window", "-read-only", "-no-snapshot-save"} <= set(call)
    assert await bay.adb.is_online()
    await emulator.stop()
    assert not await bay.adb.is_online()
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", bay.port + 1)) != 0, "its process is gone"


@pytest.mark.parametrize(
    ("reset", "boots", "flag"),
    [
        (Reset.KEEP, 1, "-read-only"),
        (Reset.SNAPSHOT, 2, "-read-only"),
        pytest.param(Reset.WIPE, 2, "-wipe-data", marks=pytest.mark.soak),
    ],
)
async def test_next_batch_finds_the_emulator_as_it_is_wanted(bay: Bay, reset: Reset, boots: int, flag: str) -> None:
    emulator = bay.emulator(reset)
    await emulator.boot()
    await bay.adb.run("shell", "settings put system left behind")
    await emulator.boot()
    left = (await bay.adb.run("shell", "settings get system left"))[1].strip()
    assert (len(bay.calls()), left) == (boots, "behind" if reset is Reset.KEEP else "null")
    assert flag in bay.calls()[-1]


async def test_emulator_that_does_not_boot_is_replaced(bay: Bay, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator, start, starts = bay.emulator(), Emulator._start, list[float]()

    async def start_with_less_patience(one: Emulator) -> None:
        """The first has a second, and is said to hang; all that comes after it has all the time in the world."""
        is_first = not starts
        starts.append(1.0 if is_first else BOOT_TIMEOUT_S)
        monkeypatch.setattr(emulators, "BOOT_TIMEOUT_S", starts[-1])
        bay.hangs(is_first)
        await start(one)

    monkeypatch.setattr(Emulator, "_start", start_with_less_patience)
    await emulator.boot()
    assert len(starts) == 2
    assert await bay.adb.is_online()


async def test_emulator_that_stops_answering_is_replaced_for_the_next_batch(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = bay.emulator()
    await emulator.boot()
    hung = bay.phone()
    os.kill(hung, signal.SIGSTOP)  # it listens still, and takes what it is sent
    monkeypatch.setattr(emulators, "ANSWER_S", 1.0)
    monkeypatch.setattr(emulators, "STOP_GRACE_S", 0.1)  # it will not hear that it shall end
    await emulator.boot()
    assert len(bay.calls()) == 2
    assert bay.phone() != hung
    assert await bay.adb.is_online()


async def test_emulator_that_was_killed_is_booted_again(bay: Bay) -> None:
    emulator = bay.emulator()
    await emulator.boot()
    assert emulator._process is not None
    await emulator._process.stop(0)
    await emulator.boot()
    assert len(bay.calls()) == 2
    assert await bay.adb.is_online()


async def test_emulator_is_not_replaced_because_adb_was_started_again_and_does_not_know_it(
    bay: Bay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulators, "ANSWER_S", BOOT_TIMEOUT_S)
    server = await AdbServer.start(tmp_path / "adb")
    try:
        emulator = bay.emulator(adb_port=server.port)
        await emulator.boot()
        await server.close()
        server = await AdbServer.start(tmp_path / "adb", port=server.port)
        assert await server.states() == {}
        await emulator.boot()
        assert await server.states() == {bay.adb.udid: "device"}
    finally:
        await server.close()
    assert len(bay.calls()) == 1


async def test_adb_server_that_is_away_is_what_the_agent_tells_of(bay: Bay) -> None:
    emulator = bay.emulator(adb_port=1)
    assert not await emulator._has_booted()
    assert emulator._last_word().startswith("the adb server on port 1 does not answer: ")


async def test_emulator_that_ends_at_once_is_the_devices_fault_with_its_last_words(bay: Bay) -> None:
    bay.fails()
    with pytest.raises(EmulatorFailed, match="Cannot find AVD system path") as failed:
        await bay.emulator().boot()
    assert failed.value.failure.reason == "DEVICE_BOOT_FAILED"
    assert len(bay.calls()) == emulators.BOOT_TRIES


async def test_emulator_of_somebody_else_at_its_port_does_not_pass_for_it(bay: Bay) -> None:
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", bay.port + 1)
    async with other:
        with pytest.raises(EmulatorFailed, match=f"something else listens on port {bay.port + 1}"):
            await bay.emulator().boot()
    assert bay.calls() == []
