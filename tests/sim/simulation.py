"""One seed from its plan to its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from tests.sim.checker import Checker, Pair
from tests.sim.lab import Lab
from tests.sim.plan import Plan
from tests.sim.world import SECOND_US

REST_BOUND_US = 3600 * SECOND_US
"""Within which time after the last fault everything must have come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a plan."""

    breaches: tuple[str, ...]
    events: int
    span_us: int
    rest_us: int
    """How long it took to come to rest after the faults had stopped."""
    pairs: tuple[Pair, ...]
    lab: Lab


def simulate(plan: Plan) -> Verdict:
    """Let a plan happen and judge it."""
    lab = Lab(plan)
    crash = ""
    try:
        lab.run(REST_BOUND_US)
    except Exception as error:  # noqa: BLE001 - whatever the machines raise is a finding, told with its seed
        crash = f"{lab.world.now_us / 1e6:10.3f} s  a machine failed: {type(error).__name__}: {error}"
    checker = Checker(plan, lab)
    breaches = (crash,) if crash else tuple(checker.breaches())
    return Verdict(
        breaches=breaches,
        events=lab.world.events,
        span_us=lab.world.now_us,
        rest_us=max(0, lab.world.now_us - plan.calm_us),
        pairs=tuple(checker.pairs),
        lab=lab,
    )
