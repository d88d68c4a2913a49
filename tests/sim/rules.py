"""The invariants, each a small function over what is about to happen and what was known before.

A rule yields a sentence for every breach. The numbers are those of docs/reliability.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.core.model import AttemptId, DeviceId, TestState
from coordinator.core.events import AgentConnected, AgentDisconnected, AttemptFinished, Event
from coordinator.core.model import (
    AgentState,
    Attempt,
    AttemptOutcome,
    DeviceHold,
    DeviceKind,
    DeviceState,
    Job,
    JobState,
    LeaseId,
    LeaseState,
)
from coordinator.core.model import AttemptId as CoordinatorAttemptId
from coordinator.core.step import PutAgent, PutAttempt, PutCounters, PutDevice, PutJob, PutLease, PutTest, Write
from tests.sim.draw import SESSIONS
from tests.sim.history import Committed, LogAcknowledged, TestEnded, WorkBegan
from tests.sim.oracle import is_asked_for, order_is_kept
from tests.sim.plan import Ending
from tests.sim.scene import Scene

Breaches = Iterator[str]
WriteRule = Callable[[Scene, Committed, Write], Breaches]
StepRule = Callable[[Scene, Committed], Breaches]
WorkRule = Callable[[Scene, WorkBegan], Breaches]

FREED_STATES = frozenset({JobState.QUEUED, JobState.CANCELLED})
BROKEN_BUILD = ("BUILD_INVALID", "BUILD_REJECTED")
"""Reasons that end a job without a run of its test."""
LOST_STATES = frozenset({LeaseState.DISCONNECTED, LeaseState.RELEASED})
"""What the end of a stream makes of its agent's leases."""
TRUE_ENDINGS = {AttemptOutcome.PASSED: Ending.PASSED, AttemptOutcome.FAILED: Ending.FAILED}


# What is written


