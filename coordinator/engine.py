"""The engine turns: inbox -> handle -> commit -> deliver.

One turn takes what waits in the inbox, expires deadlines after it, commits every write in one transaction on the one
writer thread, and only then delivers the sends and answers the callers: nothing is told to anyone before it is
durable. A commit that fails ends the engine; the process follows, clients repeat their request, agents reconnect.

An engine that finds its disk full when it starts sleeps: it answers what is asked of memory as it was left, refuses
every event, and takes the work up as soon as it can write.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from coordinator.changes import Changes
from coordinator.core.errors import QgjobError, ShuttingDown
from coordinator.core.events import Event, UserEvent
from coordinator.core.explain import Explanation, explain
from coordinator.core.forecast import Forecast
from coordinator.core.model import SECOND_US, AttemptId, Counters, DeviceState, Job, JobId, Lane, Lease, Now, Settings
from coordinator.core.scheduler import Scheduler
from coordinator.core.step import JobsAccepted, PutAttempt, PutJob, PutLease, PutTest, SendConflicts, Step, Write
from coordinator.forecasts import Forecasts
from coordinator.metrics import Metrics
from coordinator.sessions import Sessions
from coordinator.space import Space
from coordinator.store import Store, StoreFull
from coordinator.story import Story

MAX_EVENTS_PER_TURN = 256
MAX_INBOX = 10_000
REMEMBERED_LEASES = 4_096
"""Of attempts that ended last."""
PROBE_INTERVAL_S = 1.0
"""Between two looks whether a database that could not be written to takes writes again."""


@dataclass(slots=True)
class _Envelope:
    event: Event
    answer: asyncio.Future[JobsAccepted | None] | None
    posted_us: int

    def answer_with(self, reply: JobsAccepted | QgjobError | None) -> None:
        """Tell the caller, if there is one that still waits."""
        if self.answer is None or self.answer.done():
            return
        if isinstance(reply, QgjobError):
            self.answer.set_exception(reply)
        else:
            self.answer.set_result(reply)


class Engine:
    """Drives the scheduler. All methods are called on the event loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        sessions: Sessions,
        settings: Settings,
        clock: Callable[[], Now],
        story: Story,
        space: Space,
        check_leadership: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
    ) -> None:
        """Take up what is not finished.

        Args:
            store: Where everything is committed.
            sessions: How agents are reached.
            settings: The pace.
            clock: Both clocks.
            story: Tells what happened.
            space: The room on disk.
            check_leadership: Raises NotLeader once this coordinator must not tell anything any more.
            metrics: Counts what is committed.
        """
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self._story = story
        self._space = space
        self._check_leadership = check_leadership
        self._metrics = metrics if metrics is not None else Metrics()
        self.settings = settings
        self.changes = Changes()
        self._inbox: deque[_Envelope] = deque()
        self._has_mail = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_stopping = False
        self._lately: dict[AttemptId, Lease] = {}
        """Leases of attempts that have ended, the oldest first."""
        self._forecasts = Forecasts()
        self._job_changes = 0
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        awake = self._take_up()
        self._scheduler = awake if awake is not None else self._restored(store.load().counters)[0]
        space.is_writable = awake is not None
        if awake is None:
            self._story.tell_asleep()
        self._story.tell_restored(self._scheduler.ledger)
        self._metrics.note_restored(self._scheduler.ledger)

    def _take_up(self) -> Scheduler | None:
        """Raise the epoch and take up what is not finished; None while the disk is full."""
        try:
            if not self._space.can_write():
                return None
            scheduler, step = self._restored(self._store.start_epoch())
            self._store.commit(step.writes)
        except StoreFull:
            return None
        return scheduler

    def _restored(self, counters: Counters) -> tuple[Scheduler, Step]:
        scheduler = Scheduler(self.settings, counters)
        snapshot = self._store.load()
        step = scheduler.restore(
            jobs=snapshot.jobs,
            attempts=snapshot.attempts,
            leases=snapshot.leases,
            devices=snapshot.devices,
            agents=snapshot.agents,
            builds=snapshot.builds,
            expectations=snapshot.expectations,
            trials=snapshot.trials,
            crossings=snapshot.crossings,
            uploads=snapshot.uploads,
            now=self._clock(),
        )
        return scheduler, step

    @property
    def epoch(self) -> int:
        """Rises with every start of a coordinator on this database."""
        return self._scheduler.ledger.counters.epoch

    # Commands

    async def submit(self, event: Event) -> JobsAccepted | None:
        """Hand in an event and wait until what it led to is durable.

        Raises:
            QgjobError: It is refused.
        """
        answer: asyncio.Future[JobsAccepted | None] = asyncio.get_running_loop().create_future()
        await self._post(event, answer)
        return await answer

    async def post(self, event: Event) -> None:
        """Hand in an event without waiting for its turn; waits only while the inbox is full.

        A refusal ends the session that brought the event.
        """
        await self._post(event, None)

    async def _post(self, event: Event, answer: asyncio.Future[JobsAccepted | None] | None) -> None:
        while len(self._inbox) >= MAX_INBOX:
            self._has_room.clear()
            await self._has_room.wait()
        if self._is_stopping:
            raise ShuttingDown("the coordinator is stopping; repeat the call in a moment")
        self._space.check_writable()
        self._inbox.append(_Envelope(event, answer, self._clock().mono_us))
        self._has_mail.set()

    # Turns

    async def run(self) -> None:
        """Turn until `stop`. Ends with the error of a commit that failed."""
        try:
            while not self._space.is_writable and not self._is_stopping:
                await self._try_to_wake()
            while not (self._is_stopping and not self._inbox):
                await self._wait_for_work()
                await self._turn()
        finally:
            self._is_stopping = True
            self._has_room.set()
            self._refuse(self._inbox)
            self._inbox.clear()
            self._writer.shutdown(wait=True)

    async def _try_to_wake(self) -> None:
        try:
            async with asyncio.timeout(PROBE_INTERVAL_S):
                await self._has_mail.wait()
        except TimeoutError:
            scheduler = await asyncio.get_running_loop().run_in_executor(self._writer, self._take_up)
            if scheduler is not None:
                self._scheduler = scheduler
                self._space.is_writable = True
                self._story.tell_writable()

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more events."""
        return self._is_stopping

    def stop(self) -> None:
        """Take no more events, finish those that wait, and end `run`."""
        self._is_stopping = True
        self._has_mail.set()

    async def _wait_for_work(self) -> None:
        if self._inbox:
            return
        self._has_mail.clear()
        deadline_us = self._scheduler.next_deadline()
        alarm = None
        if deadline_us is not None:
            delay_s = max(0, deadline_us - self._clock().mono_us) / SECOND_US
            alarm = asyncio.get_running_loop().call_later(delay_s, self._has_mail.set)
        try:
            await self._has_mail.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _turn(self) -> None:
        taken = [self._inbox.popleft() for _ in range(min(MAX_EVENTS_PER_TURN, len(self._inbox)))]
        if len(self._inbox) < MAX_INBOX:
            self._has_room.set()
        now = self._clock()
        self._forecasts.note_change()
        steps: list[Step] = []
        replies: list[JobsAccepted | QgjobError | None] = []
        try:
            for envelope in taken:
                try:
                    step = self._scheduler.handle(envelope.event, now)
                except QgjobError as refusal:
                    replies.append(refusal)
                else:
                    steps.append(step)
                    replies.append(step.reply)
            behind_us = max(0, now.mono_us - self._inbox[0].posted_us) if self._inbox else 0
            steps.append(self._scheduler.expire(now, behind_us))
            writes = [write for step in steps for write in step.writes]
            if writes:
                began_s = time.monotonic()
                await asyncio.get_running_loop().run_in_executor(self._writer, self._store.commit, writes)
                self._metrics.note_commit(writes, time.monotonic() - began_s)
            # What was committed in time and is told too late might not be so any more.
            self._check_leadership()
        except BaseException:
            # What is in memory now may never be durable, or not be the newest. Nothing of it was told.
            self._refuse(taken)
            raise
        self._deliver(steps, list(zip(taken, replies, strict=True)), writes)

    def _deliver(
        self,
        steps: list[Step],
        answers: list[tuple[_Envelope, JobsAccepted | QgjobError | None]],
        writes: list[Write],
    ) -> None:
        for step in steps:
            for send in step.sends:
                self._sessions.deliver(send)
                if isinstance(send, SendConflicts):
                    self._story.tell_conflicts(send)
        for envelope, reply in answers:
            if isinstance(reply, QgjobError):
                self._tell_refused(envelope, reply)
            envelope.answer_with(reply)
        self._job_changes += any(isinstance(write, PutJob | PutAttempt | PutTest) for write in writes)
        self._publish(writes)
        self._remember_leases(writes)
        self._story.tell(writes, [preemption for step in steps for preemption in step.preemptions])

    def _publish(self, writes: list[Write]) -> None:
        changed: dict[JobId, Job] = {}
        for write in writes:
            if isinstance(write, PutJob):
                changed[write.job.id] = write.job
            elif isinstance(write, PutTest):
                live = self._scheduler.ledger.jobs.get(write.attempt.job)
                if live is not None:
                    changed.setdefault(live.id, live)
        for job in changed.values():
            self.changes.publish(job)

    def _remember_leases(self, writes: list[Write]) -> None:
        """Keep the leases of attempts that have just ended: the ends of their logs are still on their way."""
        written = {write.lease.id: write.lease for write in writes if isinstance(write, PutLease)}
        for write in writes:
            if isinstance(write, PutAttempt) and write.attempt.outcome is not None:
                lease_id = write.attempt.lease
                lease = self._scheduler.ledger.fleet.leases.get(lease_id) or written.get(lease_id)
                if lease is not None:
                    self._lately[write.attempt.id] = lease
        while len(self._lately) > REMEMBERED_LEASES:
            del self._lately[next(iter(self._lately))]

    def _tell_refused(self, envelope: _Envelope, refusal: QgjobError) -> None:
        event = envelope.event
        self._story.tell_refused(event, refusal)
        if envelope.answer is None and not isinstance(event, UserEvent):
            self._sessions.end(event.session, refusal)

    def _refuse(self, envelopes: Iterable[_Envelope]) -> None:
        for envelope in envelopes:
            envelope.answer_with(ShuttingDown("the coordinator is stopping; repeat the call in a moment"))

    # What only memory knows

    def forecast(self) -> Forecast:
        """Return how the waiting jobs stand, as far as that is known: see `Forecasts`."""
        return self._forecasts.newest(self._scheduler.ledger, self._clock())

    def revision(self) -> tuple[int, int]:
        """Return what is another one after each change of what is told of jobs: committed, or foreseen."""
        self.forecast()
        return self._job_changes, self._forecasts.changes

    def explain(self, job_id: JobId) -> tuple[Job, Explanation, Now] | None:
        """Return why a job does not run, or where it does, and when that was so; None for one that is not live."""
        ledger, now = self._scheduler.ledger, self._clock()
        job = ledger.jobs.get(job_id)
        return (job, explain(ledger, job, now), now) if job is not None else None

    def known_lease(self, attempt_id: AttemptId) -> Lease | None:
        """Return the lease of an attempt that goes on or ended lately, as it was; None for any other."""
        attempt = self._scheduler.ledger.attempts.get(attempt_id)
        if attempt is None:
            return self._lately.get(attempt_id)
        return self._scheduler.ledger.fleet.leases.get(attempt.lease)

    def waiting(self) -> list[JobId]:
        """Return the waiting jobs, the first first."""
        return self._scheduler.ledger.queues.in_order()

    def running(self) -> list[JobId]:
        """Return the jobs that are assigned or run, by id."""
        ledger = self._scheduler.ledger
        return sorted(job_id for job_id in ledger.jobs if job_id not in ledger.queues)

    def census(self) -> tuple[dict[Lane, int], dict[Lane, int]]:
        """Return how many jobs wait and run in each lane."""
        return dict(self._scheduler.ledger.queued), dict(self._scheduler.ledger.running)

    def batches(self) -> list[tuple[Lease, JobId | None]]:
        """Return the batches at work by device, each with the job that runs."""
        ledger = self._scheduler.ledger
        leases = sorted(ledger.fleet.leases.values(), key=lambda lease: lease.device)
        return [(lease, self._running_in(lease)) for lease in leases]

    def _running_in(self, lease: Lease) -> JobId | None:
        attempts = (self._scheduler.ledger.attempts[attempt] for attempt in lease.attempts)
        return next((attempt.job for attempt in attempts if attempt.start_us is not None), None)

    def device_census(self) -> Counter[DeviceState]:
        """Return how many devices stand in each state."""
        return Counter(device.state for device in self._scheduler.ledger.fleet.devices.values())

    @property
    def scheduler(self) -> Scheduler:
        """The core, for readers."""
        return self._scheduler
