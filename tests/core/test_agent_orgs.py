"""An agent that serves some organisations: its devices get jobs of these, and no others."""

from __future__ import annotations

import pytest

from coordinator.core.errors import NoMatchingDevice
from coordinator.core.explain import Why, explain
from coordinator.core.forecast import forecast
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptOutcome,
    Blame,
    DeviceId,
    DeviceState,
    Failure,
    JobId,
    JobState,
    Rules,
    Settings,
)
from tests.core.lab import AgentOnPaper, Lab, emulator, spec
from tests.core.test_restart import RestartingLab

E1, OPEN = "e1@kept", "e2@open"
ACME, GLOBEX, OTHER = "acme", "globex", "other"


def kept(lab: Lab, *orgs: str, boot: str = "boot-1") -> AgentOnPaper:
    return lab.connect("kept", emulator("e1", "kept"), orgs=orgs, boot=boot)


def submit(lab: Lab, org: str, test: str = "a", **fields: object) -> int:
    return lab.submit(spec(test, org_id=org, **fields)).job_ids[0]


def is_waiting(lab: Lab, job: int) -> bool:
    return lab.job(job).state is JobState.QUEUED


@pytest.mark.parametrize("order", ["jobs first", "agent first"])
def test_device_serves_the_organisations_of_its_agent_alone(order: str) -> None:
    for org in (ACME, GLOBEX, OTHER):
        lab = Lab()
        if order == "jobs first":
            submit(lab, org)
        kept(lab, ACME, GLOBEX)
        if order == "agent first":
            submit(lab, org)
        assert is_waiting(lab, 1) is (org == OTHER)


def test_agent_that_names_none_serves_all_whomever_others_are_kept_for() -> None:
    lab = Lab()
    kept(lab, ACME)
    lab.connect("open", emulator("e2", "open"))
    jobs = [submit(lab, org) for org in (OTHER, ACME)]
    assert lab.jobs_of(lab.lease_on(OPEN)) == [jobs[0]]
    assert lab.jobs_of(lab.lease_on(E1)) == [jobs[1]], "the device that is kept for it comes first"
    lab.connect("open", emulator("e2", "open"), emulator("e3", "open"))
    another = submit(lab, ACME, "b", app_version_id="another")
    assert lab.jobs_of(lab.lease_on("e3@open")) == [another]


def test_no_wait_no_batch_and_no_urgency_brings_another_organisation_onto_the_device() -> None:
    rules = Rules(age_us=60 * SECOND_US, guarantee_wait_us=100 * SECOND_US, guarantee_every=1)
    lab = Lab(Settings(rules=rules))
    waiting = [submit(lab, OTHER, test, priority=priority) for test, priority in (("a", 1), ("b", 3), ("c", 5))]
    agent = kept(lab, ACME)
    own = submit(lab, ACME, priority=1)
    lease = agent.adopt(E1)
    agent.start(lease)
    waiting.append(submit(lab, OTHER, "d", priority=5))
    lab.pass_time(29)
    assert lab.lease_on(E1).revoked == (), "urgent work of others takes nothing back"
    agent.beat(agent.echo_of(lab.lease_on(E1), started=(lease.attempts[0],)))
    agent.finish(lab.lease_on(E1), lease.attempts[0])
    lab.pass_time(300)
    assert lab.job(own).state is JobState.COMPLETED
    assert all(is_waiting(lab, job) for job in waiting)


def test_urgent_job_of_its_organisation_takes_the_device_back() -> None:
    lab = Lab()
    agent = kept(lab, ACME)
    submit(lab, ACME, priority=1)
    lease = agent.adopt(E1)
    agent.start(lease)
    submit(lab, ACME, "urgent", app_version_id="new", priority=5)
    assert [attempt for attempt, _ in lab.lease_on(E1).revoked] == list(lease.attempts)


def test_job_that_names_the_device_does_not_get_it_either() -> None:
    lab = Lab()
    kept(lab, ACME)
    assert is_waiting(lab, submit(lab, OTHER, selector=(("id", E1),)))
    assert not is_waiting(lab, submit(lab, ACME, selector=(("id", E1),)))
    with pytest.raises(NoMatchingDevice):
        lab.submit(spec("c", org_id=OTHER), strict=True)


def test_device_that_may_not_have_a_job_is_no_alternative_to_one_that_failed_it() -> None:
    lab = Lab()
    kept(lab, ACME)
    agent = lab.connect("open", emulator("e2", "open"))
    submit(lab, OTHER)
    failure = Failure(reason="SESSION_FAILED", message="no session", blame=Blame.HOST)
    lease = agent.adopt(OPEN)
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED, failure)
    assert lab.jobs_of(lab.lease_on(OPEN)) == [1], "it runs there again, and does not wait for ever"


def test_agent_that_comes_again_for_others_is_believed_in_its_next_life_alone() -> None:
    lab = Lab()
    waiting = submit(lab, OTHER)
    kept(lab, ACME)
    kept(lab, OTHER)
    assert is_waiting(lab, waiting), "a process serves the same ones as long as it lives"
    lab.pass_time(20)
    kept(lab, OTHER, boot="boot-2")
    assert lab.jobs_of(lab.lease_on(E1)) == [waiting]
    assert is_waiting(lab, submit(lab, ACME))


def test_agent_that_is_named_while_a_batch_runs_lets_it_end() -> None:
    lab = Lab()
    agent = lab.connect("open", emulator("e2", "open"))
    first, second, third = (submit(lab, ACME, test) for test in ("a", "b", "c"))
    lease = agent.adopt(OPEN)
    assert lab.jobs_of(lease) == [first]
    agent.start(lease)
    lab.connect("kept", orgs=(ACME,))
    agent.finish(lease, lease.attempts[0])
    lease = agent.adopt(OPEN)
    assert lab.jobs_of(lease) == [second, third], "they wait in another pool now, and their batch is another one"
    for _ in range(2):
        agent.run(lab.lease_on(OPEN))
    assert [lab.job(job).state for job in (first, second, third)] == [JobState.COMPLETED] * 3


def test_restart_keeps_devices_for_their_organisations() -> None:
    lab = RestartingLab()
    agent = kept(lab, ACME)
    jobs = [submit(lab, org) for org in (ACME, OTHER, ACME)]
    lease = agent.adopt(E1)
    agent.lose()
    lab.restart()
    agent = lab.connect("kept", emulator("e1", "kept"), orgs=(ACME,), leases=(agent.echo_of(lease),))
    while lab.scheduler.ledger.fleet.devices[DeviceId(E1)].lease is not None:
        agent.run(agent.adopt(E1))
    assert [lab.job(job).state for job in jobs] == [JobState.COMPLETED, JobState.QUEUED, JobState.COMPLETED]
    assert lab.records.agents[AgentId("kept")].orgs == (ACME,)


def test_why_says_whom_the_device_is_kept_for_and_nothing_is_forecast() -> None:
    lab = Lab()
    kept(lab, ACME, GLOBEX)
    waiting = submit(lab, OTHER)
    ledger = lab.scheduler.ledger
    found = explain(ledger, lab.job(waiting), lab.now)
    assert (found.why, found.device, found.detail) == (Why.OTHER_ORGS, E1, "agent kept serves acme and globex")
    assert forecast(ledger, lab.now).outlooks[JobId(waiting)].start_us is None
    assert ledger.fleet.devices[DeviceId(E1)].state is DeviceState.IDLE
