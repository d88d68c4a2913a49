"""Dispatch: what the policy decides becomes grants, longer batches and preemptions.

Nothing in here scans jobs, devices or leases. The queues and pools say what was touched since the last step, and only
that is looked at: families that grew, pools with a new head or a free device, pools in which urgent jobs wait.
"""

from __future__ import annotations

import heapq

from coordinator.core.endings import Patience
from coordinator.core.families import Family, Head, Signature, effective_priority
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    MIN_PRIORITY,
    URGENT_PRIORITY,
    AttemptId,
    DeviceState,
    Job,
    JobId,
    Lane,
    Lease,
    LeaseId,
    LeaseState,
    Now,
    RevokeReason,
)
from coordinator.core.policy import Choice, Policy

MOST_GROWN = 64
"""So many batches of a family are looked at for room in one step. In a larger family one soon ends, and takes more."""


class Coming:
    """Devices that are being taken back: the lease that makes room, and the pool that it was chosen for.

    A nomination is soft. The urgent jobs stay queued and take whatever device is free first; the device goes to the
    first head when it comes; and what nobody of its pool needs any more is left to the next pool that it serves.
    """

    def __init__(self) -> None:
        self._pool_of: dict[LeaseId, Signature | None] = {}
        self._leases: dict[Signature | None, dict[LeaseId, None]] = {}

    def add(self, lease: LeaseId) -> None:
        """Note that a lease makes room, for no pool if none is known."""
        if lease not in self._pool_of:
            self.put(lease, None)

    def put(self, lease: LeaseId, pool: Signature | None) -> None:
        """Note for which pool a lease makes room."""
        self.drop(lease)
        self._pool_of[lease] = pool
        self._leases.setdefault(pool, {})[lease] = None

    def drop(self, lease: LeaseId) -> bool:
        """Forget a lease that is over, or whose agent is away. Returns whether it made room."""
        if lease not in self._pool_of:
            return False
        pool = self._pool_of.pop(lease)
        del self._leases[pool][lease]
        if not self._leases[pool]:
            del self._leases[pool]
        return True

    def count(self, pool: Signature) -> int:
        """Return how many devices come for a pool."""
        return len(self._leases.get(pool, ()))

    def by_pool(self) -> list[tuple[Signature | None, list[LeaseId]]]:
        """Return all of them."""
        return [(pool, list(leases)) for pool, leases in self._leases.items()]


