"""Folds the writes of a commit into one record a key, so that each table is written once and their order is free.

The rule is the one that the tables follow between commits: the last write of a key wins, but what has ended stays
ended, and a test result of an earlier attempt gives way to none of a later one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar, assert_never

from coordinator.core.model import (
    TERMINAL_JOB_STATES,
    Agent,
    AgentId,
    AppKey,
    Attempt,
    AttemptId,
    Build,
    Counters,
    Crossing,
    Device,
    DeviceId,
    Expectation,
    Job,
    JobId,
    Lease,
    LeaseId,
    Request,
    TestKey,
    TestResult,
    Trial,
    Upload,
    UploadKey,
)
from coordinator.core.step import (
    DropAgent,
    DropDevice,
    PutAgent,
    PutAttempt,
    PutBuild,
    PutCounters,
    PutCrossing,
    PutDevice,
    PutExpectation,
    PutJob,
    PutLease,
    PutRequest,
    PutTest,
    PutTrial,
    PutUpload,
    Write,
)

Record = TypeVar("Record", Job, Attempt, Lease)


@dataclass(slots=True)
class Batch:
    """What one commit leaves in each table."""

    jobs: dict[JobId, Job] = field(default_factory=dict)
    attempts: dict[AttemptId, Attempt] = field(default_factory=dict)
    tests: dict[tuple[JobId, str], tuple[Attempt, TestResult]] = field(default_factory=dict)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    dropped_devices: dict[DeviceId, None] = field(default_factory=dict)
    """Deleted after all else is written: leases of the same commit may name them."""
    dropped_agents: dict[AgentId, None] = field(default_factory=dict)
    builds: dict[AppKey, Build] = field(default_factory=dict)
    trials: dict[AppKey, Trial] = field(default_factory=dict)
    crossings: dict[str, Crossing] = field(default_factory=dict)
    uploads: dict[UploadKey, Upload] = field(default_factory=dict)
    expectations: dict[TestKey, Expectation] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    """Never folded: a key that comes twice is refused by the table."""
    counters: Counters | None = None


def fold(writes: Iterable[Write]) -> Batch:
    """Return what the writes, one after the other, come to."""
    batch = Batch()
    for write in writes:
        _take(batch, write)
    return batch


def _take(batch: Batch, write: Write) -> None:
    match write:
        case PutJob(job):
            if _gives_way(batch.jobs.get(job.id), job):
                batch.jobs[job.id] = job
        case PutAttempt(attempt):
            if _gives_way(batch.attempts.get(attempt.id), attempt):
                batch.attempts[attempt.id] = attempt
        case PutTest(attempt, test):
            known = batch.tests.get((attempt.job, test.id))
            if known is None or known[0].number <= attempt.number:
                batch.tests[attempt.job, test.id] = (attempt, test)
        case PutLease(lease):
            if _gives_way(batch.leases.get(lease.id), lease):
                batch.leases[lease.id] = lease
        case PutDevice(device):
            batch.devices[device.id] = device
            batch.dropped_devices.pop(device.id, None)
        case PutAgent(agent):
            batch.agents[agent.id] = agent
            batch.dropped_agents.pop(agent.id, None)
        case DropDevice(device_id):
            batch.dropped_devices[device_id] = None
        case DropAgent(agent_id):
            batch.dropped_agents[agent_id] = None
        case PutBuild(build):
            batch.builds[build.app] = build
        case PutTrial(trial):
            batch.trials[trial.app] = trial
        case PutCrossing(crossing):
            batch.crossings[crossing.subject] = crossing
        case PutUpload(upload):
            batch.uploads[upload.key] = upload
        case PutExpectation(expectation):
            batch.expectations[expectation.key] = expectation
        case PutRequest(request):
            batch.requests.append(request)
        case PutCounters(counters):
            batch.counters = counters
        case _:
            assert_never(write)


def _gives_way(before: Record | None, after: Record) -> bool:
    """Whether a record may be replaced: an ended one only by one that ended in the same way."""
    if before is None:
        return True
    end = _end(before)
    return end is None or end == _end(after)


def _end(record: Job | Attempt | Lease) -> str | None:
    match record:
        case Job():
            return record.state if record.state in TERMINAL_JOB_STATES else None
        case Attempt():
            return record.outcome
        case Lease():
            return None if record.is_live else record.state
