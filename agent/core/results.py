"""What an attempt came to, in a size that can be sent."""

from dataclasses import replace

from agent.core.events import AttemptEnded
from agent.core.model import (
    AttemptId,
    AttemptResult,
    BegunAttempt,
    Blame,
    Failure,
    LeaseSpec,
    Now,
    Outcome,
    RevokeReason,
    TestResult,
    TestState,
)
from agent.core.slots import Slot, reason_of

RESULT_BYTES = 256 * 1_024
"""What the tests of one result may take. A message that is too long would end the stream, again at every reconnect."""
HELLO_BYTES = 2 * 1_024 * 1_024
SHORT_ERROR_CHARACTERS = 200
MAX_TESTS = 1_000


def stopped_outcome(lease: LeaseSpec, attempt: AttemptId) -> Outcome:
    """Return how an attempt ended that did not end by itself: what the coordinator revoked it for."""
    match reason_of(lease, attempt):
        case RevokeReason.CANCEL:
            return Outcome.CANCELLED
        case RevokeReason.PREEMPT:
            return Outcome.PREEMPTED
        case RevokeReason.RELEASE | None:
            return Outcome.RELEASED


def result_of(slot: Slot, ended: AttemptEnded, now: Now) -> AttemptResult:
    """Return the result of the attempt that a slot has run."""
    assert slot.lease is not None
    assert slot.installation is not None
    return AttemptResult(
        attempt_id=ended.attempt_id,
        key=ended.key,
        outcome=ended.outcome or stopped_outcome(slot.lease, ended.attempt_id),
        failure=ended.failure,
        tests=bounded(tuple(ended_test(test) for test in slot.tests.values())),
        log=ended.log,
        duration_us=now.mono_us - slot.start_us,
        build_digest=slot.installation.digest,
        is_resumable=ended.outcome is None and ended.is_resumable,
    )


def lost(begun: BegunAttempt) -> AttemptResult:
    """Return the result of an attempt that an earlier life of the agent began and did not end."""
    return AttemptResult(
        attempt_id=begun.attempt_id,
        key=begun.key,
        outcome=Outcome.LOST,
        failure=Failure(reason="AGENT_LOST", message="the agent ended while the test ran", blame=Blame.HOST),
        tests=(),
        log=begun.log,
        duration_us=0,
        build_digest="",
    )


def ended_test(test: TestResult) -> TestResult:
    """Return a test as it stands when its attempt has ended."""
    return replace(test, state=TestState.INTERRUPTED) if test.state is TestState.RUNNING else test


def bounded(tests: tuple[TestResult, ...]) -> tuple[TestResult, ...]:
    """Return the tests in a size that can be sent; a great many long errors are shortened."""
    kept = tests[:MAX_TESTS]
    if sum(_size_of(test) for test in kept) <= RESULT_BYTES:
        return kept
    return tuple(replace(test, error=test.error[:SHORT_ERROR_CHARACTERS]) for test in kept)


def newest(results: tuple[AttemptResult, ...]) -> tuple[AttemptResult, ...]:
    """Return the latest results that one message has room for: theirs are the leases that may still live."""
    room = HELLO_BYTES
    for index in reversed(range(len(results))):
        room -= sum(_size_of(test) for test in results[index].tests) + 1_024
        if room < 0:
            return results[index + 1 :]
    return results


def _size_of(test: TestResult) -> int:
    return len(test.id.encode()) + len(test.title.encode()) + len(test.error.encode()) + 64
