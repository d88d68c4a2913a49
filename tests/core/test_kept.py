"""What a preempted job keeps of the tests that were done, and what becomes of it then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.kept import DONE, MAX_KEPT_BYTES, failure_of, kept_after
from coordinator.core.model import (
    AttemptOutcome,
    Failure,
    JobId,
    JobState,
    KeptTest,
    Lease,
    TestResult,
    TestState,
)
from coordinator.core.step import PutExpectation
from tests.core.lab import Lab, snapshots, spec
from tests.core.test_restart import RestartingLab

PHONE = "emulator-1@lab"


def seen(name: str, state: TestState = TestState.PASSED, error: str = "") -> TestResult:
    return TestResult(id=name, title=f"title of {name}", state=state, error=error)


class Preempted:
    """A job of priority 1 that an urgent one has thrown out, after it had run some tests."""

    def __init__(self, *tests: TestResult, resumable: bool = True, retries: int = 0, lab: Lab | None = None) -> None:
        self.lab = lab or Lab()
        self.agent = self.lab.connect()
        self.job = self.lab.submit(spec(priority=1, retries=retries)).job_ids[0]
        self.preempt(*tests, resumable=resumable)

    def preempt(self, *tests: TestResult, resumable: bool = True) -> None:
        lease, attempt = self.start()
        self.lab.submit(spec("tests/urgent.spec.ts", priority=5))
        self.agent.adopt(PHONE, started=(attempt,))
        self.agent.finish(lease, attempt, AttemptOutcome.PREEMPTED, tests=tests, resumable=resumable)
        self.agent.run(self.agent.adopt(PHONE))

    def start(self) -> tuple[Lease, int]:
        """Start the job on its device."""
        lease = self.agent.adopt(PHONE)
        return lease, self.agent.start(lease)

    @property
    def kept(self) -> tuple[str, ...]:
        return tuple(test.id for test in self.lab.job(self.job).kept)

    def end(self, outcome: AttemptOutcome, *tests: TestResult, failure: Failure | None = None) -> JobState:
        lease, attempt = self.start()
        self.agent.finish(lease, attempt, outcome, failure, tests)
        return self.lab.job(self.job).state


def test_preempted_job_tells_its_next_agent_which_tests_are_done() -> None:
    case = Preempted(seen("a"), seen("b", TestState.FAILED), seen("c", TestState.INTERRUPTED))
    leased = snapshots(case.lab.sends)[-1].jobs[-1]
    assert leased.job.id == case.job
    assert [test.id for test in leased.job.kept] == ["a", "b"]


def test_job_passes_when_the_tests_of_both_attempts_have_passed() -> None:
    case = Preempted(seen("a"))
    assert case.end(AttemptOutcome.PASSED, seen("b")) is JobState.COMPLETED
    assert case.kept == ()


def test_job_fails_by_a_test_that_failed_before_it_was_preempted() -> None:
    case = Preempted(seen("a", TestState.FAILED, "expected 1\nreceived 2"))
    assert case.end(AttemptOutcome.PASSED, seen("b")) is JobState.FAILED
    failure = case.lab.job(case.job).failure
    assert failure is not None
    assert (failure.reason, failure.message) == ("TEST_FAILED", "title of a: expected 1")


def test_failed_test_of_a_preempted_attempt_is_retried_with_the_whole_spec() -> None:
    case = Preempted(seen("a", TestState.TIMED_OUT), retries=1)
    assert case.end(AttemptOutcome.PASSED, seen("b")) is JobState.ASSIGNED
    assert case.kept == ()
    assert case.end(AttemptOutcome.PASSED, seen("a"), seen("b")) is JobState.COMPLETED
    assert case.lab.job(case.job).flaky


def test_spec_that_cannot_be_resumed_runs_again_as_a_whole() -> None:
    case = Preempted(seen("a", TestState.FAILED), resumable=False)
    assert case.kept == ()
    assert case.end(AttemptOutcome.PASSED, seen("a"), seen("b")) is JobState.COMPLETED


def test_tests_that_run_again_count_by_their_newer_result() -> None:
    case = Preempted(seen("a", TestState.FAILED), seen("b"))
    assert case.end(AttemptOutcome.PASSED, seen("a"), seen("b"), seen("c")) is JobState.COMPLETED


def test_job_that_is_preempted_twice_keeps_the_tests_of_both_attempts() -> None:
    case = Preempted(seen("a"))
    case.preempt(seen("b"), seen("c", TestState.SKIPPED))
    assert case.kept == ("a", "b")


def test_second_attempt_that_cannot_be_resumed_leaves_nothing_kept() -> None:
    case = Preempted(seen("a"))
    case.preempt(seen("b"), resumable=False)
    assert case.kept == ()


@pytest.mark.parametrize("outcome", [AttemptOutcome.ERRORED, AttemptOutcome.LOST])
def test_fault_of_the_lab_begins_the_spec_anew(outcome: AttemptOutcome) -> None:
    case = Preempted(seen("a"))
    case.end(outcome, seen("b"))
    assert case.kept == ()


def test_job_that_is_given_back_unstarted_keeps_its_tests() -> None:
    case = Preempted(seen("a"))
    case.agent.release(case.agent.adopt(PHONE))
    assert case.kept == ("a",)


def test_job_that_a_device_rejects_keeps_its_tests() -> None:
    case = Preempted(seen("a"))
    case.agent.reject(case.agent.adopt(PHONE), Failure(reason="INSTALL_FAILED", message="no space"))
    assert case.kept == ("a",)


def test_part_of_a_spec_says_nothing_of_how_long_it_takes() -> None:
    case = Preempted(seen("a"))
    lease, attempt = case.start()
    step = case.agent.finish(lease, attempt, tests=(seen("b"),))
    assert not [write for write in step.writes if isinstance(write, PutExpectation)]


def test_what_is_kept_outlives_a_restart() -> None:
    lab = RestartingLab()
    case = Preempted(seen("a", TestState.FAILED, "it broke"), lab=lab)
    lab.restart()
    assert lab.scheduler.ledger.jobs[JobId(case.job)].kept == (KeptTest("a", "title of a: it broke"),)


NAMES = st.sampled_from("abcdef")
TESTS = st.lists(st.builds(seen, NAMES, st.sampled_from(TestState), st.just("it broke")), max_size=6)


@given(st.lists(st.tuples(TESTS, st.booleans()), max_size=5))
def test_each_test_is_kept_once_and_by_the_last_attempt_that_ran_it(
    attempts: list[tuple[list[TestResult], bool]],
) -> None:
    kept: tuple[KeptTest, ...] = ()
    last: dict[str, tuple[TestState, bool]] = {}
    for tests, is_resumable in attempts:
        kept = kept_after(kept, tests, is_resumable=is_resumable)
        last.update({test.id: (test.state, is_resumable) for test in tests})
    done = {name: state for name, (state, is_resumable) in last.items() if is_resumable and state in DONE}
    assert sorted(test.id for test in kept) == sorted(done)
    assert {test.id for test in kept if test.error} == {
        name for name, state in done.items() if state is not TestState.PASSED
    }
    assert (failure_of(kept) is None) == all(state is TestState.PASSED for state in done.values())


def test_no_more_is_kept_than_a_lease_has_room_for() -> None:
    tests = [seen(f"{number:040d}") for number in range(1_000)]
    kept = kept_after((), tests, is_resumable=True)
    assert [test.id for test in kept] == [test.id for test in tests[: MAX_KEPT_BYTES // 40]]
