"""A process that commits for ever and says what was acknowledged; it is killed in the middle.

Commit n holds ten jobs, their labels, and counters that count them: whatever survives must agree with itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from coordinator.core.step import PutCounters, PutJob
from coordinator.store import Store
from tests.store.records import a_job

JOBS_PER_COMMIT = 10


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(url: str) -> None:
    store = Store.open(url)
    counters = store.start_epoch()
    say("ready")
    while True:
        first = counters.next_job
        counters = replace(counters, next_job=first + JOBS_PER_COMMIT)
        jobs = [a_job(number, labels={"n": str(first)}) for number in range(first, first + JOBS_PER_COMMIT)]
        store.commit([*(PutJob(job) for job in jobs), PutCounters(counters)])
        say(str(counters.next_job))


if __name__ == "__main__":
    main(sys.argv[1])
