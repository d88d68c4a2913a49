"""What agents report of their leases: installs, the starts and ends of tests, refusals.

A report counts only under the fence of the lease that governs its device; whoever sends another one is told that the
lease is over.
"""

from __future__ import annotations

from coordinator.core.dispatch import Dispatcher
from coordinator.core.events import (
    AttemptFinished,
    AttemptStarted,
    BuildInstalled,
    LeaseRejected,
    LeaseReleased,
    TestReported,
)
from coordinator.core.kept import kept_after
from coordinator.core.ledger import Ledger
from coordinator.core.model import (
    BUILD_REFUSED,
    BUILD_REJECTED,
    Attempt,
    AttemptId,
    AttemptOutcome,
    Blame,
    Failure,
    Fence,
    KeptTest,
    Lease,
    LeaseId,
    LeaseState,
    Now,
    RevokeReason,
    SessionId,
    changed,
)
from coordinator.core.step import (
    PutTest,
    SendClose,
    SendResultsAcknowledged,
)
from coordinator.core.suspicion import Suspicion
from coordinator.core.transitions import FREE_OUTCOMES

_REVOKED_OUTCOME = {
    RevokeReason.CANCEL: AttemptOutcome.CANCELLED,
    RevokeReason.PREEMPT: AttemptOutcome.PREEMPTED,
    RevokeReason.RELEASE: AttemptOutcome.RELEASED,
}


