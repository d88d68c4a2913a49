"""A device that only pretends: for trying the grid out, for scale and for speed. Jobs steer it by QGJOB_SIM_*."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from agent.artifacts import LeftBehind
from agent.blobs import BlobCache, BlobUnusable
from agent.core.model import (
    MICROSECONDS,
    ArtifactKind,
    Blame,
    DeviceId,
    Failure,
    Installation,
    LeasedJob,
    LeaseKey,
    LeaseSpec,
    Outcome,
    TestResult,
    TestState,
)
from agent.runners.protocol import Observer, RunFailed, Stop, Verdict, until_stopped

DEFAULT_LOG_LINES = 5
MOST_TESTS = 1_000
MOST_ARTIFACTS = 100
KEPT_ATTEMPTS = 50
DEFAULT_ARTIFACT_BYTES = 1_000
MOST_ARTIFACT_BYTES = 64 * 1_024 * 1_024
LINES_AT_A_TIME = 50
OUTCOMES = ("passed", "failed", "error", "crash", "hang")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    seconds: float
    outcome: str
    """Of its last test; the others pass."""
    lines: int
    tests: int

    def share(self, number: int) -> _Plan:
        """Return what one of its tests does, from 1."""
        lines = self.lines * number // self.tests - self.lines * (number - 1) // self.tests
        outcome = self.outcome if number == self.tests else "passed"
        return _Plan(seconds=self.seconds / self.tests, outcome=outcome, lines=lines, tests=1)


class SimulatedRunner:
    """Runs nothing, and writes down in `truth` what a real device would have run."""

    def __init__(
        self, device: DeviceId, *, blobs: BlobCache, install_s: float, test_s: float, truth: Path, left_behind: Path
    ) -> None:
        self._device = device
        self._blobs = blobs
        self._install_s = install_s
        self._test_s = test_s
        self._truth = truth
        self._left_behind = left_behind
        self._installed: str | None = None
        self._note("boot")

    async def prepare(self, lease: LeaseSpec, stop: Stop) -> Installation:
        """Pretend to install; a build that is there already is not installed again. A registered one is fetched."""
        if lease.is_canary and not lease.app_version_id:
            return Installation(digest="", is_new=False, duration_us=0)
        named = f"{lease.org_id}\0{lease.app_version_id}".encode()
        digest = lease.build_digest or hashlib.sha256(named).hexdigest()
        if digest == self._installed:
            return Installation(digest=digest, is_new=False, duration_us=0)
        begun = time.monotonic()
        await until_stopped(self._install(lease), stop)
        self._installed = digest
        self._note("install", app_version_id=lease.app_version_id, digest=digest)
        return Installation(digest=digest, is_new=True, duration_us=int((time.monotonic() - begun) * MICROSECONDS))

    async def _install(self, lease: LeaseSpec) -> None:
        if lease.build_digest:
            try:
                await self._blobs.get(lease.build_digest, lease.key, self._device)
            except BlobUnusable as error:
                raise RunFailed(error.failure) from error
        await asyncio.sleep(self._install_s)

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        """Pretend to run one spec."""
        self._note("start", attempt=job.attempt_id, lease=key.lease_id, fence=[key.fence.epoch, key.fence.number])
        written = hashlib.sha256()
        size = 0

        def output(data: bytes) -> None:
            nonlocal size
            written.update(data)
            size += len(data)
            observer.output(data)

        try:
            verdict = await self._run(job, replace(observer, output=output), stop)
            return replace(verdict, left_behind=await asyncio.to_thread(self._leave, job))
        finally:
            self._note("end", attempt=job.attempt_id, log_size=size, log_sha256=written.hexdigest())

    async def _run(self, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        try:
            plan = _plan(job.environment, self._test_s, job.attempt_number)
        except ValueError as error:
            return Verdict(outcome=Outcome.FAILED, failure=_failure("SIMULATION_INVALID", str(error), Blame.TEST))
        observer.output(f"Running {job.test} on {self._device}\n".encode())
        end_s = time.monotonic() + job.timeout_us / MICROSECONDS
        verdict = Verdict(outcome=Outcome.PASSED)
        for number in range(1, plan.tests + 1):
            title = _title(job, number, plan.tests)
            if verdict.outcome is Outcome.PASSED and _id(title) not in job.done:
                verdict = await self._run_test(title, plan.share(number), job, end_s, observer, stop)
        return verdict

    async def _run_test(
        self, title: str, plan: _Plan, job: LeasedJob, end_s: float, observer: Observer, stop: Stop
    ) -> Verdict:
        begun = time.monotonic()
        observer.test(_test(job, title, TestState.RUNNING, 0), True)
        is_over = await self._play(plan, max(0.0, end_s - begun), observer, stop)
        verdict = self._verdict(plan, job, is_over, stop)
        state = _test_state(verdict)
        spent_us = int((time.monotonic() - begun) * MICROSECONDS)
        error = verdict.failure.message if verdict.failure is not None else ""
        observer.test(_test(job, title, state, spent_us, error), True)
        reason = f": {verdict.failure.message}" if verdict.failure is not None else ""
        observer.output(f"{title}: {state}{reason}\n".encode())
        return verdict

    async def _play(self, plan: _Plan, timeout_s: float, observer: Observer, stop: Stop) -> bool:
        """Let the time of the test pass, writing its lines. Returns whether it came to its end."""
        is_hanging = plan.outcome == "hang" or plan.seconds > timeout_s
        span_s = timeout_s if is_hanging else plan.seconds
        blocks = range(0, max(1, plan.lines), LINES_AT_A_TIME)
        for first in blocks:
            await _pause(span_s / len(blocks), stop)
            if stop.is_asked:
                return False
            for number in range(first, min(plan.lines, first + LINES_AT_A_TIME)):
                observer.output(f"line {number + 1} of {plan.lines}\n".encode())
        return not is_hanging

    def _verdict(self, plan: _Plan, job: LeasedJob, is_over: bool, stop: Stop) -> Verdict:
        if stop.is_asked:
            return Verdict(outcome=None, is_resumable=True)
        if not is_over:
            seconds = job.timeout_us / MICROSECONDS
            failure = _failure("TIMED_OUT", f"the test ran longer than its timeout of {seconds:g} s", Blame.TEST)
            return Verdict(outcome=Outcome.TIMED_OUT, failure=failure)
        match plan.outcome:
            case "failed":
                failure = _failure("TEST_FAILED", "simulated: expected the test to pass", Blame.TEST)
                return Verdict(outcome=Outcome.FAILED, failure=failure)
            case "error":
                failure = _failure("SIMULATED_ERROR", "simulated: the lab made a mistake", Blame.HOST)
                return Verdict(outcome=Outcome.ERRORED, failure=failure)
            case "crash":
                failure = _failure("DEVICE_LOST", f"simulated: {self._device} went away", Blame.DEVICE)
                self._installed = None
                return Verdict(outcome=Outcome.ERRORED, failure=failure)
            case _:
                return Verdict(outcome=Outcome.PASSED)

    def _leave(self, job: LeasedJob) -> tuple[LeftBehind, ...]:
        """Leave as many files behind as the job asks for, all of them different from those of other devices."""
        try:
            count, size = _left(job.environment)
        except ValueError:
            return ()  # the run has said so
        if not count:
            return ()
        folder = self._left_behind / str(job.attempt_id)
        folder.mkdir(parents=True, exist_ok=True)
        older = sorted((path for path in self._left_behind.iterdir() if path.name.isdecimal()), key=_number)
        for path in older[:-KEPT_ATTEMPTS]:
            shutil.rmtree(path, ignore_errors=True)
        left = []
        for number in range(1, count + 1):
            path = folder / f"simulated-{number}.txt"
            line = f"file {number} of {job.test} on {self._device}\n".encode()
            path.write_bytes((line * (size // len(line) + 1))[:size])
            left.append(LeftBehind(path=path, name=path.name, kind=ArtifactKind.OTHER))
        return tuple(left)

    async def close(self) -> None:
        """Nothing is kept warm."""

    def _note(self, event: str, **fields: object) -> None:
        line = {"t": time.time(), "device": self._device, "event": event, **fields}
        with self._truth.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


async def _pause(seconds: float, stop: Stop) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def _plan(env: dict[str, str], test_s: float, attempt: int) -> _Plan:
    """Return what an attempt does; those after the first QGJOB_SIM_FAILURES pass.

    Raises:
        ValueError: What the job asks for is unknown, no number, or out of range.
    """
    outcome = env.get("QGJOB_SIM_OUTCOME", "passed")
    if outcome not in OUTCOMES:
        raise ValueError(f"QGJOB_SIM_OUTCOME={outcome} is unknown; use {', '.join(OUTCOMES)}")
    try:
        failures = int(env.get("QGJOB_SIM_FAILURES", attempt))
        seconds = float(env.get("QGJOB_SIM_SECONDS", test_s))
        lines = int(env.get("QGJOB_SIM_LOG_LINES", DEFAULT_LOG_LINES))
        tests = int(env.get("QGJOB_SIM_TESTS", 1))
    except ValueError as error:
        raise ValueError(
            f"QGJOB_SIM_SECONDS, QGJOB_SIM_LOG_LINES, QGJOB_SIM_TESTS and QGJOB_SIM_FAILURES must be numbers: {error}"
        ) from error
    if not 1 <= tests <= MOST_TESTS:
        raise ValueError(f"QGJOB_SIM_TESTS={tests} is out of range; use 1 to {MOST_TESTS}")
    try:
        _left(env)
    except ValueError as error:
        raise ValueError(
            f"QGJOB_SIM_ARTIFACTS must be 0 to {MOST_ARTIFACTS}, and QGJOB_SIM_ARTIFACT_BYTES at most"
            f" {MOST_ARTIFACT_BYTES}: {error}"
        ) from error
    if attempt > failures:
        outcome = "passed"
    return _Plan(seconds=max(0.0, seconds), outcome=outcome, lines=max(0, lines), tests=tests)


def _number(path: Path) -> int:
    return int(path.name)


def _left(env: dict[str, str]) -> tuple[int, int]:
    """Return how many files a run leaves behind, and how many bytes each has.

    Raises:
        ValueError: What the job asks for is no number, or out of range.
    """
    count = int(env.get("QGJOB_SIM_ARTIFACTS", 0))
    size = int(env.get("QGJOB_SIM_ARTIFACT_BYTES", DEFAULT_ARTIFACT_BYTES))
    if not 0 <= count <= MOST_ARTIFACTS or not 1 <= size <= MOST_ARTIFACT_BYTES:
        raise ValueError("out of range")
    return count, size


def _failure(reason: str, message: str, blame: Blame) -> Failure:
    return Failure(reason=reason, message=message, blame=blame)


def _title(job: LeasedJob, number: int, tests: int) -> str:
    name = Path(job.test).name
    return name if tests == 1 else f"{name} > test {number}"


def _id(title: str) -> str:
    return f"simulated-{title}"[-128:]


def _test(job: LeasedJob, title: str, state: TestState, duration_us: int, error: str = "") -> TestResult:
    return TestResult(
        id=_id(title),
        title=title,
        state=state,
        duration_us=duration_us,
        error=error,
        attempt=job.attempt_number,
    )


def _test_state(verdict: Verdict) -> TestState:
    match verdict.outcome:
        case Outcome.PASSED:
            return TestState.PASSED
        case Outcome.TIMED_OUT:
            return TestState.TIMED_OUT
        case None:
            return TestState.INTERRUPTED
        case _:
            return TestState.FAILED
