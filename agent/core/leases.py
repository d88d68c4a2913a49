"""The leases of this agent: one slot a device, what the coordinator wants of it, and what the host says of it.

See `machine` for the rules.
"""

from dataclasses import replace

from agent.core.events import (
    AttemptEnded,
    CloseLease,
    DevicePrepared,
    DevicesObserved,
    DrainRequested,
    PrepareFailed,
    PrepareStopped,
    TestObserved,
)
from agent.core.kept import KeptResults
from agent.core.link import Link, is_due
from agent.core.model import (
    NO_FENCE,
    Blame,
    DeviceFacts,
    DeviceId,
    Failure,
    Fence,
    LeaseEcho,
    LeaseKey,
    LeaseSpec,
    Now,
    RevokeReason,
    TestState,
)
from agent.core.outbox import Outbox
from agent.core.results import result_of
from agent.core.slots import Phase, Slot, reason_of
from agent.core.step import (
    EchoLease,
    EndLease,
    PrepareDevice,
    RejectLease,
    ReleaseLease,
    ReportClosed,
    ReportDevices,
    ReportInstallation,
    ReportResult,
    ReportStart,
    ReportTest,
    StartAttempt,
    StopAttempt,
    StopPreparing,
)


class Leases:
    """All slots."""

    def __init__(self, outbox: Outbox, link: Link, results: KeptResults) -> None:
        """Begin without devices.

        Args:
            outbox: Takes what is to be said and done.
            link: Knows the coordinator's pace.
            results: Takes what attempts came to.
        """
        self._outbox = outbox
        self._link = link
        self._results = results
        self.is_draining = False
        """Nothing more is started."""
        self._slots: dict[DeviceId, Slot] = {}
        self._fences: dict[DeviceId, Fence] = {}
        """The highest that was heard of each device, also of one that has gone: an offer below it comes too late."""

    def facts(self) -> tuple[DeviceFacts, ...]:
        """Return the devices, as the coordinator shall see them."""
        facts = (slot.facts for slot in self._slots.values())
        if self.is_draining:
            # Else the coordinator would grant what is given back, again and again.
            return tuple(replace(one, usable=False, reason="its agent is stopping") for one in facts)
        return tuple(facts)

    def echoes(self) -> tuple[LeaseEcho, ...]:
        """Return what was adopted, and how far it has come."""
        return tuple(echo for slot in self._slots.values() if (echo := slot.echo()) is not None)

    def repeat_rejections(self) -> None:
        """Say again which leases were rejected and not closed yet."""
        for slot in self._slots.values():
            if slot.lease is not None and slot.failure is not None and not slot.is_foreign:
                self._outbox.sends.append(RejectLease(key=slot.lease.key, failure=slot.failure))

    # Devices

    def observed(self, event: DevicesObserved, now: Now) -> None:
        """Take in all devices that the host sees."""
        before = self.facts()
        observed = {facts.id: facts for facts in event.devices}
        for facts in observed.values():
            slot = self._slots.get(facts.id)
            if slot is None:
                self._slots[facts.id] = Slot(facts)
            else:
                slot.facts = facts
        for device_id, slot in list(self._slots.items()):
            if device_id in observed:
                continue
            if slot.phase is Phase.EMPTY:
                del self._slots[device_id]
            else:
                slot.facts = replace(slot.facts, usable=False, reason="the host does not see it any more")
        if self.facts() != before:
            self._outbox.send(ReportDevices(devices=self.facts()))
        for slot in list(self._slots.values()):
            # What was prepared or waits for more jobs; what runs there comes to its own end.
            if slot.phase is Phase.READY and not slot.facts.usable:
                self._give_back(slot, now)

    # What the coordinator says

    def adopt(self, lease: LeaseSpec, now: Now) -> None:
        """Take in a lease as it is now."""
        slot = self._slots.get(lease.device_id)
        is_newer = self._raise_fence(lease.device_id, lease.key.fence)
        if slot is None:
            self._outbox.send(RejectLease(key=lease.key, failure=_device_gone(lease.device_id)))
            return
        if slot.lease is not None and slot.lease.key == lease.key and not slot.is_foreign:
            if not slot.is_over:
                self._revise(slot, lease, now)
        elif slot.next_lease is not None and slot.next_lease.key == lease.key:
            if lease.revision > slot.next_lease.revision:
                slot.next_lease = lease
        elif is_newer:
            self._accept(slot, lease, now)
        elif lease.key.fence == self._fences.get(lease.device_id):
            # It was given back or refused before, and the word of that was lost.
            self._outbox.send(ReleaseLease(key=lease.key))

    def _accept(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        if self.is_draining or not slot.facts.usable:
            self._outbox.send(ReleaseLease(key=lease.key))
        elif slot.lease is None:
            self._take(slot, lease)
        else:
            slot.next_lease = lease
            self._end_lease(slot, now)

    def _take(self, slot: Slot, lease: LeaseSpec) -> None:
        slot.lease = lease
        slot.phase = Phase.PREPARING
        self._outbox.actions.append(PrepareDevice(lease=lease))
        self._echo(slot)

    def _revise(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        assert slot.lease is not None
        if lease.revision > slot.lease.revision:
            slot.lease = lease
            self._obey_revocations(slot, lease, now)
            self._start_next(slot, now)
        self._echo(slot)

    def _echo(self, slot: Slot) -> None:
        echo = slot.echo()
        assert echo is not None
        self._outbox.send(EchoLease(echo=echo))

    def _obey_revocations(self, slot: Slot, lease: LeaseSpec, now: Now) -> None:
        if slot.running is None:
            return
        reason = reason_of(lease, slot.running.attempt_id)
        if reason in (RevokeReason.CANCEL, RevokeReason.RELEASE):
            self._stop(slot, self._link.pace.signal_grace_us)
        elif reason is RevokeReason.PREEMPT and not slot.is_stopping and slot.stop_at_us is None:
            slot.stop_at_us = now.mono_us + lease.grace_us

    def give_up(self, now: Now) -> None:
        """Nobody was heard for too long: end every lease, so that its next job does not start either."""
        for slot in self._slots.values():
            slot.next_lease = None
            if slot.lease is not None:
                self._end_lease(slot, now)

    def forget_all(self, now: Now) -> None:
        """End everything, and owe nobody a word on it: another database answers."""
        self._fences.clear()
        for slot in self._slots.values():
            slot.awaited = None
            slot.next_lease = None
            if slot.lease is not None:
                slot.is_foreign = True
                self._end_lease(slot, now)

    def _raise_fence(self, device_id: DeviceId, fence: Fence) -> bool:
        """Note a fence that was heard of. Returns whether it is higher than all before."""
        is_higher = fence > self._fences.get(device_id, NO_FENCE)
        if is_higher:
            self._fences[device_id] = fence
        return is_higher

    def _give_up_clouds(self, now: Now) -> None:
        """End the leases of clouds, before they can expire."""
        for slot in [slot for slot in self._slots.values() if slot.is_leased_cloud]:
            slot.next_lease = None
            self._end_lease(slot, now)

    def close(self, close: CloseLease, now: Now) -> None:
        """End a lease, or all that a device has up to a fence."""
        if close.device_id is not None:
            self._close_device(close.device_id, close.key, now)
            return
        for slot in list(self._slots.values()):
            if slot.next_lease is not None and slot.next_lease.key == close.key:
                slot.next_lease = None
            if slot.lease is not None and slot.lease.key == close.key:
                self._end_lease(slot, now)

    def _close_device(self, device_id: DeviceId, key: LeaseKey, now: Now) -> None:
        """End all that a device has up to a fence, also what it may yet be offered; answer when it has ended."""
        self._raise_fence(device_id, key.fence)
        slot = self._slots.get(device_id)
        if slot is not None and slot.next_lease is not None and slot.next_lease.key.fence <= key.fence:
            slot.next_lease = None
        if slot is None or slot.lease is None or slot.lease.key.fence > key.fence:
            self._outbox.send(ReportClosed(key=key, device_id=device_id))
            return
        slot.awaited = key
        self._end_lease(slot, now)

    def _end_lease(self, slot: Slot, now: Now) -> None:
        """Forget the lease of a slot as soon as nothing of it runs."""
        assert slot.lease is not None
        slot.is_over = True
        if slot.phase is Phase.PREPARING:
            if not slot.is_stopping:
                slot.is_stopping = True
                self._outbox.actions.append(StopPreparing(device_id=slot.facts.id, key=slot.lease.key))
            return
        if slot.phase is Phase.RUNNING:
            self._stop(slot, self._link.pace.signal_grace_us)
            return
        self._outbox.actions.append(EndLease(device_id=slot.facts.id, key=slot.lease.key))
        next_lease = slot.next_lease
        if slot.awaited is not None:
            self._outbox.send(ReportClosed(key=slot.awaited, device_id=slot.facts.id))
        self._slots[slot.facts.id] = fresh = Slot(slot.facts)
        if next_lease is not None:
            self._accept(fresh, next_lease, now)

    def _start_next(self, slot: Slot, now: Now) -> None:
        """Start the next job of a slot's lease, if it may."""
        if slot.phase is not Phase.READY or slot.is_over or self.is_draining:
            return
        assert slot.lease is not None
        assert slot.installation is not None
        job = next((job for job in slot.lease.jobs if slot.may_start(job)), None)
        if job is None:
            return
        slot.phase = Phase.RUNNING
        slot.running = job
        slot.start_us = now.mono_us
        slot.tests = {}
        slot.started[job.attempt_id] = None
        self._outbox.send(ReportStart(key=slot.lease.key, attempt_id=job.attempt_id))
        self._outbox.actions.append(
            StartAttempt(device_id=slot.facts.id, key=slot.lease.key, job=job, installation=slot.installation)
        )

    def _stop(self, slot: Slot, grace_us: int) -> None:
        """End what a slot runs; the host confirms with AttemptEnded."""
        slot.stop_at_us = None
        if slot.running is None or slot.is_stopping:
            return
        assert slot.lease is not None
        slot.is_stopping = True
        self._outbox.actions.append(
            StopAttempt(
                device_id=slot.facts.id,
                key=slot.lease.key,
                attempt_id=slot.running.attempt_id,
                grace_us=grace_us,
            )
        )

    # What the host says

    def _busy_slot(self, device_id: DeviceId, key: LeaseKey) -> Slot:
        slot = self._slots[device_id]
        assert slot.lease is not None, f"{device_id} has no lease, and the host speaks of {key}"
        assert slot.lease.key == key, f"{device_id} has {slot.lease.key}, and the host speaks of {key}"
        return slot

    def prepared(self, event: DevicePrepared, now: Now) -> None:
        """Take in that a device holds the build of its lease."""
        slot = self._end_preparing(event, Phase.READY)
        slot.installation = event.installation
        if not slot.is_foreign:
            self._outbox.send(ReportInstallation(key=event.key, installation=event.installation))
        self._go_on(slot, now)

    def prepare_failed(self, event: PrepareFailed, now: Now) -> None:
        """Take in that a device cannot work for its lease."""
        slot = self._end_preparing(event, Phase.REJECTED)
        slot.failure = event.failure
        if not slot.is_foreign:
            self._outbox.send(RejectLease(key=event.key, failure=event.failure))
        self._go_on(slot, now)

    def prepare_stopped(self, event: PrepareStopped, now: Now) -> None:
        """Take in that the host has stopped to prepare a device."""
        self._go_on(self._end_preparing(event, Phase.REJECTED), now)

    def _end_preparing(self, event: DevicePrepared | PrepareFailed | PrepareStopped, phase: Phase) -> Slot:
        slot = self._busy_slot(event.device_id, event.key)
        slot.phase = phase
        slot.is_stopping = False
        return slot

    def _go_on(self, slot: Slot, now: Now) -> None:
        if slot.is_over:
            self._end_lease(slot, now)
        elif self.is_draining or (slot.phase is Phase.READY and slot.is_done):
            self._give_back(slot, now)
        else:
            self._start_next(slot, now)

    def test_observed(self, event: TestObserved, now: Now) -> None:
        """Take in how a test of a running attempt stands."""
        slot = self._busy_slot(event.device_id, event.key)
        test = slot.dated(event.test, now.mono_us)
        slot.tests[test.id] = test
        if not slot.is_over:
            self._outbox.send(
                ReportTest(key=event.key, attempt_id=event.attempt_id, test=test, is_resumable=event.is_resumable)
            )
        if event.test.state is TestState.RUNNING and slot.is_preempted(event.attempt_id):
            # Between two tests: what has ended keeps its result, and a spec without a next test ends by itself.
            self._stop(slot, self._link.pace.signal_grace_us)

    def attempt_ended(self, event: AttemptEnded, now: Now) -> None:
        """Take in that nothing of an attempt runs any more."""
        slot = self._busy_slot(event.device_id, event.key)
        result = result_of(slot, event, now)
        slot.phase = Phase.READY
        slot.running = None
        slot.stop_at_us = None
        slot.is_stopping = False
        slot.finished[event.attempt_id] = None
        if not slot.is_foreign:
            self._results.keep(result)
            self._outbox.send(ReportResult(result=result))
        self._go_on(slot, now)

    # Stopping

    def drain(self, event: DrainRequested, now: Now) -> None:
        """Start nothing more, let what runs end within the grace, give the rest back."""
        if not self.is_draining:
            self.is_draining = True
            self._outbox.send(ReportDevices(devices=self.facts()))
        for slot in list(self._slots.values()):
            if slot.phase is Phase.RUNNING and event.grace_us:
                slot.stop_at_us = now.mono_us + event.grace_us
            elif slot.phase is Phase.RUNNING:
                self._stop(slot, self._link.pace.signal_grace_us)
            elif slot.lease is not None:
                self._give_back(slot, now)

    def _give_back(self, slot: Slot, now: Now) -> None:
        assert slot.lease is not None
        self._outbox.send(ReleaseLease(key=slot.lease.key))
        slot.next_lease = None
        self._end_lease(slot, now)

    # Time

    @property
    def is_any_held(self) -> bool:
        """Whether a device has a lease."""
        return any(slot.lease is not None for slot in self._slots.values())

    def expire(self, now: Now) -> None:
        """Do what has fallen due."""
        if self._link.cloud_end_us <= now.mono_us:
            self._give_up_clouds(now)
        for slot in self._slots.values():
            if is_due(slot.stop_at_us, now):
                self._stop(slot, self._link.pace.signal_grace_us)

    def deadlines(self) -> list[int]:
        """Return when something is to be done for want of an event."""
        due = [slot.stop_at_us for slot in self._slots.values() if slot.stop_at_us is not None]
        if any(slot.is_leased_cloud for slot in self._slots.values()):
            due.append(self._link.cloud_end_us)
        return due


def _device_gone(device_id: DeviceId) -> Failure:
    return Failure(reason="DEVICE_LOST", message=f"the agent does not see {device_id} any more", blame=Blame.DEVICE)
