"""Goes through a history once and says every breach of an invariant, and which transitions it saw."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.step import PutDevice, PutJob, PutLease, Write
from tests.sim.ends import END_RULES
from tests.sim.history import Committed, CoordinatorStarted, LogAcknowledged, Record, TestEnded, WorkBegan
from tests.sim.lab import Lab
from tests.sim.plan import Plan
from tests.sim.rules import (
    STEP_RULES,
    WORK_RULES,
    WRITE_RULES,
    done_test_is_not_run_again,
    only_the_newest_epoch_acknowledges,
    only_the_newest_epoch_writes,
)
from tests.sim.scene import Scene

Pair = tuple[str, str, str]
"""(kind of record, state before, state after)."""


class Checker:
    """Over one seed."""

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self.pairs: dict[Pair, None] = {}
        self._plan = plan
        self._lab = lab
        self._scene = Scene(plan)

    def breaches(self) -> Iterator[str]:
        for record in self._lab.history.records:
            for breach in self._check(record):
                yield f"{record.at_us / 1e6:10.3f} s  {breach}"
        if unrest := self._lab.unrest():
            yield f"I6: it did not come to rest: {unrest}"
            return
        for rule in END_RULES:
            yield from rule(self._plan, self._lab)

    def _check(self, record: Record) -> Iterator[str]:
        match record:
            case WorkBegan():
                for work_rule in WORK_RULES:
                    yield from work_rule(self._scene, record)
            case Committed():
                yield from self._check_step(record)
            case TestEnded():
                yield from done_test_is_not_run_again(self._scene, record)
            case LogAcknowledged():
                yield from only_the_newest_epoch_acknowledges(self._scene, record)
            case CoordinatorStarted():
                restored = Committed(record.at_us, record.epoch, None, record.step)
                for write in record.step.writes:
                    self._note_pair(write)
                    self._scene.apply(restored, write)
            case _:
                pass
        self._scene.follow(record)

    def _check_step(self, step: Committed) -> Iterator[str]:
        yield from only_the_newest_epoch_writes(self._scene, step)
        if step.event is not None:
            for step_rule in STEP_RULES.get(type(step.event), ()):
                yield from step_rule(self._scene, step)
        for write in step.step.writes:
            for write_rule in WRITE_RULES.get(type(write), ()):
                yield from write_rule(self._scene, step, write)
            self._note_pair(write)
            self._scene.apply(step, write)

    def _note_pair(self, write: Write) -> None:
        records = self._scene.records
        match write:
            case PutJob(job):
                known = records.jobs.get(job.id)
                self._add_pair("job", known.state if known is not None else "", job.state)
            case PutLease(lease):
                old = records.leases.get(lease.id)
                self._add_pair("lease", old.state if old is not None else "", lease.state)
            case PutDevice(device):
                before = records.devices.get(device.id)
                self._add_pair("device", before.state if before is not None else "", device.state)
            case _:
                pass

    def _add_pair(self, kind: str, before: str, after: str) -> None:
        if before and before != after:
            self.pairs[kind, str(before), str(after)] = None