def ids_are_used_once(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I1: no id stands for two things, and no counter falls."""
    match write:
        case PutJob(job):
            known = scene.records.jobs.get(job.id)
            if known is not None and (known.spec, known.sequence, known.build_digest) != (
                job.spec,
                job.sequence,
                job.build_digest,
            ):
                yield f"I1: job {job.id} was {known.spec.test} and becomes {job.spec.test}"
        case PutAttempt(attempt):
            before = scene.records.attempts.get(attempt.id)
            if before is not None and (before.job, before.lease) != (attempt.job, attempt.lease):
                yield f"I1: attempt {attempt.id} was of job {before.job} and becomes one of job {attempt.job}"
        case PutLease(lease):
            old = scene.records.leases.get(lease.id)
            if old is not None and (old.device, old.fence) != (lease.device, lease.fence):
                yield f"I1: lease {lease.id} was for {old.device} and becomes one for {lease.device}"
        case PutCounters(counters):
            last = scene.records.counters
            if counters.next_job < last.next_job or counters.next_attempt < last.next_attempt:
                yield f"I1: counters fall from {last} to {counters}"
        case _:
            return


def what_has_ended_stays(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I2: an attempt, a job and a lease end once, and nothing changes them afterwards."""
    match write:
        case PutAttempt(attempt):
            before = scene.records.attempts.get(attempt.id)
            if before is not None and before.outcome is not None and before != attempt:
                yield f"I2: attempt {attempt.id} ended {before.outcome} and is written again as {attempt.outcome}"
        case PutJob(job):
            known = scene.records.jobs.get(job.id)
            if known is not None and known.is_terminal and known != job:
                yield f"I2: job {job.id} ended {known.state} and is written again as {job.state}"
        case PutLease(lease):
            old = scene.records.leases.get(lease.id)
            if old is not None and not old.is_live and old != lease:
                yield f"I2: lease {lease.id} ended {old.state} and is written again as {lease.state}"
        case _:
            return


def device_has_one_lease(scene: Scene, step: Committed, write: Write) -> Breaches:
    """I3: a device is granted only when no lease of it lives, no test runs on it, and no expired lease is at work.

    One thing may go on, because the agent lets it end before it begins anything else: an installation for a lease that
    did not expire, which it is just stopping.
    """
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    lease = write.lease
    others = [other for other in scene.live.get(lease.device, {}) if other != lease.id]
    if others:
        yield f"I3: {lease.device} has lease {others[0]} and gets lease {lease.id}"
    work = scene.work.get(DeviceId(lease.device))
    if lease.id in scene.records.leases or work is None or LeaseId(work.lease) == lease.id:
        return
    old = scene.records.leases[LeaseId(work.lease)]
    if work.attempt or old.state is LeaseState.EXPIRED:
        yield f"I3: {lease.device} still works for lease {work.lease} and gets lease {lease.id}"


def held_device_gets_nothing(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I7: what an operator or suspicion has taken out of work is given no more of it."""
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    before = scene.records.leases.get(write.lease.id)
    added = set(write.lease.attempts) - set(before.attempts if before is not None else ())
    device = scene.records.devices[write.lease.device]
    if added and (device.hold is not None or scene.records.agents[device.agent].is_draining):
        yield f"I7: {device.id} is held and gets attempts {sorted(added)}"


def suspected_device_gets_only_its_canary(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I7: a device that is held by suspicion is leased for a canary alone, and no other device is."""
    if not isinstance(write, PutLease) or write.lease.id in scene.records.leases:
        return
    device = scene.records.devices[write.lease.device]
    is_suspected = device.hold is DeviceHold.SUSPICION
    if write.lease.is_canary is not is_suspected:
        yield f"I7: {device.id} is held by {device.hold} and gets a {'canary' if write.lease.is_canary else 'batch'}"
    if write.lease.is_canary and write.lease.attempts:
        yield f"I7: the canary of {device.id} has attempts {write.lease.attempts}"


def device_serves_its_lanes_and_organisations_alone(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I7: what an agent keeps for some lanes or organisations is given no job of another, however long it waits."""
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    for attempt in write.lease.attempts:
        job = scene.records.jobs[scene.records.attempts[attempt].job]
        if not scene.plan.serves(write.lease.agent, job.spec.lane, job.spec.org_id):
            what = f"the {job.spec.lane} lane of {job.spec.org_id}"
            yield f"I7: {write.lease.device} does not serve {what} and gets job {job.id}"


def device_is_one_that_was_asked_for(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I7: no job runs on a device that it did not ask for, and on a slot of a cloud only if it may spill over."""
    if not isinstance(write, PutLease) or not write.lease.is_live:
        return
    device = scene.records.devices[write.lease.device]
    for attempt in write.lease.attempts:
        job = scene.records.jobs[scene.records.attempts[attempt].job]
        if not is_asked_for(scene.plan.settings.rules, device, job):
            yield f"I7: {device.id} gets job {job.id}, which asked for {job.spec.target}"


def account_has_a_session_for_each_lease(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I7: all agents of an account together are never given more slots at once than it has sessions."""
    if not isinstance(write, PutLease) or write.lease.id in scene.records.leases or write.lease.is_canary:
        return
    account = scene.records.devices[write.lease.device].facts.account
    if account is None:
        return
    leases = (one for one in scene.records.leases.values() if one.is_live and not one.is_canary)
    shared = [one.id for one in leases if scene.records.devices[one.device].facts.kind is DeviceKind.BROWSERSTACK]
    if len(shared) >= SESSIONS:
        yield f"I7: {write.lease.device} gets lease {write.lease.id} beside {shared}, and {SESSIONS} sessions are all"


def fenced_attempt_changes_nothing(scene: Scene, step: Committed, write: Write) -> Breaches:
    """I4: only the open attempt of a live lease, under its own fence, writes results."""
    if isinstance(write, PutTest):
        attempt, what = write.attempt, f"test {write.test.id}"
    elif isinstance(write, PutAttempt) and write.attempt.outcome is not None:
        attempt, what = write.attempt, f"outcome {write.attempt.outcome}"
    else:
        return
    known = scene.records.attempts.get(attempt.id)
    if known is None or known.outcome is not None or scene.records.jobs[attempt.job].attempt != attempt.id:
        yield f"I4: {what} is written by attempt {attempt.id}, which does not count any more"
    lease = scene.records.leases[attempt.lease]
    if not lease.is_live:
        yield f"I4: {what} is written by attempt {attempt.id} of lease {lease.id}, which is {lease.state}"
    event = step.event
    if isinstance(event, AttemptFinished) and event.attempt == attempt.id and event.fence != lease.fence:
        yield f"I4: {what} is written by attempt {attempt.id} under fence {event.fence}, not {lease.fence}"


def verdict_is_what_the_device_did(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I4: a job passes or fails only if its test really did."""
    if not isinstance(write, PutAttempt) or write.attempt.outcome not in TRUE_ENDINGS:
        return
    attempt = write.attempt
    if attempt.failure is not None and attempt.failure.reason in BROKEN_BUILD:
        return
    planned = scene.plan.jobs[scene.records.jobs[attempt.job].spec.test]
    behaviour = planned.behaviours[(attempt.number - 1) % len(planned.behaviours)]
    if behaviour.ending is not TRUE_ENDINGS[write.attempt.outcome]:
        yield f"I4: attempt {attempt.id} is said to have {attempt.outcome}, and its test was {behaviour.ending}"
    if AttemptId(attempt.id) not in scene.begun:
        yield f"I4: attempt {attempt.id} is said to have {attempt.outcome}, and never ran"


def kept_tests_are_what_the_device_did(scene: Scene, _step: Committed, write: Write) -> Breaches:
    """I4: a job keeps only tests that ended on a device as it says, and none of a spec whose tests are tied."""
    if not isinstance(write, PutJob) or not write.job.kept:
        return
    job = write.job
    if scene.plan.jobs[job.spec.test].is_tied:
        yield f"I4: job {job.id} keeps tests of a spec that can only run as a whole"
    runs = [scene.ended_tests.get(AttemptId(attempt), {}) for attempt in scene.attempts_of(job.id)]
    for kept in job.kept:
        state = TestState.FAILED if kept.error else TestState.PASSED
        if state not in (run.get(kept.id) for run in runs):
            yield f"I4: job {job.id} keeps {kept.id} as {state}, and no device has seen that"


def kept_result_is_not_lost(scene: Scene, step: Committed, write: Write) -> Breaches:
    """I4: an agent that was started anew brings the results that lie on its disk."""
    if not isinstance(write, PutAttempt) or not isinstance(step.event, AgentConnected):
        return
    attempt = write.attempt
    if attempt.outcome is AttemptOutcome.LOST and AttemptId(attempt.id) in scene.kept:
        yield f"I4: attempt {attempt.id} is given up as lost, and its agent has kept its result"


def run_that_began_is_not_free(scene: Scene, step: Committed, write: Write) -> Breaches:
    """I4: an agent that was started anew knows which runs it had begun: none of them is given back as unstarted."""
    if not isinstance(write, PutAttempt) or not isinstance(step.event, AgentConnected):
        return
    attempt = write.attempt
    is_unended = AttemptId(attempt.id) in scene.begun and AttemptId(attempt.id) not in scene.kept
    if attempt.outcome is not AttemptOutcome.RELEASED or not is_unended:
        return
    if step.event.boot_id != scene.records.leases[attempt.lease].boot_id:
        yield f"I4: attempt {attempt.id} has run, and is given back as if it had not"


def only_silence_expires(scene: Scene, step: Committed, write: Write) -> Breaches:
    """I4: a lease expires only a whole time to live after the last word of it, or when its agent was started anew."""
    if not isinstance(write, PutLease) or write.lease.state is not LeaseState.EXPIRED:
        return
    lease = write.lease
    if isinstance(step.event, AgentConnected) and step.event.boot_id != lease.boot_id:
        return
    if step.event is not None:
        yield f"I4: lease {lease.id} is expired by {type(step.event).__name__}"
        return
    last_us = scene.last_word_us(lease.id, step.at_us)
    silent_us = scene.running_us(last_us, step.at_us)
    if silent_us < scene.plan.settings.lease_ttl_us:
        yield f"I4: lease {lease.id} expires {silent_us / 1e6:.3f} s after the last word of it ({last_us / 1e6:.3f} s)"


def preempted_job_waits_again(_scene: Scene, step: Committed, write: Write) -> Breaches:
    """I6: the job of a preempted attempt is queued again in the same step."""
    if not isinstance(write, PutAttempt) or write.attempt.outcome is not AttemptOutcome.PREEMPTED:
        return
    writes = step.step.writes
    job = _next_put(step, writes.index(write), write.attempt)
    if job is None or job.state not in FREED_STATES:
        yield f"I6: attempt {write.attempt.id} is preempted, and its job is not queued again"


def _next_put(step: Committed, index: int, attempt: Attempt) -> Job | None:
    puts = (write.job for write in step.step.writes[index:] if isinstance(write, PutJob))
    return next((job for job in puts if job.id == attempt.job), None)


# What a step as a whole does


def only_the_newest_epoch_writes(scene: Scene, step: Committed) -> Breaches:
    """I4: a coordinator that was replaced commits nothing."""
    if step.epoch < scene.epoch:
        yield f"I4: epoch {step.epoch} commits {len(step.step.writes)} records after epoch {scene.epoch} has begun"


def lost_link_costs_nothing(_scene: Scene, step: Committed) -> Breaches:
    """I4: a stream that ends without a goodbye ends no attempt and no lease."""
    assert isinstance(step.event, AgentDisconnected)
    if step.event.is_goodbye:
        return
    for write in step.step.writes:
        if isinstance(write, PutAttempt) and write.attempt.outcome is not None:
            yield f"I4: attempt {write.attempt.id} ends {write.attempt.outcome} by a lost link"
        if isinstance(write, PutLease) and not write.lease.is_live:
            yield f"I4: lease {write.lease.id} ends {write.lease.state} by a lost link"


def results_of_hello_count(scene: Scene, step: Committed) -> Breaches:
    """I4: a result that comes with Hello while its lease lives is the attempt's end, whatever else Hello brings."""
    assert isinstance(step.event, AgentConnected)
    for result in step.event.results:
        attempt = scene.records.attempts.get(result.attempt)
        lease = scene.records.leases.get(result.lease)
        if attempt is None or attempt.outcome is not None or lease is None or not lease.is_live:
            continue
        outcome = _outcome_in(step, attempt)
        if result.outcome in TRUE_ENDINGS and outcome is not result.outcome:
            yield f"I4: attempt {attempt.id} {result.outcome} by the result in Hello, and ends {outcome}"


def _outcome_in(step: Committed, attempt: Attempt) -> AttemptOutcome | None:
    for write in step.step.writes:
        if isinstance(write, PutAttempt) and write.attempt.id == attempt.id and write.attempt.outcome is not None:
            return write.attempt.outcome
    return None


def old_session_says_nothing(scene: Scene, step: Committed) -> Breaches:
    """I4: the end of a stream that another one has replaced takes nothing away.

    What had become due by then may be written with it: a canary's lease, or work that a device was waiting for.
    """
    event = step.event
    if isinstance(event, AgentConnected):
        scene.sessions[event.agent] = event.session
    elif isinstance(event, AgentDisconnected) and event.session not in scene.sessions.values():
        lost = ", ".join(_lost_by(scene, step))
        if lost:
            yield f"I4: session {event.session} was replaced, and its end loses {lost}"


def _lost_by(scene: Scene, step: Committed) -> Iterator[str]:
    """Name what a step makes of agents, leases and devices that is done to them where a stream ends."""
    for write in step.step.writes:
        match write:
            case PutAgent(agent) if agent.state is not AgentState.CONNECTED:
                yield agent.id
            case PutLease(lease) if lease.state in LOST_STATES:
                if scene.records.leases[lease.id].state is not lease.state:
                    yield f"lease {lease.id}"
            case PutDevice(device) if device.state is DeviceState.OFFLINE:
                if scene.records.devices[device.id].state is not device.state:
                    yield device.id
            case _:
                pass


# What happens on devices


def device_does_one_thing(scene: Scene, began: WorkBegan) -> Breaches:
    """I3: nothing begins on a device on which something runs, and no attempt runs twice."""
    work = scene.work.get(began.device)
    if work is not None:
        yield f"I3: {began.device} runs attempt {work.attempt} and begins attempt {began.attempt}"
    if began.attempt in scene.begun:
        yield f"I2: attempt {began.attempt} begins a second time, on {began.device}"


def what_was_taken_back_never_starts(scene: Scene, began: WorkBegan) -> Breaches:
    """I3: an attempt that its agent was said to hold unstarted, and that was taken back, never starts."""
    if began.attempt in scene.taken_back:
        yield f"I3: attempt {began.attempt} was taken back, and begins on {began.device}"


def device_holds_the_build(scene: Scene, began: WorkBegan) -> Breaches:
    """I4: a test runs on the build that its job names, and that was registered when the job was accepted."""
    if not began.attempt:
        return
    spec = scene.plan.jobs[began.test].spec
    attempt = scene.records.attempts.get(CoordinatorAttemptId(began.attempt))
    if attempt is None:
        yield f"I4: attempt {began.attempt} begins before it is durable"
        return
    job = scene.records.jobs[attempt.job]
    needed = (spec.org_id, spec.app_version_id, job.build_digest)
    if began.build != needed:
        yield f"I4: attempt {began.attempt} needs {needed} and runs on {began.build}"


def done_test_is_not_run_again(scene: Scene, ended: TestEnded) -> Breaches:
    """I4: a test that its job keeps as done is left out by the next attempt."""
    attempt = scene.records.attempts[CoordinatorAttemptId(ended.attempt)]
    job = scene.records.jobs[attempt.job]
    if job.attempt == attempt.id and ended.test in [kept.id for kept in job.kept]:
        yield f"I4: attempt {ended.attempt} runs {ended.test}, which job {job.id} keeps as done"


# What agents are told of their logs


def only_the_newest_epoch_acknowledges(scene: Scene, told: LogAcknowledged) -> Breaches:
    """I5: a coordinator that was replaced acknowledges no byte: nobody will read what it has stored."""
    if told.epoch < scene.epoch:
        yield (
            f"I5: {told.size} bytes of the log of attempt {told.attempt} are acknowledged in epoch {told.epoch},"
            f" after epoch {scene.epoch} has begun"
        )


WRITE_RULES: dict[type[Write], tuple[WriteRule, ...]] = {
    PutCounters: (ids_are_used_once,),
    PutJob: (ids_are_used_once, what_has_ended_stays, kept_tests_are_what_the_device_did),
    PutTest: (fenced_attempt_changes_nothing,),
    PutAttempt: (
        ids_are_used_once,
        what_has_ended_stays,
        fenced_attempt_changes_nothing,
        verdict_is_what_the_device_did,
        kept_result_is_not_lost,
        preempted_job_waits_again,
        run_that_began_is_not_free,
    ),
    PutLease: (
        ids_are_used_once,
        what_has_ended_stays,
        device_has_one_lease,
        held_device_gets_nothing,
        suspected_device_gets_only_its_canary,
        device_serves_its_lanes_and_organisations_alone,
        device_is_one_that_was_asked_for,
        account_has_a_session_for_each_lease,
        only_silence_expires,
        order_is_kept,
    ),
}
"""What each kind of write is judged by."""
STEP_RULES: dict[type[Event], tuple[StepRule, ...]] = {
    AgentConnected: (results_of_hello_count, old_session_says_nothing),
    AgentDisconnected: (lost_link_costs_nothing, old_session_says_nothing),
}
"""What a step is judged by as a whole, by the event that it follows, besides `only_the_newest_epoch_writes`."""
WORK_RULES: tuple[WorkRule, ...] = (
    device_does_one_thing,
    what_was_taken_back_never_starts,
    device_holds_the_build,
)
