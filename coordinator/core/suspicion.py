"""Which devices are at fault, and how they come back.

Theory of operation
-------------------
A failure is put down to the test, the build, the host or the device by what else is known:

- A device that goes away, or that its agent finds unsound before a batch, is at fault for certain.
- A failure that the lab takes upon itself leaves a *mark* on the device. So does a test that fails here and passes
  elsewhere. Where the same test, or the install of the same build, fails on a second device, it is not the device:
  both marks of it go. What is blamed on the build leaves no mark at all, nor does a lost agent.
- Three marks for different things within ten attempts make a device suspect: it fails whatever it is given. Where
  other devices of its host have marks for the same reasons, the host is named as well; its devices leave one by one.

A device at fault is held by SUSPICION. Each of its holds counts as a relapse, and each test that passes later takes one
back. After a wait that doubles with the relapses its agent is offered a *canary*: a lease without attempts, for which
it looks at the device and installs and starts the build that the device held last. The device is readmitted when the
canary passes; when it fails, that is another relapse. The waits are kept in memory: after a restart they begin anew.
"""

from __future__ import annotations

import heapq

from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    AppKey,
    Attempt,
    AttemptOutcome,
    Blame,
    Device,
    DeviceHold,
    DeviceId,
    DeviceState,
    Failure,
    Job,
    Lease,
    LeaseState,
    Mark,
    Now,
    changed,
)
from coordinator.core.transitions import LAB_FAULTS

SUSPICIOUS_MARKS = 3
"""Different failures that make a device suspect."""
MARK_ATTEMPTS = 10
"""A mark counts while so many attempts end on its device."""
MOST_RELAPSES = 16
CERTAIN_PREFIX = "DEVICE_"
CERTAIN_REASONS = frozenset({"INSTALL_FAILED_INSUFFICIENT_STORAGE"})
"""Reasons that speak of the device itself, whatever was run on it; so do all that begin with `CERTAIN_PREFIX`."""
DEVICELESS_REASONS = frozenset(
    {
        "AGENT_LOST",
        "BUILD_CHANGED",
        "BUILD_FETCH_FAILED",
        "BUILD_SOURCE_FAILED",
        "BUNDLE_FETCH_FAILED",
        "PACKAGES_FAILED",
    }
)
"""What went wrong before a device was touched, or away from it."""
NO_APP = AppKey(org_id="", app_version_id="")
"""The app of a canary that installs nothing."""

_VERDICTS = frozenset({AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT})


