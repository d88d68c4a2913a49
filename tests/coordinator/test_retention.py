from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from coordinator import retention
from coordinator.core.logfile import LogState
from coordinator.core.model import Attempt, AttemptId, JobId, JobState
from coordinator.core.step import PutAttempt, PutJob
from coordinator.logstore import LogStore
from coordinator.retention import Limits, Pruned, Retention
from coordinator.storage import Storage
from coordinator.store import Recording, Store
from tests.coordinator.conftest import MakeStorage
from tests.coordinator.test_logstore import append, content
from tests.store.records import a_job
from tests.store.test_artifacts import an_artifact
from tests.store.test_pruning import commit_ended, request


@dataclass
class Archive:
    """Jobs 1 to 9 that ended at 100 times their number, each with a log of 100 bytes."""

    store: Store
    storage: Storage
    logs: LogStore
    now_us: int = 1_000
    dropped: list[str] = field(default_factory=list)
    """Blobs whose bytes were freed."""

    def retention(self, **limits: int) -> Retention:
        return Retention(self.store, self.logs, Limits(**limits), lambda: self.now_us, self._drop)

    async def _drop(self, digests: Collection[str]) -> None:
        named = self.store.artifact_blobs(digests)
        self.dropped += [digest for digest in sorted(digests) if digest not in named]

    def leave(self, number: int, *, size: int = 100, digest: str = "") -> str:
        """Let an attempt have an artifact, stored when its job ended; return its blob."""
        artifact = replace(an_artifact(attempt=number, size=size), create_us=100 * number)
        artifact = replace(artifact, digest=digest) if digest else artifact
        assert self.store.record_artifact(artifact) is Recording.RECORDED
        return artifact.digest

    def with_artifacts(self) -> list[int]:
        return [kept.attempt for kept in self.store.oldest_artifacts(None, 100)]

    def jobs(self) -> list[int]:
        return [number for number in range(1, 10) if self.store.get_job(JobId(number)) is not None]

    def files(self) -> list[int]:
        return sorted(attempt for attempt, _ in self.storage.sizes())

    def attempt(self, number: int) -> Attempt:
        found = self.store.get_attempt(AttemptId(number))
        assert found is not None
        return found


@pytest.fixture
async def archive(make_storage: MakeStorage, tmp_path: Path) -> AsyncIterator[Archive]:
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    store.start_epoch()
    storage = make_storage()
    logs = LogStore(storage, store)
    for number in range(1, 10):
        commit_ended(store, number, end_us=100 * number, lease=number)
        await append(logs, b"x" * 100, attempt=AttemptId(number))
    yield Archive(store, storage, logs)
    await logs.close()
    store.close()


async def test_jobs_go_by_age_with_their_requests_and_logs(archive: Archive) -> None:
    archive.store.commit([request("k", 1, 2), request("l", 3)])
    assert await archive.retention(age_us=750).run_once() == Pruned(jobs=2, requests=1, logs=2)
    assert archive.jobs() == archive.files() == [3, 4, 5, 6, 7, 8, 9]
    assert archive.store.find_requests([("acme", "l")])
    assert await archive.retention(age_us=750).run_once() == Pruned()


async def test_without_limits_everything_stays(archive: Archive) -> None:
    archive.now_us = 2**60
    assert await archive.retention().run_once() == Pruned()
    assert len(archive.jobs()) == 9


async def test_oldest_logs_give_way_when_all_together_are_too_large(archive: Archive) -> None:
    assert await archive.retention(log_bytes=450).run_once() == Pruned(emptied=5, logs=5)
    assert archive.files() == [6, 7, 8, 9]
    assert len(archive.jobs()) == 9
    assert await content(archive.logs, AttemptId(1)) == b""
    assert await archive.logs.state(archive.attempt(1)) is LogState.TRUNCATED
    assert await content(archive.logs, AttemptId(6)) == b"x" * 100
    assert await archive.retention(log_bytes=450).run_once() == Pruned()


