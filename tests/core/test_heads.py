"""The first head of a pool is kept from one question to the next: it must be the one that a new look finds."""

from __future__ import annotations

import random

import pytest

from coordinator.core.families import FamilyKey, Head, family_of
from coordinator.core.heads import MOST_RISES
from coordinator.core.lanes import Queues
from coordinator.core.model import (
    ALL_LANES,
    NO_NUMBERS,
    SECOND_US,
    URGENT_PRIORITY,
    Job,
    JobId,
    JobState,
    Lane,
    Rules,
    SubmitSequence,
)
from coordinator.core.shares import Shares
from tests.core.lab import spec

AGE_US = Rules().age_us
QUOTA = 2
LANES = (ALL_LANES, (Lane.HIGH,), (Lane.NORMAL, Lane.LOW))


class Churn:
    """Queues that change at random in every way in which the scheduler changes them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.shares = Shares(NO_NUMBERS, {"x": QUOTA}, 0)
        self.queues = Queues(Rules(), self.shares)
        self.wall_us = 100 * AGE_US
        self.waiting: dict[JobId, Job] = {}
        self.working: list[FamilyKey] = []
        self.held: list[tuple[FamilyKey, int, int]] = []
        self.keys: dict[FamilyKey, None] = {}

    def change(self, number: int) -> None:
        for _ in range(self.chance.randint(1, 3)):
            change = self.chance.choice(
                (
                    self.push,
                    self.push,
                    self.remove,
                    self.take,
                    self.join,
                    self.part,
                    self.hold,
                    self.install,
                    self.wait,
                )
            )
            change(number)

    def push(self, number: int) -> None:
        number = 10 * number + len(self.waiting) % 10
        if JobId(number) in self.waiting:
            return
        wanted = spec(
            org_id=self.chance.choice("xyz"),
            app_version_id=self.chance.choice("abc"),
            selector=(("model", self.chance.choice("mn")),),
            priority=self.chance.choice((1, 2, 3, 4, 5)),
        )
        job = Job(
            id=JobId(number),
            sequence=SubmitSequence(number),
            spec=wanted,
            state=JobState.QUEUED,
            create_us=self.wall_us,
            attempt_count=self.chance.choice((0, 0, 1)),
        )
        self.waiting[job.id] = job
        self.keys[family_of(job)] = None
        self.shares.enter(job.spec.org_id)
        self.queues.push(job, self.chance.choice((30, 300)) * SECOND_US, 10 * SECOND_US)

    def remove(self, _number: int) -> None:
        if self.waiting:
            self.queues.remove(self.waiting.pop(self.chance.choice(sorted(self.waiting))))

    def take(self, _number: int) -> None:
        if self.waiting:
            family = self.queues.family(family_of(self.waiting[self.chance.choice(sorted(self.waiting))]))
            assert family is not None
            for job_id in self.queues.take(family, 3, 100 * SECOND_US, 0):
                del self.waiting[job_id]
            self.queues.offer_again(family.key)

    def join(self, _number: int) -> None:
        key = self.chance.choice(list(self.keys)) if self.keys else None
        if key is not None:
            self.queues.join(key, 10 * SECOND_US, ALL_LANES)
            self.shares.hold(key.app.org_id, 1)
            self.working.append(key)

    def part(self, _number: int) -> None:
        if self.working:
            key = self.working.pop(self.chance.randrange(len(self.working)))
            self.queues.part(key)
            self.shares.hold(key.app.org_id, -1)
            self.queues.unpark(key.app.org_id)

    def hold(self, _number: int) -> None:
        if self.held and self.chance.random() < 0.5:
            key, priority, work_us = self.held.pop()
            self.queues.hold(key, priority, -work_us)
        elif self.keys:
            key, priority = self.chance.choice(list(self.keys)), self.chance.choice((1, 3, 5))
            self.queues.hold(key, priority, 200 * SECOND_US)
            self.held.append((key, priority, 200 * SECOND_US))
            self.shares.charge(key.app.org_id, 200 * SECOND_US)

    def install(self, _number: int) -> None:
        if self.keys:
            key = self.chance.choice(list(self.keys))
            self.queues.note_install(key.app, self.chance.choice((5, 10, 60)) * SECOND_US)
            self.queues.note_devices(key.signature, self.chance.randint(1, 4))

    def wait(self, _number: int) -> None:
        self.wall_us += self.chance.choice((1, AGE_US // 3, AGE_US, -AGE_US // 2))
        self.queues.advance(self.wall_us)


def told(head: Head | None) -> object:
    return None if head is None else (head.order, id(head.bucket))


@pytest.mark.parametrize("seed", range(8))
def test_first_head_that_is_kept_is_the_one_that_a_new_look_finds(seed: int) -> None:
    churn = Churn(seed)
    heads = churn.queues.heads
    found = 0
    for number in range(400):
        churn.change(number)
        heads.wake()
        places = [(key, lanes) for key in churn.keys for lanes in LANES]
        kept = [heads.first(key.signature, 1, lanes) for key, lanes in places]
        for family in (churn.queues.family(key) for key in churn.keys):
            if family is not None:
                family.pool.first.clear()
        for (key, lanes), head in zip(places, kept, strict=True):
            assert told(heads.first(key.signature, 1, lanes)) == told(head)
            urgent = head if head is not None and head.level >= URGENT_PRIORITY else None
            assert told(heads.first(key.signature, URGENT_PRIORITY, lanes)) == told(urgent)
            found += head is not None
    assert found > 1_000


def waiting(number: int, model: str) -> Job:
    wanted = spec(selector=(("model", model),), priority=1)
    return Job(
        id=JobId(number), sequence=SubmitSequence(number), spec=wanted, state=JobState.QUEUED, create_us=100 * AGE_US
    )


def test_head_that_the_look_for_the_first_has_lifted_is_not_overlooked() -> None:
    queues = Queues(Rules(), Shares(NO_NUMBERS, {}, 0))
    queues.advance(100 * AGE_US)
    for number in range(MOST_RISES):  # as many as rise in one turn, each in a pool of its own
        queues.push(waiting(number, f"rising {number}"), 30 * SECOND_US, 10 * SECOND_US)
    last = waiting(MOST_RISES, "last")
    queues.push(last, 3_600 * SECOND_US, 10 * SECOND_US)
    key = family_of(last)
    queues.join(key, 10 * SECOND_US)
    queues.note_devices(key.signature, 8)
    queues.heads.wake()
    queues.advance(101 * AGE_US)
    head = queues.heads.first(key.signature)
    assert head is not None
    assert head.level == 2


def of_build(number: int, build: str) -> Job:
    wanted = spec(app_version_id=build, priority=3)
    return Job(
        id=JobId(number), sequence=SubmitSequence(number), spec=wanted, state=JobState.QUEUED, create_us=100 * AGE_US
    )


def test_first_head_rests_once_a_job_of_another_family_gives_the_other_devices_more_to_do() -> None:
    queues = Queues(Rules(), Shares(NO_NUMBERS, {}, 0))
    queues.advance(100 * AGE_US)
    large, other = of_build(1, "large"), of_build(2, "other")
    queues.push(large, 2_000 * SECOND_US, 10 * SECOND_US)
    queues.join(family_of(large), 10 * SECOND_US)
    # Its installs are so dear that one more device never pays, so its own place does not change with its jobs.
    queues.join(family_of(other), 1_000 * SECOND_US)
    queues.note_devices(family_of(large).signature, 2)
    queues.heads.wake()
    head = queues.heads.first(family_of(large).signature)
    assert head is not None, "as much is left for each of its devices as for each of the pool"
    assert head.bucket.family.key == family_of(large)
    queues.push(other, 300 * SECOND_US, 1_000 * SECOND_US)
    assert queues.heads.first(family_of(large).signature) is None
