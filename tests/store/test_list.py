from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite

from coordinator.core.model import Job, JobId, JobState, Target
from coordinator.core.step import PutJob
from coordinator.store import JobFilter, Store, reading
from tests.store.records import a_job

JOBS = 400


@pytest.fixture
def jobs(store: Store) -> list[Job]:
    """Jobs with a little of everything, committed."""
    chance = random.Random(7)
    jobs = [
        a_job(
            number,
            state=chance.choice(list(JobState)),
            org_id=chance.choice(["acme", "globex"]),
            app_version_id=chance.choice(["1.0", "2.0", "3.0"]),
            priority=chance.randint(1, 5),
            target=chance.choice(list(Target)),
            labels={name: chance.choice(["x", "y"]) for name in ("team", "suite") if chance.random() < 0.7},
            run=chance.choice(["", "nightly", "pr-1"]),
        )
        for number in range(1, JOBS + 1)
    ]
    store.commit([PutJob(job) for job in jobs])
    return jobs


def random_filters(count: int) -> Iterator[JobFilter]:
    chance = random.Random(11)
    for _ in range(count):
        yield JobFilter(
            states=tuple(chance.sample(list(JobState), chance.choice([0, 0, 1, 3, 8]))),
            priority=chance.choice([None, None, 2, 5]),
            target=chance.choice([None, None, Target.ANY, Target.DEVICE]),
            app_version_id=chance.choice(["", "", "1.0", "9.9"]),
            org_id=chance.choice(["", "acme"]),
            labels=chance.choice([(), (("team", "x"),), (("suite", "y"), ("team", "x"))]),
            run=chance.choice(["", "nightly"]),
            ids=chance.choice([(), (), (), tuple(JobId(chance.randint(1, JOBS + 50)) for _ in range(60))]),
        )


def test_lists_what_the_filter_matches_newest_first(store: Store, jobs: list[Job]) -> None:
    for wanted in random_filters(150):
        expected = [job for job in reversed(jobs) if wanted.matches(job)]
        assert store.list_jobs(wanted, JOBS) == expected, wanted


def test_pages_put_together_are_the_whole(store: Store, jobs: list[Job]) -> None:
    for wanted in random_filters(25):
        pages: list[Job] = []
        before: JobId | None = None
        while page := store.list_jobs(wanted, 7, before):
            assert len(page) <= 7
            pages += page
            before = page[-1].id
        assert pages == [job for job in reversed(jobs) if wanted.matches(job)], wanted


def test_jobs_come_in_the_order_asked_for_and_missing_ones_are_left_out(store: Store, jobs: list[Job]) -> None:
    assert [job.id for job in store.get_jobs([JobId(5), JobId(9_999), JobId(2)])] == [5, 2]


def test_ten_thousand_ids_can_be_asked_for(store: Store, jobs: list[Job]) -> None:
    ids = tuple(JobId(number) for number in range(1, 10_001))
    assert len(store.get_jobs(ids)) == JOBS
    assert len(store.list_jobs(JobFilter(ids=ids), 10_000)) == JOBS
    assert store.tests_of_jobs(ids) == {}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "wanted",
    [
        JobFilter(),
        JobFilter(states=(JobState.QUEUED,)),
        JobFilter(states=(JobState.QUEUED, JobState.RUNNING)),
        JobFilter(org_id="acme"),
        JobFilter(app_version_id="1.0"),
        JobFilter(run="nightly"),
        JobFilter(labels=(("team", "x"),)),
        JobFilter(labels=(("suite", "y"), ("team", "x")), org_id="acme"),
    ],
    ids=["all", "state", "states", "org", "app", "run", "label", "labels"],
)
def test_sqlite_finds_a_page_through_indexes_without_sorting(store: Store, wanted: JobFilter) -> None:
    for state in wanted.states or (None,):
        one = wanted.with_states((state,) if state else ())
        query = reading._page(one, 50, JobId(1_000))
        sql = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        with store._readers.begin() as connection:
            plan = [row.detail for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
        assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan
