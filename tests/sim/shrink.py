"""Makes a failing plan smaller: takes faults, users' wishes and jobs away while it still fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from tests.sim.plan import Plan, Submission, Wish
from tests.sim.simulation import simulate

MOST_RUNS = 200

Item = TypeVar("Item")
Fails = Callable[[Plan], bool]


def kind_of(breach: str) -> str:
    """Return what is broken: the invariant, or the machine's own error."""
    found = re.search(r"(I\d+): |failed: (\w+)", breach)
    assert found is not None, breach
    return found.group(1) or found.group(2)


def fails_like(breach: str) -> Fails:
    """Return a test for plans that breaks in the same way."""
    kind = kind_of(breach)
    return lambda plan: any(kind_of(other) == kind for other in simulate(plan).breaches)


def shrunk(plan: Plan, fails: Fails, most_runs: int = MOST_RUNS) -> Plan:
    """Return a plan that still fails and has as little in it as could be found within so many runs."""
    runs = 0
    has_changed = True
    while has_changed:
        has_changed = False
        for smaller in _smaller_plans(plan):
            if runs >= most_runs:
                return plan
            runs += 1
            if fails(smaller):
                plan, has_changed = smaller, True
                break
    return plan


def _smaller_plans(plan: Plan) -> Iterator[Plan]:
    for faults in _cuts(plan.faults):
        yield replace(plan, faults=faults)
    for wishes in _cuts(plan.wishes):
        yield replace(plan, wishes=wishes)
    for submissions in _cuts(plan.submissions):
        yield replace(plan, submissions=submissions, wishes=_wishes_for(plan, submissions))


def _wishes_for(plan: Plan, submissions: tuple[Submission, ...]) -> tuple[Wish, ...]:
    keys = [submission.key for submission in submissions]
    return tuple(wish for wish in plan.wishes if wish.submission in keys)


def _cuts(items: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """Yield the items without one half, then without one quarter, down to without one."""
    size = len(items)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(items), size):
            yield items[:start] + items[start + size :]
    if len(items) == 1:
        yield ()
