"""A lab on paper: the real scheduler, a clock that tests turn, and agents that tests speak for."""

from __future__ import annotations

from coordinator.core import invariants
from coordinator.core.events import (
    AgentConnected,
    AgentDisconnected,
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    CancelRequested,
    Event,
    HeartbeatReceived,
    JobsSubmitted,
    LeaseAdopted,
    LeaseClosed,
    LeaseEcho,
    LeaseRejected,
    LeaseReleased,
    RegistrationRequested,
    TestReported,
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
    Failure,
    Job,
    JobId,
    JobSpec,
    Lease,
    LeaseId,
    Now,
    SessionId,
    Settings,
    TestResult,
)
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import JobsAccepted, PutJob, SendClose, SendLease, Step

START_WALL_US = 1_700_000_000 * SECOND_US


def spec(test: str = "tests/login.spec.ts", **changes: object) -> JobSpec:
    """Return a job spec with everything filled in."""
    fields: dict[str, object] = {"org_id": "qualgent", "app_version_id": "xyz123", "test": test, **changes}
    return JobSpec(**fields)  # type: ignore[arg-type]


def emulator(name: str, agent: str = "lab", **changes: object) -> DeviceFacts:
    """Return a usable emulator of an agent."""
    fields: dict[str, object] = {
        "id": DeviceId(f"{name}@{agent}"),
        "kind": DeviceKind.EMULATOR,
        "model": "Pixel 8",
        "os_version": "14",
        "udid": name,
        **changes,
    }
    return DeviceFacts(**fields)  # type: ignore[arg-type]


