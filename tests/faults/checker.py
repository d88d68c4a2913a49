"""Judges a whole run by what users were told, what the coordinator has, and what the devices wrote down themselves."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

from qgjob import resources
from qgjob.client import Client
from qgjob.v1.job_pb2 import JobFilter
from tests.faults.load import Followed, Load

FINAL = {"passed": "completed", "failed": "failed", "hang": "timed_out", "error": "errored"}
VERDICTS = ("passed", "failed", "timed_out")


class Verdict:
    """What a run came to. Every method asserts one promise."""

    def __init__(
        self,
        *,
        accepted: dict[int, str],
        jobs: dict[int, dict[str, Any]],
        listed: list[int],
        truth: list[list[dict[str, Any]]],
        read_log: Callable[[int, int], bytes],
        cancelled: Collection[int] = (),
        followed: Collection[Followed] = (),
    ) -> None:
        """Take what is judged.

        Args:
            accepted: Job -> how its test was to end, as users were told.
            jobs: Their JSON, as the coordinator has them.
            listed: All jobs that the coordinator has.
            truth: For each agent what its devices wrote down.
            read_log: Returns the log of a job's attempt, by its number.
            cancelled: Jobs whose end users asked for.
            followed: What followers of logs saw.
        """
        self._accepted = accepted
        self._jobs = jobs
        self._listed = listed
        self._truth = truth
        self._read_log = read_log
        self._cancelled = cancelled
        self._followed = followed

    def keeps_every_promise(self) -> int:
        """Check all of them. Returns how many logs were compared with what devices wrote."""
        self.nothing_is_lost_or_doubled()
        self.each_attempt_ended_once()
        self.no_device_ran_two_tests()
        self.no_attempt_ran_twice()
        self.followers_saw_the_logs()
        return self.logs_equal_what_devices_wrote()

    @classmethod
    def gather(cls, client: Client, directory: Path, load: Load) -> Self:
        """Ask the coordinator, and read what the devices wrote down."""

        @functools.cache
        def read_log(job: int, attempt: int) -> bytes:
            return b"".join(piece.data for piece in client.follow_logs(job, attempt=attempt))

        def job_with_its_logs(job: int) -> dict[str, Any]:
            """A job ends before its logs have come in: they are waited for."""
            for _ in client.follow_logs(job):
                pass
            return resources.job(client.get_job(job))

        files = sorted(directory.glob("agent-*/device-truth.jsonl"))
        return cls(
            accepted=load.accepted,
            cancelled=load.cancelled,
            followed=load.followed,
            jobs={job: job_with_its_logs(job) for job in load.accepted},
            listed=[job.id for job in client.iter_jobs(JobFilter())],
            truth=[[json.loads(line) for line in path.read_text().splitlines()] for path in files],
            read_log=read_log,
        )

    def nothing_is_lost_or_doubled(self) -> None:
        """I1: what was accepted is there, once, and nothing else is."""
        assert sorted(self._listed) == sorted(self._accepted)
        unfinished = {job: one["status"] for job, one in self._jobs.items() if one["end_time"] is None}
        assert not unfinished, unfinished

    def each_attempt_ended_once(self) -> None:
        """I2: every attempt has its outcome; the last one's made the job's end, unless the lab gave up."""
        for job, one in self._jobs.items():
            outcomes = [attempt["outcome"] for attempt in one["attempts"]]
            is_cancelled = one["status"] == "cancelled"
            assert outcomes or is_cancelled, f"job {job} ended without an attempt"
            assert None not in outcomes, f"job {job}: {outcomes}"
            numbers = [attempt["number"] for attempt in one["attempts"]]
            assert numbers == list(range(1, len(numbers) + 1)), f"job {job}: attempts {numbers}"
            verdicts = [outcome for outcome in outcomes if outcome in VERDICTS]
            if is_cancelled:
                assert job in self._cancelled, f"nobody asked for the end of job {job}"
            if is_cancelled or one["status"] == "errored":
                assert not verdicts, f"job {job} has the verdicts {verdicts} and is {one['status']}"
            else:
                assert one["status"] == FINAL[self._accepted[job]], f"job {job} was to be {self._accepted[job]}"
                assert len(verdicts) == 1, f"job {job} has the verdicts {verdicts}"

    def no_device_ran_two_tests(self) -> None:
        """I3: by what the devices wrote down. A start without an end was cut by the death of its agent."""
        for events in self._truth:
            running: dict[str, int] = {}
            for event in events:
                device = event["device"]
                if event["event"] == "boot":
                    running.pop(device, None)
                elif event["event"] == "start":
                    assert device not in running, f"{device} starts {event['attempt']} while it runs {running[device]}"
                    running[device] = event["attempt"]
                elif event["event"] == "end":
                    assert running.pop(device, None) == event["attempt"], f"{device} ends what it does not run"

    def no_attempt_ran_twice(self) -> None:
        """I2: a device starts an attempt once, and no other device does."""
        starts = Counter(event["attempt"] for events in self._truth for event in events if event["event"] == "start")
        assert {attempt: count for attempt, count in starts.items() if count > 1} == {}

    def logs_equal_what_devices_wrote(self) -> int:
        """I5: by length and SHA-256. Returns how many logs were compared."""
        written = {
            event["attempt"]: (event["log_size"], event["log_sha256"])
            for events in self._truth
            for event in events
            if event["event"] == "end"
        }
        compared = 0
        for job, one in self._jobs.items():
            for attempt in one["attempts"]:
                if attempt["outcome"] in ("lost", "released", "rejected") or attempt["start_time"] is None:
                    continue
                data = self._read_log(job, attempt["number"])
                found = (len(data), hashlib.sha256(data).hexdigest())
                assert found in written.values(), f"job {job}, attempt {attempt['number']}: no device wrote {found}"
                assert attempt["log"] == "complete", f"job {job}, attempt {attempt['number']}: {attempt['log']}"
                compared += 1
        return compared

    def followers_saw_the_logs(self) -> int:
        """I5: what a follower saw of an attempt is how its log begins, and all of it where its end was told.

        Returns how many logs were seen to their end.
        """
        whole = 0
        for followed in self._followed:
            outcomes = {attempt["number"]: attempt["outcome"] for attempt in self._jobs[followed.job]["attempts"]}
            for number, seen in followed.seen.items():
                log = self._read_log(followed.job, number)
                assert log.startswith(seen), f"job {followed.job}, attempt {number}: a follower saw something else"
                # An agent that is back may bring more of a log that was given up.
                if number in followed.whole and outcomes[number] != "lost":
                    assert len(seen) == len(log), f"job {followed.job}, attempt {number}: {len(seen)} of {len(log)}"
                    whole += 1
        return whole

    def outcomes(self) -> Counter[str]:
        """Return how all attempts ended."""
        return Counter(attempt["outcome"] for one in self._jobs.values() for attempt in one["attempts"])
