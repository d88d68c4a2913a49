"""What may become what: the state tables of jobs, leases and devices, and how an attempt's end settles its job.

Theory of operation
-------------------
A *job* waits (QUEUED), is part of a batch (ASSIGNED), runs (RUNNING) and ends in one of five terminal states, which
absorb: nothing leaves them, a retry is a new job. Every try is an *attempt*, and every attempt ends exactly once, with
an outcome. `settle` is the only place that turns an outcome into the job's next state:

- the test's own verdict (PASSED, FAILED, TIMED_OUT) ends the job, unless retries are left;
- the lab's faults (ERRORED, LOST, REJECTED) send it back to its queue until the lab's budget is used up, and the device
  is avoided from then on; a fault that no device can mend ends it FAILED at once, and so does one of its build while it
  waits;
- what was only taken back (PREEMPTED, RELEASED) costs nothing, and keeps the tests that were done if the spec can go on
  from there: the next attempt runs the others, and its verdict is the job's only if none of the kept ones failed.

A *lease* is offered, becomes active when its agent echoes it, and governs its device until it is released, revoked or
expired. While its agent is away it is DISCONNECTED: the work goes on, and only an expired deadline ends it. REVOKING
means that some of its attempts are being taken back; such a lease is never extended.

A *device* is held by an operator (quarantine, drain), or by suspicion, whatever its state is. Under a lease a held
device is DRAINING: it ends what runs and gives the rest back. Without one it is QUARANTINED or DRAINING until it is
readmitted. A suspected device is given a canary, a lease without attempts, and stays QUARANTINED under it.

The tables are checked on every change: `IllegalTransition` is a bug of ours, never a user's mistake.
"""

from __future__ import annotations

