"""The exact optimum of small closed workloads, by constraint programming (OR-tools CP-SAT)."""

from __future__ import annotations

from dataclasses import dataclass

from ortools.sat.python import cp_model

from coordinator.simulation.model import Workload

UNIT_US = 100_000
"""Times are rounded up to tenths of a second, for the solver's sake."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The shortest schedule that was found, and what none is shorter than."""

    makespan_us: int
    bound_us: int

    @property
    def is_proven(self) -> bool:
        """Whether there is no shorter one."""
        return self.makespan_us == self.bound_us


def optimum(workload: Workload, seconds: float, workers: int = 1) -> Optimum:
    """Find the least makespan: each device runs its jobs build by build, with one install for each build.

    The order on a device does not change when it ends, so only who runs what is searched.
    """
    model = cp_model.CpModel()
    devices = range(len(workload.kinds))
    takes = {
        (run.number, device): model.new_bool_var(f"r{run.number}d{device}")
        for run in workload.runs
        for device in devices
        if workload.kinds[device] in run.kinds
    }
    for run in workload.runs:
        model.add_exactly_one(takes[run.number, device] for device in devices if (run.number, device) in takes)
    horizon = sum(_units(run.duration_us) for run in workload.runs) + sum(
        _units(install_us) for install_us in workload.install_us.values()
    )
    makespan = model.new_int_var(0, horizon, "makespan")
    for device in devices:
        mine = [run for run in workload.runs if (run.number, device) in takes]
        terms = [_units(run.duration_us) * takes[run.number, device] for run in mine]
        for app in {run.app: None for run in mine}:
            installs = model.new_bool_var(f"i{device}{app}")
            for run in mine:
                if run.app == app:
                    model.add_implication(takes[run.number, device], installs)
            terms.append(_units(workload.install_us[app]) * installs)
        model.add(sum(terms) <= makespan)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE), f"no schedule found in {seconds} s"
    return Optimum(round(solver.objective_value) * UNIT_US, round(solver.best_objective_bound) * UNIT_US)


def _units(time_us: int) -> int:
    return -(-time_us // UNIT_US)
