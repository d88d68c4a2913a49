"""Users who submit all the time, whatever happens to the lab, and remember what they were told."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qgjob.client import Client
from qgjob.errors import ClientError
from qgjob.v1.job_pb2 import JobFilter, JobSpec

APPS = ("v1", "v2", "v3")
ORGS = ("acme", "globex")
OUTCOMES = ("passed", "passed", "passed", "passed", "failed", "hang")


class Load:
    """Submits jobs of every kind until it is told to stop. Each submit has a key, and is repeated until answered."""

    def __init__(self, address: str, seed: int) -> None:
        self._client = Client(address)
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.accepted: dict[int, str] = {}
        """Job -> how its test was to end."""
        self.repeated = 0
        self.failure: ClientError | None = None
        """The first refusal that no repetition can mend: users must never see one."""

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Submit while the context lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self._submit_all_the_time()
        except ClientError as error:
            self.failure = error

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

    def _submit(self, specs: list[JobSpec], key: str) -> list[int]:
        while True:
            try:
                return [job.id for job in self._client.submit_jobs(specs, request_id=key).jobs]
            except ClientError as error:
                if error.reason not in ("UNREACHABLE", "SHUTTING_DOWN"):
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
