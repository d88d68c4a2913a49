"""The checker itself: each promise that is broken is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.checker import Verdict
from tests.faults.load import Followed

LOG = b"line 1 of 1\n"


def start(attempt: int, device: str = "e1") -> dict[str, Any]:
    return {"event": "start", "device": device, "attempt": attempt}


def end(attempt: int, device: str = "e1", log: bytes = LOG) -> dict[str, Any]:
    written = {"log_size": len(log), "log_sha256": hashlib.sha256(log).hexdigest()}
    return {"event": "end", "device": device, "attempt": attempt, **written}


def job(status: str, *outcomes: str | None, log: str = "complete") -> dict[str, Any]:
    known = {"log": log, "start_time": "2026-01-01T00:00:00Z"}
    attempts = [{"number": number, "outcome": one, **known} for number, one in enumerate(outcomes, 1)]
    return {"status": status, "end_time": "2026-01-01T00:00:00Z", "attempts": attempts}


def verdict(**changes: Any) -> Verdict:  # noqa: ANN401 - any part of what is judged
    sound: dict[str, Any] = {
        "accepted": {1: "passed"},
        "jobs": {1: job("completed", "lost", "passed")},
        "listed": [1],
        "truth": [[start(1)], [start(2), end(2)]],
        "read_log": lambda _job, _attempt: LOG,
        "followed": [Followed(job=1, seen={1: LOG[:5], 2: LOG}, whole={1, 2})],
    }
    return Verdict(**{**sound, **changes})


ALL: list[Callable[[Verdict], object]] = [
    Verdict.nothing_is_lost_or_doubled,
    Verdict.each_attempt_ended_once,
    Verdict.no_device_ran_two_tests,
    Verdict.no_attempt_ran_twice,
    Verdict.logs_equal_what_devices_wrote,
    Verdict.followers_saw_the_logs,
]


@pytest.mark.parametrize("check", ALL)
def test_sound_run_is_sound(check: Callable[[Verdict], object]) -> None:
    check(verdict())


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (Verdict.nothing_is_lost_or_doubled, {"listed": []}),
        (Verdict.nothing_is_lost_or_doubled, {"listed": [1, 2]}),
        (Verdict.nothing_is_lost_or_doubled, {"jobs": {1: {**job("running", None), "end_time": None}}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("completed", "passed", "passed")}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("completed", None, "passed")}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("failed", "failed")}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("completed")}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("cancelled", "cancelled")}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("cancelled", "passed")}, "cancelled": {1}}),
        (Verdict.each_attempt_ended_once, {"jobs": {1: job("errored", "passed")}}),
        (Verdict.followers_saw_the_logs, {"followed": [Followed(job=1, seen={2: LOG[1:]})]}),
        (Verdict.followers_saw_the_logs, {"followed": [Followed(job=1, seen={2: LOG + LOG})]}),
        (Verdict.followers_saw_the_logs, {"followed": [Followed(job=1, seen={2: LOG[:5]}, whole={2})]}),
        (Verdict.no_device_ran_two_tests, {"truth": [[start(1), start(2)]]}),
        (Verdict.no_device_ran_two_tests, {"truth": [[start(1), end(2)]]}),
        (Verdict.no_attempt_ran_twice, {"truth": [[start(1), end(1)], [start(1, "e2")]]}),
        (Verdict.logs_equal_what_devices_wrote, {"read_log": lambda _job, _attempt: LOG[:-1]}),
        (Verdict.logs_equal_what_devices_wrote, {"jobs": {1: job("completed", "passed", log="truncated")}}),
    ],
)
def test_broken_promise_is_noticed(check: Callable[[Verdict], object], changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check(verdict(**changes))


def test_start_that_the_death_of_an_agent_cut_is_no_second_test() -> None:
    boot = {"event": "boot", "device": "e1"}
    verdict(truth=[[boot, start(1), boot, start(2), end(2)]]).no_device_ran_two_tests()


def test_job_whose_end_was_asked_for_may_end_without_an_attempt() -> None:
    verdict(jobs={1: job("cancelled")}, cancelled={1}).each_attempt_ended_once()
