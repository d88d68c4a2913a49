from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import event

from coordinator.core.model import (
    Account,
    AgentId,
    AppKey,
    AttemptId,
    AttemptOutcome,
    BatchTally,
    Blame,
    Counters,
    Crossing,
    DeviceHold,
    DeviceId,
    DeviceKind,
    DeviceState,
    Expectation,
    Failure,
    JobId,
    JobState,
    LeaseId,
    LeaseState,
    Mark,
    Request,
    RevokeReason,
    TestKey,
    TestState,
    Trial,
    Upload,
    Vitals,
    changed,
)
from coordinator.core.step import (
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
    Write,
)
from coordinator.store import JobFilter, StaleEpoch, Store, StoreError
from tests.store.conftest import OpenStore
from tests.store.records import APP, a_build, a_device, a_job, a_lease, a_test, an_agent, an_attempt

AN_UPLOAD = Upload(account="lab_user@cloud", digest="a" * 64, agent=AgentId("lab"), begin_us=7)
FAILURE = Failure(reason="TEST_FAILED", message="1 test failed — see 'login'", blame=Blame.TEST)


def commit_a_running_job(store: Store) -> None:
    store.commit([PutDevice(a_device()), PutLease(a_lease()), PutJob(a_job()), PutAttempt(an_attempt())])


def test_every_field_of_every_record_comes_back(store: Store) -> None:
    spec = replace(
        a_job().spec,
        selector=(("os_version", "1[45]"), ("platform", "android")),
        env={"GREETING": 'Grüße, "世界"\n'},
        secrets={"PASSWORD": "Grüße\n"},
        labels={"team": "checkout"},
        retries=2,
        run="nightly",
    )
    job = replace(
        a_job(state=JobState.RUNNING),
        spec=spec,
        start_us=2**53 + 1,
        attempt=AttemptId(1),
        attempt_count=1,
        device=DeviceId("pixel"),
        agent=AgentId("host"),
        failure=replace(FAILURE, blame=None),
        flaky=True,
        is_cancel_requested=True,
        retries_used=1,
        lab_failures=2,
        avoid=(DeviceId("old"), DeviceId("older")),
        preemptions=3,
        retry_of=JobId(9),
        can_spill=True,
    )
    device = replace(
        a_device(),
        state=DeviceState.LEASED,
        fence_number=4,
        lease=LeaseId(1),
        app=APP,
        app_digest="e" * 64,
        busy_us=5,
        free_us=6,
        seen_us=7,
        hold=DeviceHold.QUARANTINE,
        hold_reason="its screen is broken",
        marks=(Mark(subject="acme v1 a.spec.ts", reason="SESSION_FAILED", age=3),),
        relapses=2,
    )
    # How an account stands its agents say again.
    facts = replace(device.facts, vitals=Vitals(api_level=34, free_bytes=2**40), account=Account(name="cloud"))
    device = replace(device, facts=facts)
    agent = replace(an_agent(), is_draining=True)
    lease = replace(
        a_lease(state=LeaseState.REVOKING),
        end_us=11,
        attempts=(AttemptId(1), AttemptId(2)),
        revoked=((AttemptId(2), RevokeReason.PREEMPT),),
        tally=BatchTally(started=1, passed=2, failed=3, other=4, installs=5, install_us=6),
        install_end_us=10,
        is_canary=True,
    )
    attempt = replace(an_attempt(), start_us=12, build_digest="f" * 64, install_end_us=10, install_us=6)
    expectation = Expectation(
        key=TestKey("acme", "tests/login.spec.ts", DeviceKind.DEVICE), count=1, mean=1_612_345, deviation=678
    )
    trial = Trial(app=APP, refused_by=(device.id, device.id), is_taken=True, note_us=8)
    crossing = Crossing(subject="acme v1 a.spec.ts", places=((device.id, True), (DeviceId("d2"), False)), note_us=9)
    counters = Counters(
        epoch=1, next_job=2, next_attempt=3, next_lease=4, next_sequence=5, installs_avoided=6, saved_us=7
    )
    store.commit(
        [
            PutCounters(counters),
            PutAttempt(attempt),
            PutJob(job),
            PutLease(lease),
            PutDevice(device),
            PutAgent(agent),
            PutBuild(a_build()),
            PutExpectation(expectation),
            PutTrial(trial),
            PutCrossing(crossing),
            PutUpload(AN_UPLOAD),
        ]
    )
    snapshot = store.load()
    assert snapshot.counters == counters
    assert snapshot.jobs == (job,)
    assert snapshot.attempts == (attempt,)
    assert snapshot.leases == (lease,)
    assert snapshot.devices == (device,)
    assert snapshot.agents == (agent,)
    assert snapshot.builds == (a_build(),)
    assert snapshot.expectations == (expectation,)
    assert snapshot.trials == (trial,)
    assert snapshot.crossings == (crossing,)
    assert snapshot.uploads == (AN_UPLOAD,)
    assert store.lease_of(attempt.id) == lease


