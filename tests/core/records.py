"""What a database would hold: the writes of steps, applied in their order, and the state that a restart reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from coordinator.core.ledger import Ledger
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
    Now,
    Request,
    TestKey,
    TestResult,
    Trial,
    Upload,
    UploadKey,
)
from coordinator.core.scheduler import Scheduler
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
    Step,
    Write,
)

Projection = dict[str, object]


@dataclass
class Records:
    """Rows by their keys. Like the tables it refuses what must never be written."""

    jobs: dict[JobId, Job] = field(default_factory=dict)
    attempts: dict[AttemptId, Attempt] = field(default_factory=dict)
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    builds: dict[AppKey, Build] = field(default_factory=dict)
    tests: dict[tuple[JobId, str], TestResult] = field(default_factory=dict)
    trials: dict[AppKey, Trial] = field(default_factory=dict)
    crossings: dict[str, Crossing] = field(default_factory=dict)
    uploads: dict[UploadKey, Upload] = field(default_factory=dict)
    expectations: dict[TestKey, Expectation] = field(default_factory=dict)
    requests: dict[tuple[str, str], Request] = field(default_factory=dict)
    counters: Counters = field(default_factory=lambda: Counters(epoch=1))

    def apply(self, writes: Sequence[Write]) -> None:
        """Write."""
        for write in writes:
            self._write(write)

    def _write(self, write: Write) -> None:
        match write:
            case PutJob(job):
                before = self.jobs.get(job.id)
                assert before is None or not before.is_terminal or before.state is job.state, f"{before} became {job}"
                self.jobs[job.id] = job
            case PutAttempt(attempt):
                known = self.attempts.get(attempt.id)
                assert known is None or known.outcome is None, f"attempt {attempt.id} ended twice"
                self.attempts[attempt.id] = attempt
            case PutTest(attempt, test):
                self.tests[attempt.job, test.id] = test
            case PutLease(lease):
                held = self.leases.get(lease.id)
                assert held is None or held.is_live, f"lease {lease.id} was over"
                self.leases[lease.id] = lease
            case PutDevice(device):
                self.devices[device.id] = device
            case PutAgent(agent):
                self.agents[agent.id] = agent
            case DropDevice(device_id):
                assert not any(one.is_live and one.device == device_id for one in self.leases.values()), device_id
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
                assert (request.org_id, request.key) not in self.requests, f"key {request.key} was used before"
                self.requests[request.org_id, request.key] = request
            case PutCounters(counters):
                self.counters = counters

    def unfinished(self) -> Projection:
        """Return what a restart reads."""
        return {
            "jobs": {key: job for key, job in self.jobs.items() if not job.is_terminal},
            "attempts": {key: attempt for key, attempt in self.attempts.items() if attempt.outcome is None},
            "leases": {key: lease for key, lease in self.leases.items() if lease.is_live},
            "devices": self.devices,
            "agents": _durable(self.agents),
            "builds": self.builds,
            "expectations": self.expectations,
            "trials": self.trials,
            "crossings": self.crossings,
            "uploads": self.uploads,
            "counters": self.counters,
        }

    def restore_into(self, scheduler: Scheduler, now: Now) -> Step:
        """Let a new scheduler take up what is not finished."""
        return scheduler.restore(
            jobs=sorted((job for job in self.jobs.values() if not job.is_terminal), key=lambda job: job.sequence),
            attempts=[attempt for attempt in self.attempts.values() if attempt.outcome is None],
            leases=[lease for lease in self.leases.values() if lease.is_live],
            devices=self.devices.values(),
            agents=self.agents.values(),
            builds=self.builds.values(),
            expectations=self.expectations.values(),
            trials=self.trials.values(),
            crossings=self.crossings.values(),
            uploads=self.uploads.values(),
            now=now,
        )


def projection(ledger: Ledger) -> Projection:
    """Return what of a ledger must be durable."""
    return {
        "jobs": dict(ledger.jobs),
        "attempts": dict(ledger.attempts),
        "leases": dict(ledger.fleet.leases),
        "devices": dict(ledger.fleet.devices),
        "agents": _durable(ledger.fleet.agents),
        "builds": dict(ledger.builds.versions),
        "expectations": ledger.durations.known(),
        "trials": dict(ledger.trials.known),
        "crossings": dict(ledger.crossings.known),
        "uploads": dict(ledger.uploads.known),
        "counters": ledger.counters,
    }


def _durable(agents: dict[AgentId, Agent]) -> dict[AgentId, Agent]:
    """Leave out when an agent was heard last: a heartbeat writes nothing."""
    return {key: replace(agent, seen_us=0) for key, agent in agents.items()}
