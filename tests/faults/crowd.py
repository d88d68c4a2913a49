"""Hundreds or thousands of agents in one process: the real machine and session of each, over a connection of its own.

python -m tests.faults.crowd HOST:PORT COUNT

Each has one device, installs at once, and its tests never end: what counts is that their leases live.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time

import grpc

from agent.app import jitter
from agent.core.events import DevicePrepared, DevicesObserved, Event, Started
from agent.core.machine import Machine
from agent.core.model import (
    MICROSECONDS,
    AgentId,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Identity,
    Installation,
    Memory,
    Now,
)
from agent.core.step import Action, CloseSession, OpenSession, PrepareDevice, StopAttempt, StopPreparing
from agent.session import OPTIONS, Session


def now() -> Now:
    return Now(mono_us=time.monotonic_ns() // 1_000, wall_us=time.time_ns() // 1_000)


class CrowdAgent:
    """One of many."""

    def __init__(self, number: int, address: str) -> None:
        name = f"crowd-{number}"
        identity = Identity(agent_id=AgentId(name), boot_id=f"boot-{number}", version="0.1.0", host="crowd")
        self._machine = Machine(identity, Memory())
        self._device = DeviceFacts(id=DeviceId(f"phone@{name}"), kind=DeviceKind.EMULATOR, platform="android")
        # Agents on one host would share a connection; these stand for as many hosts.
        self._channel = grpc.aio.insecure_channel(address, options=(*OPTIONS, ("grpc.use_local_subchannel_pool", 1)))
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._session: Session | None = None

    async def run(self) -> None:
        self._inbox.put_nowait(Started())
        self._inbox.put_nowait(DevicesObserved(devices=(self._device,)))
        while True:
            deadline_us = self._machine.next_deadline()
            delay_s = None if deadline_us is None else max(0, deadline_us - now().mono_us) / MICROSECONDS
            try:
                event = await asyncio.wait_for(self._inbox.get(), delay_s)
            except TimeoutError:
                steps = [self._machine.expire(now())]
            else:
                steps = [self._machine.handle(event, now()), self._machine.expire(now())]
            for step in steps:
                for send in step.sends:
                    if self._session is not None:
                        self._session.put(send)
                for action in step.actions:
                    self._begin(action)

    def _begin(self, action: Action) -> None:
        match action:
            case OpenSession():
                self._session = Session(action.session, self._channel, self._inbox.put_nowait, lambda: jitter(1))
            case CloseSession():
                if self._session is not None:
                    self._session.close(action.reason)
            case PrepareDevice(lease=lease):
                installed = Installation(digest="d" * 64, is_new=True, duration_us=1)
                self._inbox.put_nowait(DevicePrepared(device_id=lease.device_id, key=lease.key, installation=installed))
            case StopPreparing() | StopAttempt():
                raise AssertionError(f"nobody asked for the end of anything, and the coordinator says {action}")
            case _:
                pass


def raise_file_limit() -> None:
    """Every agent of the crowd holds a connection."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def main(address: str, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(CrowdAgent(number, address).run())
        print("ready", flush=True)  # noqa: T201 - the line that tests wait for


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