def test_upload_ends_with_its_address_and_one_that_was_given_up_is_deleted(store: Store) -> None:
    other = changed(AN_UPLOAD, account="other@cloud")
    store.commit([PutUpload(AN_UPLOAD), PutUpload(other)])
    there = changed(AN_UPLOAD, end_us=9, url="bs://1")
    store.commit([PutUpload(there), PutUpload(changed(other, end_us=9))])
    assert store.load().uploads == (there,)


def test_evidence_that_says_nothing_any_more_is_deleted(store: Store) -> None:
    digest = "a" * 64
    known = AppKey(org_id="acme", app_version_id="1.2.0", digest=digest)
    trials = [Trial(app=app, refused_by=(DeviceId("d1"),), note_us=1) for app in (APP, known)]
    crossing = Crossing(subject="acme v1 a.spec.ts", places=((DeviceId("d1"), True),), note_us=1)
    store.commit([*map(PutTrial, trials), PutCrossing(crossing)])
    # The same bytes under another name are the same build.
    renamed = AppKey(org_id="acme", app_version_id="1.3.0", digest=digest)
    store.commit([PutTrial(Trial(app=renamed)), PutCrossing(Crossing(subject=crossing.subject))])
    assert store.load().trials == (trials[0],)
    assert store.load().crossings == ()
    store.commit([PutTrial(Trial(app=APP)), PutTrial(changed(trials[1], is_taken=True))])
    assert store.load().trials == (changed(trials[1], is_taken=True),)


def test_ended_attempt_comes_back_with_its_failure(store: Store) -> None:
    commit_a_running_job(store)
    ended = replace(an_attempt(outcome=AttemptOutcome.FAILED), end_us=9, failure=FAILURE, log_size=3, log_sha256="a")
    store.commit([PutAttempt(ended)])
    assert store.get_attempt(ended.id) == ended


def test_only_what_is_not_finished_is_loaded(store: Store) -> None:
    commit_a_running_job(store)
    store.commit(
        [
            PutJob(replace(a_job(state=JobState.COMPLETED), end_us=9)),
            PutAttempt(an_attempt(outcome=AttemptOutcome.PASSED)),
            PutLease(a_lease(state=LeaseState.RELEASED)),
            PutJob(a_job(2)),
        ]
    )
    snapshot = store.load()
    assert [job.id for job in snapshot.jobs] == [2]
    assert snapshot.attempts == ()
    assert snapshot.leases == ()
    assert [device.id for device in snapshot.devices] == ["pixel"]


def test_loaded_jobs_stand_in_submit_order(store: Store) -> None:
    jobs = [replace(a_job(number), sequence=a_job(10 - number).sequence) for number in range(1, 10)]
    store.commit([PutJob(job) for job in jobs])
    assert [job.id for job in store.load().jobs] == list(range(9, 0, -1))


def test_last_write_of_a_key_wins_within_a_batch(store: Store) -> None:
    store.commit([PutJob(a_job()), PutJob(a_job(state=JobState.ASSIGNED)), PutJob(a_job(state=JobState.RUNNING))])
    assert store.load().jobs == (a_job(state=JobState.RUNNING),)


def test_spec_of_an_accepted_job_never_changes(store: Store) -> None:
    store.commit([PutJob(a_job(labels={"team": "a"}))])
    store.commit([PutJob(a_job(state=JobState.ASSIGNED, labels={"team": "b"}, priority=5))])
    assert store.load().jobs == (a_job(state=JobState.ASSIGNED, labels={"team": "a"}),)


