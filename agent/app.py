"""The event loop around the machine: commit the writes, deliver the sends, begin the actions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import structlog

from agent.artifacts import ArtifactSpool
from agent.blobs import BlobCache
from agent.browserstack.claims import Claims
from agent.config import Config
from agent.core.events import (
    AttemptEnded,
    DevicePrepared,
    DevicesObserved,
    DrainRequested,
    Event,
    LogsFlushed,
    PrepareFailed,
    PrepareStopped,
    Received,
    SessionLost,
    Started,
    TellConflicts,
    TestObserved,
    UploadsWanted,
    Welcome,
)
from agent.core.link import JITTER_RANGE
from agent.core.machine import Machine
from agent.core.model import (
    MICROSECONDS,
    Blame,
    DeviceFacts,
    DeviceId,
    Failure,
    Identity,
    LeaseSpec,
    LogSummary,
    Now,
    Outcome,
    TestResult,
    TestState,
)
from agent.core.step import (
    Action,
    CloseSession,
    EndLease,
    Exit,
    FlushLogs,
    ForgetCluster,
    OpenSession,
    PrepareDevice,
    ShareUploads,
    StartAttempt,
    Step,
    StopAttempt,
    StopPreparing,
    TakeUploads,
)
from agent.devices.bench import Bench, Discovery
from agent.leavings import Leavings
from agent.mask import Mask, masked_failure, masked_test
from agent.runners.protocol import INSTALL_STOPPED, Observer, RunFailed, Stop, Verdict
from agent.runners.results import Results
from agent.session import Session, open_channel
from agent.spool import LogWriter, Spool
from agent.transfer import Transfer
from agent.uploader import Uploader

FLUSH_TIMEOUT_S = 10.0
GOODBYE_TIMEOUT_S = 3.0
RECLAIM_S = 1.0
NOT_PASSED = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.ERRORED, Outcome.LOST)
"""What counts as failed in the story of a batch, as it does in that of the coordinator."""


@dataclass(slots=True)
class _Batch:
    """What the diagnostics tell of a lease."""

    lease: LeaseSpec
    begun: float = field(default_factory=time.monotonic)
    outcomes: Counter[str] = field(default_factory=Counter)


class App:
    """An agent at work. Everything runs on one event loop; runners keep blocking work off it."""

    def __init__(
        self,
        config: Config,
        release: str,
        spool: Spool,
        bench: Bench,
        discoveries: Sequence[Discovery],
        caches: Sequence[BlobCache],
        artifacts: ArtifactSpool,
        claims: Claims | None = None,
    ) -> None:
        self._config = config
        self._spool = spool
        identity = Identity(
            agent_id=config.name,
            boot_id=uuid.uuid4().hex,
            version=release,
            host=socket.gethostname(),
            lanes=config.lanes,
            orgs=config.orgs,
        )
        self._machine = Machine(identity, self._spool.recall())
        self._bench = bench
        self._discoveries = discoveries
        self._observed: dict[int, tuple[DeviceFacts, ...]] = {}
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._address = 0
        self._session: Session | None = None
        self._uploader = Uploader(self._spool, self._channel)
        self._leavings = Leavings(artifacts, self._channel, identity.agent_id)
        transfer = Transfer(self._channel, identity.boot_id)
        for cache in caches:
            cache.connect(transfer)
        self._claims = claims
        if claims is not None:
            claims.connect(lambda stated: self.post(UploadsWanted(claims=stated)))
        self._tasks: set[asyncio.Task[None]] = set()
        self._stops: dict[DeviceId, Stop] = {}
        """How to end what goes on at a device; only what goes on has one."""
        self._batches: dict[DeviceId, _Batch] = {}
        self._has_seen = asyncio.Event()
        self._offering = asyncio.Lock()
        self._is_over = False
        self._failure: BaseException | None = None
        self._out = structlog.get_logger("agent")
        self._conflicts: dict[DeviceId, str] = {}
        """Devices that the coordinator gives no work for, and the agents that have them."""

    # Turning

    def post(self, event: Event) -> None:
        """Hand in a fact."""
        self._inbox.put_nowait(event)

    def drain(self, grace_s: float) -> None:
        """Stop after the running tests, at the latest after the grace."""
        self.post(DrainRequested(grace_us=int(grace_s * MICROSECONDS)))

    async def run(self) -> None:
        """Work until the machine says that nothing is held any more.

        Raises:
            BaseException: What ended a task that the agent cannot do without.
        """
        await asyncio.to_thread(self._bench.end_left)
        carriers = (self._uploader.run(), self._leavings.run(), self._keep_offering())
        carrying = [asyncio.create_task(carrier) for carrier in carriers]
        for number, discovery in enumerate(self._discoveries):
            carrying.append(asyncio.create_task(discovery.run(functools.partial(self._devices_seen, number))))
        for task in carrying:
            task.add_done_callback(self._carrier_ended)
        self.post(Started())
        try:
            while not self._is_over:
                await self._turn()
        finally:
            for task in (*carrying, *self._tasks):
                task.cancel()
            await asyncio.gather(*carrying, *self._tasks, return_exceptions=True)
            await self._bench.close()
            for channel in self._channels.values():
                await channel.close()
        if self._failure is not None:
            raise self._failure

    def _carrier_ended(self, task: asyncio.Task[None]) -> None:
        """A task that carries facts or logs must not die unheard: without it the agent would only look alive."""
        if task.cancelled() or task.exception() is None:
            return
        self._out.error("carrier_failed", exc_info=task.exception())
        self._failure = task.exception()
        self.post(DrainRequested(grace_us=0))

    def _devices_seen(self, discovery: int, devices: tuple[DeviceFacts, ...]) -> None:
        """Take in what one discovery sees; the machine is told of all devices together."""
        self._observed[discovery] = devices
        self._has_seen.set()

    async def _keep_offering(self) -> None:
        """Offer the devices after every change, and look again soon while one of them cannot be had."""
        are_had = True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if are_had else RECLAIM_S):
                    await self._has_seen.wait()
            self._has_seen.clear()
            are_had = await self._offer()

    async def _offer(self) -> bool:
        """Tell the machine of all devices. Returns whether all that could be used can be had."""
        async with self._offering:  # else an older look might be told after a newer one
            seen = [facts for devices in self._observed.values() for facts in devices]
            claimed = [await self._bench.claimed(facts) for facts in seen]
            self.post(DevicesObserved(devices=tuple(claimed)))
        return not any(before.usable and not after.usable for before, after in zip(seen, claimed, strict=True))

    async def _offer_nothing_on_what_is_left(self, device: DeviceId) -> None:
        """Take a device out of use, before the end of what ran there is told, if something of it still lives."""
        if self._bench.has_left(device):
            await self._offer()
            self._has_seen.set()  # and look again until it has ended

    async def _turn(self) -> None:
        deadline_us = self._machine.next_deadline()
        delay_s = None if deadline_us is None else max(0, deadline_us - _now().mono_us) / MICROSECONDS
        try:
            async with asyncio.timeout(delay_s):  # without a task, which wait_for makes of each wait
                event = await self._inbox.get()
        except TimeoutError:
            await self._follow(self._machine.expire(_now()))
            return
        self._tell(event)
        await self._follow(self._machine.handle(event, _now()))
        await self._follow(self._machine.expire(_now()))

    async def _follow(self, step: Step) -> None:
        if step.writes:
            # A slow disk must not hold heartbeats of others up; the order of steps is kept, for this is awaited.
            await asyncio.to_thread(self._spool.commit, step.writes)
        if any(isinstance(write, ForgetCluster) for write in step.writes):
            self._uploader.forget_all()
            await asyncio.to_thread(self._leavings.forget_all)
        for send in step.sends:
            if self._session is not None:
                self._session.put(send)
        for action in step.actions:
            await self._begin(action)

    async def _begin(self, action: Action) -> None:
        match action:
            case OpenSession():
                self._session = Session(action.session, self._channel(), self.post, self._jitter)
            case CloseSession():
                if self._session is not None:
                    self._session.close(action.reason)
            case PrepareDevice():
                self._batches[action.lease.device_id] = _Batch(action.lease)
                self._spawn(self._prepare(action.lease, self._new_stop(action.lease.device_id)))
            case StopPreparing():
                self._ask_to_stop(action.device_id, 0)
            case StartAttempt():
                self._spawn(self._run_attempt(action, self._new_stop(action.device_id)))
            case StopAttempt():
                self._ask_to_stop(action.device_id, action.grace_us)
            case EndLease():
                self._tell_batch(action.device_id)
            case ShareUploads():
                if self._claims is not None:
                    self._claims.share(is_shared=action.is_shared)
            case TakeUploads():
                if self._claims is not None:
                    self._claims.take(action.statuses, action.sharers)
            case FlushLogs():
                self._spawn(self._flush())
            case Exit():
                if self._session is not None:
                    await self._session.finish(GOODBYE_TIMEOUT_S)
                self._is_over = True

    def _new_stop(self, device: DeviceId) -> Stop:
        assert device not in self._stops, f"two things would go on at {device}"
        self._stops[device] = stop = Stop()
        return stop

    def _ask_to_stop(self, device: DeviceId, grace_us: int) -> None:
        """Ask what goes on at a device to end; it may have ended just now, with the word of it on its way."""
        if (stop := self._stops.get(device)) is not None:
            stop.ask(grace_us)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._carrier_ended)

    def _jitter(self) -> int:
        return jitter(len(self._config.coordinators))

    def _channel(self) -> grpc.aio.Channel:
        address = self._config.coordinators[self._address % len(self._config.coordinators)]
        if address not in self._channels:
            self._channels[address] = open_channel(address, self._config.access)
        return self._channels[address]

    # Actions

    async def _prepare(self, lease: LeaseSpec, stop: Stop) -> None:
        device = lease.device_id
        self._out.info(
            "canary" if lease.is_canary else "installing", app_version=lease.app_version_id or None, device=device
        )
        event: Event
        try:
            runner = await self._bench.ready_runner(device)
            installation = await runner.prepare(lease, stop)
        except RunFailed as error:
            event = _prepare_event(lease, error.failure)
        except Exception as error:  # noqa: BLE001 - the top of a task: told, and blamed on this host
            self._out.exception("prepare_failed", device=device)
            event = PrepareFailed(device_id=device, key=lease.key, failure=_our_fault(error))
        else:
            seconds = installation.duration_us / MICROSECONDS
            story = f"installed in {seconds:.1f} s" if installation.is_new else "the device already holds the build"
            if lease.is_canary:
                self._out.info("canary_passed", device=device)
            else:
                self._out.info("installed", story=story, digest=installation.digest[:12], device=device)
            event = DevicePrepared(device_id=device, key=lease.key, installation=installation)
        await self._offer_nothing_on_what_is_left(device)
        del self._stops[device]
        self.post(event)

    async def _run_attempt(self, action: StartAttempt, stop: Stop) -> None:
        """Run one spec. Whatever happens, exactly one AttemptEnded comes of it: without it the device would hang."""
        device, job = action.device_id, action.job
        self._out.info("job_started", job=job.job_id, test=job.test, device=device)
        log, results = LogSummary(), Results()
        try:
            writer = await asyncio.to_thread(self._spool.open_log, job.attempt_id, action.key)
            verdict = await self._run_logged(action, writer, results, stop)
            log = await self._end_log(action, writer)
        except Exception as error:  # noqa: BLE001 - the top of a task: told, and blamed on this host
            self._out.exception("run_failed", job=job.job_id, device=device)
            verdict = Verdict(outcome=Outcome.ERRORED, failure=_our_fault(error))
        await self._offer_nothing_on_what_is_left(device)
        del self._stops[device]
        self.post(
            AttemptEnded(
                device_id=device,
                key=action.key,
                attempt_id=job.attempt_id,
                outcome=verdict.outcome,
                failure=verdict.failure,
                log=log,
                is_resumable=verdict.is_resumable,
            )
        )
        self._leavings.take(action, verdict, results)
        told = str(verdict.outcome or "stopped")
        self._batches[device].outcomes[told] += 1
        reason = verdict.failure.message if verdict.failure is not None else None
        self._out.info("job_ended", job=job.job_id, outcome=told, device=device, reason=reason)

    async def _run_logged(self, action: StartAttempt, writer: LogWriter, results: Results, stop: Stop) -> Verdict:
        """Run one spec. What it tells leaves here without the job's secrets."""
        runner = self._bench.runner(action.device_id)
        secrets = [value for _, value in action.job.secrets]
        mask = Mask(secrets)
        try:
            verdict = await runner.run(action.key, action.job, self._observer(action, writer, mask, results), stop)
        except Exception as error:  # noqa: BLE001 - what was logged until then is kept
            self._out.exception("run_failed", job=action.job.job_id, device=action.device_id)
            verdict = Verdict(outcome=Outcome.ERRORED, failure=_our_fault(error))
        writer.append(mask.feed(b"", is_end=True))
        return replace(verdict, failure=masked_failure(verdict.failure, secrets))

    async def _end_log(self, action: StartAttempt, writer: LogWriter) -> LogSummary:
        if writer.lost is not None:
            self._out.error("log_cut", job=action.job.job_id, reason=writer.lost)
        if writer.lost_times is not None:
            self._out.warning("log_times_cut", job=action.job.job_id, reason=writer.lost_times)
        try:
            log = await asyncio.to_thread(self._spool.end_log, action.job.attempt_id, writer)
        except OSError as error:
            self._out.error("log_lost", job=action.job.job_id, reason=str(error))
            log = writer.summary
        self._uploader.note(action.job.attempt_id)
        return log

    def _observer(self, action: StartAttempt, writer: LogWriter, mask: Mask, results: Results) -> Observer:
        attempt = action.job.attempt_id
        secrets = [value for _, value in action.job.secrets]

        def output(data: bytes) -> None:
            writer.append(mask.feed(data))
            self._uploader.note(attempt)

        def test(result: TestResult, is_resumable: bool) -> None:
            result = masked_test(result, secrets) if secrets else result
            results.take(result)
            observed = TestObserved(
                device_id=action.device_id, key=action.key, attempt_id=attempt, test=result, is_resumable=is_resumable
            )
            self.post(observed)

        return Observer(output=output, test=test)

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._uploader.flushed()
                await self._leavings.flushed()
        except TimeoutError:
            story = "some logs or artifacts did not get out; the next start of this agent sends them"
            self._out.warning("logs_left", story=story)
        self.post(LogsFlushed())

    # Diagnostics

    def _tell(self, event: Event) -> None:
        match event:
            case DrainRequested():
                self._tell_drain(event)
            case SessionLost():
                self._address += 1
                self._out.warning("session_lost", reason=event.reason)
            case TestObserved() if event.test.state is not TestState.RUNNING:
                self._out.info("test_ended", test=event.test.title, state=str(event.test.state), device=event.device_id)
            case PrepareFailed():
                self._out.error(
                    "batch_rejected", device=event.device_id, reason=event.failure.reason, story=event.failure.message
                )
            case Received(command=Welcome()):
                self._conflicts = {}
            case Received(command=TellConflicts(owners=owners)):
                self._tell_conflicts(dict(owners))
            case _:
                pass

    def _tell_conflicts(self, owners: dict[DeviceId, str]) -> None:
        """Tell which devices another agent has, once each, and when that is over."""
        for device, owner in owners.items():
            if self._conflicts.get(device) != owner:
                story = f"DEVICE_CONFLICT: agent {owner} has {device}; it gets work here when that lets it go"
                self._out.warning("device_conflict", device=device, owner=owner, story=story)
        for device in self._conflicts.keys() - owners.keys():
            self._out.info("device_conflict_over", device=device)
        self._conflicts = owners

    def _tell_drain(self, event: DrainRequested) -> None:
        busy = ", ".join(sorted(self._stops))
        if not busy:
            story = "nothing runs; results and logs are handed in"
        elif event.grace_us:
            seconds = event.grace_us / MICROSECONDS
            story = f"what runs has {seconds:g} s to end: {busy}; nothing more starts. A second signal ends it"
        else:
            story = f"what runs is ended: {busy}"
        self._out.info("draining", story=story)

    def _tell_batch(self, device: DeviceId) -> None:
        batch = self._batches.pop(device, None)
        if batch is None or batch.lease.is_canary:
            return
        passed = batch.outcomes[Outcome.PASSED.value]
        failed = sum(batch.outcomes[outcome.value] for outcome in NOT_PASSED)
        self._out.info(
            "batch_done",
            story=f"Batch done: {batch.outcomes.total()} total, {passed} successful, {failed} failed"
            f" on {device} in {time.monotonic() - batch.begun:.1f} s",
            app_version=batch.lease.app_version_id,
        )


def _prepare_event(lease: LeaseSpec, failure: Failure) -> Event:
    if failure.reason == INSTALL_STOPPED:
        return PrepareStopped(device_id=lease.device_id, key=lease.key)
    return PrepareFailed(device_id=lease.device_id, key=lease.key, failure=failure)


def _our_fault(error: Exception) -> Failure:
    return Failure(reason="AGENT_ERROR", message=f"an error of the agent's own: {error}", blame=Blame.HOST)


def jitter(addresses: int) -> int:
    """Return where in the window of reconnects the next try lies.

    A round of all addresses fits into one window: else the coordinator that serves would be found after so many
    windows, which is longer than a lease lives.
    """
    return random.randrange(JITTER_RANGE // addresses)  # noqa: S311 - spreads reconnects, guards nothing


def _now() -> Now:
    return Now(mono_us=time.monotonic_ns() // 1_000, wall_us=time.time_ns() // 1_000)
