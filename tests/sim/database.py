"""What is durable: the writes of all commits in their order, and the rule that only the newest epoch may write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coordinator.core.model import (
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


class StaleEpoch(Exception):
    """Another coordinator has taken over."""


@dataclass(slots=True)
class Records:
    """All records by their keys. The last write counts; whether it may is for the checker to say."""

    counters: Counters = field(default_factory=Counters)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    attempts: dict[AttemptId, Attempt] = field(default_factory=dict)
    tests: dict[tuple[JobId, str], tuple[Attempt, TestResult]] = field(default_factory=dict)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    builds: dict[AppKey, Build] = field(default_factory=dict)
    trials: dict[AppKey, Trial] = field(default_factory=dict)
    crossings: dict[str, Crossing] = field(default_factory=dict)
    uploads: dict[UploadKey, Upload] = field(default_factory=dict)
    expectations: dict[TestKey, Expectation] = field(default_factory=dict)
    requests: dict[tuple[str, str], Request] = field(default_factory=dict)

    def apply(self, write: Write) -> None:
        match write:
            case PutJob(job):
                self.jobs[job.id] = job
            case PutAttempt(attempt):
                self.attempts[attempt.id] = attempt
            case PutTest(attempt, test):
                self.tests[attempt.job, test.id] = (attempt, test)
            case PutLease(lease):
                self.leases[lease.id] = lease
            case PutDevice(device):
                self.devices[device.id] = device
            case PutAgent(agent):
                self.agents[agent.id] = agent
            case DropDevice(device_id):
                del self.devices[device_id]
            case DropAgent(agent_id):
                del self.agents[agent_id]
            case PutBuild(build):
                self.builds[build.app] = build
            case PutTrial(trial):
                self.trials.pop(trial.app, None)
                if not trial.says_nothing:
                    self.trials[trial.app] = trial
            case PutCrossing(crossing):
                self.crossings.pop(crossing.subject, None)
                if crossing.places:
                    self.crossings[crossing.subject] = crossing
            case PutUpload(upload):
                self.uploads.pop(upload.key, None)
                if not upload.is_given_up:
                    self.uploads[upload.key] = upload
            case PutExpectation(expectation):
                self.expectations[expectation.key] = expectation
            case PutRequest(request):
                self.requests[request.org_id, request.key] = request
            case PutCounters(counters):
                self.counters = counters

    def live_jobs(self) -> list[Job]:
        return sorted((job for job in self.jobs.values() if not job.is_terminal), key=lambda job: job.sequence)

    def open_attempts(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts.values() if attempt.outcome is None]

    def live_leases(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.is_live]


class Database:
    """Shared by all coordinators."""

    def __init__(self) -> None:
        self.records = Records()

    @property
    def epoch(self) -> int:
        return self.records.counters.epoch

    def start_epoch(self) -> Counters:
        """Raise the epoch: from now on no earlier life can commit."""
        self.records.counters = replace(self.records.counters, epoch=self.epoch + 1)
        return self.records.counters

    def commit(self, epoch: int, writes: Sequence[Write]) -> None:
        """Make all writes durable, or none.

        Raises:
            StaleEpoch: The epoch is not the newest.
        """
        if epoch != self.epoch:
            raise StaleEpoch(f"epoch {epoch} is not {self.epoch}")
        for write in writes:
            self.records.apply(write)
