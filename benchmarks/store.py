"""Measures the store beside bare sqlite3 with the same rows, and its queries on many jobs.

python -m benchmarks.store [JOBS]
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from coordinator.core.model import Job, JobId, JobSpec, JobState, SubmitSequence
from coordinator.core.step import PutJob
from coordinator.store import JobFilter, Store, rows

BATCH = 10_000


def main() -> None:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(f"sqlite:///{directory}/store.db")
        store.start_epoch()
        writes = [PutJob(job) for job in jobs(1, BATCH)]
        ours_s = timed(f"insert {BATCH} jobs with 2 labels each, one commit", lambda: store.commit(writes))
        bare_s = insert_bare(Path(directory), [write.job for write in writes])
        print(f"  the same rows by bare sqlite3 executemany: {bare_s * 1_000:.1f} ms, ratio {ours_s / bare_s:.1f}")
        moved = [PutJob(replace(write.job, state=JobState.ASSIGNED)) for write in writes]
        timed(f"update {BATCH} jobs, one commit", lambda: store.commit(moved))
        single = [PutJob(replace(write.job, state=JobState.RUNNING)) for write in writes[:500]]

        def commit_each() -> None:
            for write in single:
                store.commit([write])

        each_s = timed(f"{len(single)} commits of one job", commit_each)
        print(f"  {len(single) / each_s:.0f} commits a second")
        for first in range(BATCH + 1, total + 1, BATCH):
            store.commit([PutJob(job) for job in jobs(first, BATCH)])
        read(store, total)
        store.close()


def read(store: Store, total: int) -> None:
    filters = {
        "nothing": JobFilter(),
        "one state": JobFilter(states=(JobState.QUEUED,)),
        "three states": JobFilter(states=(JobState.QUEUED, JobState.RUNNING, JobState.FAILED)),
        "a rare label": JobFilter(labels=(("number", "7"),)),
        "two labels, old ones": JobFilter(labels=(("team", "checkout"), ("number", "7"))),
        "priority, none": JobFilter(priority=1),
    }
    for name, wanted in filters.items():
        timed(f"page of 100 of {total} jobs, filter: {name}", partial(store.list_jobs, wanted, 100))
    timed(f"page of 100 in the middle of {total}", lambda: store.list_jobs(JobFilter(), 100, JobId(total // 2)))
    timed(f"load {total} unfinished jobs", store.load)


def jobs(first: int, count: int, *, labels: bool = True) -> list[Job]:
    return [
        Job(
            id=JobId(number),
            sequence=SubmitSequence(number),
            spec=JobSpec(
                org_id="acme",
                app_version_id="1.2.0",
                test=f"tests/spec{number}.ts",
                env={"LOCALE": "de"},
                labels={"team": "checkout", "number": str(number % 1_000)} if labels else {},
                run="nightly",
            ),
            state=JobState.QUEUED,
            create_us=1,
        )
        for number in range(first, first + count)
    ]


def insert_bare(directory: Path, inserted: list[Job]) -> float:
    """Insert prepared rows into the same tables of another database, and return the seconds that it took."""
    with closing(bare_database(directory)) as database:
        return insert_rows(database, inserted)


def bare_database(directory: Path) -> sqlite3.Connection:
    """Return a connection to an empty database with the same tables, which syncs every commit."""
    Store.open(f"sqlite:///{directory}/bare.db").close()
    connection = sqlite3.connect(directory / "bare.db", isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def insert_rows(connection: sqlite3.Connection, inserted: list[Job]) -> float:
    """Insert the rows of jobs in one transaction, and return the seconds that it took without making them."""
    values = [rows.accepted_values(job) | rows.progress_values(job) for job in inserted]
    labels = [value for job in inserted for value in rows.label_values(job)]
    columns = list(values[0])
    jobs_in = [tuple(value.values()) for value in values]
    labels_in = [tuple(label.values()) for label in labels]
    started = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT INTO jobs ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})", jobs_in)
    connection.executemany("INSERT INTO job_labels (name, value, job) VALUES (?, ?, ?)", labels_in)
    connection.execute("COMMIT")
    return time.perf_counter() - started


def timed(name: str, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    took_s = time.perf_counter() - started
    print(f"{name}: {took_s * 1_000:.1f} ms")
    return took_s


if __name__ == "__main__":
    main()