async def test_log_of_a_job_that_goes_on_is_never_emptied(archive: Archive) -> None:
    job = a_job(10, state=JobState.RUNNING)
    running = replace(archive.attempt(1), id=AttemptId(10), job=job.id, outcome=None, end_us=None)
    archive.store.commit([PutJob(job), PutAttempt(running)])
    await append(archive.logs, b"y" * 100, attempt=AttemptId(10))
    await archive.retention(log_bytes=0).run_once()
    assert archive.files() == [10]


async def test_emptied_log_takes_no_bytes_any_more(archive: Archive) -> None:
    await archive.retention(log_bytes=0).run_once()
    assert (await append(archive.logs, b"late", attempt=AttemptId(1))).is_closed
    assert archive.files() == []


async def test_pass_that_was_cut_after_the_rows_is_finished_by_the_next(archive: Archive) -> None:
    archive.store.forget_jobs([JobId(1), JobId(2)])
    assert archive.files() == list(range(1, 10))
    assert await archive.retention().run_once() == Pruned(logs=2)
    assert archive.files() == list(range(3, 10))


async def test_pass_that_was_cut_after_the_bytes_is_finished_by_the_next(archive: Archive) -> None:
    archive.store.forget_jobs([JobId(1)])
    archive.storage.remove(AttemptId(1))
    assert await archive.retention().run_once() == Pruned(logs=1)
    assert archive.store.log_of(AttemptId(1)).parts == ()


async def test_each_step_is_small(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "JOBS_PER_STEP", 4)
    forget_jobs = archive.store.forget_jobs
    steps: list[int] = []

    def counted(ids: list[JobId]) -> set[str]:
        steps.append(len(ids))
        return forget_jobs(ids)

    monkeypatch.setattr(archive.store, "forget_jobs", counted)
    await archive.retention(age_us=0).run_once()
    assert steps == [4, 4, 1]


async def test_artifacts_go_by_age_while_their_jobs_stay_and_shared_bytes_with_the_last(archive: Archive) -> None:
    shared = archive.leave(1)
    own = archive.leave(2)
    archive.leave(3, digest=shared)
    assert await archive.retention(artifact_age_us=700).run_once() == Pruned(artifacts=2)
    assert (archive.with_artifacts(), archive.dropped) == ([3], [own])
    assert len(archive.jobs()) == 9
    archive.now_us = 2_000
    assert await archive.retention(artifact_age_us=700).run_once() == Pruned(artifacts=1)
    assert archive.dropped == [own, shared]
    assert await archive.retention(artifact_age_us=700).run_once() == Pruned()


async def test_artifacts_of_the_oldest_attempts_give_way_when_all_together_are_too_large(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ATTEMPTS_PER_STEP", 2)
    for number in range(1, 10):
        archive.leave(number)
    assert await archive.retention(artifact_bytes=450).run_once() == Pruned(artifacts=5)
    assert archive.with_artifacts() == [6, 7, 8, 9]
    assert await archive.retention(artifact_bytes=450).run_once() == Pruned()


async def test_artifacts_that_share_their_bytes_go_until_some_are_freed(archive: Archive) -> None:
    digest = archive.leave(1)
    for number in (2, 3):
        archive.leave(number, digest=digest)
    archive.leave(4)
    assert await archive.retention(artifact_bytes=100).run_once() == Pruned(artifacts=3)
    assert (archive.with_artifacts(), archive.dropped) == ([4], [digest])


async def test_artifacts_of_a_job_that_goes_on_stay(archive: Archive) -> None:
    job = a_job(10, state=JobState.RUNNING)
    running = replace(archive.attempt(1), id=AttemptId(10), job=job.id)
    archive.store.commit([PutJob(job), PutAttempt(running)])
    archive.leave(10)
    archive.now_us = 2**60
    assert await archive.retention(artifact_bytes=0, artifact_age_us=1).run_once() == Pruned()


async def test_artifacts_go_with_their_job(archive: Archive) -> None:
    digest = archive.leave(1)
    archive.leave(9)
    assert await archive.retention(age_us=850).run_once() == Pruned(jobs=1, logs=1)
    assert (archive.with_artifacts(), archive.dropped) == ([9], [digest])
