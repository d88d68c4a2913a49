"""Users who submit, cancel and follow all the time, whatever happens to the lab, and remember what they were told."""

from __future__ import annotations

import functools
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from qgjob.client import Client
from qgjob.errors import ClientError
from qgjob.v1.job_pb2 import LOG_STATE_COMPLETE, LOG_STATE_TRUNCATED, JobFilter, JobSpec

Answer = TypeVar("Answer")

APPS = ("v1", "v2", "v3")
ORGS = ("acme", "globex")
OUTCOMES = ("passed",) * 8 + ("failed", "failed", "hang", "error")
CANCELS_ONE_IN = 8
FOLLOWERS = 3
"""At a time; they come and go."""
MOST_PIECES = 12
"""A follower that loses interest has read at most so many pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What a follower of a job's log saw."""

    job: int
    seen: dict[int, bytes] = field(default_factory=dict)
    """Attempt, by its number -> bytes."""
    whole: set[int] = field(default_factory=set)
    """Attempts whose end was told."""


class Load:
    """Works until it is told to stop. Each submit has a key, and each call is repeated until answered."""

    def __init__(self, address: str, seed: int) -> None:
        self._client = Client(address)
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        follow = [functools.partial(self._follow_all_the_time, random.Random(seed + n)) for n in range(FOLLOWERS)]
        works = (self._submit_all_the_time, *follow)
        self._threads = [threading.Thread(target=self._run, args=(work,), name="load") for work in works]
        self.accepted: dict[int, str] = {}
        """Job -> how its test was to end."""
        self.cancelled: set[int] = set()
        """Jobs whose end was asked for."""
        self.followed: list[Followed] = []
        self.repeated = 0
        self.failure: ClientError | None = None
        """The first refusal that no repetition can mend: users must never see one."""

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Work while the context lasts."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        except BaseException:
            # The lab may be gone, and whoever waits for it must not hide why.
            self.close()
            raise
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ClientError as error:
            if not self._client.is_closed:
                self.failure = error

    def _follow_all_the_time(self, fickle: random.Random) -> None:
        while not self._stopping.wait(fickle.uniform(0.05, 0.3)):
            if recent := list(self.accepted)[-20:]:
                self._follow(fickle.choice(recent), fickle.choice((None, fickle.randint(1, MOST_PIECES))))

    def _follow(self, job: int, most: int | None) -> None:
        """Read a log as it grows, to its end or until it becomes boring."""
        followed = Followed(job=job)
        self.followed.append(followed)
        for piece in itertools.islice(self._client.follow_logs(job), most):
            followed.seen[piece.attempt] = followed.seen.get(piece.attempt, b"") + piece.data
            if piece.state in (LOG_STATE_COMPLETE, LOG_STATE_TRUNCATED):
                followed.whole.add(piece.attempt)
            if self._stopping.is_set():
                return

    def _submit_all_the_time(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            outcomes = [self._random.choice(OUTCOMES) for _ in range(self._random.randint(1, 4))]
            org = self._random.choice(ORGS)
            specs = [self._spec(org, f"t{number}-{index}", outcome) for index, outcome in enumerate(outcomes)]
            for job, outcome in zip(self._submit(specs, f"key-{number}"), outcomes, strict=True):
                self.accepted[job] = outcome
            self._stopping.wait(self._random.uniform(0.05, 0.3))
            if self._random.randrange(CANCELS_ONE_IN) == 0:
                self._cancel(self._random.choice(list(self.accepted)[-20:]))

    def _cancel(self, job: int) -> None:
        self.cancelled.add(job)
        self._until_answered(lambda: self._client.cancel_jobs([job]))

    def _submit(self, specs: list[JobSpec], key: str) -> list[int]:
        return [job.id for job in self._until_answered(lambda: self._client.submit_jobs(specs, request_id=key).jobs)]

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return call()
            except ClientError as error:
                if error.reason not in ("UNREACHABLE", "SHUTTING_DOWN", "NOT_LEADER") or self._client.is_closed:
                    raise
                self.repeated += 1

    def _spec(self, org: str, name: str, outcome: str) -> JobSpec:
        spec = JobSpec(
            org_id=org,
            app_version_id=self._random.choice(APPS),
            test=f"tests/{name}.spec.ts",
            priority=self._random.randint(1, 5),
            env={
                "QGJOB_SIM_OUTCOME": outcome,
                "QGJOB_SIM_SECONDS": f"{self._random.uniform(0.02, 0.4):.2f}",
                "QGJOB_SIM_LOG_LINES": str(self._random.choice((1, 20, 400))),
            },
        )
        spec.timeout.FromMilliseconds(1_000)
        return spec

    def wait_until_all_ended(self, seconds: float) -> None:
        """Watch every accepted job to its end.

        Raises:
            TimeoutError: Some did not end in time.
        """
        for _ in self._client.watch_jobs(JobFilter(ids=list(self.accepted)), timeout_s=seconds):
            pass

    def close(self) -> None:
        self._client.close()
