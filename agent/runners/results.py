"""The results of an attempt's tests as a file, whatever the runner: what this lab knows of them, and nothing else."""

from __future__ import annotations

import json

from agent.artifacts import LeftBehind
from agent.core.model import MICROSECONDS, ArtifactKind, TestResult
from agent.core.step import StartAttempt
from agent.runners.protocol import Verdict

NAME = "results.json"


class Results:
    """Collects how each test of an attempt ended."""

    def __init__(self) -> None:
        """Begin without any."""
        self._tests: dict[str, TestResult] = {}

    def take(self, test: TestResult) -> None:
        """Take in how a test stands."""
        self._tests[test.id] = test

    def file(self, action: StartAttempt, verdict: Verdict) -> LeftBehind:
        """Return the results as a file, in the words of the job's JSON."""
        job, failure = action.job, verdict.failure
        told = {
            "job": job.job_id,
            "attempt": job.attempt_number,
            "test": job.test,
            "device": action.device_id,
            "outcome": str(verdict.outcome or "stopped"),
            "failure_reason": failure
            and {"reason": failure.reason, "message": failure.message, "blame": failure.blame},
            "tests": [_test(test) for test in self._tests.values()],
        }
        content = json.dumps(told, indent=1, ensure_ascii=False).encode("utf-8", "replace")
        return LeftBehind(content=content, name=NAME, kind=ArtifactKind.RESULTS)


def _test(test: TestResult) -> dict[str, object]:
    return {
        "id": test.id,
        "title": test.title,
        "status": test.state,
        "seconds": test.duration_us / MICROSECONDS,
        "error": test.error or None,
    }
