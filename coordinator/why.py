"""Says in sentences why a job waits, what it does, or how it ended."""

from __future__ import annotations

from coordinator import wire
from coordinator.core.explain import Explanation, Why
from coordinator.core.forecast import Outlook
from coordinator.core.model import SECOND_US, Job, JobState, Now, Upload
from coordinator.core.pools import Miss
from coordinator.story import span
from qgjob.counts import counted
from qgjob.v1 import job_pb2

_REASONS_OUT = {why: job_pb2.WhyReason.Value(f"WHY_REASON_{why.name}") for why in Why}
_HELD_WORDS = {
    Why.FENCING: "waiting for its agent, which was lost in the middle of a batch",
    Why.DRAINING: "being drained",
    Why.QUARANTINED: "quarantined",
    Why.OFFLINE: "offline",
    Why.ACCOUNT_FULL: "waiting for a session of its account",
    Why.OTHER_LANES: "kept for other lanes",
    Why.OTHER_ORGS: "kept for other organisations",
}


def ended_out(job: Job) -> job_pb2.Explanation:
    """Return how a job ended; its record may be a moment behind."""
    return job_pb2.Explanation(
        job_id=job.id,
        state=wire.job_state_out(job.state),
        reason=job_pb2.WHY_REASON_ENDED,
        message=_ended(job) if job.is_terminal else "It has just ended, and how is being written down.",
        device=job.device or "",
    )


def explanation_out(job: Job, found: Explanation, outlook: Outlook | None, now: Now) -> job_pb2.Explanation:
    """Return why a job that has not ended does not run, or where it runs."""
    message = job_pb2.Explanation(
        job_id=job.id,
        state=wire.job_state_out(job.state),
        reason=_REASONS_OUT[found.why],
        message=_sentences(job, found, outlook, now),
        queue_position=outlook.place if outlook is not None else 0,
        matching_devices=found.matching,
        usable_devices=found.usable,
        device=found.device or "",
        blocking_job_id=found.blocker or 0,
    )
    if outlook is not None and outlook.start_us is not None:
        message.expected_start_time.CopyFrom(wire.timestamp(outlook.start_us))
    if found.free_us is not None:
        message.device_free_time.CopyFrom(wire.timestamp(found.free_us))
    return message


def _ended(job: Job) -> str:
    where = f" on {job.device}" if job.device is not None else ""
    ran = f" after {span(job.end_us - job.start_us)}" if job.start_us is not None and job.end_us is not None else ""
    told = f": {job.failure.message} ({job.failure.reason})" if job.failure is not None else "."
    words = {
        JobState.COMPLETED: f"It completed{where}{ran}",
        JobState.FAILED: f"It failed{where}{ran}",
        JobState.ERRORED: f"The lab could not run it; the last try was{where or ' on no device'}",
        JobState.TIMED_OUT: f"It ran into its timeout{where}",
        JobState.CANCELLED: f"It was cancelled{where}",
    }
    return words[job.state] + told


def _sentences(job: Job, found: Explanation, outlook: Outlook | None, now: Now) -> str:
    if found.why is Why.RUNNING:
        waits = f", and waits there: {found.detail}" if found.detail else ""
        return f"It {'is being cancelled' if job.is_cancel_requested else 'runs'} on {found.device}{waits}."
    if found.why is Why.ASSIGNED:
        return " ".join([_assigned(found), *_upload(found.upload, now)])
    told = [_cause(job, found, now), *_upload(found.upload, now)]
    if job.preemptions:
        times = "once" if job.preemptions == 1 else f"{job.preemptions} times"
        told.append(f"It was sent back to the queue {times} to make room for urgent jobs.")
    if outlook is not None:
        told.append(_place(outlook.place))
    if outlook is not None and outlook.start_us is not None:
        left_us = outlook.start_us - now.wall_us
        told.append(f"It is expected to start {f'in about {span(left_us)}' if left_us >= SECOND_US else 'any moment'}.")
    return " ".join(told)


def _assigned(found: Explanation) -> str:
    if not found.before:
        return f"It is next on {found.device}, which makes ready for it."
    return f"It has its place on {found.device}, where job {found.blocker} is at work; {_jobs(found.before)} before it."


def _upload(upload: Upload | None, now: Now) -> list[str]:
    """Return who brings the build to the cloud for which a job's batch waits."""
    if upload is None:
        return []
    since = span(max(0, now.wall_us - upload.begin_us))
    return [f"Its build is being uploaded to BrowserStack by agent {upload.agent}, for {since} now."]


def _place(place: int) -> str:
    return "It is the first in line." if place == 1 else f"{_jobs(place - 1)} ahead of it."


def _jobs(count: int) -> str:
    return f"{counted(count, 'job')} {'is' if count == 1 else 'are'}"


def _cause(job: Job, found: Explanation, now: Now) -> str:
    match found.why:
        case Why.NOTHING_MATCHES:
            return _unmatched(found)
        case Why.QUOTA:
            org = job.spec.org_id
            return f"Organisation {org} has {counted(found.devices, 'device')}, and its quota is {found.limit}."
        case Why.JOINS_BATCH:
            others = "other builds have more work before them" if found.is_resting else "another install would not pay"
            return f"A device works for {job.spec.app_version_id} already and will take it along; {others}."
        case Why.BUSY:
            return _busy(found, now)
        case _:
            return _unusable(found)


def _unmatched(found: Explanation) -> str:
    if found.device is None:
        return "No device is known; start an agent with `qgjob-agent run`."
    lacks = ", ".join(_lack(miss) for miss in found.misses)
    return f"No known device matches it; the nearest, {found.device}, has {lacks}."


def _lack(miss: Miss) -> str:
    name = "kind" if miss.attribute == "target" else miss.attribute
    return f"{name} {miss.has or '(none)'} instead of {miss.wanted}"


def _unusable(found: Explanation) -> str:
    detail = f" ({found.detail})" if found.detail else ""
    if found.matching == 1:
        return f"The only device that matches, {found.device}, is {_HELD_WORDS[found.why]}{detail}."
    counts = ", ".join(f"{count} {'is' if count == 1 else 'are'} {_HELD_WORDS[why]}" for why, count in found.held)
    return (
        f"None of the {found.matching} devices that match can be used: {counts}; the nearest is {found.device}{detail}."
    )


def _busy(found: Explanation, now: Now) -> str:
    if found.blocker is None:
        return f"{found.device} is about to take work."
    assert found.free_us is not None
    left_us = found.free_us - now.wall_us
    # A test may run for longer than it ever did.
    until = f"for about {span(left_us)} with its batch" if left_us >= SECOND_US else "and should be done any moment"
    left = f"job {found.blocker} is at work there, {until}"
    if found.usable == 1:
        return f"The only device that matches and works, {found.device}, is busy: {left}."
    return f"All {found.usable} devices that match are busy; {found.device} should be free first: {left}."