class Suspicion:
    """Judges failures, holds devices, and lets canaries fly."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._due_us: dict[DeviceId, int] = {}
        """When the canary of each waiting device is due, in lab time, also while it is away."""
        self._heap: list[tuple[int, DeviceId]] = []

    # Judging

    def attempt_ended(
        self, attempt: Attempt, job: Job, outcome: AttemptOutcome, failure: Failure | None, now: Now
    ) -> None:
        """Take in how an attempt ended, and hold its device if that was the last straw."""
        self._age_marks(attempt.device, has_passed=outcome is AttemptOutcome.PASSED)
        subject = f"{_build_of(job.app, attempt.build_digest)} {job.spec.test}"
        if outcome is AttemptOutcome.PASSED:
            for other in self._ledger.crossings.passed(subject, attempt.device):
                self._mark(other, subject, "it passes on other devices")
        elif outcome in _VERDICTS and (failure is None or failure.blame in (None, Blame.TEST)):
            others = self._ledger.crossings.failed(subject, attempt.device, now.wall_us, is_verdict=True)
            self._clear(subject, others)
        elif outcome in LAB_FAULTS and failure is not None:
            self._failed_by_lab(attempt.device, subject, failure, now)

    def lease_rejected(self, lease: Lease, failure: Failure, now: Now) -> None:
        """Take in that the build of a lease could not be put on its device."""
        self._failed_by_lab(lease.device, _build_of(lease.app), failure, now)

    def build_installed(self, lease: Lease) -> None:
        """Take in that a build can be installed."""
        self._ledger.crossings.passed(_build_of(lease.app), lease.device)

    def _failed_by_lab(self, device: DeviceId, subject: str, failure: Failure, now: Now) -> None:
        if failure.blame in (Blame.BUILD, Blame.TEST) or failure.is_fatal or failure.reason in DEVICELESS_REASONS:
            return
        if is_certain(failure):
            self._hold(self._ledger.fleet.devices[device], failure.message)
            return
        others = self._ledger.crossings.failed(subject, device, now.wall_us, is_verdict=False)
        if others:
            self._clear(subject, (*others, device))
        else:
            self._mark(device, subject, failure.reason)

    def _age_marks(self, device_id: DeviceId, *, has_passed: bool) -> None:
        device = self._ledger.fleet.devices[device_id]
        if not device.marks and not (device.relapses and has_passed):
            return
        older = (changed(mark, age=mark.age + 1) for mark in device.marks)
        kept = tuple(mark for mark in older if mark.age < MARK_ATTEMPTS)
        self._ledger.put_device(
            changed(device, marks=kept, relapses=max(0, device.relapses - 1) if has_passed else device.relapses)
        )

    def _mark(self, device_id: DeviceId, subject: str, reason: str) -> None:
        device = self._ledger.fleet.devices.get(device_id)
        if device is None:  # it was forgotten since it failed
            return
        others = tuple(mark for mark in device.marks if mark.subject != subject)
        device = changed(device, marks=(*others, Mark(subject=subject, reason=reason)))
        if len(device.marks) < SUSPICIOUS_MARKS:
            self._ledger.put_device(device)
            return
        reasons = dict.fromkeys(mark.reason for mark in device.marks)
        why = f"{len(device.marks)} different tests or builds failed on it, and not elsewhere: {', '.join(reasons)}"
        self._hold(device, why + self._hint_at_host(device, reasons))

    def _hint_at_host(self, device: Device, reasons: dict[str, None]) -> str:
        """Put the failures down to the host where other devices of it fail for the same reasons."""
        others = (other for other in self._ledger.fleet.devices_of(device.agent) if other.id != device.id)
        alike = [other.id for other in others if any(mark.reason in reasons for mark in other.marks)]
        return f"; so it is on {', '.join(alike)}: look at the host of {device.agent}" if alike else ""

    def _clear(self, subject: str, devices: tuple[DeviceId, ...]) -> None:
        """Take back what a subject told against devices: it fails on several."""
        for device_id in devices:
            device = self._ledger.fleet.devices.get(device_id)
            if device is None:  # it was forgotten since it failed
                continue
            kept = tuple(mark for mark in device.marks if mark.subject != subject)
            if kept != device.marks:
                self._ledger.put_device(changed(device, marks=kept))

    def _hold(self, device: Device, reason: str) -> None:
        """Hold a device, unless an operator does already, and count the relapse."""
        self._due_us.pop(device.id, None)
        relapses = min(MOST_RELAPSES, device.relapses + 1)
        if device.hold in (None, DeviceHold.SUSPICION):
            device = changed(device, hold=DeviceHold.SUSPICION, hold_reason=reason)
        self._ledger.apply_hold(changed(device, relapses=relapses))

    # Canaries

    def canary_passed(self, lease: Lease, now: Now) -> None:
        """Readmit the device of a canary, if it was held by suspicion alone, and end the canary."""
        device = self._ledger.fleet.devices[lease.device]
        if device.hold is DeviceHold.SUSPICION:
            device = changed(device, hold=None, hold_reason="")
        self._ledger.apply_hold(changed(device, marks=()))
        self._ledger.close_lease(lease, LeaseState.RELEASED, "the canary has passed", now)

    def canary_failed(self, lease: Lease, failure: Failure, now: Now) -> None:
        """End a canary; the next one comes later. What speaks against the build only says nothing of the device.

        Neither does what could not be fetched; but then nothing was tried, and the next one comes without a relapse.
        """
        if failure.blame is Blame.BUILD or failure.is_fatal:
            self.canary_passed(lease, now)
            return
        if failure.reason not in DEVICELESS_REASONS:
            self._hold(self._ledger.fleet.devices[lease.device], failure.message)
        self._ledger.close_lease(lease, LeaseState.RELEASED, "the canary has failed", now)

    def look(self, now: Now, lab_us: int, deadline_us: int) -> None:
        """Let the canaries fly that are due.

        Args:
            now: Both clocks.
            lab_us: Lab time.
            deadline_us: Lab time at which a lease that is granted now ends without a heartbeat.
        """
        self._note_suspects(lab_us)
        while self._heap and self._heap[0][0] <= lab_us:
            due_us, device_id = heapq.heappop(self._heap)
            device = self._ledger.fleet.devices.get(device_id)
            if device is not None and self._due_us.get(device_id) == due_us and self._awaits_canary(device):
                del self._due_us[device_id]
                self._ledger.grant_canary(device, self._app_for(device), now, deadline_us)

    def next_due_us(self) -> int | None:
        """Return the lab time of the next canary."""
        while self._heap and self._due_us.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _note_suspects(self, lab_us: int) -> None:
        suspects, self._ledger.suspects = self._ledger.suspects, {}
        for device_id in suspects:
            device = self._ledger.fleet.devices.get(device_id)
            if device is None:
                self._due_us.pop(device_id, None)
            elif self._awaits_canary(device):
                due_us = self._due_us.setdefault(device_id, lab_us + self._wait_us(device))
                heapq.heappush(self._heap, (due_us, device_id))

    def _awaits_canary(self, device: Device) -> bool:
        is_free = device.state is DeviceState.QUARANTINED and device.lease is None
        is_drained = self._ledger.fleet.agents[device.agent].is_draining
        return device.hold is DeviceHold.SUSPICION and is_free and not is_drained

    def _wait_us(self, device: Device) -> int:
        settings = self._ledger.settings
        return min(settings.canary_most_us, settings.canary_wait_us << max(0, device.relapses - 1))

    def _app_for(self, device: Device) -> AppKey:
        """Return the build to try: the one that the device held last, if it could ever be installed."""
        app = device.app
        is_ours = app is not None and (not device.facts.orgs or app.org_id in device.facts.orgs)
        return app if app is not None and is_ours and self._ledger.builds.install_us(app) else NO_APP


def is_certain(failure: Failure) -> bool:
    """Whether a failure speaks of the device, whatever was run on it."""
    is_named = failure.reason.startswith(CERTAIN_PREFIX) or failure.reason in CERTAIN_REASONS
    return failure.blame is Blame.DEVICE and is_named


def _build_of(app: AppKey, held: str = "") -> str:
    """Return which build a failure speaks of: the bytes that the device held, where they are known.

    An app version may be other bytes tomorrow. What passes with those elsewhere tells nothing against a device.
    """
    return f"{app.org_id} {held or app.digest or app.app_version_id}"