from coordinator.core.errors import IllegalTransition
from coordinator.core.kept import failure_of
from coordinator.core.model import (
    LAB_BUDGET,
    Attempt,
    AttemptOutcome,
    DeviceId,
    DeviceState,
    Failure,
    Job,
    JobState,
    Lease,
    LeaseState,
    changed,
)
from coordinator.core.records import changer

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.CANCELLED, JobState.FAILED}),
    JobState.ASSIGNED: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.ERRORED,
            JobState.TIMED_OUT,
            JobState.CANCELLED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.ERRORED,
            JobState.TIMED_OUT,
            JobState.CANCELLED,
        }
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.ERRORED: frozenset(),
    JobState.TIMED_OUT: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""ASSIGNED may end at once: the start and the end of a short test can arrive together after a lost link."""

_LIVE_LEASE = frozenset({LeaseState.RELEASED, LeaseState.REVOKED, LeaseState.EXPIRED})
LEASE_TRANSITIONS: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.OFFERED: _LIVE_LEASE | {LeaseState.ACTIVE, LeaseState.DISCONNECTED, LeaseState.REVOKING},
    LeaseState.ACTIVE: _LIVE_LEASE | {LeaseState.DISCONNECTED, LeaseState.REVOKING},
    LeaseState.DISCONNECTED: _LIVE_LEASE | {LeaseState.ACTIVE, LeaseState.REVOKING},
    LeaseState.REVOKING: _LIVE_LEASE | {LeaseState.ACTIVE, LeaseState.DISCONNECTED},
    LeaseState.RELEASED: frozenset(),
    LeaseState.REVOKED: frozenset(),
    LeaseState.EXPIRED: frozenset(),
}

DEVICE_TRANSITIONS: dict[DeviceState, frozenset[DeviceState]] = {
    DeviceState.IDLE: frozenset(
        {DeviceState.RESERVED, DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING}
    ),
    DeviceState.RESERVED: frozenset(
        {
            DeviceState.LEASED,
            DeviceState.IDLE,
            DeviceState.OFFLINE,
            DeviceState.FENCING,
            DeviceState.QUARANTINED,
            DeviceState.DRAINING,
        }
    ),
    DeviceState.LEASED: frozenset(
        {DeviceState.IDLE, DeviceState.OFFLINE, DeviceState.FENCING, DeviceState.QUARANTINED, DeviceState.DRAINING}
    ),
    DeviceState.FENCING: frozenset(
        {DeviceState.IDLE, DeviceState.OFFLINE, DeviceState.QUARANTINED, DeviceState.DRAINING}
    ),
    DeviceState.QUARANTINED: frozenset(
        {
            DeviceState.IDLE,
            DeviceState.OFFLINE,
            DeviceState.DRAINING,
            DeviceState.LEASED,
            DeviceState.FENCING,
        }
    ),
    DeviceState.DRAINING: frozenset(
        {
            DeviceState.IDLE,
            DeviceState.LEASED,
            DeviceState.OFFLINE,
            DeviceState.FENCING,
            DeviceState.QUARANTINED,
        }
    ),
    DeviceState.OFFLINE: frozenset({DeviceState.IDLE, DeviceState.QUARANTINED, DeviceState.DRAINING}),
}

LAB_FAULTS = frozenset({AttemptOutcome.ERRORED, AttemptOutcome.LOST, AttemptOutcome.REJECTED})
FREE_OUTCOMES = frozenset({AttemptOutcome.PREEMPTED, AttemptOutcome.RELEASED})


def moved_job(job: Job, state: JobState, **changes: object) -> Job:
    """Return the job in another state, and with other values.

    Raises:
        IllegalTransition: The table has no such change.
    """
    if state is job.state:
        return changed(job, **changes) if changes else job
    _check_move(job, state)
    return changed(job, state=state, **changes)


def _check_move(job: Job, state: JobState) -> None:
    if state not in JOB_TRANSITIONS[job.state]:
        raise IllegalTransition(f"job {job.id}: {job.state} -> {state}")


_assigned = changer(Job, "state", "attempt", "attempt_count", "device", "agent")
_with_outcome = changer(Attempt, "outcome", "failure", "end_us", "log_size", "log_sha256", "build_digest")
_with_end = changer(Job, "state", "failure", "end_us", "flaky", "is_cancel_requested", "kept")


def assigned_job(job: Job, attempt: Attempt) -> Job:
    """Return a waiting job with the attempt that it was given out for.

    Raises:
        IllegalTransition: It does not wait.
    """
    _check_move(job, JobState.ASSIGNED)
    return _assigned(job, JobState.ASSIGNED, attempt.id, attempt.number, attempt.device, attempt.agent)


def moved_lease(lease: Lease, state: LeaseState, **changes: object) -> Lease:
    """Return the lease in another state, and with other values.

    Raises:
        IllegalTransition: The table has no such change.
    """
    if state is lease.state:
        return changed(lease, **changes) if changes else lease
    if state not in LEASE_TRANSITIONS[lease.state]:
        raise IllegalTransition(f"lease {lease.id}: {lease.state} -> {state}")
    return changed(lease, state=state, **changes)


def ended_attempt(
    attempt: Attempt,
    outcome: AttemptOutcome,
    failure: Failure | None,
    wall_us: int,
    *,
    log_size: int = 0,
    log_sha256: str = "",
    build_digest: str = "",
) -> Attempt:
    """Return the attempt with its outcome, and with what its agent told of its log and of its build, if it told.

    Raises:
        IllegalTransition: It has ended before.
    """
    if attempt.outcome is not None:
        raise IllegalTransition(f"attempt {attempt.id} ended {attempt.outcome}, and again {outcome}")
    return _with_outcome(attempt, outcome, failure, wall_us, log_size, log_sha256, build_digest)


def settle(job: Job, outcome: AttemptOutcome, failure: Failure | None, device: DeviceId, wall_us: int) -> Job:
    """Return what the outcome of its attempt makes of a job; the rules stand at the top of this file."""
    match outcome:
        case AttemptOutcome.PASSED:
            return _settle_pass(job, wall_us)
        case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT:
            return _settle_verdict(job, outcome, failure, wall_us)
        case AttemptOutcome.ERRORED | AttemptOutcome.LOST | AttemptOutcome.REJECTED:
            begun_anew = job if outcome is AttemptOutcome.REJECTED else changed(job, kept=())
            return _settle_lab_fault(begun_anew, failure, device, wall_us)
        case AttemptOutcome.PREEMPTED:
            return _requeue(changed(job, preemptions=job.preemptions + 1), failure, wall_us)
        case AttemptOutcome.RELEASED | AttemptOutcome.CANCELLED:
            return _requeue(job, failure, wall_us)


def _settle_pass(job: Job, wall_us: int) -> Job:
    kept_failure = failure_of(job.kept)
    if kept_failure is not None:
        return _settle_verdict(job, AttemptOutcome.FAILED, kept_failure, wall_us)
    return _end(job, JobState.COMPLETED, None, wall_us, is_flaky=job.retries_used > 0)


def _settle_verdict(job: Job, outcome: AttemptOutcome, failure: Failure | None, wall_us: int) -> Job:
    is_fatal = failure is not None and failure.is_fatal
    if not is_fatal and not job.is_cancel_requested and job.retries_used < job.spec.retries:
        return _requeue(changed(job, retries_used=job.retries_used + 1, kept=()), failure, wall_us)
    state = JobState.TIMED_OUT if outcome is AttemptOutcome.TIMED_OUT else JobState.FAILED
    return _end(job, state, failure, wall_us)


def _settle_lab_fault(job: Job, failure: Failure | None, device: DeviceId, wall_us: int) -> Job:
    if failure is not None and failure.is_fatal:
        return _end(job, JobState.FAILED, failure, wall_us)
    avoid = tuple(sorted({*job.avoid, device}))
    job = changed(job, lab_failures=job.lab_failures + 1, avoid=avoid)
    if job.lab_failures >= LAB_BUDGET and not job.is_cancel_requested:
        return _end(job, JobState.ERRORED, failure, wall_us)
    return _requeue(job, failure, wall_us)


def _requeue(job: Job, failure: Failure | None, wall_us: int) -> Job:
    if job.is_cancel_requested:
        return _end(job, JobState.CANCELLED, failure, wall_us)
    return moved_job(job, JobState.QUEUED, failure=failure)


def _end(job: Job, state: JobState, failure: Failure | None, wall_us: int, *, is_flaky: bool = False) -> Job:
    _check_move(job, state)
    return _with_end(job, state, failure, wall_us, is_flaky, False, ())
