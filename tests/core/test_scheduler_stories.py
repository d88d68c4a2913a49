"""Random stories: users, agents, lost links, restarts and garbage, with the invariants checked after every event."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.errors import QgjobError
from coordinator.core.events import AgentForgetRequested, AttemptFinished, AttemptStarted, LeaseEcho
from coordinator.core.model import (
    AgentId,
    AttemptId,
    AttemptOutcome,
    DeviceId,
    DeviceKind,
    Failure,
    Fence,
    JobId,
    JobState,
    Lease,
    LeaseId,
    SessionId,
    Target,
)
from coordinator.core.step import PutAttempt, Step
from tests.core.lab import AgentOnPaper, Lab, emulator, spec

AGENTS = ("one", "two", "three")
ENDINGS = (
    AttemptOutcome.PASSED,
    AttemptOutcome.PASSED,
    AttemptOutcome.FAILED,
    AttemptOutcome.ERRORED,
    AttemptOutcome.TIMED_OUT,
)


class Story(Lab):
    """A lab in which everything happens at random, from one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.boots: Counter[str] = Counter()
        self.agents: dict[str, AgentOnPaper] = {}
        self.ended: Counter[AttemptId] = Counter()

    def _note(self, step: Step) -> None:
        super()._note(step)
        for write in step.writes:
            if isinstance(write, PutAttempt) and write.attempt.outcome is not None:
                self.ended[write.attempt.id] += 1

    def act(self) -> None:
        name = self.random.choice(AGENTS)
        acts = (self.submit_some, self.cancel_one, self.garbage, self.wait, self.come, self.go, self.work, self.work)
        with contextlib.suppress(QgjobError):
            self.random.choice((*acts, self.forget))(name)

    def submit_some(self, _name: str) -> None:
        specs = [
            spec(
                f"t{number}",
                priority=self.random.randint(1, 5),
                org_id="qualgent",
                app_version_id=self.random.choice("ab"),
                target=self.random.choice((Target.ANY, Target.EMULATOR, Target.DEVICE)),
                retries=self.random.randint(0, 1),
            )
            for number in range(self.random.randint(1, 4))
        ]
        self.submit(*specs)

    def cancel_one(self, _name: str) -> None:
        if self.jobs:
            self.cancel(self.random.choice(sorted(self.jobs)))

    def wait(self, _name: str) -> None:
        self.pass_time(self.random.choice((1, 4, 20)))

    def come(self, name: str) -> None:
        is_new = name not in self.agents or self.random.random() < 0.3
        if is_new:
            self.boots[name] += 1
        kept = (
            [] if is_new else [self.agents[name].echo_of(lease, started=self.begun(lease)) for lease in self.held(name)]
        )
        devices = (emulator("emulator-1", name), emulator("phone", name, kind=DeviceKind.DEVICE))
        self.agents[name] = self.connect(name, *devices, boot=f"boot-{self.boots[name]}", leases=tuple(kept))

    def go(self, name: str) -> None:
        if name in self.agents:
            self.agents[name].lose(goodbye=self.random.random() < 0.2)

    def forget(self, name: str) -> None:
        self.handle(AgentForgetRequested(agent=AgentId(name)))

    def held(self, name: str) -> list[Lease]:
        return [lease for lease in self.scheduler.ledger.fleet.leases.values() if lease.agent == name]

    def begun(self, lease: Lease) -> tuple[int, ...]:
        attempts = self.scheduler.ledger.attempts
        return tuple(attempt for attempt in lease.attempts if attempts[attempt].start_us is not None)

    def work(self, name: str) -> None:
        """Let an agent do the next honest thing on one of its devices."""
        if name not in self.agents or not self.held(name):
            return
        agent = self.agents[name]
        lease = self.random.choice(self.held(name))
        begun = self.begun(lease)
        choice = self.random.random()
        if choice < 0.3:
            agent.beat(*(agent.echo_of(one, started=self.begun(one)) for one in self.held(name)))
        elif choice < 0.35:
            agent.reject(lease, Failure(reason=self.random.choice(("BUILD_INVALID", "INSTALL_FAILED")), message="no"))
        elif choice < 0.4:
            agent.release(lease)
        elif choice < 0.5:
            agent.install(lease, installed=self.random.random() < 0.7)
        elif begun:
            taken = dict(lease.revoked)
            outcome = AttemptOutcome.CANCELLED if AttemptId(begun[0]) in taken else self.random.choice(ENDINGS)
            agent.finish(
                lease, begun[0], outcome, None if outcome is AttemptOutcome.PASSED else Failure(reason="R", message="m")
            )
        else:
            free = [attempt for attempt in lease.attempts if attempt not in dict(lease.revoked)]
            if free:
                agent.start(lease, free[0])

    def garbage(self, name: str) -> None:
        """Facts that no honest agent sends: wrong fences, unknown leases, attempts of others."""
        if name not in self.agents:
            return
        session = self.random.choice((self.agents[name].session, SessionId(0)))
        number = self.random.randint(0, 30)
        fence = Fence(self.random.randint(0, 2), self.random.randint(0, 4))
        lease, attempt = LeaseId(number), AttemptId(self.random.randint(0, 60))
        before = dict(self.scheduler.ledger.jobs)
        live = self.scheduler.ledger.live_lease(lease, fence)
        if live is None:
            self.handle(AttemptStarted(session=session, lease=lease, fence=fence, attempt=attempt))
            self.handle(
                AttemptFinished(
                    session=session, lease=lease, fence=fence, attempt=attempt, outcome=AttemptOutcome.PASSED
                )
            )
            assert dict(self.scheduler.ledger.jobs) == before
        self.agents[name].beat(LeaseEcho(lease=LeaseId(9_999), fence=fence, revision=7))

    def settle(self) -> None:
        """Let the faults stop, and honest agents bring everything to its end."""
        for name in AGENTS:
            self.pass_time(11)
            self.boots[name] += 1
            devices = (emulator("emulator-1", name), emulator("phone", name, kind=DeviceKind.DEVICE))
            self.agents[name] = self.connect(name, *devices, boot=f"boot-{self.boots[name]}")
        for _ in range(2_000):
            if not self.scheduler.ledger.jobs:
                return
            for name in AGENTS:
                agent = self.agents[name]
                agent.beat(*(agent.echo_of(lease, started=self.begun(lease)) for lease in self.held(name)))
                for lease in self.held(name):
                    current = self.scheduler.ledger.fleet.leases.get(lease.id)
                    if current is None or not current.attempts:
                        continue
                    begun = self.begun(current)
                    if begun:
                        agent.finish(current, begun[0])
                    elif current.attempts[0] not in dict(current.revoked):
                        agent.start(current, current.attempts[0])
        raise AssertionError(f"never ended: {sorted(self.scheduler.ledger.jobs)}")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_every_accepted_job_ends_once_whatever_happens(seed: int) -> None:
    story = Story(seed)
    for _ in range(80):
        story.act()
    story.settle()
    assert all(job.is_terminal for job in story.jobs.values())
    assert set(story.ended.values()) <= {1}
    assert story.scheduler.ledger.counters.next_job == len(story.jobs) + 1