def test_order_of_writes_within_a_batch_is_free(store: Store) -> None:
    writes: list[Write] = [
        PutTest(an_attempt(), a_test()),
        PutAttempt(an_attempt()),
        PutLease(a_lease()),
        PutJob(a_job(labels={"team": "x"})),
        PutDevice(a_device()),
    ]
    store.commit(writes)
    assert store.tests_of(JobId(1)) == [(a_test(), 1)]


@pytest.mark.parametrize("apart", [False, True], ids=["in one commit", "in two commits"])
def test_ended_attempt_is_never_opened_again(store: Store, apart: bool) -> None:
    commit_a_running_job(store)
    ended = an_attempt(outcome=AttemptOutcome.LOST)
    commit_writes(store, [PutAttempt(ended), PutAttempt(an_attempt())], apart=apart)
    assert store.get_attempt(ended.id) == ended


@pytest.mark.parametrize("apart", [False, True], ids=["in one commit", "in two commits"])
def test_ended_attempt_keeps_its_first_outcome(store: Store, apart: bool) -> None:
    commit_a_running_job(store)
    lost = an_attempt(outcome=AttemptOutcome.LOST)
    commit_writes(store, [PutAttempt(lost), PutAttempt(an_attempt(outcome=AttemptOutcome.PASSED))], apart=apart)
    assert store.get_attempt(lost.id) == lost


@pytest.mark.parametrize("apart", [False, True], ids=["in one commit", "in two commits"])
def test_ended_lease_is_never_live_again(store: Store, apart: bool) -> None:
    commit_a_running_job(store)
    commit_writes(store, [PutLease(a_lease(state=LeaseState.EXPIRED)), PutLease(a_lease())], apart=apart)
    assert store.load().leases == ()


@pytest.mark.parametrize("apart", [False, True], ids=["in one commit", "in two commits"])
def test_ended_job_stays_ended(store: Store, apart: bool) -> None:
    cancelled = a_job(state=JobState.CANCELLED)
    store.commit([PutJob(a_job())])
    commit_writes(store, [PutJob(cancelled), PutJob(a_job(state=JobState.RUNNING))], apart=apart)
    assert store.get_job(cancelled.id) == cancelled


@pytest.mark.parametrize("apart", [False, True], ids=["in one commit", "in two commits"])
def test_result_of_an_earlier_attempt_never_replaces_that_of_a_later_one(store: Store, apart: bool) -> None:
    commit_a_running_job(store)
    late = PutTest(an_attempt(1), a_test(state=TestState.FAILED))
    commit_writes(store, [PutTest(an_attempt(2), a_test()), late], apart=apart)
    assert store.tests_of(JobId(1)) == [(a_test(), 2)]


def test_failures_of_earlier_attempts_are_kept_beside_the_newest_result(store: Store) -> None:
    commit_a_running_job(store)
    failed = replace(a_test(state=TestState.FAILED), error="no", begin_us=3)
    late = replace(a_test(state=TestState.TIMED_OUT), error="slow", begin_us=4)
    other = a_test("t2")
    store.commit([PutTest(an_attempt(1), a_test(state=TestState.RUNNING))])
    store.commit([PutTest(an_attempt(1), failed), PutTest(an_attempt(1), other)])
    assert store.earlier_failures_of(JobId(1)) == []
    for number, result in ((2, late), (3, replace(a_test(), begin_us=5))):
        running = replace(result, state=TestState.RUNNING, error="")
        attempt = replace(an_attempt(number), number=number)
        for test in (running, result, replace(other, state=TestState.SKIPPED)):
            store.commit([PutTest(attempt, test)])
    assert store.earlier_failures_of(JobId(1)) == [(failed, 1), (late, 2)]
    assert (replace(a_test(), begin_us=5), 3) in store.tests_of(JobId(1))


def commit_writes(store: Store, writes: Sequence[Write], *, apart: bool) -> None:
    for part in [[write] for write in writes] if apart else [list(writes)]:
        store.commit(part)


