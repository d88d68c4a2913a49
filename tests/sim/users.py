"""Users: they submit, cancel and retry, repeat what was not answered, and follow logs across restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.core.model import AttemptId
from coordinator.core.errors import QgjobError
from coordinator.core.events import (
    AgentDrainRequested,
    CancelRequested,
    Event,
    HoldRequested,
    JobsSubmitted,
    ReadmitRequested,
    RegistrationRequested,
    RetryRequested,
)
from coordinator.core.model import AgentId, AgentState, DeviceId, DeviceState, Job, JobId
from coordinator.core.step import JobsAccepted
from tests.sim.coordinator import CoordinatorProcess
from tests.sim.database import Records
from tests.sim.history import Answered, Asked, History, LogRead, Note
from tests.sim.plan import HoldAgent, HoldDevice, Plan, Submission, Wish, WishKind
from tests.sim.world import SECOND_US, World

PATIENCE_US = 8 * SECOND_US
REGISTERED_PERCENT = 40
BACKOFF_US = 2 * SECOND_US
LINK_US = (2_000, 60_000)
READ_PAUSE_US = 2 * SECOND_US

Make = Callable[[Records], Event | None]
"""Makes a call's event when it arrives; None when it has nothing to ask any more."""
Settle = Callable[[JobsAccepted | None], None]


class Desk(Protocol):
    """How a user finds the coordinator, and what it has made durable."""

    def leader(self) -> CoordinatorProcess | None: ...

    @property
    def records(self) -> Records: ...


