"""What the queues count beside the jobs themselves."""

from __future__ import annotations

import random

from coordinator.core.lanes import Queues, family_of, signature_of
from coordinator.core.model import AppKey, Job, JobId, JobState, SubmitSequence
from tests.core.lab import spec


def a_job(number: int, org: str, app: str, model: str) -> Job:
    return Job(
        id=JobId(number),
        sequence=SubmitSequence(number),
        spec=spec(org_id=org, app_version_id=app, selector=(("model", model),)),
        state=JobState.QUEUED,
        create_us=0,
    )


def test_counts_of_pools_and_builds_agree_with_the_jobs_that_wait() -> None:
    chance = random.Random(7)
    queues = Queues()
    waiting: dict[JobId, Job] = {}
    for number in range(3_000):
        if waiting and chance.random() < 0.5:
            gone = chance.choice(sorted(waiting))
            queues.remove(gone)
            del waiting[gone]
        else:
            job = a_job(number, chance.choice("xyz"), chance.choice("ab"), chance.choice("mn"))
            queues.push(job)
            waiting[job.id] = job
        for org in "xyz":
            mine = {signature_of(job) for job in waiting.values() if job.spec.org_id == org}
            everybodys = {signature_of(job) for job in waiting.values()}
            assert queues.pools_with(org, ()) == (len(mine), len(everybodys))
            for app in "ab":
                key = AppKey(org_id=org, app_version_id=app)
                assert queues.waits(key) == any(family_of(job).app == key for job in waiting.values())
