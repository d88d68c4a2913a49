"""What a job keeps of attempts that were ended to make room: the tests that were done, so that none runs twice.

A spec that its agent calls resumable goes on at the first test that was not done. What runs again all the same is not
kept any more, for its newer result counts; and where an attempt ends by a verdict or by the lab's fault, the next one
begins the spec anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.model import Blame, Failure, KeptTest, TestResult, TestState

MAX_KEPT_BYTES = 6 * 1_024
"""Of the ids that go with one job into a lease: a hundred such jobs must fit into a message beside all else."""
MAX_ERROR_CHARACTERS = 300

_BAD = frozenset({TestState.FAILED, TestState.TIMED_OUT})
DONE = frozenset({TestState.PASSED, *_BAD})
"""States of a test that need not run again. A skipped one may: it costs nothing, and might not be skipped there."""


def kept_after(kept: tuple[KeptTest, ...], tests: Iterable[TestResult], *, is_resumable: bool) -> tuple[KeptTest, ...]:
    """Return what is kept when another attempt has ended.

    Args:
        kept: What its job kept until then.
        tests: What the attempt has run.
        is_resumable: Whether what it has done may be left out by the next.
    """
    ran = {test.id: test for test in tests}
    earlier = tuple(one for one in kept if one.id not in ran)
    if not is_resumable:
        return earlier
    done = (KeptTest(test.id, _error_of(test)) for test in ran.values() if test.state in DONE)
    return _bounded((*earlier, *done))


def failure_of(kept: tuple[KeptTest, ...]) -> Failure | None:
    """Return why a job cannot pass any more, whatever the rest of its tests do."""
    error = next((one.error for one in kept if one.error), None)
    return None if error is None else Failure(reason="TEST_FAILED", message=error, blame=Blame.TEST)


def _error_of(test: TestResult) -> str:
    if test.state not in _BAD:
        return ""
    lines = [line.strip() for line in test.error.splitlines() if line.strip()]
    return f"{test.title}: {lines[0] if lines else test.state}"[:MAX_ERROR_CHARACTERS]


def _bounded(kept: tuple[KeptTest, ...]) -> tuple[KeptTest, ...]:
    """Return as many as a lease has room for; the others simply run again."""
    room = MAX_KEPT_BYTES
    for index, one in enumerate(kept):
        room -= len(one.id.encode())
        if room < 0:
            return kept[:index]
    return kept
