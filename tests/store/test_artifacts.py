"""Artifacts in both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.artifacts import Artifact, ArtifactKind
from coordinator.core.model import AttemptId, JobId, JobState
from coordinator.core.step import PutAttempt, PutDevice, PutJob, PutLease
from coordinator.store import Recording, Store
from coordinator.store import artifacts as queries
from tests.store.records import a_device, a_job, a_lease, an_attempt
from tests.store.test_pruning import commit_ended


def an_artifact(name: str = "junit.xml", *, attempt: int = 1, number: int = 1, size: int = 10) -> Artifact:
    return Artifact(
        job=JobId(attempt),
        attempt=AttemptId(attempt),
        attempt_number=number,
        name=name,
        kind=ArtifactKind.JUNIT,
        content_type="application/xml",
        size=size,
        digest=f"{attempt}{name}".encode().hex().ljust(64, "0"),
        create_us=100 * attempt,
    )


def test_artifact_is_recorded_once_and_no_other_takes_its_place(store: Store) -> None:
    commit_ended(store, 1, end_us=10)
    artifact = an_artifact()
    assert store.record_artifact(artifact) is Recording.RECORDED
    assert store.record_artifact(replace(artifact, create_us=7)) is Recording.RECORDED
    assert store.record_artifact(replace(artifact, digest="e" * 64)) is Recording.OTHER_BYTES
    assert store.artifacts_of(JobId(1), (0, ""), 9) == [artifact]
    assert store.get_artifact(JobId(1), 1, "junit.xml") == artifact
    assert store.get_artifact(JobId(1), 2, "junit.xml") is None


def test_artifact_of_an_attempt_that_is_not_there_is_refused(store: Store) -> None:
    assert store.record_artifact(an_artifact()) is Recording.ATTEMPT_GONE
    commit_ended(store, 1, end_us=10)
    assert store.record_artifact(replace(an_artifact(), job=JobId(2))) is Recording.ATTEMPT_GONE


def test_attempt_has_no_more_files_and_bytes_than_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_FILES", 2)
    monkeypatch.setattr(queries, "MAX_ATTEMPT_BYTES", 25)
    commit_ended(store, 1, end_us=10)
    assert store.record_artifact(an_artifact("a", size=26)) is Recording.TOO_MUCH
    assert store.record_artifact(an_artifact("a")) is Recording.RECORDED
    assert store.record_artifact(an_artifact("b", size=16)) is Recording.TOO_MUCH
    assert store.record_artifact(an_artifact("b", size=15)) is Recording.RECORDED
    assert store.record_artifact(an_artifact("c", size=0)) is Recording.TOO_MUCH
    assert store.record_artifact(an_artifact("a")) is Recording.RECORDED, "one that is there needs no room"


def test_artifacts_are_read_page_by_page_in_the_order_of_attempts_and_names(store: Store) -> None:
    store.commit([PutDevice(a_device()), PutLease(a_lease()), PutJob(a_job(1, state=JobState.RUNNING))])
    names = [(1, "b"), (1, "a"), (2, "a"), (10, "a")]
    for attempt, (number, name) in enumerate(names, 1):
        store.commit([PutAttempt(an_attempt(attempt, job=1, of_job=attempt))])
        artifact = replace(an_artifact(name, attempt=attempt), job=JobId(1), attempt_number=number)
        assert store.record_artifact(artifact) is Recording.RECORDED
    read = []
    after = (0, "")
    while page := store.artifacts_of(JobId(1), after, 2):
        read += [(one.attempt_number, one.name) for one in page]
        after = read[-1]
    assert read == sorted(names)


def test_forgotten_job_tells_which_blobs_its_artifacts_were(store: Store) -> None:
    commit_ended(store, 1, end_us=10, lease=1)
    commit_ended(store, 2, end_us=20, lease=2)
    ours, shared = an_artifact("a"), an_artifact("b")
    for artifact in (ours, shared, replace(an_artifact("c", attempt=2), digest=shared.digest)):
        store.record_artifact(artifact)
    assert store.forget_jobs([JobId(1)]) == {ours.digest, shared.digest}
    assert store.artifact_blobs({ours.digest, shared.digest}) == {shared.digest}
    assert store.artifacts_of(JobId(1), (0, ""), 9) == []


def test_oldest_artifacts_are_those_of_ended_jobs_and_shared_bytes_count_once(store: Store) -> None:
    for number in (1, 2, 3):
        commit_ended(store, number, end_us=10 * number, lease=number)
        store.record_artifact(replace(an_artifact("a", attempt=number, size=7), digest="f" * 64))
        store.record_artifact(an_artifact("b", attempt=number))
    store.commit([PutJob(a_job(4, state=JobState.RUNNING)), PutAttempt(an_attempt(4, job=4, of_job=1, lease=1))])
    store.record_artifact(an_artifact("a", attempt=4))
    assert [(kept.attempt, kept.size) for kept in store.oldest_artifacts(None, 9)] == [(1, 17), (2, 17), (3, 17)]
    assert [kept.attempt for kept in store.oldest_artifacts(201, 9)] == [1, 2]
    assert store.artifact_bytes() == 7 + 4 * 10
    assert len(store.forget_artifacts([AttemptId(1)])) == 2
    assert [kept.attempt for kept in store.oldest_artifacts(None, 9)] == [2, 3]