@pytest.mark.parametrize("seed", range(5))
def test_same_seed_gives_the_same_state(seed: int) -> None:
    ends = []
    for _ in range(2):
        story = Story(seed)
        for _ in range(80):
            story.act()
        ends.append((story.jobs, story.scheduler.ledger.counters, story.sends))
    assert ends[0] == ends[1]


def test_priority_order_holds_at_every_grant_of_a_free_device() -> None:
    lab = Lab()
    for number, priority in enumerate((1, 3, 5, 2, 4)):
        lab.submit(spec(f"t{number}", priority=priority, app_version_id=f"app-{number}"))
    agent = lab.connect()
    order = []
    for _ in range(5):
        lease = agent.adopt("emulator-1@lab")
        order.append(lab.job(lab.jobs_of(lease)[0]).spec.priority)
        agent.run(lease)
    assert order == [5, 4, 3, 2, 1]


def test_ended_job_is_forgotten_by_memory() -> None:
    lab = Lab()
    lab.submit(spec())
    agent = lab.connect()
    agent.run(agent.adopt("emulator-1@lab"))
    assert JobId(1) not in lab.scheduler.ledger.jobs
    assert lab.job(1).state is JobState.COMPLETED
    assert replace(lab.scheduler.ledger.fleet.devices[DeviceId("emulator-1@lab")], busy_us=0).lease is None