class Reports:
    """Takes in what comes of leases."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, suspicion: Suspicion) -> None:
        """Take the state, who gives out more work, and who judges devices by what happens on them."""
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._suspicion = suspicion

    def build_installed(self, event: BuildInstalled, now: Now) -> None:
        """Note that the device of a lease holds its build."""
        lease = self.held_lease(event.session, event.lease, event.fence)
        if lease is None:
            return
        if lease.is_canary:
            self._suspicion.canary_passed(lease, now)
            return
        if event.was_installed:
            self._suspicion.build_installed(lease)
        self._ledger.note_install(lease, event.digest, event.install_us, event.was_installed, now)

    def reject(self, event: LeaseRejected, now: Now) -> None:
        """End a batch that the agent could not begin."""
        lease = self.held_lease(event.session, event.lease, event.fence)
        if lease is None:
            return
        if lease.is_canary:
            self._suspicion.canary_failed(lease, event.failure, now)
            return
        failure = self._judge_refusal(lease, event.failure, now)
        outcome = AttemptOutcome.FAILED if failure.is_fatal else AttemptOutcome.REJECTED
        for attempt_id in lease.attempts:
            self._ledger.end_attempt(self._ledger.attempts[attempt_id], outcome, failure, now)
        device = self._ledger.fleet.devices[lease.device]
        self._ledger.put_device(changed(device, app=None, app_digest=""))
        self._ledger.close_lease(
            self._ledger.fleet.leases[lease.id], LeaseState.RELEASED, "the agent could not run the batch", now
        )
        self._suspicion.lease_rejected(lease, failure, now)
        if failure.reason == BUILD_REJECTED:
            self._ledger.end_waiting(lease.app, failure, now)

    def _judge_refusal(self, lease: Lease, failure: Failure, now: Now) -> Failure:
        """Return why a batch ends: a build that several devices refuse is broken itself, and no device is to blame."""
        if failure.reason != BUILD_REFUSED:
            return failure
        trial = self._ledger.trials.refused(lease.app, lease.device, now.wall_us)
        if not trial.is_broken:
            return failure
        refusing = " and ".join(sorted(set(trial.refused_by)))
        message = f"the build is broken, for {refusing} refused it: {failure.message}; build it again, and register it"
        return Failure(reason=BUILD_REJECTED, message=message, blame=Blame.BUILD)

    def release(self, event: LeaseReleased, now: Now) -> None:
        """Close a lease that the agent gives back."""
        lease = self.held_lease(event.session, event.lease, event.fence)
        if lease is not None:
            self._ledger.close_lease(lease, LeaseState.RELEASED, "the agent gave the lease back", now)

    def held_lease(self, session: SessionId, lease_id: LeaseId, fence: Fence) -> Lease | None:
        """Return the live lease that the sender holds, else tell the sender that it is over.

        The sender is the agent behind the session, one that was replaced included: what it says over its last stream
        counts as much as over the next.
        """
        lease = self._ledger.live_lease(lease_id, fence)
        if lease is not None and lease.agent == self._ledger.fleet.sender_of(session):
            return lease
        self.send_spent(session, lease_id, fence)
        return None

    def send_spent(self, session: SessionId, lease: LeaseId, fence: Fence) -> None:
        """Tell an agent that a lease is over."""
        agent = self._ledger.fleet.sender_of(session)
        fenced = self._ledger.fleet.fencing_of(agent) if agent is not None else ()
        device = next((device.id for device in fenced if device.lease == lease), None)
        self._ledger.send(SendClose(session=session, lease=lease, fence=fence, why="the lease is over", device=device))

    def start(self, attempt: Attempt, now: Now) -> None:
        """Note that an attempt's test runs; a second test on one device waits for the end of the first.

        The end of the first may still be on its way, and the echo of the next heartbeat says again what runs. An agent
        that really ran two at once would never be believed.
        """
        others = self._ledger.fleet.leases[attempt.lease].attempts
        if not any(self._ledger.attempts[other].start_us is not None for other in others if other != attempt.id):
            self._ledger.start_attempt(attempt, now)

    def attempt_started(self, event: AttemptStarted, now: Now) -> None:
        """Note that a test runs."""
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is not None:
            self.start(attempt, now)

    def test_reported(self, event: TestReported, now: Now) -> None:
        """Note how one test of a run stands."""
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is not None:
            self.start(attempt, now)
            self._ledger.write(PutTest(attempt, event.test))
            if event.is_resumable:
                self._ledger.note_boundary(attempt, now)

    def _governed(self, session: SessionId, lease_id: LeaseId, fence: Fence, attempt_id: AttemptId) -> Attempt | None:
        """Return the open attempt of a lease that the sender holds, else tell the sender that the lease is over."""
        if self.held_lease(session, lease_id, fence) is None:
            return None
        attempt = self._ledger.attempts.get(attempt_id)
        return attempt if attempt is not None and attempt.lease == lease_id else None

    def attempt_finished(self, event: AttemptFinished, now: Now) -> None:
        """End an attempt, and let its device go on."""
        ledger = self._ledger
        ledger.send(SendResultsAcknowledged(session=event.session, attempts=(event.attempt,)))
        attempt = self._governed(event.session, event.lease, event.fence, event.attempt)
        if attempt is None:
            return
        if event.outcome not in (AttemptOutcome.REJECTED, AttemptOutcome.RELEASED):
            ledger.start_attempt(attempt, now)
        attempt = ledger.attempts[attempt.id]
        for test in event.tests:
            ledger.write(PutTest(attempt, test))
        outcome, job = self._true_outcome(attempt, event.outcome), ledger.jobs[attempt.job]
        ended = ledger.end_attempt(
            attempt,
            outcome,
            event.failure,
            now,
            self._kept(attempt, outcome, event),
            log_size=event.log_size,
            log_sha256=event.log_sha256,
            build_digest=event.build_digest,
        )
        self._suspicion.attempt_ended(ended, job, outcome, event.failure, now)
        self._dispatcher.settle(event.lease, now)

    def _kept(self, attempt: Attempt, outcome: AttemptOutcome, event: AttemptFinished) -> tuple[KeptTest, ...]:
        """Return what the job keeps; where a run that was ended early cannot be resumed, the whole spec runs again."""
        is_early = outcome in FREE_OUTCOMES
        if is_early and not event.is_resumable:
            return ()
        return kept_after(self._ledger.jobs[attempt.job].kept, event.tests, is_resumable=is_early)

    def _true_outcome(self, attempt: Attempt, reported: AttemptOutcome) -> AttemptOutcome:
        """Return why a stopped attempt was stopped: the lease knows better than the agent that obeyed."""
        if reported not in (AttemptOutcome.CANCELLED, AttemptOutcome.PREEMPTED):
            return reported
        for attempt_id, reason in self._ledger.fleet.leases[attempt.lease].revoked:
            if attempt_id == attempt.id:
                return _REVOKED_OUTCOME[reason]
        return AttemptOutcome.RELEASED