class Dispatcher:
    """Gives work to devices, and takes it back."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rules = ledger.settings.rules
        self._policy = Policy(self._rules, ledger.queues, ledger.fleet.pools, ledger.shares)
        self._coming = Coming()
        self._patience = Patience()
        self._urgent: dict[Signature, None] = {}
        """Pools in which urgent jobs wait and not enough devices are coming."""
        self._look_at: dict[Signature, None] = {}
        """Pools in which urgent jobs wait that were touched in this step."""

    def dispatch(self, now: Now, deadline_us: int) -> None:
        """Let running batches grow, give free devices their work, and make room for urgent jobs.

        Args:
            now: Both clocks.
            deadline_us: Lab time at which a lease that is granted now ends without a heartbeat.
        """
        queues, pools = self._ledger.queues, self._ledger.fleet.pools
        heads = queues.heads
        heads.wake()
        if queues.grown:
            self._grow(now)
        is_complete = False
        while not is_complete:
            if heads.touched or pools.touched:
                self._fill(now, deadline_us)
            self._make_room(now)
            heads.wake()
            is_complete = not (heads.touched or pools.touched)  # whose device is taken back may want one that is free

    def next_look_us(self) -> int | None:
        """Return the monotonic time at which urgent jobs have waited for long enough for a test to end by itself."""
        return self._patience.next_us()

    # Batches

    def settle(self, lease_id: LeaseId, now: Now) -> None:
        """At a job boundary: go on, yield to higher priority, take more of the family, or close."""
        ledger = self._ledger
        lease = ledger.fleet.leases[lease_id]
        if lease.is_canary:
            return
        ledger.queues.heads.wake()
        if lease.attempts and lease.state is LeaseState.ACTIVE:
            self._yield_tail(lease, now)
            return
        if lease.attempts:
            return
        if lease.state is LeaseState.ACTIVE and self._top_up(lease, now):
            return
        was_revoked = lease.state is LeaseState.REVOKING
        state = LeaseState.REVOKED if was_revoked else LeaseState.RELEASED
        ledger.close_lease(lease, state, "the batch is done", now)

    def _yield_tail(self, lease: Lease, now: Now) -> None:
        """Take the unstarted rest of a batch back when a job of higher priority waits for the device.

        Not what was given out because it had waited longer than anybody should: that would never run else.
        """
        ledger = self._ledger
        tail = ledger.tail_of(lease)
        if not tail:
            return
        head = self._policy.best_head(ledger.fleet.devices[lease.device], ledger.fleet.family_of(lease.id))
        if head is None:
            return
        lower = [one for one in tail if self._level_of(one, now) < head.level and not self._is_guaranteed(one)]
        ledger.preempt(lease, lower, self._job_of(head))

    def _job_of(self, head: Head) -> JobId:
        entry = self._ledger.queues.heads.head_of(head.bucket)
        assert entry is not None, f"no job waits in {head.bucket}, and it has a head"
        return entry[3]

    def _is_guaranteed(self, attempt: AttemptId) -> bool:
        return self._ledger.attempts[attempt].job in self._ledger.guaranteed

    def _level_of(self, attempt: AttemptId, now: Now) -> int:
        job = self._ledger.jobs[self._ledger.attempts[attempt].job]
        return effective_priority(job.spec.priority, now.wall_us - job.create_us, self._rules)

    def _top_up(self, lease: Lease, now: Now) -> bool:
        """Let a batch take waiting jobs of its family, unless another head comes first. Returns whether it did."""
        ledger = self._ledger
        device = ledger.fleet.devices[lease.device]
        if not device.facts.is_usable or ledger.is_held(device):
            return False
        family = ledger.fleet.family_of(lease.id)
        waiting = ledger.queues.family(family)
        if waiting is None or not waiting.size:
            return False
        choice = self._policy.next_family(
            device, now.wall_us, current=family, at_work_us=max(0, now.wall_us - lease.grant_us)
        )
        if choice is None or choice.family.key != family:
            return False
        jobs = self._take(choice, lease)
        if jobs:
            self._note(choice)
            ledger.extend(lease, jobs, now)
            ledger.queues.offer_again(family)
        return bool(jobs)

    def _take(self, choice: Choice, lease: Lease | None) -> list[Job]:
        """Take the next jobs of a family for a lease out of the queue.

        They fill what the batch has room for beside unstarted jobs of their priority; lower ones stand behind them.
        """
        ledger, family = self._ledger, choice.family
        most, work_us = ledger.settings.max_batch, self._batch_work_us(family, choice.lanes)
        if lease is not None:
            first = choice.starved or ledger.queues.heads.first_bucket(family, choice.lanes)
            most -= len(ledger.tail_of(lease))
            work_us -= self._tail_work_us(lease, first.priority if first is not None else MIN_PRIORITY)
        taken = ledger.queues.take(family, most, work_us, choice.floor, choice.starved, choice.lanes)
        if not family.pool.size:
            ledger.match_pool(family.key.signature)
        if choice.starved is not None:
            ledger.guaranteed.update(dict.fromkeys(taken))
        return [ledger.jobs[job_id] for job_id in taken]

    def _batch_work_us(self, family: Family, lanes: tuple[Lane, ...]) -> int:
        coming = self._coming.count(family.key.signature)
        return self._policy.batch_work_us(family, lanes, self._ledger.install_us(family.key.app), coming)

    def _tail_work_us(self, lease: Lease, least: int) -> int:
        """Return the work of a batch that has not started, of jobs with at least a submitted priority."""
        ledger = self._ledger
        return sum(
            ledger.work_of(attempt)
            for attempt in ledger.tail_of(lease)
            if ledger.jobs[ledger.attempts[attempt].job].spec.priority >= least
        )

    def _has_room(self, lease: Lease, family: Family) -> bool:
        """Whether a batch may take another job of its family, whichever of those that wait is first.

        Many devices may work for the family. What else waits for each of them costs more to find out, and counts only
        where there is room.
        """
        highest = max(bucket.priority for bucket in family.buckets.values() if bucket.size)
        work_us = self._batch_work_us(family, self._ledger.fleet.devices[lease.device].facts.lanes)
        return self._tail_work_us(lease, highest) < work_us

    def _note(self, choice: Choice) -> None:
        is_guaranteed = choice.starved is not None
        self._ledger.queues.guarantee.note_decision(choice.signatures, choice.lanes, is_guaranteed=is_guaranteed)

    def _grow(self, now: Now) -> None:
        """Let jobs that came join a batch of their family that has room."""
        grown, self._ledger.queues.grown = self._ledger.queues.grown, {}
        for key in grown:
            for lease in self._ledger.fleet.leases_in_turn(key, MOST_GROWN):
                family = self._ledger.queues.family(key)
                if family is None or not family.size:
                    break
                is_at_work = lease.state is LeaseState.ACTIVE and lease.attempts
                if is_at_work and not self._makes_way(lease, family) and self._has_room(lease, family):
                    self._top_up(lease, now)
            self._ledger.queues.offer_again(key)

    def _makes_way(self, lease: Lease, family: Family) -> bool:
        """Whether the family's next job is urgent and the batch could make room: behind its test it would wait longer.

        It gets that device or a better one, without an install where it is that one.
        """
        first = self._ledger.queues.heads.first_bucket(family)
        is_urgent = first is not None and first.priority >= URGENT_PRIORITY
        return is_urgent and lease.id in self._ledger.victims

    # Free devices

    def _fill(self, now: Now, deadline_us: int) -> None:
        """Grant batches to free devices until no head that was touched finds one, the first head first."""
        pools, first, touched = self._ledger.fleet.pools, self._first_that_finds_one, self._touched()
        if not pools.free_count:  # as nearly always in a busy lab, once the device that fell free has its work
            return
        groups = pools.shared_lanes()
        places = [(signature, lanes) for signature in touched for lanes in groups]
        if pools.free_count == 1:  # whichever head finds it, what it does next is the same
            for place in places:
                if (head := first(*place)) is not None and self._grant(head, now, deadline_us):
                    break
            return
        heads = [(head, place) for place in places if (head := first(*place)) is not None]
        line = [(head.order, number, 0, head, place) for number, (head, place) in enumerate(heads)]
        heapq.heapify(line)
        grants = 0
        while line and pools.free_count:
            order, number, seen, known, place = heapq.heappop(line)
            head = known if seen == grants else first(*place)  # what was granted since may have changed it
            if head is None or (head.order == order and not self._grant(head, now, deadline_us)):
                continue
            if head.order == order:
                grants += 1
                head = first(*place)
            if head is not None:
                heapq.heappush(line, (head.order, number, grants, head, place))

    def _first_that_finds_one(self, signature: Signature, lanes: tuple[Lane, ...]) -> Head | None:
        """Return the first head of a pool in lanes that the same devices serve, if one of those may be free."""
        if not self._ledger.fleet.pools.has_free(signature, lanes[0]):
            return None
        return self._ledger.queues.heads.first(signature, 1, lanes)

    def _touched(self) -> dict[Signature, None]:
        queues, pools = self._ledger.queues, self._ledger.fleet.pools
        touched = {**queues.heads.touched, **pools.touched}
        queues.heads.touched, pools.touched = {}, {}
        is_anyone_patient = self._patience.is_any_waiting()
        for signature in touched:
            if not queues.has_urgent(signature):
                if self._coming.count(signature):  # for nobody any more: others may have what comes
                    self._look_at.update(self._urgent)
            elif signature not in self._urgent or (is_anyone_patient and self._patience.is_waiting(signature)):
                self._look_at[signature] = None
        return touched

    def _grant(self, head: Head, now: Now, deadline_us: int) -> bool:
        """Grant a batch to the best free device for a head. Returns whether there was one."""
        ledger = self._ledger
        key = head.bucket.family.key
        device = self._policy.choose_device(key.signature, key.app, head.level, head.bucket.lane)
        if device is None:
            return False
        choice = self._policy.next_family(device, now.wall_us, current=None, at_work_us=0)
        assert choice is not None, f"a head waits for {device.id}, and nothing is found for it"
        self._note(choice)
        ledger.grant(device, choice.family.key, self._take(choice, None), now, deadline_us)
        return True

    # Preemption

    def _make_room(self, now: Now) -> None:
        """Take devices back from low priorities for urgent jobs that no device is free for."""
        turned, self._ledger.turned = self._ledger.turned, {}
        for lease_id in turned:
            if self._makes_room(lease_id):
                self._coming.add(lease_id)
            elif self._coming.drop(lease_id):
                self._look_at.update(self._urgent)
        fresh, self._ledger.victims.fresh = self._ledger.victims.fresh, {}
        if self._urgent:
            self._look_at.update((one, None) for sort in fresh for one in sort.signatures if one in self._urgent)
        for signature in self._patience.spend(now.mono_us):
            self._look_at[signature] = None
        if not self._look_at:
            return
        looked_at, self._look_at = self._look_at, {}
        for signature in looked_at:
            if self._has_enough(signature, now):
                self._urgent.pop(signature, None)
                self._patience.end(signature)
            else:
                self._urgent[signature] = None

    def _makes_room(self, lease_id: LeaseId) -> bool:
        """Whether the whole of a lease is being taken back, by whomever, and its device can be used afterwards.

        Not while its agent is away. After a restart this says which leases make room.
        """
        lease = self._ledger.fleet.leases.get(lease_id)
        if lease is None or lease.state is not LeaseState.REVOKING:
            return False
        taken = {attempt for attempt, reason in lease.revoked if reason is RevokeReason.PREEMPT}
        is_wanted = self._ledger.fleet.devices[lease.device].state is DeviceState.DRAINING
        return not is_wanted and taken.issuperset(lease.attempts)

    def _has_enough(self, signature: Signature, now: Now) -> bool:
        """Take devices back for a pool. Returns whether no more are wanted."""
        wanted = self._wanted(signature)
        while self._coming.count(signature) < wanted and (lease_id := self._unclaimed(signature)) is not None:
            self._coming.put(lease_id, signature)
        missing = wanted - self._coming.count(signature)
        if missing <= 0:
            return True
        ending = self._ending(signature, missing, now)
        while self._coming.count(signature) + ending < wanted:
            lease_id = self._victim(signature)
            if lease_id is None:
                return False
            self._coming.put(lease_id, signature)
        return not ending

    def _ending(self, signature: Signature, most: int, now: Now) -> int:
        """Return for how many devices urgent jobs of a pool wait, because their tests end soon by themselves."""
        ledger = self._ledger
        head = ledger.queues.heads.first(signature, URGENT_PRIORITY)
        assert head is not None, f"nothing urgent waits in {signature}, and {most} devices are wanted"
        bound_us = self._patience_us(signature)
        left_us = self._patience.left_us(signature, bound_us, now.mono_us)
        sorts = ledger.fleet.pools.sorts_of(signature)

        def falls_free(lease_id: LeaseId) -> bool:
            lease = ledger.fleet.leases[lease_id]
            device = ledger.fleet.devices[lease.device]
            is_free_then = lease.state is LeaseState.ACTIVE and device.state is DeviceState.LEASED
            rest = (self._level_of(attempt, now) for attempt in ledger.tail_of(lease))
            return (
                is_free_then and ledger.fleet.serves(device, signature, Lane.HIGH) and max(rest, default=0) < head.level
            )

        ending = ledger.endings.count(sorts, now.wall_us, now.wall_us + left_us, most, falls_free) if left_us else 0
        if ending:
            self._patience.begin(signature, left_us, now.mono_us)
        return ending

    def _patience_us(self, signature: Signature) -> int:
        """Return how long urgent jobs of a pool wait for a test to end: an interruption would cost another install."""
        head = self._ledger.queues.heads.first(signature, URGENT_PRIORITY)
        assert head is not None
        install_us = self._ledger.install_us(head.bucket.family.key.app)
        return min(install_us, self._ledger.settings.preempt_grace_us)

    def _wanted(self, signature: Signature) -> int:
        """Return on how many devices urgent jobs of a pool should start: no more than a split would give them."""
        queues = self._ledger.queues
        head = queues.heads.first(signature, URGENT_PRIORITY)
        if head is None:
            return 0
        jobs, work_us = queues.urgent_in(signature)
        install_us = self._ledger.install_us(head.bucket.family.key.app)
        pays = work_us // max(1, self._rules.urgent_split_installs * install_us)
        return max(1, min(jobs, pays))

    def _unclaimed(self, signature: Signature) -> LeaseId | None:
        """Return a lease that makes room for nobody that waits any more."""
        queues, fleet = self._ledger.queues, self._ledger.fleet
        for claimed, leases in self._coming.by_pool():
            if claimed == signature or (claimed is not None and queues.urgent_in(claimed)[0]):
                continue
            for lease_id in leases:
                if fleet.serves(fleet.devices[fleet.leases[lease_id].device], signature, Lane.HIGH):
                    return lease_id
        return None

    def _victim(self, signature: Signature) -> LeaseId | None:
        """Take everything back from the lease that makes room first, and return it."""
        fleet = self._ledger.fleet

        def may_yield(lease_id: LeaseId) -> bool:
            device = fleet.devices[fleet.leases[lease_id].device]
            return device.state is not DeviceState.DRAINING and fleet.serves(device, signature, Lane.HIGH)

        victim = self._ledger.victims.first(fleet.pools.sorts_of(signature), may_yield)
        if victim is not None:
            lease = fleet.leases[victim]
            if self._patience.is_spent(signature):
                grace_us = self._ledger.settings.preempt_grace_us - self._patience_us(signature)
                self._ledger.hurried[victim] = grace_us
            head = self._ledger.queues.heads.first(signature, URGENT_PRIORITY)
            assert head is not None, f"room is made in {signature}, where nothing urgent waits"
            self._ledger.preempt(lease, list(lease.attempts), self._job_of(head))
        return victim
