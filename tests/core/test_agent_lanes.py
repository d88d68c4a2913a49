"""An agent that serves some lanes: its devices get jobs that were submitted in them, and no others."""

from __future__ import annotations

import pytest

from coordinator.core.errors import NoMatchingDevice
from coordinator.core.explain import Why, explain
from coordinator.core.model import (
    ALL_LANES,
    LANE_OF,
    SECOND_US,
    AgentId,
    AttemptOutcome,
    DeviceId,
    DeviceState,
    Failure,
    JobId,
    JobState,
    Lane,
    Rules,
    Settings,
)
from tests.core.lab import Lab, emulator, spec
from tests.core.test_restart import RestartingLab

HIGH, LOW = (Lane.HIGH,), (Lane.LOW,)
HIGH_AND_NORMAL = (Lane.HIGH, Lane.NORMAL)
E1 = "e1@lab"


def waits(lab: Lab, *jobs: int) -> bool:
    return all(lab.job(job).state is JobState.QUEUED for job in jobs)


@pytest.mark.parametrize("lanes", [HIGH, HIGH_AND_NORMAL, LOW, ALL_LANES])
@pytest.mark.parametrize("priority", [1, 2, 3, 4, 5])
def test_device_serves_the_lanes_of_its_agent_alone(lanes: tuple[Lane, ...], priority: int) -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), lanes=lanes)
    lab.submit(spec("a", priority=priority))
    assert waits(lab, 1) is (LANE_OF[priority] not in lanes)


def test_first_job_that_the_device_serves_passes_a_higher_one_that_it_does_not() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), lanes=LOW)
    lab.submit(spec("a", priority=5), spec("b", priority=1))
    lab.submit(spec("c", app_version_id="c", priority=3))
    assert lab.jobs_of(lab.lease_on(E1)) == [2]


def test_waiting_lifts_no_job_onto_a_device_of_a_higher_lane() -> None:
    lab = Lab(Settings(rules=Rules(age_us=60 * SECOND_US, guarantee_wait_us=100 * SECOND_US, guarantee_every=1)))
    lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=1))
    lab.pass_time(300)
    assert waits(lab, 1)


def test_aged_job_comes_before_a_younger_one_of_the_lane_that_it_reached() -> None:
    lab = Lab(Settings(rules=Rules(age_us=60 * SECOND_US)))
    lab.submit(spec("old", app_version_id="a", priority=1))
    lab.pass_time(125)
    lab.submit(spec("young", app_version_id="b", priority=3))
    lab.connect("lab", emulator("e1"))
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_batch_takes_along_only_what_its_device_serves() -> None:
    lab = Lab()
    lab.submit(spec("a", priority=3), spec("b", priority=1), spec("c", priority=3))
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    assert lab.jobs_of(lab.lease_on(E1)) == [1, 3]
    lease = agent.adopt(E1)
    agent.run(lease)
    agent.run(lease)
    assert waits(lab, 2)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].state is DeviceState.IDLE


def test_rest_of_a_family_gets_a_device_though_one_of_other_lanes_works_for_it() -> None:
    lab = Lab()
    lab.submit(spec("a", priority=3), spec("b", priority=1))
    lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    assert waits(lab, 2)
    lab.connect("other", emulator("e2", "other"))
    assert lab.jobs_of(lab.lease_on("e2@other")) == [2]


def test_job_that_comes_joins_no_batch_of_a_device_that_does_not_serve_it() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=3))
    agent.start(agent.adopt(E1))
    lab.submit(spec("b", priority=1))
    assert waits(lab, 2)


def test_device_that_is_kept_for_few_lanes_is_taken_first() -> None:
    lab = Lab()
    lab.connect("any", emulator("e1", "any"))
    lab.connect("kept", emulator("e2", "kept"), lanes=HIGH)
    lab.submit(spec("a", priority=5))
    assert lab.jobs_of(lab.lease_on("e2@kept")) == [1]


def test_urgent_job_preempts_on_no_device_that_does_not_serve_it() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), lanes=(Lane.NORMAL, Lane.LOW))
    lab.submit(spec("a", priority=1))
    lease = agent.adopt(E1)
    agent.start(lease)
    lab.submit(spec("urgent", app_version_id="b", priority=5))
    assert not lab.lease_on(E1).revoked


def test_urgent_job_preempts_on_a_device_that_serves_it() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=2))
    lease = agent.adopt(E1)
    agent.start(lease)
    lab.submit(spec("urgent", app_version_id="b", priority=5))
    assert lab.lease_on(E1).revoked


def test_device_that_failed_a_job_is_tried_again_where_the_others_do_not_serve_its_lane() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.connect("kept", emulator("e2", "kept"), lanes=HIGH)
    lab.submit(spec("a", priority=3))
    agent.reject(agent.adopt(E1), Failure(reason="INSTALL_FAILED", message="no space"))
    assert lab.job(1).avoid == (E1,)
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_strict_submit_is_refused_where_no_device_serves_its_lane() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), lanes=HIGH)
    with pytest.raises(NoMatchingDevice):
        lab.submit(spec("a", priority=3), strict=True)
    assert lab.submit(spec("b", priority=3)).warnings
    assert not lab.submit(spec("c", priority=4)).warnings


def test_agent_that_is_started_again_may_serve_other_lanes() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH)
    lab.submit(spec("a", priority=3))
    agent.lose(goodbye=True)
    lab.connect("lab", emulator("e1"), boot="boot-2", lanes=HIGH_AND_NORMAL)
    assert lab.jobs_of(lab.lease_on(E1)) == [1]


def test_agent_that_is_the_same_process_serves_what_it_said_first() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=3), spec("b", priority=3))
    lease = agent.adopt(E1)
    agent.lose()
    back = lab.connect("lab", emulator("e1"), lanes=LOW, leases=(agent.echo_of(lease),))
    assert lab.scheduler.ledger.fleet.agents[AgentId("lab")].lanes == HIGH_AND_NORMAL
    back.run(lease)
    back.run(lease)
    assert lab.job(2).state is JobState.COMPLETED


def test_lanes_outlive_the_coordinator() -> None:
    lab = RestartingLab()
    agent = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=3), spec("b", priority=1))
    lease = agent.adopt(E1)
    lab.restart()
    back = lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL, leases=(agent.echo_of(lease),))
    back.finish(lease, back.start(lease), AttemptOutcome.PASSED)
    assert waits(lab, 2)


def test_why_names_the_lanes() -> None:
    lab = Lab()
    lab.connect("lab", emulator("e1"), lanes=HIGH_AND_NORMAL)
    lab.submit(spec("a", priority=1))
    ledger = lab.scheduler.ledger
    found = explain(ledger, ledger.jobs[JobId(1)], lab.now)
    assert (found.why, found.device, found.detail) == (Why.OTHER_LANES, E1, "agent lab serves high and normal")
