"""What must hold when everything has come to rest."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from agent.core.model import AttemptId as LoggedAttempt
from agent.core.model import TestState
from coordinator.core.logfile import LogState
from coordinator.core.model import Attempt, AttemptId, AttemptOutcome, JobId, JobState
from tests.sim.history import Answered, Asked, History, LogAcknowledged, LogRead, TestEnded
from tests.sim.lab import Lab
from tests.sim.plan import Plan

Breaches = Iterator[str]


def no_accepted_job_is_lost(plan: Plan, lab: Lab) -> Breaches:
    """I1: what was accepted is there, once, under the ids that were told, and has ended."""
    records = lab.records
    asked = {record.key for record in lab.history.records if isinstance(record, Asked)}
    made = Counter(job.spec.test for job in records.jobs.values() if job.retry_of is None)
    for submission in plan.submissions:
        for job in submission.jobs:
            wanted = 1 if submission.key in asked else 0
            if made[job.spec.test] != wanted:
                yield f"I1: {job.spec.test} was asked for {wanted} times and is there {made[job.spec.test]} times"
    tests = {submission.key: [job.spec.test for job in submission.jobs] for submission in plan.submissions}
    for record in lab.history.records:
        if isinstance(record, Answered):
            told = [records.jobs[job].spec.test for job in record.jobs if job in records.jobs]
            if told != tests[record.key]:
                yield f"I1: submit {record.key} was told jobs {record.jobs}, which are {told}"
    for live in records.live_jobs():
        yield f"I1: job {live.id} is still {live.state}"


def every_attempt_has_ended(_plan: Plan, lab: Lab) -> Breaches:
    """I2: every attempt ended, and every lease."""
    for attempt in lab.records.open_attempts():
        yield f"I2: attempt {attempt.id} has not ended"
    for lease in lab.records.live_leases():
        yield f"I2: lease {lease.id} is still {lease.state}"


def each_test_counts_once(plan: Plan, lab: Lab) -> Breaches:
    """I4: a verdict is that of all tests of the spec, each as the last attempt that counts has seen it."""
    ended = _ended_tests(lab.history)
    attempts_of: defaultdict[JobId, list[Attempt]] = defaultdict(list)
    for one in sorted(lab.records.attempts.values(), key=lambda one: one.number):
        attempts_of[one.job].append(one)
    told_of: defaultdict[JobId, dict[str, str]] = defaultdict(dict)
    for (of, test), (_, result) in lab.records.tests.items():
        told_of[of][test] = str(result.state)
    for job in lab.records.jobs.values():
        is_verdict = job.state is JobState.COMPLETED or (
            job.state is JobState.FAILED and job.failure is not None and job.failure.reason == "TEST_FAILED"
        )
        if not is_verdict:
            continue
        states: dict[str, TestState] = {}
        for attempt in attempts_of[job.id]:
            if attempt.outcome is not AttemptOutcome.LOST:  # else nobody heard what it has done
                states.update(ended.get(LoggedAttempt(attempt.id), {}))
        told = told_of[job.id]
        truth = {test: str(states.get(test, "never run")) for test in plan.jobs[job.spec.test].tests}
        if told != truth:
            yield f"I4: job {job.id} is told to have {told}, and its tests came to {truth}"
        if (job.state is JobState.COMPLETED) is not (set(truth.values()) == {str(TestState.PASSED)}):
            yield f"I4: job {job.id} is {job.state}, and its tests came to {truth}"


def _ended_tests(history: History) -> dict[LoggedAttempt, dict[str, TestState]]:
    ended: dict[LoggedAttempt, dict[str, TestState]] = {}
    for record in history.records:
        if isinstance(record, TestEnded):
            ended.setdefault(record.attempt, {})[record.test] = record.state
    return ended


def logs_are_what_devices_wrote(_plan: Plan, lab: Lab) -> Breaches:
    """I5: length and hash of every log are those of what its device wrote; only lost power may cut it."""
    for attempt, truth in lab.history.written.items():
        stored = lab.disk.data.get(attempt, bytearray())
        state = lab.disk.verdicts.get(attempt, LogState.OPEN)
        is_damaged = attempt in lab.history.damaged
        if not truth.startswith(stored):
            yield f"I5: the log of attempt {attempt} holds what its device did not write"
        elif not is_damaged and (len(stored) != len(truth) or state is not LogState.COMPLETE):
            yield f"I5: the log of attempt {attempt} is {state} with {len(stored)} of {len(truth)} bytes"
        record = lab.records.attempts[AttemptId(attempt)]
        if not is_damaged and record.log_sha256 and record.log_sha256 != hashlib.sha256(truth).hexdigest():
            yield f"I5: the result of attempt {attempt} names another log than its device wrote"


def followers_see_a_prefix(_plan: Plan, lab: Lab) -> Breaches:
    """I5: whoever reads sees what the device wrote, at its place."""
    for record in lab.history.records:
        if isinstance(record, LogRead):
            truth = lab.history.written[record.attempt]
            if truth[record.offset : record.offset + len(record.data)] != record.data:
                yield f"I5: a follower of attempt {record.attempt} saw at {record.offset} what was not written"


def acknowledged_bytes_stay(_plan: Plan, lab: Lab) -> Breaches:
    """I5: what an agent was told to be durable is durable."""
    for attempt, size in _most_acknowledged(lab.history).items():
        if attempt not in lab.history.damaged and len(lab.disk.data.get(attempt, bytearray())) < size:
            yield f"I5: {size} bytes of the log of attempt {attempt} were acknowledged and are not there"


def _most_acknowledged(history: History) -> dict[LoggedAttempt, int]:
    most: dict[LoggedAttempt, int] = {}
    for record in history.records:
        if isinstance(record, LogAcknowledged):
            most[record.attempt] = max(record.size, most.get(record.attempt, 0))
    return most


END_RULES = (
    no_accepted_job_is_lost,
    every_attempt_has_ended,
    each_test_counts_once,
    logs_are_what_devices_wrote,
    followers_see_a_prefix,
    acknowledged_bytes_stay,
)
