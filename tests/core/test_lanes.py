"""What the queues count beside the jobs themselves."""

from __future__ import annotations

import random

import pytest

from coordinator.core.families import family_of, signature_of
from coordinator.core.lanes import Queues
from coordinator.core.model import NO_NUMBERS, SECOND_US, Job, JobId, JobState, Rules, SubmitSequence
from coordinator.core.shares import Shares
from tests.core.lab import spec

AGE_US = Rules().age_us


def a_job(number: int, org: str, app: str, model: str, **changes: int) -> Job:
    return Job(
        id=JobId(number),
        sequence=SubmitSequence(number),
        spec=spec(org_id=org, app_version_id=app, selector=(("model", model),), priority=changes.get("priority", 2)),
        state=JobState.QUEUED,
        create_us=changes.get("create_us", 0),
        attempt_count=changes.get("attempt_count", 0),
    )


def level_of(job: Job, wall_us: int) -> int:
    """Return what a job's priority counts for."""
    waited = max(0, wall_us - job.create_us) // AGE_US
    return job.spec.priority if job.spec.priority > 3 else min(3, job.spec.priority + waited)


def order_in_family(job: Job, wall_us: int) -> tuple[int, int, int]:
    """Return what the first job of a family has least of."""
    return (-level_of(job, wall_us), 0 if job.attempt_count else 1, job.create_us)


def test_counts_of_pools_agree_with_the_jobs_that_wait() -> None:
    chance = random.Random(7)
    queues = Queues(Rules(), Shares(NO_NUMBERS, NO_NUMBERS, 0))
    waiting: dict[JobId, Job] = {}
    for number in range(3_000):
        if waiting and chance.random() < 0.5:
            gone = chance.choice(sorted(waiting))
            queues.remove(waiting.pop(gone))
        else:
            job = a_job(number, chance.choice("xyz"), chance.choice("ab"), chance.choice("mn"))
            queues.push(job, 30 * SECOND_US, 10 * SECOND_US)
            waiting[job.id] = job
        for org in "xyz":
            mine = {signature_of(job) for job in waiting.values() if job.spec.org_id == org}
            everybodys = {signature_of(job) for job in waiting.values()}
            assert queues.queued_of(org) == sum(job.spec.org_id == org for job in waiting.values())
            assert queues.pools_with(org, ()) == (len(mine), len(everybodys))


def queues_with(*jobs: Job, wall_us: int) -> Queues:
    queues = Queues(Rules(), Shares(NO_NUMBERS, NO_NUMBERS, 0))
    queues.advance(wall_us)
    for job in jobs:
        queues.push(job, 30 * SECOND_US, 10 * SECOND_US)
    return queues


def test_job_that_has_aged_falls_when_the_wall_clock_is_put_back() -> None:
    job = a_job(1, "x", "a", "m", create_us=10 * AGE_US, priority=1)
    queues = queues_with(job, wall_us=10 * AGE_US)
    levels = []
    for ages in (11, 12, 11, 10, 0, 11):
        queues.advance(ages * AGE_US)
        head = queues.heads.first(signature_of(job))
        levels.append(head.level if head is not None else 0)
    assert levels == [2, 3, 2, 1, 1, 2]


def test_job_that_was_given_back_comes_after_one_that_rose_since_the_wall_clock_was_put_back() -> None:
    back = a_job(1, "x", "a", "m", create_us=10 * AGE_US, attempt_count=1)
    fresh = a_job(2, "x", "a", "m", create_us=AGE_US)
    queues = queues_with(back, fresh, wall_us=AGE_US)
    family = queues.family(family_of(back))
    assert family is not None
    for wall_us, first in ((AGE_US, back), (2 * AGE_US - 1, back), (2 * AGE_US, fresh), (11 * AGE_US, back)):
        queues.advance(wall_us)
        head = queues.heads.first(signature_of(back))
        assert head is not None
        entry = queues.heads.head_of(head.bucket)
        assert entry is not None
        assert entry[3] == first.id
        assert head.level == level_of(first, wall_us)


@pytest.mark.parametrize("seed", range(5))
def test_first_of_a_family_is_the_first_by_every_job_whichever_way_the_wall_clock_goes(seed: int) -> None:
    chance = random.Random(seed)
    wall_us = 100 * AGE_US
    queues = queues_with(wall_us=wall_us)
    waiting: dict[JobId, Job] = {}
    for number in range(600):
        wall_us += chance.choice((0, AGE_US // 3, 2 * AGE_US, -AGE_US // 2, -2 * AGE_US))
        queues.advance(wall_us)
        if waiting and chance.random() < 0.45:
            queues.remove(waiting.pop(chance.choice(sorted(waiting))))
        else:
            priority, tries = chance.choice((1, 1, 2)), chance.choice((0, 0, 1))
            job = a_job(number, "x", "a", "m", create_us=wall_us, priority=priority, attempt_count=tries)
            queues.push(job, 30 * SECOND_US, 10 * SECOND_US)
            waiting[job.id] = job
        if not waiting:
            continue
        first = min(waiting.values(), key=lambda job: order_in_family(job, wall_us))
        head, family = queues.heads.first(signature_of(first)), queues.family(family_of(first))
        assert head is not None
        assert family is not None
        bucket = queues.heads.first_bucket(family)
        entry = queues.heads.head_of(bucket) if bucket is not None else None
        assert entry is not None
        assert head.level == level_of(first, wall_us)
        assert order_in_family(waiting[entry[3]], wall_us) == order_in_family(first, wall_us)
