"""The worker of the classic stack."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from celery import Celery
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from benchmarks.classic.records import BROKER, LOGS, NOTE, Job, engine

app = Celery("classic", broker=os.environ[BROKER])
app.conf.update(
    # A task whose worker dies is run again, as a job of ours is.
    task_acks_late=True,
    task_ignore_result=True,
    # The producers are acquired by as many threads as serve calls.
    broker_pool_limit=40,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@cache
def database() -> Engine:
    """Return the connections of this process, which are made in it and not before it was forked."""
    return engine(1)


@app.task
def run_test(job: int, env: dict[str, str]) -> None:
    """Pretend to run a test, as our simulated devices do; note when it began where a path is given for that."""
    if (path := env.get(NOTE)) is not None:
        with Path(path).open("a") as notes:
            notes.write(f"{job} {time.time()}\n")
    with Session(database()) as session, session.begin():
        session.execute(update(Job).where(Job.id == job).values(state="running", start_time=_now()))
    log = Path(os.environ[LOGS], f"{job}.log")
    with log.open("wb") as file:
        for number in range(int(env.get("QGJOB_SIM_LOG_LINES", "5"))):
            file.write(b"line %d\n" % number)
        size = file.tell()
    with Session(database()) as session, session.begin():
        done = update(Job).where(Job.id == job)
        session.execute(done.values(state="completed", end_time=_now(), log_size=size))


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
