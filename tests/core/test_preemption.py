"""Which batch makes room for urgent work, and which is left to end."""

from __future__ import annotations

from coordinator.core.endings import COMPACT_ABOVE
from coordinator.core.model import SECOND_US, DeviceKind, Lease, RevokeReason, Settings, Target, TestResult, TestState
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


# Waiting instead


def three_batches() -> tuple[Lab, AgentOnPaper, Lease, Lease]:
    """Two devices: one runs a test of priority 1, and one a test of priority 3. A test is expected to take 30 s."""
    lab = Lab(Settings(lease_ttl_us=3_600 * SECOND_US))
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.submit(spec("tests/low.spec.ts", priority=1, app_version_id="low"))
    lab.submit(spec("tests/normal.spec.ts", priority=3, app_version_id="normal"))
    low, normal = agent.adopt(E1), agent.adopt(E2)
    return lab, agent, low, normal


def urgent(lab: Lab) -> int:
    lab.sends.clear()
    return lab.submit(spec("tests/urgent.spec.ts", priority=5, app_version_id="hot")).job_ids[0]


def graces(lab: Lab) -> list[tuple[str, float]]:
    """The devices that were taken back, and the seconds that their tests were given."""
    return [(send.lease.device, send.grace_us / SECOND_US) for send in snapshots(lab.sends) if send.revoked]


def test_urgent_job_waits_for_a_test_that_is_about_to_end_and_interrupts_nothing() -> None:
    lab, agent, low, normal = three_batches()
    attempt = agent.start(normal)
    lab.pass_time(22)
    agent.start(low)
    job = urgent(lab)
    lab.pass_time(8)
    agent.finish(normal, attempt)
    assert lab.jobs_of(lab.lease_on(E2)) == [job]
    lab.pass_time(30)
    assert graces(lab) == []


def test_urgent_job_interrupts_at_once_where_no_test_ends_within_an_install() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    agent.start(low)
    lab.pass_time(15)
    urgent(lab)
    assert graces(lab) == [(E1, 60)]


def test_urgent_job_that_waited_in_vain_has_lost_nothing_by_it() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    lab.pass_time(22)
    agent.start(low)
    urgent(lab)
    lab.pass_time(9)
    assert graces(lab) == []
    lab.pass_time(1)
    assert graces(lab) == [(E1, 50)]


def test_scheduler_wakes_up_when_the_wait_is_over() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    lab.pass_time(22)
    agent.start(low)
    urgent(lab)
    agent.beat(agent.echo_of(low), agent.echo_of(normal))
    deadline_us = lab.scheduler.next_deadline()
    assert deadline_us is not None
    assert deadline_us <= lab.mono_us + 10 * SECOND_US


def test_test_that_runs_longer_than_expected_is_not_waited_for() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    lab.pass_time(31)
    agent.start(low)
    urgent(lab)
    assert graces(lab) == [(E1, 60)]


def test_device_that_goes_on_with_urgent_work_is_not_waited_for() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    lab.submit(spec("tests/other.spec.ts", priority=5, app_version_id="normal"))
    assert lab.jobs_of(lab.lease_on(E2)) != []
    lab.pass_time(22)
    agent.start(low)
    urgent(lab)
    assert graces(lab)[0] == (E1, 60)


def test_more_urgent_jobs_than_tests_about_to_end_interrupt_for_the_rest() -> None:
    lab, agent, low, normal = three_batches()
    agent.start(normal)
    lab.pass_time(22)
    agent.start(low)
    urgent(lab)
    assert graces(lab) == []
    lab.submit(*(spec(f"tests/{number}.spec.ts", priority=5, app_version_id="hot") for number in range(9)))
    assert graces(lab) == [(E1, 60)]


def test_ended_tests_take_no_room_though_nobody_ever_waits_for_one() -> None:
    lab = Lab(Settings(lease_ttl_us=3_600 * SECOND_US))
    agent = lab.connect()
    lab.submit(*(spec(f"tests/{number}.spec.ts") for number in range(300)))
    for _ in range(300):
        lab.pass_time(1)
        agent.run(agent.adopt(E1))
    assert len(lab.scheduler.ledger.endings) <= 2 * COMPACT_ABOVE


def test_family_whose_last_device_is_taken_back_gets_one_that_is_free_in_the_same_step() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"), emulator("p1", kind=DeviceKind.DEVICE))
    lab.submit(spec("slow", priority=1, target=Target.ANY))
    agent.start(agent.adopt("e1@lab"))
    urgent = spec("hotfix", priority=5, target=Target.EMULATOR, app_version_id="hot")
    rest = spec("rest", priority=1, target=Target.ANY)
    lab.submit(urgent, rest)
    assert [one for _, one in lab.lease_on("e1@lab").revoked] == [RevokeReason.PREEMPT]
    assert lab.jobs_of(lab.lease_on("p1@lab")) == [3]
