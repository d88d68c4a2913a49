"""Many agents in one process: the real machine and session of each, over a connection of its own.

python -m benchmarks.crowd HOST:PORT FIRST AGENTS DEVICES [NOTES]

They install at once and test in no time; each test writes the lines that its job asks for, which go up as an agent's
logs do. A job that bears the time of its submit is noted in a file with the time that it took to start. What these
agents do not do is to write to a disk: in a lab each has one of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc

from agent import wire
from agent.app import jitter
from agent.core.events import AttemptEnded, DevicePrepared, DevicesObserved, Event, Received, Started, TestObserved
from agent.core.machine import Machine
from agent.core.model import (
    MICROSECONDS,
    AgentId,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Identity,
    Installation,
    LogSummary,
    Memory,
    Now,
    Outcome,
    TestResult,
    TestState,
)
from agent.core.step import Action, CloseSession, OpenSession, PrepareDevice, StartAttempt, Step
from agent.session import OPTIONS, Session
from qgjob.v1 import log_pb2, log_service_pb2, log_service_pb2_grpc

DIGEST = "d" * 64
DEFAULT_LINES = 5
CONNECTING = 200
"""Agents that connect at the same time; the others of the process wait for them."""
VERSION = "0.1.0"
SENT_NS = "SENT_NS"
"""Entry of a job's env: when it was submitted, by the clock that all processes of a machine share."""


@contextmanager
def crowd(
    address: str, agents: int, *, devices: int = 1, processes: int = 1, notes: Path | None = None
) -> Iterator[list[int]]:
    """Run agents in processes of their own, from when all have connected; yields the ids of the processes.

    Args:
        address: Of the coordinator.
        agents: In all processes together.
        devices: Of each agent.
        processes: How many.
        notes: Folder of files into which each process writes how long jobs took to start, in microseconds.
    """
    share = agents // processes
    with ExitStack() as stack:
        started = []
        for number in range(processes):
            numbers = (str(number * share), str(share), str(devices))
            file = (str(notes / f"{number}.txt"),) if notes is not None else ()
            command = (sys.executable, "-m", "benchmarks.crowd", address, *numbers, *file)
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "connected"
        yield [process.pid for process in started]


