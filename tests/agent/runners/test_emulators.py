"""The emulators that an agent boots itself, as devices and as runners; the emulator itself is not there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from agent.core.model import (
    AgentId,
    AttemptId,
    DeviceId,
    Fence,
    Installation,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    LeaseSpec,
    Outcome,
)
from agent.devices.emulators import OF_AGENTS, PORTS, PORTS_EACH, EmulatorPorts, emulator_devices, parse_emulators
from agent.emulator import udid_of
from agent.ports import PortsTaken
from agent.runners.emulator import EmulatorRunner
from agent.runners.protocol import INSTALL_STOPPED, Observer, RunFailed, Stop, Verdict

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))
LEASE = LeaseSpec(key=KEY, revision=1, device_id=DeviceId("p"), org_id="q", app_version_id="v", jobs=())
JOB = LeasedJob(attempt_id=AttemptId(1), job_id=JobId(1), attempt_number=1, test="a.spec.ts", timeout_us=1)


# What the option says


def test_emulators_are_devices_by_the_names_of_their_avds_each_at_a_port_of_its_own() -> None:
    counts = parse_emulators("Pixel_8=2,Tablet", "snapshot")
    devices = emulator_devices(counts, AgentId("lab"), (5640, 5642, 5650))
    assert [(facts.id, facts.udid) for facts in devices] == [
        ("Pixel_8-1@lab", "emulator-5640"),
        ("Pixel_8-2@lab", "emulator-5642"),
        ("Tablet-1@lab", "emulator-5650"),
    ]


def test_emulators_of_two_agents_of_a_host_never_meet_at_a_port(tmp_path: Path) -> None:
    one, two = EmulatorPorts(2, tmp_path), EmulatorPorts(3, tmp_path)
    taken = (*one.consoles, *two.consoles)
    assert len(set(taken)) == 5
    assert all(port % 2 == 0 and udid_of(port) in OF_AGENTS for port in taken)
    one.release()
    again = EmulatorPorts(2, tmp_path)
    assert not set(again.consoles) & set(two.consoles)
    for ports in (again, two):
        ports.release()


def test_port_at_which_something_of_somebody_else_listens_is_passed_over(tmp_path: Path) -> None:
    with socket.socket() as other:
        console = bind_above_a_console(other)
        taken = all_ports(tmp_path)
    assert taken, "the others are free"
    assert (console,) not in [ports.consoles for ports in taken]
    for ports in taken:
        ports.release()


def all_ports(directory: Path) -> list[EmulatorPorts]:
    taken: list[EmulatorPorts] = []
    with contextlib.suppress(PortsTaken):
        while True:
            taken.append(EmulatorPorts(1, directory))
    return taken


def bind_above_a_console(other: socket.socket) -> int:
    """Take the port at which adb would be told of an emulator, and return the port of that one's console."""
    for console in PORTS[::PORTS_EACH]:
        try:
            other.bind(("127.0.0.1", console + 1))
        except OSError:
            continue
        return console
    raise AssertionError("all ports of emulators are taken")


def test_agent_that_finds_too_few_ports_gives_back_what_it_has_reserved(tmp_path: Path) -> None:
    with pytest.raises(PortsTaken, match="no port from 5640 to 5681 is free"):
        EmulatorPorts(len(OF_AGENTS) + 1, tmp_path)
    ports = EmulatorPorts(1, tmp_path)
    assert ports.consoles
    ports.release()


@pytest.mark.parametrize(
    ("text", "reset", "words"),
    [
        ("Pixel 8=2", "keep", "is not AVD=COUNT"),
        ("Pixel_8=x", "keep", "is not AVD=COUNT"),
        ("A=1,A=2", "keep", "each AVD once"),
        ("A=21", "keep", "more than 20"),
        ("A=2", "wipe", "only one copy of each AVD can be wiped"),
        ("A=1", "often", "keep, snapshot, wipe"),
    ],
)
def test_option_that_makes_no_sense_is_refused_with_what_does(text: str, reset: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_emulators(text, reset)


# The runner around it


class StandInEmulator:
    """Boots when it is let, and counts."""

    def __init__(self) -> None:
        self.may_boot = asyncio.Event()
        self.may_boot.set()
        self.stopped = asyncio.Event()

    async def boot(self) -> None:
        await self.may_boot.wait()

    async def stop(self) -> None:
        self.stopped.set()


class Inner:
    """The runner inside, which has nothing to do."""

    is_closed = False

    async def prepare(self, lease: LeaseSpec, stop: Stop) -> Installation:
        return Installation(digest="d", is_new=True, duration_us=1)

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        return Verdict(outcome=Outcome.PASSED)

    async def close(self) -> None:
        self.is_closed = True


def runner(emulator: StandInEmulator, inner: Inner, idle_s: float) -> EmulatorRunner:
    return EmulatorRunner(emulator, inner, idle_s)


async def test_boot_can_be_stopped() -> None:
    emulator, stop = StandInEmulator(), Stop()
    emulator.may_boot.clear()
    preparing = asyncio.create_task(runner(emulator, Inner(), 60).prepare(LEASE, stop))
    stop.ask(0)
    with pytest.raises(RunFailed) as failed:
        await preparing
    assert failed.value.failure.reason == INSTALL_STOPPED


async def test_idle_emulator_is_ended_and_a_busy_one_is_not() -> None:
    emulator, inner = StandInEmulator(), Inner()
    device = runner(emulator, inner, 0.05)
    observer = Observer(output=lambda _data: None, test=lambda _test, _is_divisible: None)
    await device.prepare(LEASE, Stop())
    assert (await device.run(KEY, JOB, observer, Stop())).outcome is Outcome.PASSED
    assert not emulator.stopped.is_set()
    await asyncio.wait_for(emulator.stopped.wait(), 60)
    assert inner.is_closed
