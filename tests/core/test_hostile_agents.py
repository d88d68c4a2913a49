"""Agents that lie, repeat themselves and speak of what is not theirs: nothing but a refusal may come of it.

Every message is one that the wire lets through. After each the invariants hold, what was committed is what is in
memory, and a restart from it gives the same state back.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core import invariants
from coordinator.core.errors import QgjobError
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    AgentDrainRequested,
    AgentForgetRequested,
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    CancelRequested,
    DevicesReported,
    Event,
    HeartbeatReceived,
    HoldRequested,
    JobsSubmitted,
    LeaseAdopted,
    LeaseClosed,
    LeaseEcho,
    LeaseRejected,
    LeaseReleased,
    ReadmitRequested,
    RetryRequested,
    TestReported,
)
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    SECOND_US,
    TERMINAL_JOB_STATES,
    TERMINAL_LEASE_STATES,
    AgentId,
    AttemptId,
    AttemptOutcome,
    Blame,
    Counters,
    DeviceFacts,
    DeviceHold,
    DeviceId,
    DeviceKind,
    Failure,
    Fence,
    JobId,
    Lease,
    LeaseId,
    Now,
    SessionId,
    Settings,
    Target,
    TestResult,
    TestState,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import DropAgent, Step
from tests.core.lab import START_WALL_US, spec
from tests.core.records import Records, projection

AGENTS = tuple(AgentId(name) for name in ("one", "two", "three"))
DEVICES = ("phone-1", "phone-2", "emulator-1@one", "emulator-1@two")
REASONS = ("INSTALL_FAILED", "APPIUM_BROKEN", "", "BUILD_INVALID", "DEVICE_LOST")


class HostileLab:
    """A scheduler, what it has committed, and senders of anything."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.settings = Settings(
            max_batch=4, max_queued_per_org=60, canary_wait_us=SECOND_US // 5, canary_most_us=2 * SECOND_US
        )
        self.records = Records()
        self.scheduler = Scheduler(self.settings, Counters(epoch=1))
        self.mono_us = 0
        self.sessions = 0
        self.refusals = 0
        self.forgotten_agents = 0

    @property
    def ledger(self) -> Ledger:
        return self.scheduler.ledger

    @property
    def now(self) -> Now:
        return Now(mono_us=self.mono_us, wall_us=START_WALL_US + self.mono_us)

    def take(self, step: Step) -> None:
        self.forgotten_agents += sum(isinstance(write, DropAgent) for write in step.writes)
        self.records.apply(step.writes)
        invariants.check(self.ledger)
        assert projection(self.ledger) == self.records.unfinished(), "what is in memory is not what was committed"

    def act(self) -> None:
        weights: dict[Callable[[], Event | None], int] = {
            self.submitted: 6,
            self.cancelled: 1,
            self.retried: 1,
            self.held: 2,
            self.readmitted: 3,
            self.drained: 2,
            self.connected: 4,
            self.disconnected: 1,
            self.heartbeat: 6,
            self.adopted: 12,
            self.devices_reported: 2,
            self.installed: 3,
            self.rejected: 1,
            self.released: 1,
            self.closed: 2,
            self.started: 12,
            self.test_reported: 3,
            self.finished: 16,
            self.time_passed: 6,
            self.restarted: 1,
            self.forgotten: 1,
        }
        event = self.random.choices(list(weights), weights=list(weights.values()))[0]()
        if event is None:
            return
        before = projection(self.ledger)
        try:
            step = self.scheduler.handle(event, self.now)
        except QgjobError:
            self.refusals += 1
            assert projection(self.ledger) == before, "a refusal has changed something"
            assert self.ledger.take_step() == Step(), "a refusal has left writes behind"
        else:
            self.take(step)

    # Users

    def submitted(self) -> Event:
        specs = tuple(
            spec(
                f"t{number}",
                priority=self.random.randint(1, 5),
                app_version_id=self.random.choice("ab"),
                target=self.random.choice((Target.ANY, Target.EMULATOR, Target.DEVICE)),
                selector=self.random.choice(((), (("model", "Pixel*"),), (("rack", "[z-a]"),))),
                retries=self.random.randint(0, 1),
            )
            for number in range(self.random.randint(1, 4))
        )
        key = f"key-{self.random.randint(0, 500)}"
        return JobsSubmitted(
            org_id="qualgent",
            key=key,
            payload_sha256=self.random.choice("pq"),
            specs=specs,
            is_strict=self.random.random() < 0.1,
            known=self.records.requests.get(("qualgent", key)),
        )

    def cancelled(self) -> Event:
        most = self.ledger.counters.next_job + 2
        return CancelRequested(jobs=tuple(JobId(self.random.randint(-1, most)) for _ in range(3)))

    def retried(self) -> Event | None:
        if not self.records.jobs:
            return None
        job = self.records.jobs[self.random.choice(sorted(self.records.jobs))]
        key = f"key-{self.random.randint(0, 500)}"
        known = self.records.requests.get(("qualgent", key))
        return RetryRequested(job=job, key=key, payload_sha256="r", known=known)

    def held(self) -> Event:
        return HoldRequested(
            device=DeviceId(self.random.choice(DEVICES)), hold=self.random.choice(list(DeviceHold)), reason="why"
        )

    def readmitted(self) -> Event:
        return ReadmitRequested(device=DeviceId(self.random.choice(DEVICES)))

    def drained(self) -> Event:
        return AgentDrainRequested(agent=self.random.choice(AGENTS), is_draining=self.random.random() < 0.4)

    def forgotten(self) -> Event:
        return AgentForgetRequested(agent=self.random.choice(AGENTS))

    # What agents may say

    def session(self, lease: LeaseId | None = None) -> SessionId:
        """Return a session that is open, was replaced, has ended, or never was; mostly that of a lease's agent."""
        held = self.ledger.fleet.leases.get(lease) if lease is not None else None
        owner = self.ledger.fleet.session_of(held.agent) if held is not None else None
        if owner is not None and self.random.random() < 0.7:
            return owner
        return SessionId(self.random.randint(max(0, self.sessions - 6), self.sessions))

    def lease(self) -> tuple[LeaseId, Fence]:
        """Return a live lease of anybody, mostly with its own fence, or one that is over or never was."""
        live = list(self.ledger.fleet.leases.values())
        if live and self.random.random() < 0.85:
            lease = self.random.choice(live)
            return lease.id, lease.fence if self.random.random() < 0.9 else self.fence()
        return LeaseId(self.random.choice((0, -1, 2**63 - 1, self.random.randint(1, 20)))), self.fence()

    def fence(self) -> Fence:
        return Fence(self.random.choice((0, 1, 2, -1, 2**63 - 1)), self.random.randint(-1, 4))

    def attempt(self, lease: LeaseId) -> AttemptId:
        held = self.ledger.fleet.leases.get(lease)
        if held is not None and held.attempts and self.random.random() < 0.8:
            return self.random.choice(held.attempts)
        return AttemptId(self.random.choice((0, -1, self.random.randint(1, self.ledger.counters.next_attempt + 1))))

    def echo(self, lease: Lease | None = None) -> LeaseEcho:
        lease_id, fence = (lease.id, lease.fence) if lease is not None else self.lease()
        known = self.ledger.fleet.leases.get(lease_id)
        revision = known.revision if known is not None else 0
        return LeaseEcho(
            lease=lease_id,
            fence=fence,
            revision=self.random.choice((revision, revision, revision - 1, revision + 5, -1)),
            started=tuple(self.attempt(lease_id) for _ in range(self.random.randint(0, 3))),
            finished=tuple(self.attempt(lease_id) for _ in range(self.random.randint(0, 2))),
        )

    def facts(self) -> tuple[DeviceFacts, ...]:
        chosen = self.random.sample(DEVICES, self.random.randint(0, len(DEVICES)))
        return tuple(
            DeviceFacts(
                id=DeviceId(name),
                kind=DeviceKind.EMULATOR if "@" in name else DeviceKind.DEVICE,
                model=self.random.choice(("Pixel 8", "")),
                is_usable=self.random.random() < 0.8,
            )
            for name in chosen
        )

    def failure(self) -> Failure:
        blame = self.random.choice((None, *Blame))
        return Failure(reason=self.random.choice(REASONS), message="no", blame=blame)

    def test(self) -> TestResult:
        return TestResult(id=self.random.choice("abc"), title="t", state=self.random.choice(list(TestState)))

    def connected(self) -> Event:
        self.sessions += 1
        session = SessionId(self.sessions)
        agent = self.random.choice(AGENTS)
        held = [lease for lease in self.ledger.fleet.leases_of(agent) if self.random.random() < 0.7]
        return AgentConnected(
            session=session,
            agent=agent,
            boot_id=self.random.choice(("boot-1", "boot-1", "boot-2")),
            version="0.1.0",
            host="h",
            devices=self.facts(),
            leases=(*(self.echo(lease) for lease in held), self.echo()),
            results=tuple(replace(self.finished(), session=session) for _ in range(self.random.randint(0, 2))),
            answers_close=self.random.random() < 0.5,
        )

    def disconnected(self) -> Event:
        return AgentDisconnected(session=self.session(), is_goodbye=self.random.random() < 0.3)

    def heartbeat(self) -> Event:
        session = self.session()
        agent = self.ledger.fleet.agent_of(session)
        held = self.ledger.fleet.leases_of(agent) if agent is not None else []
        echoes = [self.echo(lease) for lease in held if self.random.random() < 0.8]
        echoes += [self.echo() for _ in range(self.random.randint(0, 2))]
        return HeartbeatReceived(session=session, sequence=self.random.choice((-1, 0, 2**63 - 1)), leases=tuple(echoes))

    def adopted(self) -> Event:
        echo = self.echo()
        return LeaseAdopted(session=self.session(echo.lease), echo=echo)

    def devices_reported(self) -> Event:
        return DevicesReported(session=self.session(), devices=self.facts())

    def installed(self) -> Event:
        lease, fence = self.lease()
        return BuildInstalled(
            session=self.session(lease),
            lease=lease,
            fence=fence,
            digest="d" * 64,
            install_us=self.random.choice((0, SECOND_US, 10**13)),
            was_installed=self.random.random() < 0.5,
        )

    def rejected(self) -> Event:
        lease, fence = self.lease()
        return LeaseRejected(session=self.session(lease), lease=lease, fence=fence, failure=self.failure())

    def released(self) -> Event:
        lease, fence = self.lease()
        return LeaseReleased(session=self.session(lease), lease=lease, fence=fence)

    def closed(self) -> Event | None:
        if not self.ledger.fleet.devices:
            return None
        device = self.random.choice(list(self.ledger.fleet.devices.values()))
        lease = device.lease if device.lease is not None and self.random.random() < 0.7 else self.lease()[0]
        return LeaseClosed(session=self.session(), lease=lease, device=device.id)

    def started(self) -> Event:
        lease, fence = self.lease()
        return AttemptStarted(session=self.session(lease), lease=lease, fence=fence, attempt=self.attempt(lease))

    def test_reported(self) -> Event:
        lease, fence = self.lease()
        attempt = self.attempt(lease)
        return TestReported(session=self.session(lease), lease=lease, fence=fence, attempt=attempt, test=self.test())

    def finished(self) -> AttemptFinished:
        lease, fence = self.lease()
        return AttemptFinished(
            session=self.session(lease),
            lease=lease,
            fence=fence,
            attempt=self.attempt(lease),
            outcome=self.random.choice(list(AttemptOutcome)),
            failure=self.failure() if self.random.random() < 0.5 else None,
            tests=tuple(self.test() for _ in range(self.random.randint(0, 2))),
            log_size=self.random.choice((0, 2**63 - 1)),
        )

    # Time

    def time_passed(self) -> None:
        self.mono_us += int(self.random.choice((0, 0.5, 4, 4, 4)) * SECOND_US)
        self.take(self.scheduler.expire(self.now))

    def restarted(self) -> None:
        """Let the process die, and another one take up what was committed."""
        self.mono_us += 3_600 * SECOND_US
        self.records.counters = replace(self.records.counters, epoch=self.records.counters.epoch + 1)
        self.scheduler = Scheduler(self.settings, self.records.counters)
        self.take(self.records.restore_into(self.scheduler, self.now))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_no_message_of_an_agent_does_more_than_be_refused(seed: int) -> None:
    lab = HostileLab(seed)
    for _ in range(120):
        lab.act()


def test_hostile_stories_reach_what_they_are_about() -> None:
    lab = HostileLab(1)
    for _ in range(6_000):
        lab.act()
    assert lab.refusals > 50
    assert lab.forgotten_agents > 5
    assert sum(lease.is_canary for lease in lab.records.leases.values()) > 5
    assert {job.state for job in lab.records.jobs.values()} >= TERMINAL_JOB_STATES, "every way to end was met"
    assert {lease.state for lease in lab.records.leases.values()} >= TERMINAL_LEASE_STATES
    assert {attempt.outcome for attempt in lab.records.attempts.values()} >= set(AttemptOutcome)
