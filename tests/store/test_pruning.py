from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from coordinator.core.logfile import LogEnd, LogPart, LogState
from coordinator.core.model import AttemptId, AttemptOutcome, JobId, JobState, LeaseId, LeaseState, Request, TestState
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease, PutRequest, PutTest
from coordinator.store import JobFilter, StaleEpoch, Store
from tests.store.conftest import OpenStore
from tests.store.records import a_device, a_job, a_lease, a_test, an_attempt

NOW_US = 1_000


def commit_ended(store: Store, number: int, end_us: int, lease: int = 1) -> None:
    """Commit a job that has ended, with all that a job can have."""
    job = replace(a_job(number, state=JobState.COMPLETED, labels={"a": "b"}), end_us=end_us)
    attempt = replace(
        an_attempt(number, job=number, of_job=1, lease=lease), outcome=AttemptOutcome.PASSED, end_us=end_us
    )
    put_lease = PutLease(a_lease(lease, state=LeaseState.RELEASED))
    store.commit([PutDevice(a_device()), put_lease, PutJob(job), PutAttempt(attempt), PutTest(attempt, a_test())])


def fail_and_repeat(store: Store, number: int) -> None:
    """Let a test fail in one attempt of a job, and pass in the next."""
    first = an_attempt(number, job=number)
    failed, passed = a_test("t2", TestState.FAILED), a_test("t2")
    store.commit([PutTest(first, failed)])
    store.commit([PutTest(replace(first, number=2), passed)])


def request(key: str, *jobs: int) -> PutRequest:
    ids = tuple(JobId(number) for number in jobs)
    return PutRequest(Request(org_id="acme", key=key, payload_sha256="p", jobs=ids))


def forget_older_than(store: Store, before_us: int) -> Sequence[JobId]:
    ids = store.old_jobs(before_us, 100)
    store.forget_jobs(ids)
    return ids


def test_old_job_goes_with_all_that_belongs_to_it_and_younger_ones_stay(store: Store) -> None:
    commit_ended(store, 1, end_us=10, lease=1)
    commit_ended(store, 2, end_us=20, lease=2)
    fail_and_repeat(store, 1)
    assert store.earlier_failures_of(JobId(1)) != []
    assert forget_older_than(store, 20) == [1]
    assert store.get_job(JobId(1)) is None
    assert store.attempts_of(JobId(1)) == []
    assert store.tests_of(JobId(1)) == []
    assert store.earlier_failures_of(JobId(1)) == []
    assert store.lease_of(AttemptId(1)) is None
    assert [job.id for job in store.list_jobs(JobFilter(labels=(("a", "b"),)), 9)] == [2]
    assert store.tests_of(JobId(2)) != []
    assert store.lease_of(AttemptId(2)) is not None


def test_lease_stays_as_long_as_one_of_its_attempts(store: Store) -> None:
    commit_ended(store, 1, end_us=10)
    commit_ended(store, 2, end_us=20)
    forget_older_than(store, 20)
    lease = store.lease_of(AttemptId(2))
    assert lease is not None
    assert lease.id == LeaseId(1)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.ASSIGNED, JobState.RUNNING])
def test_job_that_has_not_ended_is_never_old(store: Store, state: JobState) -> None:
    store.commit([PutJob(a_job(state=state))])
    assert store.old_jobs(2**62, 100) == []


def test_job_of_which_an_attempt_goes_on_is_never_old(store: Store) -> None:
    commit_ended(store, 1, end_us=10)
    store.commit([PutAttempt(an_attempt(2, job=1))])
    assert store.old_jobs(NOW_US, 100) == []


def test_request_lives_as_long_as_one_of_its_jobs(store: Store) -> None:
    commit_ended(store, 1, end_us=10)
    commit_ended(store, 2, end_us=20)
    store.commit([request("both", 1, 2), request("first", 1), request("second", 2)])
    forget_older_than(store, 20)
    assert store.spent_requests(("", ""), 100) == ([("acme", "first")], None)
    forget_older_than(store, NOW_US)
    spent, after = store.spent_requests(("", ""), 2)
    assert (spent, after) == ([("acme", "both"), ("acme", "first")], ("acme", "first"))
    assert store.spent_requests(("acme", "first"), 2) == ([("acme", "second")], None)
    store.forget_requests([("acme", "both"), ("acme", "second")])
    assert store.find_requests([("acme", "both")]) == []
    assert store.find_requests([("acme", "first")])


def test_logs_without_attempt_or_without_bytes_are_strays(store: Store) -> None:
    for number in (1, 2, 3):
        commit_ended(store, number, end_us=number)
        store.put_logs([LogPart(attempt=AttemptId(number), epoch=1, start=0)])
    store.put_logs([LogEnd(attempt=AttemptId(number), state=LogState.TRUNCATED, size=9) for number in (1, 2, 3)])
    assert store.stray_logs(100) == []
    forget_older_than(store, 2)
    store.put_logs([LogEnd(attempt=AttemptId(2), state=LogState.TRUNCATED, size=0)])
    assert sorted(store.stray_logs(100)) == [1, 2]
    store.forget_parts([AttemptId(1), AttemptId(2)])
    assert store.stray_logs(100) == []
    assert store.log_of(AttemptId(1)).end is None
    assert store.log_of(AttemptId(2)).end is not None
    assert len(store.log_of(AttemptId(3)).parts) == 1


def test_whoever_lost_the_database_can_forget_nothing(store: Store, open_store: OpenStore) -> None:
    commit_ended(store, 1, end_us=10)
    open_store().start_epoch()
    with pytest.raises(StaleEpoch):
        store.forget_jobs([JobId(1)])
    with pytest.raises(StaleEpoch):
        store.forget_requests([("acme", "k")])
    with pytest.raises(StaleEpoch):
        store.forget_parts([AttemptId(1)])
    assert store.get_job(JobId(1)) is not None