def test_batches_and_single_writes_lead_to_the_same_rows(open_store: OpenStore, store: Store) -> None:
    """The rules that fold a batch are those that the tables follow between commits."""
    for seed in range(30):
        writes = random_writes(random.Random(seed), first_id=100 * seed + 1)
        store.commit(writes)
        one_by_one = random_writes(random.Random(seed), first_id=100 * seed + 51)
        for write in one_by_one:
            store.commit([write])
        for number in range(1, 5):
            batched = store.get_attempt(AttemptId(100 * seed + number))
            single = store.get_attempt(AttemptId(100 * seed + 50 + number))
            assert (batched and batched.outcome) == (single and single.outcome), f"seed {seed}"
        for number in range(1, 5):
            both = store.get_jobs([JobId(100 * seed + number), JobId(100 * seed + 50 + number)])
            assert len({job.state for job in both}) == 1, f"seed {seed}"


def random_writes(chance: random.Random, first_id: int) -> list[Write]:
    device = a_device(f"device{first_id}")
    lease = a_lease(first_id, device=device.id)
    writes: list[Write] = [PutDevice(device), PutLease(lease)]
    writes += [PutJob(a_job(first_id + number)) for number in range(4)]
    for _ in range(20):
        number = first_id + chance.randrange(4)
        if chance.random() < 0.5:
            writes.append(PutJob(a_job(number, state=chance.choice(list(JobState)))))
        else:
            outcome = chance.choice([None, None, *AttemptOutcome])
            writes.append(PutAttempt(an_attempt(number, job=number, of_job=1, lease=first_id, outcome=outcome)))
    return writes


def test_a_device_can_be_granted_anew_in_the_commit_that_ends_its_lease(store: Store) -> None:
    commit_a_running_job(store)
    store.commit([PutLease(a_lease(2)), PutLease(a_lease(1, state=LeaseState.RELEASED))])
    assert [lease.id for lease in store.load().leases] == [2]


def test_second_live_lease_of_a_device_is_refused_whole(store: Store) -> None:
    commit_a_running_job(store)
    with pytest.raises(StoreError):
        store.commit([PutLease(a_lease(2)), PutJob(a_job(2))])
    assert [lease.id for lease in store.load().leases] == [1]
    assert store.get_job(JobId(2)) is None


def test_fence_is_given_out_once(store: Store) -> None:
    commit_a_running_job(store)
    store.commit([PutLease(a_lease(state=LeaseState.RELEASED))])
    with pytest.raises(StoreError):
        store.commit([PutLease(a_lease(2, fence_number=1))])


def test_accepted_request_is_found_by_its_key(store: Store) -> None:
    request = Request(org_id="acme", key="ci-1", payload_sha256="a" * 64, jobs=(JobId(1), JobId(2)))
    store.commit([PutRequest(request)])
    assert store.find_requests([("acme", "ci-1")]) == [request]
    assert store.find_requests([("other", "ci-1")]) == []


def test_key_that_is_used_twice_is_refused_with_its_jobs(store: Store) -> None:
    request = Request(org_id="acme", key="ci-1", payload_sha256="a" * 64, jobs=(JobId(1),))
    store.commit([PutRequest(request), PutJob(a_job(1))])
    with pytest.raises(StoreError):
        store.commit([PutJob(a_job(2)), PutRequest(replace(request, jobs=(JobId(2),)))])
    assert store.get_job(JobId(2)) is None


def test_build_of_an_app_version_is_replaced(store: Store) -> None:
    store.commit([PutBuild(a_build("a" * 64))])
    store.commit([PutBuild(a_build("b" * 64))])
    assert store.list_builds() == [a_build("b" * 64)]


def test_tests_are_listed_as_they_were_first_reported(store: Store) -> None:
    commit_a_running_job(store)
    for name in ("zebra", "apple", "mango"):
        store.commit([PutTest(an_attempt(), a_test(name, TestState.RUNNING))])
    store.commit([PutTest(an_attempt(), a_test(name)) for name in ("mango", "apple", "zebra")])
    assert [test.id for test, _ in store.tests_of(JobId(1))] == ["zebra", "apple", "mango"]
    assert {test.state for test, _ in store.tests_of(JobId(1))} == {TestState.PASSED}