class Users:
    """All who use the lab."""

    def __init__(self, world: World, history: History, desk: Desk, plan: Plan) -> None:
        self.open_calls = 0
        self._world = world
        self._history = history
        self._desk = desk
        self._plan = plan
        self._answers_lost = plan.weather.answers_lost
        self._accepted: dict[str, tuple[JobId, ...]] = {}

    def be_calm(self) -> None:
        self._answers_lost = 0

    def start(self) -> None:
        for submission in self._plan.submissions:
            self._world.at(submission.at_us, self._submit, submission)
        for number, wish in enumerate(self._plan.wishes):
            self._world.at(wish.at_us, self._wish, wish, f"wish-{number}")

    # Calls

    def _call(self, make: Make, settle: Settle) -> None:
        self.open_calls += 1
        self._try(_Call(make, settle))

    def _try(self, call: _Call) -> None:
        """Send a call, and send it again until it is answered."""
        if call.is_settled:
            return
        leader = self._desk.leader()
        if leader is None:
            self._world.after(BACKOFF_US, self._try, call)
            return
        delay_us = self._world.between(*LINK_US)
        leader.later(delay_us, self._arrive, leader, call)
        self._world.after(PATIENCE_US, self._try, call)

    def _arrive(self, leader: CoordinatorProcess, call: _Call) -> None:
        event = call.make(self._desk.records)
        if event is None:
            self._answer(call, None)
            return

        def reply(answer: JobsAccepted | QgjobError | None) -> None:
            if not self._world.chance(self._answers_lost):
                self._world.after(self._world.between(*LINK_US), self._answer, call, answer)

        leader.post(event, reply)

    def _answer(self, call: _Call, answer: JobsAccepted | QgjobError | None) -> None:
        if not call.is_settled:
            call.is_settled = True
            self.open_calls -= 1
            call.settle(None if isinstance(answer, QgjobError) else answer)

    # Wishes

    def _submit(self, submission: Submission) -> None:
        specs = tuple(job.spec for job in submission.jobs)
        org, key = specs[0].org_id, submission.key
        self._history.add(Asked(self._world.now_us, key))

        def make(records: Records) -> Event:
            known = records.requests.get((org, key))
            return JobsSubmitted(org_id=org, key=key, payload_sha256=key, specs=specs, known=known)

        def settle(answer: JobsAccepted | None) -> None:
            assert answer is not None, f"submit {key} was refused"
            self._history.add(Answered(self._world.now_us, key, tuple(JobId(job) for job in answer.job_ids)))
            self._accepted[key] = tuple(JobId(job) for job in answer.job_ids)

        if self._world.chance(REGISTERED_PERCENT):
            self._register(org, specs[0].app_version_id)
        self._call(make, settle)

    def _register(self, org: str, app: str) -> None:
        """Let an app version be one of two binaries; which jobs it is for depends on what arrives first."""
        digest = f"{org}/{app}/{self._world.between(1, 2)}"
        self._history.add(Note(self._world.now_us, f"a user registers {digest}"))
        event = RegistrationRequested(
            org_id=org, app_version_id=app, digest=digest, size=1, file_name="app.apk", is_replacing=True
        )
        self._call(lambda _records: event, lambda _answer: None)

    def _wish(self, wish: Wish, key: str) -> None:
        jobs = self._accepted.get(wish.submission)
        if jobs is None:
            if not self._is_hopeless(wish):
                self._world.after(BACKOFF_US, self._wish, wish, key)
            return
        job_id = jobs[wish.index]
        match wish.kind:
            case WishKind.CANCEL:
                self._history.add(Note(self._world.now_us, f"a user cancels job {job_id}"))
                self._call(lambda _records: CancelRequested(jobs=(job_id,)), lambda _answer: None)
            case WishKind.RETRY:
                self._call(lambda records: _retry(records, records.jobs[job_id], key), lambda _answer: None)
            case WishKind.FOLLOW:
                self._follow(job_id, {})

    # Operators

    def hold_device(self, fault: HoldDevice) -> None:
        device = DeviceId(fault.device)

        def held(_answer: JobsAccepted | None) -> None:
            self._world.after(fault.for_us, self._readmit, device)

        self._call(lambda _records: HoldRequested(device=device, hold=fault.hold), held)

    def _readmit(self, device: DeviceId) -> None:
        """Let a device work again, once its agent can say what it does: the operator does not know."""
        known = self._desk.records.devices.get(device)
        if known is not None and known.lease is not None:
            agent = self._desk.records.agents[known.agent]
            if known.state is DeviceState.FENCING or agent.state is not AgentState.CONNECTED:
                self._world.after(BACKOFF_US, self._readmit, device)
                return
        self._call(lambda _records: ReadmitRequested(device=device), lambda _answer: None)

    def hold_agent(self, fault: HoldAgent) -> None:
        agent = AgentId(fault.agent)
        drain = AgentDrainRequested(agent=agent, is_draining=True, is_interrupting=fault.is_interrupting)
        resume = AgentDrainRequested(agent=agent, is_draining=False)

        def held(_answer: JobsAccepted | None) -> None:
            self._world.after(fault.for_us, self._call, lambda _records: resume, lambda _answer: None)

        self._call(lambda _records: drain, held)

    def _is_hopeless(self, wish: Wish) -> bool:
        return all(submission.key != wish.submission for submission in self._plan.submissions)

    def _follow(self, job_id: JobId, offsets: dict[AttemptId, int]) -> None:
        """Read on from where it stopped, of every attempt, until the job has ended and nothing more comes."""
        leader = self._desk.leader()
        job = self._desk.records.jobs[job_id]
        has_read = False
        if leader is not None:
            for attempt in _attempts_of(self._desk.records, job_id):
                data = leader.shelf.read(attempt, offsets.setdefault(attempt, 0))
                if data:
                    has_read = True
                    self._history.add(LogRead(self._world.now_us, attempt, offsets[attempt], data))
                    offsets[attempt] += len(data)
        if leader is None or has_read or not job.is_terminal:
            self._world.after(READ_PAUSE_US, self._follow, job_id, offsets)


class _Call:
    """One thing that a user wants done."""

    def __init__(self, make: Make, settle: Settle) -> None:
        self.make = make
        self.settle = settle
        self.is_settled = False


def _retry(records: Records, job: Job, key: str) -> Event | None:
    known = records.requests.get((job.spec.org_id, key))
    return RetryRequested(job=job, key=key, payload_sha256=str(job.id), known=known)


def _attempts_of(records: Records, job_id: JobId) -> list[AttemptId]:
    job = records.jobs[job_id]
    found = [attempt for attempt in records.attempts.values() if attempt.job == job.id]
    return [AttemptId(attempt.id) for attempt in found]
