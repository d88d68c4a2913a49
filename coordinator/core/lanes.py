"""The queues: families of waiting jobs, in pools of families that the same devices can serve.

A family holds the jobs that can share one install. A pool holds the families with one signature: target, selector and
devices to avoid. Heaps are cleaned lazily: an entry counts only while it still is its job's place in the queue.
Every operation costs O(log n); nothing scans the jobs.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from coordinator.core.model import AppKey, DeviceId, Job, JobId, Target

Place = tuple[int, int, int]
"""(-priority, 0 for a job that was given back, submit sequence): the lower, the earlier."""


def place_of(job: Job) -> Place:
    """Return the job's place among all that wait: priority, then those given back, then age."""
    return (-job.spec.priority, 0 if job.attempt_count else 1, job.sequence)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a device must satisfy to serve a pool."""

    target: Target
    selector: tuple[tuple[str, str], ...]
    avoid: tuple[DeviceId, ...]


def signature_of(job: Job) -> Signature:
    """Return the signature of the one pool that the job waits in."""
    return Signature(job.spec.target, job.spec.selector, job.avoid)


@dataclass(frozen=True, slots=True)
class FamilyKey:
    """Names a family: jobs that can share one install and one device."""

    app: AppKey
    signature: Signature


def family_of(job: Job) -> FamilyKey:
    """Return the family that the job belongs to."""
    return FamilyKey(AppKey(org_id=job.spec.org_id, app_version_id=job.spec.app_version_id), signature_of(job))


@dataclass(slots=True)
class _Family:
    heap: list[tuple[Place, JobId]] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class _Pool:
    heads: list[tuple[Place, AppKey]] = field(default_factory=list)
    families: dict[AppKey, _Family] = field(default_factory=dict)
    orgs: Counter[str] = field(default_factory=Counter)
    """Families of each organisation."""


class Queues:
    """All waiting jobs."""

    def __init__(self) -> None:
        self._pools: dict[Signature, _Pool] = {}
        self._waiting: dict[JobId, tuple[Place, FamilyKey]] = {}
        self._queued_per_org: dict[str, int] = {}
        self._pools_per_org: Counter[str] = Counter()
        self._families_per_app: Counter[AppKey] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._waiting

    def signatures(self) -> Iterator[Signature]:
        """Yield the signatures of the pools in which something waits."""
        yield from self._pools

    def queued_of(self, org_id: str) -> int:
        """Return how many jobs of an organisation wait."""
        return self._queued_per_org.get(org_id, 0)

    def pools_with(self, org_id: str, signatures: Iterable[Signature]) -> tuple[int, int]:
        """Return how many pools an organisation and all would have if jobs with these signatures came."""
        wanted = frozenset(signatures)
        mine = sum(1 for one in wanted if one not in self._pools or org_id not in self._pools[one].orgs)
        return self._pools_per_org[org_id] + mine, len(self._pools) + len(wanted - self._pools.keys())

    def push(self, job: Job) -> None:
        """Let a job wait."""
        assert job.id not in self._waiting, f"job {job.id} waits twice"
        key, place = family_of(job), place_of(job)
        pool = self._pools.setdefault(key.signature, _Pool())
        if key.app not in pool.families:
            pool.families[key.app] = _Family()
            self._count_family(pool, key.app, 1)
        family = pool.families[key.app]
        heapq.heappush(family.heap, (place, job.id))
        family.size += 1
        if family.heap[0] == (place, job.id):
            heapq.heappush(pool.heads, (place, key.app))
        self._waiting[job.id] = (place, key)
        self._queued_per_org[job.spec.org_id] = self.queued_of(job.spec.org_id) + 1

    def remove(self, job_id: JobId) -> None:
        """Take a job out, wherever it stands."""
        _, key = self._waiting.pop(job_id)
        org = key.app.org_id
        self._queued_per_org[org] -= 1
        if not self._queued_per_org[org]:
            del self._queued_per_org[org]
        pool = self._pools[key.signature]
        family = pool.families[key.app]
        family.size -= 1
        if not family.size:
            del pool.families[key.app]
            self._count_family(pool, key.app, -1)
            if not pool.families:
                del self._pools[key.signature]
            return
        self._expose_head(pool, key.app, family)

    def waits(self, app: AppKey) -> bool:
        """Whether a job for this build waits."""
        return app in self._families_per_app

    def _count_family(self, pool: _Pool, app: AppKey, change: int) -> None:
        org = app.org_id
        self._families_per_app[app] += change
        if not self._families_per_app[app]:
            del self._families_per_app[app]
        had = pool.orgs[org] > 0
        pool.orgs[org] += change
        has = pool.orgs[org] > 0
        if not has:
            del pool.orgs[org]
        self._pools_per_org[org] += has - had
        if not self._pools_per_org[org]:
            del self._pools_per_org[org]

    def _expose_head(self, pool: _Pool, app: AppKey, family: _Family) -> None:
        is_new_head = False
        while not self._is_current(*family.heap[0]):
            heapq.heappop(family.heap)
            is_new_head = True
        if is_new_head:
            heapq.heappush(pool.heads, (family.heap[0][0], app))

    def _is_current(self, place: Place, job_id: JobId) -> bool:
        waiting = self._waiting.get(job_id)
        return waiting is not None and waiting[0] == place

    def head_of_pool(self, signature: Signature) -> tuple[Place, FamilyKey] | None:
        """Return the pool's first family with the place of its first job."""
        pool = self._pools.get(signature)
        if pool is None:
            return None
        while pool.heads:
            place, app = pool.heads[0]
            family = pool.families.get(app)
            if family is not None and family.heap[0][0] == place:
                return place, FamilyKey(app, signature)
            heapq.heappop(pool.heads)
        raise AssertionError(f"pool {signature} has families but no head")

    def head_of_family(self, key: FamilyKey) -> tuple[Place, JobId] | None:
        """Return the first job of a family with its place."""
        pool = self._pools.get(key.signature)
        family = pool.families.get(key.app) if pool else None
        return family.heap[0] if family else None

    def first_of(self, key: FamilyKey, most: int) -> list[JobId]:
        """Return the first jobs of a family, in order. They go on waiting. Costs O(most x log n)."""
        heap = self._pools[key.signature].families[key.app].heap
        popped: list[tuple[Place, JobId]] = []
        first: dict[JobId, None] = {}
        while heap and len(first) < most:
            entry = heapq.heappop(heap)
            if self._is_current(*entry) and entry[1] not in first:
                popped.append(entry)
                first[entry[1]] = None
        for entry in popped:
            heapq.heappush(heap, entry)
        return list(first)

    def places(self) -> dict[JobId, int]:
        """Return each waiting job's place among those of its pool, from 1. Costs O(n log n): for people."""
        counts: dict[Signature, int] = {}
        places: dict[JobId, int] = {}
        for job_id in self.in_order():
            signature = self._waiting[job_id][1].signature
            counts[signature] = places[job_id] = counts.get(signature, 0) + 1
        return places

    def in_order(self) -> list[JobId]:
        """Return all waiting jobs, the first first. Costs O(n log n): for people, not for decisions."""
        return sorted(self._waiting, key=lambda job_id: self._waiting[job_id][0])
