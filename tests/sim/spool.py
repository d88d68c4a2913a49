"""An agent's disk: what was synced survives everything, the rest survives a killed process but not a cut of power."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from agent.core.model import AttemptId, AttemptResult, BegunAttempt, LeaseKey, LogSummary, Memory
from agent.core.step import ForgetCluster, ForgetResults, KeepResult, RememberCluster, Write
from tests.sim.history import History
from tests.sim.world import World


@dataclass(slots=True)
class SpooledLog:
    key: LeaseKey
    data: bytearray = field(default_factory=bytearray)
    summary: LogSummary | None = None
    """Length and hash when it is whole."""


class Spool:
    """The folder of one host; it outlives the agent's processes."""

    def __init__(self, world: World, history: History) -> None:
        self._world = world
        self._history = history
        self._cluster = ("", 0)
        self.results: dict[AttemptId, AttemptResult] = {}
        self.begun: dict[AttemptId, LeaseKey] = {}
        """Attempts that have begun and have no result yet."""
        self.logs: dict[AttemptId, SpooledLog] = {}

    def recall(self) -> Memory:
        """Return what earlier lives have left, and finish the logs that they could not."""
        for log in self.logs.values():
            if log.summary is None:
                log.summary = _summary(log.data)
        results = tuple(self.results[attempt] for attempt in sorted(self.results))
        begun = tuple(
            BegunAttempt(attempt_id=attempt, key=key, log=self._summary_of(attempt))
            for attempt, key in sorted(self.begun.items())
        )
        return Memory(cluster_id=self._cluster[0], epoch=self._cluster[1], results=results, begun=begun)

    def _summary_of(self, attempt: AttemptId) -> LogSummary:
        log = self.logs.get(attempt)
        return log.summary if log is not None and log.summary is not None else LogSummary()

    def commit(self, writes: tuple[Write, ...]) -> None:
        for write in writes:
            match write:
                case RememberCluster():
                    self._cluster = (write.cluster_id, write.epoch)
                case ForgetCluster():
                    self.results.clear()
                    self.begun.clear()
                    self.logs.clear()
                case KeepResult():
                    self.results[write.result.attempt_id] = write.result
                    self.begun.pop(write.result.attempt_id, None)
                case ForgetResults():
                    for attempt in write.attempt_ids:
                        self.results.pop(attempt, None)
                        self.begun.pop(attempt, None)

    def open_log(self, attempt: AttemptId, key: LeaseKey) -> None:
        self.begun[attempt] = key
        self.logs[attempt] = SpooledLog(key)
        self._history.written.setdefault(attempt, bytearray())

    def append(self, attempt: AttemptId, data: bytes) -> None:
        """Write output; nothing is kept of a log that the coordinator wanted no more of."""
        self._history.written[attempt] += data
        if attempt in self.logs:
            self.logs[attempt].data += data

    def end_log(self, attempt: AttemptId) -> LogSummary:
        summary = _summary(self._history.written[attempt])
        if attempt in self.logs:
            self.logs[attempt].summary = summary
        return summary

    def forget_log(self, attempt: AttemptId) -> None:
        self.logs.pop(attempt, None)

    def lose_power(self) -> None:
        """Lose the ends of the logs that were not synced."""
        for attempt, log in self.logs.items():
            if log.summary is None and log.data:
                del log.data[self._world.between(0, len(log.data)) :]
                self._history.damaged[attempt] = None


def _summary(data: bytes | bytearray) -> LogSummary:
    return LogSummary(size=len(data), sha256=hashlib.sha256(data).hexdigest())
