from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from coordinator.core.model import JobId, JobState
from coordinator.core.step import PutJob
from coordinator.store import JobFilter, Store, StoreBusy, StoreError, StoreFull, dialect
from tests.store.committer import JOBS_PER_COMMIT
from tests.store.records import a_job

ROOT = Path(__file__).parents[2]


def test_killed_in_the_middle_of_commits_nothing_is_half_there_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'qgjob.db'}"
    chance = random.Random(3)
    for life in range(1, 6):
        acknowledged = kill_after(url, commits=chance.randint(1, 40))
        store = Store.open(url)
        snapshot = store.load()
        assert snapshot.counters.epoch == life
        assert snapshot.counters.next_job >= acknowledged
        assert [job.id for job in snapshot.jobs] == list(range(1, snapshot.counters.next_job))
        last = snapshot.counters.next_job - JOBS_PER_COMMIT
        assert len(store.list_jobs(JobFilter(labels=(("n", str(last)),)), 99)) == JOBS_PER_COMMIT
        store.close()


def kill_after(url: str, commits: int) -> int:
    """Let a process commit, kill it while it goes on, and return what it said to be durable."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.committer", url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    acknowledged = 0
    with process:
        for line in process.stdout:
            if line.strip() != "ready":
                acknowledged = int(line)
                commits -= 1
            if commits <= 0:
                break
        process.kill()
        rest = process.stdout.read().split()
    return int(rest[-1]) if rest and rest[-1].isdigit() else acknowledged


@pytest.fixture
def file_store(tmp_path: Path) -> Store:
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    store.start_epoch()
    return store


def test_full_disk_refuses_the_commit_whole_and_goes_on_when_there_is_room(file_store: Store) -> None:
    file_store.commit([PutJob(a_job(1))])
    limit_pages(file_store, extra=2)
    with pytest.raises(StoreFull):
        file_store.commit([PutJob(a_job(number)) for number in range(1, 2_000)])
    assert [job.id for job in file_store.load().jobs] == [1]
    limit_pages(file_store, extra=100_000)
    file_store.commit([PutJob(a_job(number)) for number in range(1, 2_000)])
    assert len(file_store.load().jobs) == 1_999
    file_store.close()


def limit_pages(store: Store, extra: int) -> None:
    with store._writer.connect() as connection:
        pages = connection.scalar(text("PRAGMA page_count"))
        assert pages is not None
        connection.execute(text(f"PRAGMA max_page_count={pages + extra}"))


def test_full_tmpfs_refuses_the_commit_whole(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        store = Store.open(f"sqlite:///{mount / 'qgjob.db'}")
        store.start_epoch()
        committed = commit_until_full(store)
        assert [job.id for job in store.load().jobs] == list(range(1, committed + 1))
        store.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def commit_until_full(store: Store) -> int:
    """Commit jobs until there is no room, and return how many were taken."""
    for first in range(1, 100_000, 500):
        try:
            store.commit([PutJob(a_job(number)) for number in range(first, first + 500)])
        except StoreFull:
            return first - 1
    raise AssertionError("the disk never filled")


def test_lock_that_is_held_too_long_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialect, "BUSY_TIMEOUT_S", 0.05)
    url = f"sqlite:///{tmp_path / 'qgjob.db'}"
    holder, store = Store.open(url), Store.open(url)
    store.start_epoch()
    with holder._writer.begin(), pytest.raises(StoreBusy):
        store.commit([PutJob(a_job())])
    store.commit([PutJob(a_job())])
    assert store.get_job(JobId(1)) == a_job()
    holder.close()
    store.close()


def test_readers_cannot_write(file_store: Store) -> None:
    with pytest.raises(StoreError):
        file_store._read(lambda connection: connection.execute(text("DELETE FROM counters")))
    file_store.close()


def test_store_can_be_used_after_a_commit_failed(file_store: Store) -> None:
    file_store.commit([PutJob(a_job())])
    broken = a_job(2, run="\ud800")  # a lone surrogate cannot be written as UTF-8
    with pytest.raises((StoreError, UnicodeEncodeError)):
        file_store.commit([PutJob(a_job(state=JobState.RUNNING)), PutJob(broken)])
    assert file_store.get_job(JobId(1)) == a_job()
    file_store.commit([PutJob(a_job(state=JobState.RUNNING))])
    assert file_store.get_job(JobId(1)) == a_job(state=JobState.RUNNING)
    file_store.close()