def test_tests_are_listed_as_they_ran_though_the_first_was_reported_last(store: Store) -> None:
    commit_a_running_job(store)
    for name, begin_us in (("zebra", 1), ("mango", 300), ("apple", 20)):
        store.commit([PutTest(an_attempt(), replace(a_test(name), begin_us=begin_us))])
    assert [test.id for test, _ in store.tests_of(JobId(1))] == ["zebra", "apple", "mango"]


def test_tests_of_many_jobs_are_told_apart(store: Store) -> None:
    commit_a_running_job(store)
    dated = replace(a_test("t2"), begin_us=3)
    store.commit([PutJob(a_job(2)), PutTest(an_attempt(2, job=2), a_test()), PutTest(an_attempt(), dated)])
    found = store.tests_of_jobs([JobId(1), JobId(2), JobId(3)])
    assert found == {1: [(dated, 1)], 2: [(a_test(), 2)]}


def test_what_was_committed_is_there_after_reopening(open_store: OpenStore, store: Store) -> None:
    commit_a_running_job(store)
    store.close()
    again = open_store()
    assert again.cluster_id == store.cluster_id
    assert again.storage_id == store.storage_id
    assert again.load().jobs == (a_job(),)


def test_restored_database_has_another_name_and_whoever_wrote_to_it_before_is_fenced_off(
    open_store: OpenStore, store: Store
) -> None:
    commit_a_running_job(store)
    again = open_store()
    again.begin_new_cluster()
    assert again.cluster_id != store.cluster_id
    assert open_store().cluster_id == again.cluster_id
    assert again.load().jobs == (a_job(),)
    with pytest.raises(StaleEpoch):
        store.commit([PutJob(a_job(2))])


def test_epoch_rises_with_every_start(open_store: OpenStore) -> None:
    assert [open_store().start_epoch().epoch for _ in range(3)] == [1, 2, 3]


def test_commit_of_an_old_epoch_is_refused_whole(open_store: OpenStore, store: Store) -> None:
    newer = open_store()
    newer.start_epoch()
    alone: list[Write] = [PutJob(a_job())]
    for writes in (alone, [*alone, PutCounters(Counters(epoch=1, next_job=50))]):
        with pytest.raises(StaleEpoch):
            store.commit(writes)
    assert newer.load().jobs == ()
    assert newer.load().counters == Counters(epoch=2)


def test_new_jobs_are_told_from_known_ones_after_reopening(open_store: OpenStore, store: Store) -> None:
    store.commit([PutJob(a_job(3, labels={"n": "3"}))])
    again = open_store()
    again.start_epoch()
    again.commit([PutJob(a_job(number, labels={"n": str(number)})) for number in (1, 3, 5)])
    for number in (1, 3, 5):
        assert [job.id for job in again.list_jobs(JobFilter(labels=(("n", str(number)),)), 9)] == [number]


def test_jobs_at_work_are_known_without_a_query(store: Store) -> None:
    queries: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT jobs."):
            queries.append(statement)

    store.commit([PutJob(a_job())])
    store.commit([PutJob(a_job(state=JobState.ASSIGNED))])
    event.listen(store._writer, "before_cursor_execute", note)
    store.commit([PutJob(a_job(state=JobState.RUNNING))])
    store.commit([PutJob(a_job(state=JobState.COMPLETED))])
    assert queries == []
    store.commit([PutJob(a_job(state=JobState.COMPLETED))])
    assert len(queries) == 1
    found = store.get_job(JobId(1))
    assert found is not None
    assert found.state is JobState.COMPLETED


def test_reads_never_see_an_open_commit(store: Store) -> None:
    with store._writer.begin() as connection:
        assert store._batches is not None
        store._batches._write_jobs(connection, [a_job()])
        assert store.load().jobs == ()
    assert store.load().jobs == (a_job(),)


def test_ids_beyond_the_range_of_a_key_are_not_found(store: Store) -> None:
    for number in (0, -1, 2**63, 2**80):
        assert store.get_job(JobId(number)) is None
        assert store.get_attempt(AttemptId(number)) is None
        assert store.lease_of(AttemptId(number)) is None
        assert store.attempts_of(JobId(number)) == []
        assert store.tests_of(JobId(number)) == []
        assert store.list_jobs(JobFilter(ids=(JobId(number),)), 9) == []