class CrowdAgent:
    """One of many."""

    def __init__(self, number: int, address: str, devices: int, note: Callable[[int], None]) -> None:
        self._note = note
        name = f"crowd-{number}"
        identity = Identity(agent_id=AgentId(name), boot_id=f"boot-{number}", version=VERSION, host="crowd")
        self._machine = Machine(identity, Memory())
        self._devices = tuple(
            DeviceFacts(id=DeviceId(f"phone-{index}@{name}"), kind=DeviceKind.EMULATOR, platform="android")
            for index in range(devices)
        )
        # Agents on one host would share a connection; these stand for as many hosts.
        self._channel = grpc.aio.insecure_channel(address, options=(*OPTIONS, ("grpc.use_local_subchannel_pool", 1)))
        self._inbox: deque[Event] = deque()
        self._is_turning = False
        self._alarm: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._logs: Logs | None = None
        self.is_connected = asyncio.Event()

    def begin(self) -> None:
        """Connect, and work for as long as the loop runs."""
        self._post(Started())
        self._post(DevicesObserved(devices=self._devices))

    def _post(self, event: Event) -> None:
        """Take a fact in at once: a task and a timer for each would cost the benchmark more than the coordinator."""
        self._inbox.append(event)
        if not self._is_turning:
            self._turn()

    def _turn(self) -> None:
        self._is_turning = True
        self._follow(self._machine.expire(_now()))
        while self._inbox:
            event = self._inbox.popleft()
            self._follow(self._machine.handle(event, _now()))
            if isinstance(event, Received):
                self.is_connected.set()
        self._is_turning = False
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        deadline_us = self._machine.next_deadline()
        if deadline_us is not None:
            delay_s = max(0, deadline_us - _now().mono_us) / MICROSECONDS
            self._alarm = asyncio.get_running_loop().call_later(delay_s, self._turn)

    def _follow(self, step: Step) -> None:
        for send in step.sends:
            if self._session is not None:
                self._session.put(send)
        for action in step.actions:
            self._begin(action)

    def _begin(self, action: Action) -> None:
        match action:
            case OpenSession():
                self._session = Session(action.session, self._channel, self._post, lambda: jitter(1))
            case CloseSession():
                if self._session is not None:
                    self._session.close(action.reason)
            case PrepareDevice(lease=lease):
                installed = Installation(digest=DIGEST, is_new=True, duration_us=1)
                self._post(DevicePrepared(device_id=lease.device_id, key=lease.key, installation=installed))
            case StartAttempt():
                self._test(action)
            case _:
                pass

    def _test(self, action: StartAttempt) -> None:
        job = action.job
        if (sent := job.environment.get(SENT_NS)) is not None:
            self._note((time.monotonic_ns() - int(sent)) // 1_000)
        lines = int(job.environment.get("QGJOB_SIM_LOG_LINES", DEFAULT_LINES))
        data = b"".join(b"line %d of %d\n" % (number + 1, lines) for number in range(lines))
        log = LogSummary(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        if data:
            self._upload(action, data, log)
        for state in (TestState.RUNNING, TestState.PASSED):
            test = TestResult(id="t", title="t", state=state, duration_us=1, error="", attempt=job.attempt_number)
            self._post(TestObserved(device_id=action.device_id, key=action.key, attempt_id=job.attempt_id, test=test))
        self._post(
            AttemptEnded(
                device_id=action.device_id,
                key=action.key,
                attempt_id=job.attempt_id,
                outcome=Outcome.PASSED,
                failure=None,
                log=log,
            )
        )

    def _upload(self, action: StartAttempt, data: bytes, log: LogSummary) -> None:
        if self._logs is None:
            self._logs = Logs(self._channel)
        key, attempt = wire.key_out(action.key), action.job.attempt_id
        chunk = log_pb2.LogChunk(attempt_id=attempt, offset=0, data=data)
        finished = log_service_pb2.LogFinished(attempt_id=attempt, size=log.size, sha256=log.sha256)
        self._logs.put(log_service_pb2.AppendLogsRequest(key=key, chunk=chunk))
        self._logs.put(log_service_pb2.AppendLogsRequest(key=key, finished=finished))


class Logs:
    """The stream of one agent's logs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = log_service_pb2_grpc.LogServiceStub(channel).AppendLogs()
        self._outbox: asyncio.Queue[log_service_pb2.AppendLogsRequest] = asyncio.Queue()
        self._tasks = (asyncio.create_task(self._write()), asyncio.create_task(self._read()))

    def put(self, message: log_service_pb2.AppendLogsRequest) -> None:
        self._outbox.put_nowait(message)

    async def _write(self) -> None:
        while True:
            await self._call.write(await self._outbox.get())

    async def _read(self) -> None:
        while isinstance(await self._call.read(), log_service_pb2.AppendLogsResponse):
            pass


def _now() -> Now:
    return Now(mono_us=time.monotonic_ns() // 1_000, wall_us=time.time_ns() // 1_000)


async def main(address: str, first: int, count: int, devices: int, notes: str = "/dev/null") -> None:
    with open(notes, "w", buffering=1) as file:  # noqa: ASYNC230 - a line now and then
        for begin in range(first, first + count, CONNECTING):
            numbers = range(begin, min(first + count, begin + CONNECTING))
            agents = [CrowdAgent(number, address, devices, lambda us: print(us, file=file)) for number in numbers]
            for agent in agents:
                agent.begin()
            await asyncio.gather(*(agent.is_connected.wait() for agent in agents))
        print("connected", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    first, count, devices = map(int, sys.argv[2:5])
    asyncio.run(main(sys.argv[1], first, count, devices, *sys.argv[5:]))
