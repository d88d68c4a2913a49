"""The coordinators' log files: on a disk that they share, around the real LogFile, as coordinator/logstore.py does.

A coordinator that was replaced writes into files that nobody reads, so it must not acknowledge what it wrote there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.core.model import AttemptId, LeaseKey
from coordinator.core.logfile import LogFile, LogState
from coordinator.core.model import AttemptId as CoordinatorAttemptId
from coordinator.core.model import Fence, LeaseId
from tests.sim.database import Database
from tests.sim.history import History, LogAcknowledged
from tests.sim.logs import Chunk, Finished, Stored
from tests.sim.network import Side, Stream
from tests.sim.world import SECOND_US, Process

SYNC_INTERVAL_US = SECOND_US // 10
READ_BYTES = 64 * 1_024


@dataclass(slots=True)
class LogDisk:
    """What is durable of all logs, by whoever was the newest coordinator."""

    data: dict[AttemptId, bytearray] = field(default_factory=dict)
    verdicts: dict[AttemptId, LogState] = field(default_factory=dict)


@dataclass(slots=True)
class _Log:
    file: LogFile
    buffer: bytearray = field(default_factory=bytearray)
    waiting: dict[Stream, None] = field(default_factory=dict)
    """Streams that wait to hear what is durable."""
    is_flushing: bool = False


class Shelf:
    """One coordinator's hold on the logs."""

    def __init__(
        self,
        process: Process,
        epoch: int,
        disk: LogDisk,
        database: Database,
        history: History,
        read_latency_us: Callable[[], int],
    ) -> None:
        self._process = process
        self._epoch = epoch
        self._disk = disk
        self._database = database
        self._history = history
        self._read_latency_us = read_latency_us
        self._logs: dict[AttemptId, _Log] = {}

    @property
    def is_leader(self) -> bool:
        return self._database.epoch == self._epoch

    # Writers

    def side(self) -> Side:
        return Side(self._process, self)

    def broken(self, stream: Stream) -> None:
        for log in self._logs.values():
            log.waiting.pop(stream, None)

    def received(self, stream: Stream, message: object) -> None:
        assert isinstance(message, Chunk | Finished)
        if not self._may_write(message.attempt, message.key):
            stream.send_down(Stored(message.attempt, 0, is_closed=True), is_spared=True)
            return
        log = self._log(message.attempt)
        if isinstance(message, Finished):
            log.file = log.file.announced(message.size, message.sha256)
        else:
            log.file, take = log.file.taken(message.offset, len(message.data))
            log.buffer += message.data[take.skip : take.skip + take.length]
        log.waiting[stream] = None
        if not log.is_flushing:
            log.is_flushing = True
            pause_us = 0 if log.file.is_due or not log.buffer else SYNC_INTERVAL_US
            self._process.later(pause_us + self._read_latency_us(), self._flush, message.attempt, log)

    def _may_write(self, attempt: AttemptId, key: LeaseKey) -> bool:
        records = self._database.records
        known = records.attempts.get(CoordinatorAttemptId(attempt))
        if known is None:
            return False
        lease = records.leases[known.lease]
        return (lease.id, lease.fence) == (LeaseId(key.lease_id), Fence(key.fence.epoch, key.fence.number))

    def _log(self, attempt: AttemptId) -> _Log:
        if attempt not in self._logs:
            size = len(self._disk.data.get(attempt, b""))
            state = self._disk.verdicts.get(attempt, LogState.OPEN)
            self._logs[attempt] = _Log(LogFile(size=size, state=state, is_inherited=size > 0))
        return self._logs[attempt]

    def _flush(self, attempt: AttemptId, log: _Log) -> None:
        """Make what was taken in durable, judge the log if it can be, and answer those who wait."""
        log.is_flushing = False
        if self.is_leader:
            self._disk.data.setdefault(attempt, bytearray()).extend(log.buffer)
        log.buffer.clear()
        if log.file.is_due and self.is_leader:
            log.file = log.file.judged(hashlib.sha256(self._disk.data[attempt]).hexdigest())
            if not log.file.size:
                self._disk.data[attempt].clear()
        if log.file.is_closed and self.is_leader:
            self._disk.verdicts[attempt] = log.file.state
        self._answer(attempt, log)

    def _answer(self, attempt: AttemptId, log: _Log) -> None:
        waiting, log.waiting = log.waiting, {}
        if not self.may_acknowledge():
            return
        self._history.add(LogAcknowledged(self._process.world.now_us, self._epoch, attempt, log.file.size))
        for stream in waiting:
            stream.send_down(Stored(attempt, log.file.size, is_closed=log.file.is_closed), is_spared=True)

    def may_acknowledge(self) -> bool:
        """Only what the newest coordinator has stored will be read."""
        return self.is_leader

    # Readers

    def read(self, attempt: AttemptId, offset: int) -> bytes:
        return bytes(self._disk.data.get(attempt, b"")[offset : offset + READ_BYTES])
