"""What the queues count beside the jobs themselves."""

from __future__ import annotations

import random

from coordinator.core.lanes import Queues, signature_of
from coordinator.core.model import NO_NUMBERS, SECOND_US, Job, JobId, JobState, Rules, SubmitSequence
from coordinator.core.shares import Shares
from tests.core.lab import spec


def a_job(number: int, org: str, app: str, model: str) -> Job:
    return Job(
        id=JobId(number),
        sequence=SubmitSequence(number),
        spec=spec(org_id=org, app_version_id=app, selector=(("model", model),)),
        state=JobState.QUEUED,
        create_us=0,
    )


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
