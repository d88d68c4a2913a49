from __future__ import annotations

from coordinator.core.model import AttemptId
from coordinator.newlogs import MOST_ATTEMPTS, NewLogs


def test_log_of_an_attempt_of_this_epoch_is_new_once() -> None:
    new = NewLogs()
    first = AttemptId(100)
    order = [100, 117, 101, 116, 140]
    assert [new.meet(AttemptId(number), first) for number in order] == [True] * len(order)
    assert [new.meet(AttemptId(number), first) for number in order] == [False] * len(order)
    assert new.meet(AttemptId(118), first)


def test_log_of_an_earlier_attempt_is_never_new() -> None:
    assert not NewLogs().meet(AttemptId(99), AttemptId(100))


def test_nothing_is_known_to_be_new_before_the_epoch_began() -> None:
    assert not NewLogs().meet(AttemptId(1), None)


def test_attempts_beyond_the_limit_take_no_memory() -> None:
    assert not NewLogs().meet(AttemptId(100 + MOST_ATTEMPTS), AttemptId(100))
