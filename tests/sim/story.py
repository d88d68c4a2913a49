"""Tells a history for people: one line for each thing that happened."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease, Write
from tests.sim.history import (
    Answered,
    Asked,
    Committed,
    CoordinatorPaused,
    CoordinatorStarted,
    EchoArrived,
    EchoRefused,
    History,
    LogAcknowledged,
    LogRead,
    Note,
    Record,
    ResultKept,
    TestEnded,
    WorkBegan,
    WorkEnded,
)
from tests.sim.plan import Plan


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield what a plan holds."""
    jobs = sum(len(submission.jobs) for submission in plan.submissions)
    devices = sum(len(agent.devices) for agent in plan.agents)
    yield f"seed {plan.seed}: {len(plan.agents)} agents, {devices} devices, {jobs} jobs; {plan.weather}"
    yield from (f"  {fault}" for fault in plan.faults)
    for submission in plan.submissions:
        specs = [job.spec for job in submission.jobs]
        first = specs[0]
        priorities = ",".join(str(spec.priority) for spec in specs)
        yield (
            f"  at {submission.at_us / 1e6:.1f} s submit {submission.key}: {len(specs)} jobs of {first.app_version_id}"
            f" for {first.target}, priorities {priorities}"
        )
    yield from (f"  {wish}" for wish in plan.wishes)


def story_lines(history: History) -> Iterator[str]:
    """Yield what happened, in the order in which it became known."""
    for record in history.records:
        for line in _lines(record):
            yield f"{record.at_us / 1e6:10.3f}  {line}"


def _lines(record: Record) -> Iterator[str]:
    match record:
        case Note():
            yield record.text
        case Asked():
            yield f"a user submits {record.key}"
        case Answered():
            yield f"a user hears of {record.key}: jobs {list(record.jobs)}"
        case EchoRefused():
            yield f"word of lease {record.lease} is refused"
        case EchoArrived():
            yield f"lease {record.lease} is heard of"
        case CoordinatorPaused():
            yield f"coordinator of epoch {record.epoch} is frozen until {record.until_us / 1e6:.3f}"
        case CoordinatorStarted():
            yield f"coordinator of epoch {record.epoch} starts"
        case WorkBegan():
            what = f"runs attempt {record.attempt}" if record.attempt else "installs"
            yield f"{record.device} {what} for lease {record.lease}"
        case TestEnded():
            yield f"attempt {record.attempt}: {record.test} {record.state}"
        case WorkEnded():
            yield f"{record.device} has ended attempt {record.attempt} of lease {record.lease}"
        case ResultKept():
            yield f"the result of attempt {record.attempt} is on its agent's disk"
        case LogAcknowledged():
            yield f"log of attempt {record.attempt}: {record.size} bytes are acknowledged"
        case LogRead():
            yield f"log of attempt {record.attempt}: {len(record.data)} bytes are read at {record.offset}"
        case Committed():
            cause = type(record.event).__name__ if record.event is not None else "the clock"
            for write in record.step.writes:
                if line := _write_line(write):
                    yield f"epoch {record.epoch}, by {cause}: {line}"


def _write_line(write: Write) -> str:
    match write:
        case PutJob(job):
            return f"job {job.id} {job.state} (attempt {job.attempt}, priority {job.spec.priority})"
        case PutAttempt(attempt):
            return f"attempt {attempt.id} of job {attempt.job} {attempt.outcome or 'open'}"
        case PutLease(lease):
            revoked = [attempt for attempt, _ in lease.revoked]
            return (
                f"lease {lease.id} {lease.state} on {lease.device}, revision {lease.revision},"
                f" attempts {list(lease.attempts)}, revoked {revoked}"
            )
        case PutDevice(device):
            return f"device {device.id} {device.state}"
        case _:
            return ""
