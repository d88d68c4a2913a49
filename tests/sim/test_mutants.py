"""The simulation can fail: every planted defect is noticed, and the same seed without it is sound."""

from __future__ import annotations

import pytest

from tests.sim.draw import draw_plan
from tests.sim.mutants import MUTANTS, Mutant, caught
from tests.sim.simulation import simulate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_defect_is_noticed(mutant: Mutant) -> None:
    assert caught(mutant, mutant.seed), f"look for another seed: python -m tests.sim.mutants --search '{mutant.name}'"


@pytest.mark.parametrize("seed", sorted({mutant.seed for mutant in MUTANTS}))
def test_seed_that_notices_a_defect_is_sound_without_it(seed: int) -> None:
    assert simulate(draw_plan(seed)).breaches == ()
