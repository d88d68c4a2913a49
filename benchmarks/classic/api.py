"""The API of the classic stack.

python -m benchmarks.classic.api

Prints its port, which nobody else can have taken.
"""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from benchmarks.classic.records import Job, Request, engine
from benchmarks.classic.tasks import app as broker
from benchmarks.classic.tasks import run_test

THREADS = 40
"""FastAPI runs as many calls at once."""

app = FastAPI()
database = engine(THREADS)


class Spec(BaseModel):
    """One test to run."""

    app_version_id: str = Field(max_length=128)
    test: str = Field(max_length=1_024)
    priority: int = Field(3, ge=1, le=5)
    target: str = "any"
    env: dict[str, str] = {}


class Submit(BaseModel):
    """Tests to run, all or none."""

    org_id: str = Field(max_length=128)
    jobs: list[Spec] = Field(min_length=1, max_length=10_000)
    request_id: str = Field(max_length=128)


class Accepted(BaseModel):
    """A job that was accepted."""

    id: int
    org_id: str
    app_version_id: str
    test: str
    priority: int
    target: str
    state: str


@app.post("/jobs/submit", status_code=201)
def submit(wanted: Submit) -> list[Accepted]:
    with Session(database, expire_on_commit=False) as session, session.begin():
        known = session.get(Request, (wanted.org_id, wanted.request_id))
        if known is not None:
            return [_accepted(session.get_one(Job, known.job))]
        jobs = [Job(org_id=wanted.org_id, state="queued", **spec.model_dump()) for spec in wanted.jobs]
        session.add_all(jobs)
        session.flush()
        session.add(Request(org_id=wanted.org_id, key=wanted.request_id, job=jobs[0].id))
    with broker.producer_pool.acquire(block=True) as producer:
        for job in jobs:
            run_test.apply_async((job.id, job.env), producer=producer)
    return [_accepted(job) for job in jobs]


def _accepted(job: Job) -> Accepted:
    return Accepted.model_validate(job, from_attributes=True)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2_048) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