class Lab:
    """Feeds events to a scheduler and checks the invariants after each."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.scheduler = Scheduler(self.settings, Counters(epoch=1))
        self.mono_us = 0
        self.jobs: dict[JobId, Job] = {}
        self.sends: list[object] = []
        self._sessions = 0
        self._keys = 0

    @property
    def now(self) -> Now:
        return Now(mono_us=self.mono_us, wall_us=START_WALL_US + self.mono_us)

    def handle(self, event: Event) -> Step:
        step = self.scheduler.handle(event, self.now)
        self._note(step)
        return step

    def expire(self) -> Step:
        step = self.scheduler.expire(self.now)
        self._note(step)
        return step

    def _note(self, step: Step) -> None:
        for write in step.writes:
            if isinstance(write, PutJob):
                self.jobs[write.job.id] = write.job
        self.sends.extend(step.sends)
        invariants.check(self.scheduler.ledger)

    def pass_time(self, seconds: float) -> None:
        """Let time pass in turns of one second, as an engine that is awake would see it."""
        end_us = self.mono_us + int(seconds * SECOND_US)
        while self.mono_us < end_us:
            self.mono_us = min(end_us, self.mono_us + SECOND_US)
            self.expire()

    def submit(self, *specs: JobSpec, key: str | None = None, payload: str = "p", strict: bool = False) -> JobsAccepted:
        self._keys += 1
        step = self.handle(
            JobsSubmitted(
                org_id=specs[0].org_id,
                key=key or f"key-{self._keys}",
                payload_sha256=payload,
                specs=specs,
                is_strict=strict,
            )
        )
        assert step.reply is not None
        return step.reply

    def register(
        self,
        digest: str,
        *,
        version: str = "xyz123",
        org_id: str = "qualgent",
        replacing: bool = False,
        platform: str = "",
        kind: DeviceKind | None = None,
    ) -> Step:
        return self.handle(
            RegistrationRequested(
                org_id=org_id,
                app_version_id=version,
                digest=digest,
                size=1_000,
                file_name="app.apk",
                is_replacing=replacing,
                platform=platform,
                kind=kind,
            )
        )

    def cancel(self, *jobs: int) -> Step:
        return self.handle(CancelRequested(jobs=tuple(JobId(job) for job in jobs)))

    def job(self, job_id: int) -> Job:
        return self.jobs[JobId(job_id)]

    def lease_on(self, device: str) -> Lease:
        """Return the live lease of a device."""
        lease_id = self.scheduler.ledger.fleet.devices[DeviceId(device)].lease
        assert lease_id is not None, f"{device} is free"
        return self.scheduler.ledger.fleet.leases[lease_id]

    def jobs_of(self, lease: Lease) -> list[int]:
        """Return the jobs of a lease, in their order."""
        return [self.scheduler.ledger.attempts[attempt].job for attempt in lease.attempts]

    def connect(self, name: str = "lab", *devices: DeviceFacts, boot: str = "boot-1", **hello: object) -> AgentOnPaper:
        self._sessions += 1
        session = SessionId(self._sessions)
        fields: dict[str, object] = {
            "session": session,
            "agent": AgentId(name),
            "boot_id": boot,
            "version": "0.1.0",
            "host": "mac-mini",
            "devices": devices or (emulator("emulator-1", name),),
            **hello,
        }
        self.handle(AgentConnected(**fields))  # type: ignore[arg-type]
        return AgentOnPaper(self, session)


class AgentOnPaper:
    """Speaks for one session of an agent."""

    def __init__(self, lab: Lab, session: SessionId) -> None:
        self.lab = lab
        self.session = session

    def echo_of(self, lease: Lease, *, revision: int | None = None, started: tuple[int, ...] = ()) -> LeaseEcho:
        return LeaseEcho(
            lease=lease.id,
            fence=lease.fence,
            revision=lease.revision if revision is None else revision,
            started=tuple(AttemptId(attempt) for attempt in started),
        )

    def adopt(self, device: str, *, started: tuple[int, ...] = ()) -> Lease:
        lease = self.lab.lease_on(device)
        self.lab.handle(LeaseAdopted(session=self.session, echo=self.echo_of(lease, started=started)))
        return lease

    def beat(self, *echoes: LeaseEcho) -> Step:
        return self.lab.handle(HeartbeatReceived(session=self.session, sequence=1, leases=echoes))

    def install(self, lease: Lease, *, seconds: float = 5, installed: bool = True, digest: str = "d" * 64) -> Step:
        return self.lab.handle(
            BuildInstalled(
                session=self.session,
                lease=lease.id,
                fence=lease.fence,
                digest=digest,
                install_us=int(seconds * SECOND_US),
                was_installed=installed,
            )
        )

    def start(self, lease: Lease, attempt: int | None = None) -> int:
        """Start the lease's next attempt and return it."""
        chosen = AttemptId(attempt) if attempt is not None else self.lab.lease_on(lease.device).attempts[0]
        self.lab.handle(AttemptStarted(session=self.session, lease=lease.id, fence=lease.fence, attempt=chosen))
        return chosen

    def report(self, lease: Lease, attempt: int, test: TestResult, *, resumable: bool = False) -> Step:
        """Tell how a test of a run stands."""
        return self.lab.handle(
            TestReported(
                session=self.session,
                lease=lease.id,
                fence=lease.fence,
                attempt=AttemptId(attempt),
                test=test,
                is_resumable=resumable,
            )
        )

    def finish(
        self,
        lease: Lease,
        attempt: int,
        outcome: AttemptOutcome = AttemptOutcome.PASSED,
        failure: Failure | None = None,
        tests: tuple[TestResult, ...] = (),
        *,
        resumable: bool = False,
    ) -> Step:
        return self.lab.handle(self.result(lease, attempt, outcome, failure, tests, resumable=resumable))

    def result(
        self,
        lease: Lease,
        attempt: int,
        outcome: AttemptOutcome = AttemptOutcome.PASSED,
        failure: Failure | None = None,
        tests: tuple[TestResult, ...] = (),
        *,
        resumable: bool = False,
    ) -> AttemptFinished:
        return AttemptFinished(
            session=self.session,
            lease=lease.id,
            fence=lease.fence,
            attempt=AttemptId(attempt),
            outcome=outcome,
            failure=failure,
            tests=tests,
            is_resumable=resumable,
        )

    def run(self, lease: Lease, outcome: AttemptOutcome = AttemptOutcome.PASSED) -> Step:
        """Run the lease's next attempt to its end."""
        return self.finish(lease, self.start(lease), outcome)

    def reject(self, lease: Lease, failure: Failure) -> Step:
        return self.lab.handle(LeaseRejected(session=self.session, lease=lease.id, fence=lease.fence, failure=failure))

    def release(self, lease: Lease) -> Step:
        return self.lab.handle(LeaseReleased(session=self.session, lease=lease.id, fence=lease.fence))

    def close(self, lease: Lease) -> Step:
        """Say that nothing of a lease is left on its device."""
        return self.lab.handle(LeaseClosed(session=self.session, lease=lease.id, device=lease.device))

    def lose(self, *, goodbye: bool = False) -> Step:
        return self.lab.handle(AgentDisconnected(session=self.session, is_goodbye=goodbye))


def closes(sends: list[object]) -> list[LeaseId]:
    """Return the leases that agents were told to forget."""
    return [send.lease for send in sends if isinstance(send, SendClose)]


def snapshots(sends: list[object]) -> list[SendLease]:
    """Return the lease snapshots that were sent."""
    return [send for send in sends if isinstance(send, SendLease)]
