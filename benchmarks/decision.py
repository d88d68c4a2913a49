"""Measures one decision: a device's last test ends, and the step that gives it its next work is there.

python -m benchmarks decision [--rounds N] [--json]

Nothing is committed and nothing is sent: what is measured is the scheduler alone. A decision at a larger queue costs
more only by what its heaps and the processor's caches cost. The median of the largest lab differs by a third from one
process to the next, though both decide the same: so each size is measured in several new processes, and the round with
the median p50 counts.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coordinator.core.events import (
    AgentConnected,
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    JobsSubmitted,
    LeaseAdopted,
    LeaseEcho,
)
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptOutcome,
    Counters,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    JobSpec,
    Lease,
    LeaseId,
    Now,
    SessionId,
    Settings,
    Target,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import PutAttempt
from coordinator.process import COLLECTION_THRESHOLDS

ORGS = 40
MODELS = 12
DEVICES_PER_AGENT = 500
SPECS_PER_SUBMIT = 120
TARGETS = (Target.EMULATOR, Target.DEVICE, Target.ANY, Target.BROWSERSTACK)
KINDS = (DeviceKind.EMULATOR, DeviceKind.DEVICE, DeviceKind.EMULATOR, DeviceKind.BROWSERSTACK)
DECISIONS = 5_000
ROUNDS = 5


class Bench:
    """A scheduler with a long queue, and agents that report what tests do."""

    def __init__(self, seed: int) -> None:
        # One turn of all agents takes longer here than any heartbeat may.
        self.scheduler = Scheduler(Settings(heartbeat_us=10**15, lease_ttl_us=10**15), Counters(epoch=1))
        self.random = random.Random(seed)
        self._now_us = 0
        self._sessions: dict[AgentId, SessionId] = {}

    def now(self) -> Now:
        self._now_us += 50
        return Now(mono_us=self._now_us, wall_us=1_700_000_000 * SECOND_US + self._now_us)

    def submit(self, count: int) -> None:
        """Queue jobs in bursts by build; a third of them wants one model of device."""
        for number in range(0, count, SPECS_PER_SUBMIT):
            org = f"org-{self.random.randrange(ORGS)}"
            target = self.random.choice(TARGETS)
            selector = (("model", f"model-{self.random.randrange(MODELS)}"),) if self.random.random() < 0.33 else ()
            priority = self.random.choice((1, 2, 3, 3, 3, 4, 5))
            version = f"build-{number}"
            specs = tuple(
                JobSpec(
                    org_id=org,
                    app_version_id=version,
                    test=f"tests/{index}.spec.ts",
                    priority=priority,
                    target=target,
                    selector=selector,
                )
                for index in range(min(SPECS_PER_SUBMIT, count - number))
            )
            self.scheduler.handle(
                JobsSubmitted(org_id=org, key=f"k{number}", payload_sha256="", specs=specs), self.now()
            )

    def connect(self, devices: int) -> None:
        """Connect agents; their devices get work at once."""
        for first in range(0, devices, DEVICES_PER_AGENT):
            agent = AgentId(f"agent-{first}")
            session = self._sessions[agent] = SessionId(first + 1)
            facts = tuple(
                DeviceFacts(
                    id=DeviceId(f"d{number}@{agent}"),
                    kind=KINDS[number % len(KINDS)],
                    model=f"model-{number % MODELS}",
                    udid=f"d{number}",
                )
                for number in range(first, min(devices, first + DEVICES_PER_AGENT))
            )
            self.scheduler.handle(
                AgentConnected(session=session, agent=agent, boot_id="b", version="0.1.0", host="h", devices=facts),
                self.now(),
            )

    def decisions(self, count: int) -> Iterator[tuple[float, float, int]]:
        """Yield how long each decision took in microseconds, its time on the processor, and how many jobs it gave."""
        waiting = list(self.scheduler.ledger.fleet.leases)
        self.random.shuffle(waiting)
        done = 0
        while done < count and waiting:
            lease = self.scheduler.ledger.fleet.leases[waiting.pop()]
            device = lease.device
            self._run_all_but_one(lease)
            finished = self._last_result(lease.id)
            if finished is None:
                continue
            now = self.now()
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            step = self.scheduler.handle(finished, now)
            cpu_us, took_us = (time.thread_time() - begun_cpu) * 1e6, (time.perf_counter() - begun) * 1e6
            given = sum(1 for write in step.writes if isinstance(write, PutAttempt) and write.attempt.outcome is None)
            if given:
                done += 1
                yield took_us, cpu_us, given
            successor = self.scheduler.ledger.fleet.devices[device].lease
            if successor is not None:
                waiting.insert(self.random.randrange(len(waiting) + 1), successor)

    def _run_all_but_one(self, lease: Lease) -> None:
        session = self._sessions[lease.agent]
        echo = LeaseEcho(lease=lease.id, fence=lease.fence, revision=lease.revision)
        self.scheduler.handle(LeaseAdopted(session=session, echo=echo), self.now())
        self.scheduler.handle(
            BuildInstalled(
                session=session,
                lease=lease.id,
                fence=lease.fence,
                digest=lease.app.app_version_id,
                install_us=8 * SECOND_US,
                was_installed=True,
            ),
            self.now(),
        )
        while (result := self._last_result(lease.id, left=2)) is not None:
            self.scheduler.handle(result, self.now())

    def _last_result(self, lease_id: LeaseId, left: int = 1) -> AttemptFinished | None:
        """Start the next attempt and return its result, if at least `left` are there."""
        lease = self.scheduler.ledger.fleet.leases.get(lease_id)
        taken = dict(lease.revoked) if lease is not None else {}
        if lease is None or len(lease.attempts) < left or taken:
            return None
        session = self._sessions[lease.agent]
        attempt = lease.attempts[0]
        self.scheduler.handle(
            AttemptStarted(session=session, lease=lease.id, fence=lease.fence, attempt=attempt), self.now()
        )
        self._now_us += 10 * SECOND_US
        return AttemptFinished(
            session=session, lease=lease.id, fence=lease.fence, attempt=attempt, outcome=AttemptOutcome.PASSED
        )


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Pauses:
    """Times every collection of garbage."""

    def __init__(self) -> None:
        self.longest_us = 0.0
        self._begun = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self.longest_us = max(self.longest_us, (time.perf_counter() - self._begun) * 1e6)


def measure(jobs: int, devices: int, decisions: int, seed: int = 1) -> dict[str, Any]:
    """Return the figures of one size of lab."""
    bench = Bench(seed)
    before = resident_bytes()
    begun = time.perf_counter()
    bench.submit(jobs + 5 * devices)
    submit_us = (time.perf_counter() - begun) * 1e6 / (jobs + 5 * devices)
    per_job = (resident_bytes() - before) / (jobs + 5 * devices)
    bench.connect(devices)
    # As the coordinator does: what was queued lives for long, and next to nothing here is a cycle.
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    pauses = Pauses()
    gc.callbacks.append(pauses)
    taken = list(bench.decisions(decisions))
    gc.callbacks.remove(pauses)
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    spans = sorted(span for span, _, _ in taken)
    cpu = sorted(span for _, span, _ in taken)
    return {
        "jobs": len(bench.scheduler.ledger.queues),
        "devices": devices,
        "decisions": len(taken),
        "p50_us": round(spans[len(spans) // 2], 1),
        "p99_us": round(spans[int(len(spans) * 0.99)], 1),
        "longest_us": round(spans[-1], 1),
        "p50_cpu_us": round(cpu[len(cpu) // 2], 1),
        "p99_cpu_us": round(cpu[int(len(cpu) * 0.99)], 1),
        "longest_cpu_us": round(cpu[-1], 1),
        "longest_collection_us": round(pauses.longest_us, 1),
        "mean_batch": round(sum(given for _, _, given in taken) / len(taken), 2),
        "bytes_per_job": round(per_job),
        "submit_us_per_job": round(submit_us, 2),
    }


SIZES = ((1_000, 1_000), (10_000, 5_000), (100_000, 20_000), (1_000_000, 50_000))
BUDGET_US, BUDGET_PER_JOB_US, BUDGET_P99_US, BUDGET_BYTES = 100, 10, 1_000, 1_300


def median_round(jobs: int, devices: int, decisions: int, rounds: int) -> dict[str, Any]:
    """Measure one size in so many new processes, and return the round with the median p50, with the span of all."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(measure, (jobs, devices, decisions)) for _ in range(rounds)]
    found.sort(key=lambda one: float(one["p50_us"]))
    span = {"least_p50_us": found[0]["p50_us"], "most_p50_us": found[-1]["p50_us"]}
    return found[rounds // 2] | span


def run(is_told: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    """Measure each size, the largest last."""
    rows = []
    for jobs, devices in SIZES:
        rows.append(median_round(jobs, devices, min(DECISIONS, 4 * devices), rounds))
        if is_told:
            print(rows[-1])
    largest = rows[-1]
    budget_us = BUDGET_US + BUDGET_PER_JOB_US * largest["mean_batch"]
    ratios = {
        "p50_over_budget": round(largest["p50_us"] / budget_us, 2),
        "p99_over_budget": round(largest["p99_us"] / BUDGET_P99_US, 2),
        "p50_cpu_over_budget": round(largest["p50_cpu_us"] / budget_us, 2),
        "p99_cpu_over_budget": round(largest["p99_cpu_us"] / BUDGET_P99_US, 2),
        "bytes_per_job_over_budget": round(largest["bytes_per_job"] / BUDGET_BYTES, 2),
        "p50_cpu_at_1m_over_1k": round(largest["p50_cpu_us"] / rows[0]["p50_cpu_us"], 2),
    }
    return {"sizes": rows}, ratios
