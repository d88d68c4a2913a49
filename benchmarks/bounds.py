"""What no policy can beat: bounds for a workload whose jobs are all there at once."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations

from coordinator.core.model import MAX_PREEMPTIONS, PREEMPTIBLE_PRIORITY, AppKey, DeviceKind, Rules
from coordinator.simulation.model import Run, Workload


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


def wait_bound_us(workload: Workload, run: Run, rules: Rules) -> int:
    """Return the longest that a job may wait for its first start, whatever comes after it.

    Two promises hold at once, as long as no device goes away. All devices of its pool work while it waits, so it starts
    when everything is done that they could do instead. And once it has waited for `guarantee_wait_us`, one decision of
    `guarantee_every` on its devices is for the oldest that waits for them: each takes at least one of those that are as
    old, and every device decides anew after the longest batch at the latest.
    """
    batch_us = _longest_batch_us(workload, rules)
    devices = sum(kind in run.kinds for kind in workload.kinds)
    rivals = [other for other in workload.runs if set(other.kinds) & set(run.kinds)]
    as_old = sum(other.release_us <= run.release_us for other in rivals)
    decisions = -(-as_old * rules.guarantee_every // devices) + 1
    guaranteed_us = rules.guarantee_wait_us + decisions * batch_us
    return min(guaranteed_us, _work_us(workload, rivals) // devices + batch_us)


def longest_wait_bound_us(workload: Workload, rules: Rules, priority: int) -> int:
    """Return the longest that any job of a priority may wait for its first start; 0 if there is none."""
    last = {run.spec.target: run for run in workload.runs if run.spec.priority == priority}
    return max((wait_bound_us(workload, run, rules) for run in last.values()), default=0)


def _longest_batch_us(workload: Workload, rules: Rules) -> int:
    """Return how long a device may work on what one decision gave it: tests may take longer than they usually do."""
    longest_us = max(run.duration_us for run in workload.runs)
    usual = workload.usual_us
    stretches = [
        run.duration_us / usual[run.spec.org_id, run.spec.test]
        for run in workload.runs
        if (run.spec.org_id, run.spec.test) in usual
    ]
    stretch = max([1.0, *stretches])
    return math.ceil((rules.batch_most_us + longest_us) * stretch) + max(workload.install_us.values())


def _work_us(workload: Workload, runs: list[Run]) -> int:
    """Return the work of jobs, with an install for each, and again as often as it may be preempted."""
    return sum(
        (run.duration_us + workload.install_us[run.app])
        * (1 + MAX_PREEMPTIONS * (run.spec.priority <= PREEMPTIBLE_PRIORITY))
        for run in runs
    )
