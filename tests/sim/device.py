"""The devices as they really are, and the supervisors around what runs on them.

A supervisor outlives its agent just long enough to end the work, and holds the device's lock until nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from agent.core.events import DevicePrepared, Event, PrepareFailed, PrepareStopped, TestObserved
from agent.core.model import (
    AttemptId,
    Blame,
    DeviceFacts,
    Failure,
    Installation,
    LeasedJob,
    LeaseKey,
    LeaseSpec,
    Outcome,
    TestResult,
    TestState,
)
from agent.runners.protocol import Verdict
from tests.sim.draw import BROKEN_APP
from tests.sim.history import History, TestEnded, WorkBegan, WorkEnded
from tests.sim.plan import Ailment, Behaviour, Ending, PlannedJob
from tests.sim.world import SECOND_US, World

SUPERVISOR = "supervisor"
AGENT_GONE_GRACE_US = 10 * SECOND_US
LOG_BLOCKS = 3
NO_ATTEMPT = AttemptId(0)
FAILED_INSTALLS_PERCENT = 3
REFUSED_BUILDS_PERCENT = 75
"""Of a broken build; else its host sees already that it is broken."""

Tell = Callable[[Event], None]
Output = Callable[[bytes], None]
Ended = Callable[[Verdict], None]


class Work:
    """Something alive on a device: an installation, or a test run."""

    def __init__(self, device: Device, key: LeaseKey, attempt: AttemptId, finish: Callable[[bool], None]) -> None:
        self.key = key
        self.attempt = attempt
        self.is_over = False
        self.is_deaf = False
        """Whether it does not obey: only a kill ends it."""
        self._is_stopping = False
        self._device = device
        self._finish = finish

    def end_after(self, span_us: int, *, is_stopped: bool) -> None:
        self._device.world.after(span_us, self._end, is_stopped)

    def stop(self, grace_us: int) -> None:
        """Ask it to end, and insist after the grace."""
        if self.is_over or self._is_stopping:
            return
        self._is_stopping = True
        reaction_us = self._device.world.between(20_000, 2 * SECOND_US)
        span_us = grace_us + 100_000 if self.is_deaf else min(grace_us + 100_000, reaction_us)
        self.end_after(span_us, is_stopped=True)

    def _end(self, is_stopped: bool) -> None:
        if not self.is_over:
            self.is_over = True
            self._device.work_ended(self)
            self._finish(is_stopped)

    def vanish(self) -> None:
        """End without a word: the power is gone."""
        if not self.is_over:
            self.is_over = True
            self._device.work_ended(self)


class Device:
    """One phone or emulator."""

    def __init__(self, world: World, history: History, facts: DeviceFacts, jobs: dict[str, PlannedJob]) -> None:
        self.world = world
        self.facts = facts
        self.is_plugged = True
        self.ailment: Ailment | None = None
        self.work: Work | None = None
        self._history = history
        self._jobs = jobs
        self._holders: dict[str, None] = {}
        self._build: tuple[str, str, str] | None = None

    # The lock

    def claim(self, holder: str) -> bool:
        """Take the device's lock. Returns whether it is held."""
        if not self._holders:
            self._holders[holder] = None
        return holder in self._holders

    def release(self, holder: str) -> None:
        self._holders.pop(holder, None)

    # Work

    def _begin(self, work: Work, test: str) -> None:
        self.work = work
        self._holders[SUPERVISOR] = None
        began = WorkBegan(self.world.now_us, self.facts.id, work.key.lease_id, work.attempt, test, self._build)
        self._history.add(began)

    def work_ended(self, work: Work) -> None:
        if self.work is work:
            self.work = None
            self.release(SUPERVISOR)
        self._history.add(WorkEnded(self.world.now_us, self.facts.id, work.key.lease_id, work.attempt))

    def prepare(self, lease: LeaseSpec, tell: Tell) -> None:
        """Install the build of a lease, if it is not there; a canary may name none."""
        build = (lease.org_id, lease.app_version_id, lease.build_digest)
        if lease.is_canary and not lease.app_version_id:
            self._look(lease, tell)
            return
        if self._build == build and self.ailment is not Ailment.UNSOUND:
            installation = Installation(digest=_digest(build), is_new=False, duration_us=0)
            tell(DevicePrepared(device_id=self.facts.id, key=lease.key, installation=installation))
            return
        begun_us = self.world.now_us
        failure = self._install_failure(lease)

        def finish(is_stopped: bool) -> None:
            if not self.is_plugged:
                tell(PrepareFailed(device_id=self.facts.id, key=lease.key, failure=_device_lost()))
            elif is_stopped:
                tell(PrepareStopped(device_id=self.facts.id, key=lease.key))
            elif failure is not None:
                tell(PrepareFailed(device_id=self.facts.id, key=lease.key, failure=failure))
            else:
                self._build = build
                installation = Installation(
                    digest=_digest(build), is_new=True, duration_us=self.world.now_us - begun_us
                )
                tell(DevicePrepared(device_id=self.facts.id, key=lease.key, installation=installation))

        work = Work(self, lease.key, NO_ATTEMPT, finish)
        self._begin(work, "")
        work.end_after(self.world.between(2 * SECOND_US, 12 * SECOND_US), is_stopped=False)

    def _look(self, lease: LeaseSpec, tell: Tell) -> None:
        """Look whether the device is sound, which takes a moment."""

        def finish(is_stopped: bool) -> None:
            if not self.is_plugged:
                tell(PrepareFailed(device_id=self.facts.id, key=lease.key, failure=_device_lost()))
            elif is_stopped:
                tell(PrepareStopped(device_id=self.facts.id, key=lease.key))
            elif self.ailment is Ailment.UNSOUND:
                tell(PrepareFailed(device_id=self.facts.id, key=lease.key, failure=_unsound()))
            else:
                installation = Installation(digest="", is_new=False, duration_us=0)
                tell(DevicePrepared(device_id=self.facts.id, key=lease.key, installation=installation))

        work = Work(self, lease.key, NO_ATTEMPT, finish)
        self._begin(work, "")
        work.end_after(self.world.between(SECOND_US // 10, 2 * SECOND_US), is_stopped=False)

    def _install_failure(self, lease: LeaseSpec) -> Failure | None:
        if lease.app_version_id == BROKEN_APP:
            if self.world.chance(REFUSED_BUILDS_PERCENT):
                return Failure(reason="BUILD_REFUSED", message="the device takes no such build", blame=Blame.BUILD)
            return Failure(reason="BUILD_INVALID", message="the build cannot be parsed", blame=Blame.BUILD)
        if self.ailment is Ailment.UNSOUND:
            return _unsound()
        if self.world.chance(FAILED_INSTALLS_PERCENT):
            return Failure(reason="INSTALL_FAILED", message="no space on the device", blame=Blame.DEVICE)
        return None

    def run(self, key: LeaseKey, job: LeasedJob, tell: Tell, output: Output, ended: Ended) -> None:
        """Run one spec as it was planned, or what is left of it."""
        planned = self._jobs[job.test]
        behaviour = planned.behaviours[(job.attempt_number - 1) % len(planned.behaviours)]
        tests = [test for test in planned.tests if planned.is_tied or test not in job.done]
        assert tests, f"nothing is left of {job.test}, whose last run was ended early"
        span_us = behaviour.span_us * len(tests) // len(planned.tests)
        is_late = behaviour.ending is Ending.HANGING or span_us > job.timeout_us
        states = dict.fromkeys(tests, TestState.PASSED)
        if behaviour.ending is Ending.FAILED:
            states[tests[behaviour.failing % len(tests)]] = TestState.FAILED

        def finish(is_stopped: bool) -> None:
            outcome, failure = self._verdict(behaviour, is_stopped, is_late)
            if outcome in (Outcome.PASSED, Outcome.FAILED):
                self._end_test(key, job, tests[-1], states[tests[-1]], tell)
            elif outcome is not None:
                tell(self._observed(key, job, tests[-1], TestState.FAILED))
            is_resumable = outcome is None and not planned.is_tied
            ended(Verdict(outcome=outcome, failure=failure, is_resumable=is_resumable))

        work = Work(self, key, job.attempt_id, finish)
        work.is_deaf = behaviour.ending is Ending.HANGING
        self._begin(work, job.test)
        tell(self._observed(key, job, tests[0], TestState.RUNNING))
        for number, (test, following) in enumerate(pairwise(tests), 1):
            boundary_us = span_us * number // len(tests)
            self.world.after(boundary_us, self._go_on, work, key, job, (test, states[test], following), tell)
        span_us = job.timeout_us if is_late else span_us
        for block in range(LOG_BLOCKS):
            data = _log_block(job, behaviour.log_bytes, block)
            self.world.after(span_us * block // LOG_BLOCKS, self._write, work, output, data)
        work.end_after(span_us, is_stopped=False)

    def _go_on(
        self, work: Work, key: LeaseKey, job: LeasedJob, boundary: tuple[str, TestState, str], tell: Tell
    ) -> None:
        """End a test and begin the next, if the run has not ended meanwhile."""
        test, state, following = boundary
        if not work.is_over:
            self._end_test(key, job, test, state, tell)
            tell(self._observed(key, job, following, TestState.RUNNING))

    def _end_test(self, key: LeaseKey, job: LeasedJob, test: str, state: TestState, tell: Tell) -> None:
        self._history.add(TestEnded(self.world.now_us, job.attempt_id, job.test, test, state))
        tell(self._observed(key, job, test, state))

    def _write(self, work: Work, output: Output, data: bytes) -> None:
        if not work.is_over and data:
            output(data)

    def _verdict(self, behaviour: Behaviour, is_stopped: bool, is_late: bool) -> tuple[Outcome | None, Failure | None]:
        if not self.is_plugged:
            return Outcome.ERRORED, _device_lost()
        if is_stopped:
            return None, None
        if is_late:
            return Outcome.TIMED_OUT, Failure(reason="TIMED_OUT", message="it took too long", blame=Blame.TEST)
        if self.ailment is Ailment.FLAKY:
            return Outcome.ERRORED, Failure(reason="SESSION_FAILED", message="no session", blame=Blame.HOST)
        match behaviour.ending:
            case Ending.FAILED:
                return Outcome.FAILED, Failure(reason="TEST_FAILED", message="a button is gone", blame=Blame.TEST)
            case Ending.ERRORED:
                return Outcome.ERRORED, Failure(reason="APPIUM_DIED", message="no server", blame=Blame.HOST)
            case Ending.CRASHED:
                return Outcome.ERRORED, _device_lost()
            case _:
                return Outcome.PASSED, None

    def _observed(self, key: LeaseKey, job: LeasedJob, test: str, state: TestState) -> TestObserved:
        result = TestResult(id=test, title=test, state=state, attempt=job.attempt_number)
        is_resumable = not self._jobs[job.test].is_tied
        return TestObserved(
            device_id=self.facts.id, key=key, attempt_id=job.attempt_id, test=result, is_resumable=is_resumable
        )

    # Faults

    def unplug(self) -> None:
        self.is_plugged = False
        if self.work is not None:
            self.work.stop(0)

    def plug(self) -> None:
        self.is_plugged = True

    def heal(self) -> None:
        self.ailment = None

    def lose_agent(self, holder: str) -> None:
        """Its agent has died: the supervisor sees its hand let go, and ends the work."""
        self.release(holder)
        if self.work is not None:
            self.work.stop(AGENT_GONE_GRACE_US)

    def lose_power(self) -> None:
        if self.work is not None:
            self.work.vanish()
        self._holders.clear()


def _digest(build: tuple[str, str, str]) -> str:
    return build[2] or f"{build[0]}:{build[1]}"


def _device_lost() -> Failure:
    return Failure(reason="DEVICE_LOST", message="the device went away", blame=Blame.DEVICE)


def _unsound() -> Failure:
    return Failure(reason="DEVICE_STORAGE_LOW", message="its storage is full", blame=Blame.DEVICE)


def _log_block(job: LeasedJob, log_bytes: int, block: int) -> bytes:
    size = log_bytes // LOG_BLOCKS
    line = b"attempt %d block %d of %s\n" % (job.attempt_id, block, job.test.encode())
    return (line * (size // len(line) + 1))[:size]
