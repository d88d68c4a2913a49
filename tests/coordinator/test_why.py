"""The sentences of `jobs why`, each from the state that causes it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator import why
from coordinator.core.events import DevicesReported, HoldRequested, UploadClaim, UploadsClaimed
from coordinator.core.explain import explain
from coordinator.core.forecast import forecast
from coordinator.core.model import (
    SECOND_US,
    Account,
    AttemptOutcome,
    DeviceHold,
    DeviceId,
    DeviceKind,
    Failure,
    JobId,
    JobState,
    Lane,
    Rules,
    Settings,
    Target,
    UploadKey,
)
from qgjob.v1 import job_pb2
from tests.core.lab import START_WALL_US, AgentOnPaper, Lab, emulator, spec
from tests.core.test_accounts import TWO, slots

E1 = DeviceId("e1@lab")


def explained(lab: Lab, job_id: int) -> job_pb2.Explanation:
    job = lab.job(job_id)
    if job.is_terminal:
        return why.ended_out(job)
    ledger = lab.scheduler.ledger
    outlook = forecast(ledger, lab.now).outlooks.get(job.id)
    return why.explanation_out(job, explain(ledger, job, lab.now), outlook, lab.now)


def said(lab: Lab, job_id: int) -> str:
    return explained(lab, job_id).message


def one_device(settings: Settings | None = None) -> tuple[Lab, AgentOnPaper]:
    lab = Lab(settings)
    return lab, lab.connect("lab", emulator("e1"))


def begin(lab: Lab, agent: AgentOnPaper, device: str = E1) -> None:
    lease = agent.adopt(device)
    agent.install(lease, seconds=10)
    agent.start(lease)
    lab.mono_us += 20 * SECOND_US


def test_nothing_is_known() -> None:
    lab = Lab()
    lab.submit(spec())
    assert said(lab, 1) == "No device is known; start an agent with `qgjob-agent run`. It is the first in line."


def test_nothing_matches() -> None:
    lab, _ = one_device()
    lab.submit(spec(target=Target.DEVICE, selector=(("model", "Galaxy*"), ("rack", "a"))))
    assert said(lab, 1) == (
        "No known device matches it; the nearest, e1@lab, has kind emulator instead of device,"
        " model Pixel 8 instead of Galaxy*, rack (none) instead of a. It is the first in line."
    )


def test_all_are_busy() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a", app_version_id="a"))
    lab.submit(spec("b", app_version_id="b"))
    begin(lab, agent)
    begin(lab, agent, "e2@lab")
    lab.submit(spec("c", app_version_id="c"), spec("d", app_version_id="c"))
    assert said(lab, 4) == (
        "All 2 devices that match are busy; e1@lab should be free first: job 1 is at work there, for about 20s with its"
        " batch. 1 job is ahead of it. It is expected to start in about 50s."
    )
    told = explained(lab, 4)
    assert (told.reason, told.queue_position) == (job_pb2.WHY_REASON_BUSY, 2)
    assert (told.matching_devices, told.usable_devices, told.device, told.blocking_job_id) == (2, 2, E1, 1)
    assert told.expected_start_time.ToMicroseconds() == START_WALL_US + 90 * SECOND_US
    assert told.device_free_time.ToMicroseconds() == START_WALL_US + 60 * SECOND_US


def test_the_only_one_is_busy() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    begin(lab, agent)
    lab.submit(spec("b", app_version_id="b"))
    assert said(lab, 2) == (
        "The only device that matches and works, e1@lab, is busy: job 1 is at work there, for about 40s with its batch."
        " It is the first in line. It is expected to start in about 50s."
    )


def test_what_has_run_for_as_long_as_expected_may_end_any_moment() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    begin(lab, agent)
    lab.submit(spec("b", app_version_id="b"))
    for _ in range(2):
        lab.pass_time(19.75)
        lease = lab.lease_on(E1)
        agent.beat(agent.echo_of(lease, started=lease.attempts))
    assert "e1@lab, is busy: job 1 is at work there, and should be done any moment. It is" in said(lab, 2)


def test_many_jobs_are_ahead() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    begin(lab, agent)
    lab.submit(*(spec(f"b{number}", app_version_id="b", priority=4) for number in range(3)))
    lab.submit(spec("c", app_version_id="c"))
    assert "3 jobs are ahead of it. It is expected to start in about 2m 30s." in said(lab, 5)


def test_the_only_one_is_offline() -> None:
    lab, agent = one_device()
    gone = emulator("e1", is_usable=False, reason="adb says unauthorized")
    lab.handle(DevicesReported(session=agent.session, devices=(gone,)))
    lab.submit(spec())
    assert said(lab, 1) == (
        "The only device that matches, e1@lab, is offline (adb says unauthorized). It is the first in line."
    )


@pytest.mark.parametrize(
    ("hold", "word"), [(DeviceHold.QUARANTINE, "quarantined"), (DeviceHold.DRAIN, "being drained")]
)
def test_the_only_one_is_held(hold: DeviceHold, word: str) -> None:
    lab, _ = one_device()
    lab.handle(HoldRequested(device=E1, hold=hold, reason="a cracked screen"))
    lab.submit(spec())
    assert said(lab, 1).startswith(f"The only device that matches, e1@lab, is {word} (a cracked screen).")


def test_each_of_several_is_kept_from_it_by_something_else() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), emulator("e2"), emulator("e3"))
    lab.handle(HoldRequested(device=E1, hold=DeviceHold.QUARANTINE, reason="a cracked screen"))
    gone = (emulator("e2", is_usable=False), emulator("e3", is_usable=False))
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("e1"), *gone)))
    lab.submit(spec())
    assert said(lab, 1) == (
        "None of the 3 devices that match can be used: 1 is quarantined, 2 are offline; the nearest is e1@lab"
        " (a cracked screen). It is the first in line."
    )


def test_the_only_one_waits_for_its_lost_agent() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"), spec("b"))
    begin(lab, agent)
    agent.lose()
    lab.pass_time(60)
    assert said(lab, 2).startswith(
        "The only device that matches, e1@lab, is waiting for its agent, which was lost in the middle of a batch"
        " (agent lab is disconnected)."
    )


def test_the_only_one_is_kept_for_other_lanes() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), lanes=(Lane.HIGH,))
    lab.submit(spec())
    assert said(lab, 1) == (
        "The only device that matches, e1@lab, is kept for other lanes (agent lab serves high)."
        " It is the first in line."
    )


def test_the_only_one_is_kept_for_other_organisations() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), orgs=tuple("abcdef"))
    lab.submit(spec())
    assert said(lab, 1) == (
        "The only device that matches, e1@lab, is kept for other organisations"
        " (agent lab serves a and b and c and d and e and others). It is the first in line."
    )


def test_quota_is_used_up() -> None:
    lab = Lab(Settings(rules=Rules(default_quota=1)))
    agent = lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"))
    begin(lab, agent)
    lab.submit(spec("b", app_version_id="b"))
    assert said(lab, 2) == (
        "Organisation qualgent has 1 device, and its quota is 1. It is the first in line."
        " It is expected to start in about 50s."
    )


def test_batch_takes_it_along() -> None:
    lab = Lab(Settings(max_batch=1))
    lab.connect("lab", emulator("e1"), emulator("e2"))
    lab.submit(spec("a"), spec("b"))
    assert said(lab, 2).startswith("A device works for xyz123 already and will take it along;")


def test_it_was_sent_back_to_make_room() -> None:
    lab, agent = one_device()
    lab.submit(spec("a", priority=1))
    lease = agent.adopt(E1)
    attempt = agent.start(lease)
    lab.submit(spec("urgent", app_version_id="b", priority=5))
    agent.finish(lease, attempt, AttemptOutcome.PREEMPTED)
    assert "It was sent back to the queue once to make room for urgent jobs." in said(lab, 1)


def test_it_has_its_place_in_a_batch() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"), spec("b"), spec("c"))
    assert said(lab, 1) == "It is next on e1@lab, which makes ready for it."
    begin(lab, agent)
    assert said(lab, 1) == "It runs on e1@lab."
    assert said(lab, 3) == "It has its place on e1@lab, where job 1 is at work; 2 jobs are before it."
    lab.cancel(1)
    assert said(lab, 1) == "It is being cancelled on e1@lab."


ENDINGS = [
    (AttemptOutcome.PASSED, None, "It completed on e1@lab after 20s."),
    (
        AttemptOutcome.FAILED,
        Failure(reason="TEST_FAILED", message="expected Welcome"),
        "It failed on e1@lab after 20s: expected Welcome (TEST_FAILED)",
    ),
    (AttemptOutcome.TIMED_OUT, None, "It ran into its timeout on e1@lab."),
]


@pytest.mark.parametrize(("outcome", "failure", "sentence"), ENDINGS)
def test_it_has_ended(outcome: AttemptOutcome, failure: Failure | None, sentence: str) -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    begin(lab, agent)
    lease = lab.lease_on(E1)
    agent.finish(lease, lease.attempts[0], outcome, failure)
    told = explained(lab, 1)
    assert (told.reason, told.message, told.device) == (job_pb2.WHY_REASON_ENDED, sentence, E1)


def test_it_was_cancelled_before_it_had_a_device() -> None:
    lab = Lab()
    lab.submit(spec("a"))
    lab.cancel(1)
    assert said(lab, 1) == "It was cancelled."


def test_the_lab_could_not_run_it() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    broken = Failure(reason="DEVICE_LOST", message="the screen went black")
    for _ in range(3):
        agent.reject(agent.adopt(E1), broken)
    assert lab.job(1).state is JobState.ERRORED
    assert said(lab, 1) == ("The lab could not run it; the last try was on e1@lab: the screen went black (DEVICE_LOST)")


def test_record_that_is_a_moment_behind_says_so() -> None:
    lab, agent = one_device()
    lab.submit(spec("a"))
    begin(lab, agent)
    told = why.ended_out(lab.jobs[JobId(1)])
    assert told.message == "It has just ended, and how is being written down."


def test_device_of_another_kind_counts_as_one_that_lacks_something() -> None:
    lab = Lab()
    lab.connect("lab", emulator("p1", kind=DeviceKind.DEVICE))
    lab.submit(spec(target=Target.EMULATOR))
    assert "p1@lab, has kind device instead of emulator." in said(lab, 1)


def test_account_of_a_cloud_has_no_session_left() -> None:
    lab = Lab()
    account = Account(name="lab_user@cloud", sessions=2, others=2)
    lab.connect("lab", emulator("slot-1", kind=DeviceKind.BROWSERSTACK, account=account))
    lab.submit(spec(target=Target.BROWSERSTACK))
    assert explained(lab, 1).reason == job_pb2.WHY_REASON_ACCOUNT_FULL
    assert said(lab, 1).startswith(
        "The only device that matches, slot-1@lab, is waiting for a session of its account (no session left:"
        " 0 of 2 are used by this lab, 2 by others (lab_user@cloud))."
    )


def test_jobs_wait_for_an_agent_that_uploads_their_build() -> None:
    lab = Lab()
    one, two = (lab.connect(name, *slots(name, 1)) for name in ("one", "two"))
    for test in ("a", "b", "c", "d"):
        lab.submit(spec(test, target=Target.BROWSERSTACK))
    for agent, turn in ((one, 1), (two, 0)):
        devices = tuple(device.id for device in slots("one" if agent is one else "two", 1))
        claim = UploadClaim(key=UploadKey(TWO.name, "a" * 64), turn=turn, devices=devices)
        lab.handle(UploadsClaimed(session=agent.session, claims=(claim,)))
    lab.mono_us += 40 * SECOND_US
    uploading = "Its build is being uploaded to BrowserStack by agent one, for 40s now."
    waiting = {job_id: said(lab, job_id) for job_id in range(1, 5)}
    assert all(uploading in message for message in waiting.values()), waiting
    states = {device: lab.jobs_of(lab.lease_on(device)) for device in ("slot-1@one", "slot-1@two")}
    first = states["slot-1@two"][0]
    assert waiting[first] == f"It is next on slot-1@two, which makes ready for it. {uploading}"
    lab.handle(UploadsClaimed(session=one.session, claims=()))
    assert uploading not in said(lab, first)


def test_job_that_runs_waits_for_a_session_of_its_cloud() -> None:
    lab = Lab()
    slot = emulator("e1", kind=DeviceKind.BROWSERSTACK)
    agent = lab.connect("lab", slot)
    lab.submit(spec(target=Target.BROWSERSTACK))
    begin(lab, agent)
    assert said(lab, 1) == "It runs on e1@lab."
    lab.handle(DevicesReported(session=agent.session, devices=(replace(slot, reason="Tier limit exceeded"),)))
    assert said(lab, 1) == "It runs on e1@lab, and waits there: Tier limit exceeded."
