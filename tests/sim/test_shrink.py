"""Failing plans are made smaller without losing their failure."""

from __future__ import annotations

from tests.sim.draw import draw_plan
from tests.sim.mutants import MUTANTS
from tests.sim.plan import KillCoordinator, Plan
from tests.sim.shrink import fails_like, kind_of, shrunk
from tests.sim.simulation import simulate


def test_plan_shrinks_to_what_its_failure_needs() -> None:
    def fails(smaller: Plan) -> bool:
        return any(isinstance(fault, KillCoordinator) for fault in smaller.faults)

    plan = next(filter(fails, map(draw_plan, range(100))))
    smaller = shrunk(plan, fails)
    assert [type(fault) for fault in smaller.faults] == [KillCoordinator]
    assert len(smaller.submissions) == 0
    assert smaller.wishes == ()


def test_shrunk_plan_breaks_the_same_invariant() -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "top-up without the gate")
    with mutant.plant():
        plan = draw_plan(mutant.seed)
        breach = simulate(plan).breaches[0]
        smaller = shrunk(plan, fails_like(breach), most_runs=20)
        assert len(smaller.faults) < len(plan.faults)
        assert kind_of(simulate(smaller).breaches[0]) == kind_of(breach) == "I7"


def test_kind_of_a_breach_is_its_invariant_or_the_machine_s_error() -> None:
    assert kind_of("   12.000 s  I3: emulator1@lab1 has lease 1 and gets lease 2") == "I3"
    assert kind_of("   12.000 s  a machine failed: KeyError: 7") == "KeyError"
