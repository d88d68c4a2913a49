"""Which batch makes room for urgent work, and which is left to end."""

from __future__ import annotations

from coordinator.core.model import Lease, RevokeReason, TestResult, TestState
from tests.core.lab import AgentOnPaper, Lab, emulator, snapshots, spec

E1, E2 = "emulator-1@lab", "emulator-2@lab"
RUNNING = TestResult(id="t", title="t", state=TestState.RUNNING)


def test_urgent_job_does_not_wait_behind_a_running_test_of_its_own_build() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.submit(spec("tests/slow.spec.ts", priority=1))
    lease = agent.adopt(E1)
    attempt = agent.start(lease)
    lab.submit(spec("tests/urgent.spec.ts", priority=5))
    assert snapshots(lab.sends)[-1].revoked == ((attempt, RevokeReason.PREEMPT),)


def test_urgent_job_joins_a_running_batch_of_its_build_that_makes_no_room() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.submit(spec("tests/slow.spec.ts", priority=3))
    agent.start(agent.adopt(E1))
    urgent = lab.submit(spec("tests/urgent.spec.ts", priority=5)).job_ids[0]
    assert lab.jobs_of(lab.lease_on(E1))[-1] == urgent


def test_urgent_jobs_that_come_one_after_the_other_want_as_many_devices_as_together() -> None:
    lab, _, _, _ = two_batches()
    lab.sends.clear()
    for number in range(4):
        lab.submit(spec(f"tests/{number}.spec.ts", priority=5, app_version_id="hot"))
    assert [send.lease.device for send in snapshots(lab.sends) if send.revoked] == [E1, E2]


def two_batches() -> tuple[Lab, AgentOnPaper, Lease, Lease]:
    """Two devices, each with a batch of priority 1 that has started nothing."""
    lab = Lab()
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.submit(spec("tests/one.spec.ts", priority=1, app_version_id="one"))
    lab.submit(spec("tests/two.spec.ts", priority=1, app_version_id="two"))
    return lab, agent, agent.adopt(E1), agent.adopt(E2)


def victim_of_urgent_work(lab: Lab) -> str:
    """Submit an urgent job, and return the one device that is taken back for it."""
    lab.sends.clear()
    lab.submit(spec("tests/urgent.spec.ts", priority=5, app_version_id="hot"))
    (taken,) = [send for send in snapshots(lab.sends) if send.revoked]
    return taken.lease.device


def test_batch_that_has_started_nothing_makes_room_before_one_whose_test_has_just_begun() -> None:
    lab, agent, _, two = two_batches()
    lab.pass_time(20)
    agent.start(two)
    assert victim_of_urgent_work(lab) == E1


def test_run_just_past_a_boundary_between_tests_makes_room_before_one_that_began_later() -> None:
    lab, agent, one, two = two_batches()
    first = agent.start(one)
    lab.pass_time(5)
    agent.start(two)
    lab.pass_time(5)
    agent.report(one, first, RUNNING, resumable=True)
    assert victim_of_urgent_work(lab) == E1


def test_boundary_means_nothing_where_the_run_would_begin_anew() -> None:
    lab, agent, one, two = two_batches()
    first = agent.start(one)
    lab.pass_time(5)
    agent.start(two)
    lab.pass_time(5)
    agent.report(one, first, RUNNING)
    assert victim_of_urgent_work(lab) == E2
