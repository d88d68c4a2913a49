"""What no policy can beat: bounds for a workload whose jobs are all there at once."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from coordinator.core.model import AppKey, DeviceKind
from coordinator.simulation.model import Workload


def least_makespan_us(workload: Workload) -> int:
    """Return a time before which no schedule ends.

    The largest of: each job with its install; and for every set of kinds of device, the work that only they can do and
    one install for each of its builds, spread evenly.
    """
    longest = max(run.release_us + workload.install_us[run.app] + run.duration_us for run in workload.runs)
    bounds = [longest]
    for size in range(1, len(DeviceKind) + 1):
        bounds += [_pool_bound_us(workload, frozenset(kinds)) for kinds in combinations(DeviceKind, size)]
    return max(bounds)


def _pool_bound_us(workload: Workload, kinds: frozenset[DeviceKind]) -> int:
    devices = sum(1 for kind in workload.kinds if kind in kinds)
    captive = [run for run in workload.runs if kinds.issuperset(run.kinds)]
    if not devices or not captive:
        return 0
    first_us = min(run.release_us for run in captive)
    installs_us = sum(workload.install_us[app] for app in {run.app: None for run in captive})
    return first_us + -(-(sum(run.duration_us for run in captive) + installs_us) // devices)


def fewest_installs(workload: Workload, within_us: int) -> int:
    """Return how many installs a schedule that ends within a time needs at least.

    A device that installs a build has `within_us` less the install for its tests, and a build needs as many devices as
    its work takes. In these workloads a build is asked for with one target only.
    """
    work: dict[AppKey, int] = defaultdict(int)
    for run in workload.runs:
        work[run.app] += run.duration_us
    return sum(-(-work_us // (within_us - workload.install_us[app])) for app, work_us in work.items())
