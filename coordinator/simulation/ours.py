"""The real scheduler as the dispatcher of a simulation: one agent that owns every device, and a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordinator.core.durations import to_log
from coordinator.core.events import (
    AgentConnected,
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    DevicesReported,
    Event,
    JobsSubmitted,
    LeaseAdopted,
    LeaseEcho,
)
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptId,
    AttemptOutcome,
    Counters,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    Expectation,
    Failure,
    JobId,
    Lease,
    LeaseId,
    Now,
    RevokeReason,
    SessionId,
    Settings,
    TestKey,
    TestResult,
    TestState,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import JobsAccepted, SendLease, Step
from coordinator.simulation.lab import Lab
from coordinator.simulation.model import Run, Workload

START_WALL_US = 1_700_000_000 * SECOND_US
SESSION = SessionId(1)
NEVER_US = 10**15
VANISHED = Failure(reason="DEVICE_LOST", message="the device went away")


class OurScheduler:
    """Speaks to the scheduler as an agent with a perfect link, and to the lab's devices as that agent."""

    def __init__(self, settings: Settings | None = None, name: str = "qgjob") -> None:
        """Take the settings; links and leases never fail in here, so their spans do not count."""
        self.name = name
        settings = replace(settings or Settings(), heartbeat_us=NEVER_US, lease_ttl_us=NEVER_US)
        self.scheduler = Scheduler(settings, Counters(epoch=1))
        self._lab: Lab
        self._runs: dict[JobId, Run] = {}
        self._attempts: dict[tuple[int, int], tuple[LeaseId, AttemptId]] = {}
        """(device, run number) -> the attempt that was given to the device last."""
        self._given: dict[AttemptId, tuple[int, Run]] = {}
        self._leases: dict[LeaseId, Lease] = {}
        self._running: dict[int, AttemptId] = {}
        self._stopping: dict[AttemptId, None] = {}
        self._facts: list[DeviceFacts] = []
        self._numbers: dict[DeviceId, int] = {}

    # The lab's side

    def begin(self, lab: Lab) -> None:
        """Take up what is known of the tests, and connect the agent."""
        self._lab = lab
        self.scheduler.restore(
            jobs=(),
            attempts=(),
            leases=(),
            devices=(),
            agents=(),
            builds=(),
            expectations=_history(lab.workload),
            now=self._now(),
        )
        for device in lab.devices:
            facts = DeviceFacts(id=DeviceId(f"d{device.number}@sim"), kind=device.kind, udid=f"d{device.number}")
            self._facts.append(facts)
            self._numbers[facts.id] = device.number
        hello = AgentConnected(
            session=SESSION, agent=AgentId("sim"), boot_id="b", version="0.1.0", host="sim", devices=tuple(self._facts)
        )
        self._handle(hello)

    def submitted(self, runs: list[Run]) -> None:
        """Submit jobs, one request for each organisation."""
        by_org: dict[str, list[Run]] = {}
        for run in runs:
            by_org.setdefault(run.spec.org_id, []).append(run)
        for org, mine in by_org.items():
            event = JobsSubmitted(
                org_id=org, key=f"{mine[0].number}", payload_sha256="", specs=tuple(run.spec for run in mine)
            )
            first = self.scheduler.ledger.counters.next_job
            self._runs.update((JobId(first + index), run) for index, run in enumerate(mine))
            self._handle(event)

    def installed(self, device: int, run: Run, install_us: int) -> None:
        """Report the build, unless the lease that it was installed for is over."""
        given = self._attempts.get((device, run.number))
        if given is None:
            return
        lease_id, attempt = given
        lease = self._leases[lease_id]
        if self._lab.devices[device].running is run:
            self._running[device] = attempt
        self._handle(
            BuildInstalled(
                session=SESSION,
                lease=lease.id,
                fence=lease.fence,
                digest=run.spec.app_version_id,
                install_us=install_us,
                was_installed=install_us > 0,
            )
        )

    def started(self, device: int, run: Run) -> None:
        """Report the start."""
        lease_id, attempt = self._attempts[device, run.number]
        lease = self._leases[lease_id]
        self._running[device] = attempt
        self._handle(AttemptStarted(session=SESSION, lease=lease.id, fence=lease.fence, attempt=attempt))

    def ended(self, device: int, run: Run, *, is_stopped: bool) -> None:
        """Report the end."""
        self._finish(device, run, AttemptOutcome.PREEMPTED if is_stopped else AttemptOutcome.PASSED, None)

    def _finish(self, device: int, run: Run, outcome: AttemptOutcome, failure: Failure | None) -> None:
        lease_id, attempt = self._attempts.pop((device, run.number))
        lease = self._leases[lease_id]
        self._running.pop(device, None)
        self._stopping.pop(attempt, None)
        self._given.pop(attempt)
        self._handle(
            AttemptFinished(
                session=SESSION,
                lease=lease.id,
                fence=lease.fence,
                attempt=attempt,
                outcome=outcome,
                failure=failure,
                tests=self._done_tests(run),
                is_resumable=True,
            )
        )

    def _done_tests(self, run: Run) -> tuple[TestResult, ...]:
        done = range(self._lab.outcome.fates[run.number].done)
        return tuple(TestResult(id=str(number), title="", state=TestState.PASSED) for number in done)

    def went(self, device: int, lost: Run | None, left: list[Run]) -> None:
        """Report the device as unusable, and what ran on it as lost by the lab."""
        self._facts[device] = replace(self._facts[device], is_usable=False, reason="it went away")
        held = [attempt for attempt, (at, _) in self._given.items() if at == device]
        self._handle(DevicesReported(session=SESSION, devices=tuple(self._facts)))
        if lost is not None:
            self._finish(device, lost, AttemptOutcome.ERRORED, VANISHED)
        for attempt in held:
            entry = self._given.get(attempt)
            if entry is not None:
                self._finish(device, entry[1], AttemptOutcome.RELEASED, None)

    def came(self, device: int) -> None:
        """Report the device as usable."""
        self._facts[device] = replace(self._facts[device], is_usable=True, reason="")
        self._handle(DevicesReported(session=SESSION, devices=tuple(self._facts)))

    def woke(self) -> None:
        """Let what is due fall due."""
        self._obey(self.scheduler.expire(self._now()))

    # The scheduler's side

    def _now(self) -> Now:
        return Now(mono_us=self._lab.now_us, wall_us=START_WALL_US + self._lab.now_us)

    def _handle(self, event: Event) -> None:
        step = self.scheduler.handle(event, self._now())
        assert not isinstance(step.reply, JobsAccepted) or not step.reply.is_replayed
        self._obey(step)

    def _obey(self, step: Step) -> None:
        for send in step.sends:
            if isinstance(send, SendLease):
                self._adopt(send)
        deadline_us = self.scheduler.next_deadline()
        if deadline_us is not None and deadline_us < NEVER_US // 4:
            self._lab.wake_at(deadline_us)

    def _adopt(self, send: SendLease) -> None:
        """Do what a lease says, and echo it."""
        lease = send.lease
        known = self._leases.get(lease.id)
        if known is not None and known.revision >= lease.revision:
            return
        if lease.is_canary:
            self._pass_canary(lease)
            return
        device = self._numbers[lease.device]
        self._leases[lease.id] = lease
        added = [leased for leased in send.jobs if leased.attempt.id not in self._given]
        taken = {attempt: reason for attempt, reason in lease.revoked if attempt in self._given}
        for attempt in taken:
            self._take_back(device, attempt, taken[attempt], send.grace_us)
        for leased in added:
            run = self._runs[leased.job.id]
            self._given[leased.attempt.id] = (device, run)
            self._attempts[device, run.number] = (lease.id, leased.attempt.id)
        running = self._running.get(device)
        echo = LeaseEcho(
            lease=lease.id,
            fence=lease.fence,
            revision=lease.revision,
            started=(running,) if running is not None and running in lease.attempts else (),
        )
        self._handle(LeaseAdopted(session=SESSION, echo=echo))
        # The answer to the echo may have taken some back already.
        runs = [self._given[leased.attempt.id][1] for leased in added if leased.attempt.id in self._given]
        if runs:
            self._lab.give(device, runs)

    def _pass_canary(self, lease: Lease) -> None:
        """Say that a device which came back is sound."""
        echo = LeaseEcho(lease=lease.id, fence=lease.fence, revision=lease.revision)
        self._handle(LeaseAdopted(session=SESSION, echo=echo))
        self._handle(
            BuildInstalled(
                session=SESSION, lease=lease.id, fence=lease.fence, digest="", install_us=0, was_installed=False
            )
        )

    def _take_back(self, device: int, attempt: AttemptId, reason: RevokeReason, grace_us: int) -> None:
        _, run = self._given[attempt]
        if self._running.get(device) == attempt:
            if attempt not in self._stopping:
                self._stopping[attempt] = None
                self._lab.stop(device, grace_us if reason is RevokeReason.PREEMPT else 0)
            return
        del self._given[attempt]
        del self._attempts[device, run.number]
        self._lab.take_back(device, [run])


def _history(workload: Workload) -> Iterator[Expectation]:
    for (org_id, test), usual_us in workload.usual_us.items():
        for kind in DeviceKind:
            yield Expectation(key=TestKey(org_id, test, kind), count=1, mean=to_log(usual_us), deviation=0)
