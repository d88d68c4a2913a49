"""What docs/scheduling.md promises, each rule by the state that calls for it."""

from __future__ import annotations

import pytest

from coordinator.core.events import AgentDrainRequested
from coordinator.core.model import (
    SECOND_US,
    AgentId,
    AttemptOutcome,
    Counters,
    DeviceFacts,
    DeviceId,
    DeviceKind,
    JobId,
    JobSpec,
    JobState,
    Lane,
    RevokeReason,
    Rules,
    Settings,
    Target,
)
from coordinator.core.scheduler import Scheduler
from tests.core.lab import AgentOnPaper, Lab, emulator, spec
from tests.core.records import Records

MINUTE_S = 60


def emulators(count: int) -> tuple[DeviceFacts, ...]:
    return tuple(emulator(f"e{number}") for number in range(1, count + 1))


def ruled(**rules: object) -> Lab:
    return Lab(Settings(rules=Rules(**rules)))  # type: ignore[arg-type]


def specs(count: int, **changes: object) -> list[JobSpec]:
    return [spec(f"t{number}", **changes) for number in range(count)]


def leased(lab: Lab) -> list[str]:
    """Return the devices that work."""
    return [device.id for device in lab.scheduler.ledger.fleet.devices.values() if device.lease is not None]


def apps(lab: Lab) -> list[str]:
    return [lease.app.app_version_id for lease in lab.scheduler.ledger.fleet.leases.values()]


def learn(lab: Lab, agent: AgentOnPaper, test: str, seconds: int, device: str = "e1@lab") -> None:
    """Let a test run, so that its duration is known."""
    lab.submit(spec(test, app_version_id=f"to-learn-{test}"))
    lease = agent.adopt(device)
    attempt = agent.start(lease)
    lab.mono_us += seconds * SECOND_US
    agent.finish(lease, attempt)


# Splitting a family


def test_family_takes_no_more_devices_than_pay_for_their_installs() -> None:
    lab = ruled(split_installs=4)
    lab.connect("lab", *emulators(9))
    lab.submit(*specs(8))
    # 240 s of work: on 5 devices each has 48 s of it, on 6 it had 40 s, which is no more than 4 installs of 10 s.
    assert len(leased(lab)) == 5


def test_urgent_family_is_split_where_a_normal_one_is_not() -> None:
    lab = ruled(split_installs=40, urgent_split_installs=1)
    lab.connect("lab", *emulators(9))
    lab.submit(*specs(4))
    assert len(leased(lab)) == 1
    lab.submit(*specs(3, app_version_id="hotfix", priority=4))
    assert apps(lab).count("hotfix") == 3


def test_family_that_has_a_device_leaves_the_next_to_one_that_has_none() -> None:
    lab = Lab()
    lab.submit(*specs(100))
    agent = lab.connect("lab", emulator("e1"))
    agent.adopt("e1@lab")
    lab.submit(spec("small", app_version_id="small"))
    lab.connect("other", emulator("e2", "other"))
    assert apps(lab) == ["xyz123", "small"]


def works_for(lab: Lab, app: str) -> int:
    return apps(lab).count(app)


def test_family_gets_another_device_only_for_what_each_device_of_its_pool_has_before_it() -> None:
    lab = ruled(split_installs=1, split_percent=100)
    lab.submit(*specs(30, app_version_id="large"), *specs(10, app_version_id="small"))
    lab.connect("lab", *emulators(5))
    # 40 jobs on 5 devices: 8 for each. The large family has 7.5 on each of 4; the small one would have 5 on each of 2.
    assert (works_for(lab, "large"), works_for(lab, "small")) == (3, 1)
    lab = ruled(split_installs=1, split_percent=90)
    lab.submit(*specs(30, app_version_id="large"), *specs(10, app_version_id="small"))
    lab.connect("lab", *emulators(5))
    assert (works_for(lab, "large"), works_for(lab, "small")) == (4, 1)


def test_family_that_rests_gets_a_device_when_the_others_of_its_pool_have_less_before_them() -> None:
    lab = ruled(split_installs=1)
    ids = lab.submit(*specs(16, app_version_id="large"), *specs(9, app_version_id="small")).job_ids
    lab.connect("lab", *emulators(4))
    before = (works_for(lab, "large"), works_for(lab, "small"))
    waiting = [job for job in ids[:16] if JobId(job) in lab.scheduler.ledger.queues]
    lab.cancel(*waiting[:8])
    assert before == (2, 1)
    assert (works_for(lab, "large"), works_for(lab, "small")) == (2, 2)


def test_family_that_rests_gets_a_device_when_its_pool_gains_some() -> None:
    lab = ruled(split_installs=1)
    lab.submit(*specs(20, app_version_id="large"), *specs(11, app_version_id="small"))
    lab.connect("lab", *emulators(3))
    before = works_for(lab, "small")
    lab.connect("other", *(emulator(f"f{number}", "other") for number in range(5)))
    assert (before, works_for(lab, "small")) == (1, 2)


def test_work_that_comes_later_by_its_priority_is_no_burden() -> None:
    lab = ruled(split_installs=1)
    lab.submit(*specs(100, app_version_id="idle", priority=1), *specs(8, app_version_id="nightly", priority=3))
    lab.connect("lab", *emulators(4))
    assert works_for(lab, "nightly") == 4


def test_rest_of_a_family_moves_to_a_free_device_when_its_own_is_lost() -> None:
    lab = ruled(split_installs=8)
    first = lab.connect("one", emulator("e1", "one"))
    lab.submit(*specs(5, target=Target.EMULATOR))
    first.adopt("e1@one")
    lab.connect("two", emulator("e2", "two"))
    assert leased(lab) == ["e1@one"]
    first.lose()
    assert lab.jobs_of(lab.lease_on("e2@two")) == [5]


# Long tests


@pytest.mark.parametrize(("short", "first"), [(20, "long"), (40, "short")])
def test_long_test_comes_before_its_turn_where_the_others_would_be_done_before_it(short: int, first: str) -> None:
    lab = ruled(batch_least_us=10 * SECOND_US, split_installs=1, long_parts=3)
    agent = lab.connect("lab", emulator("e1"))
    learn(lab, agent, "short", 10)
    learn(lab, agent, "long", 150)
    # 150 s are a third of what one device has before it with 20 short tests, but not with 40.
    lab.submit(*[spec("short")] * short, spec("long"))
    (job,) = lab.jobs_of(lab.lease_on("e1@lab"))
    assert lab.job(job).spec.test == first


# Time slices and levels


def test_batch_goes_on_until_its_time_is_over_and_then_leaves_its_device_to_another_family() -> None:
    lab = Lab(Settings(max_batch=1, rules=Rules(batch_most_us=600 * SECOND_US)))
    lab.submit(*specs(30))
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("other", app_version_id="other"))
    order = []
    for _ in range(8):
        lease = agent.adopt("e1@lab")
        order.append(lease.app.app_version_id)
        attempt = agent.start(lease)
        lab.mono_us += 120 * SECOND_US
        agent.beat(agent.echo_of(lab.lease_on("e1@lab"), started=(attempt,)))
        agent.finish(lease, attempt)
    assert order == ["xyz123"] * 6 + ["other"] + ["xyz123"]


def test_batch_takes_its_own_lower_priorities_only_while_nothing_else_comes_first() -> None:
    lab = Lab()
    lab.submit(spec("a", priority=5), spec("b", priority=2))
    lab.submit(spec("c", priority=3, app_version_id="other"))
    agent = lab.connect("lab", emulator("e1"))
    order = []
    for _ in range(3):
        lease = agent.adopt("e1@lab")
        order += lab.jobs_of(lab.lease_on("e1@lab"))[:1]
        agent.run(lease)
    assert order == [1, 3, 2]


def test_job_of_higher_priority_that_joins_a_batch_goes_before_what_has_not_begun() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect("lab", emulator("e1"))
    agent.start(agent.adopt("e1@lab"))
    lab.submit(spec("c", priority=4))
    assert lab.jobs_of(lab.lease_on("e1@lab")) == [1, 3, 2]


def test_jobs_that_were_submitted_together_run_the_longest_first() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    learn(lab, agent, "short", 4)
    learn(lab, agent, "long", 25)
    lab.submit(spec("short"), spec("long"), spec("unknown"))
    assert [lab.job(job).spec.test for job in lab.jobs_of(lab.lease_on("e1@lab"))] == ["long", "unknown", "short"]


def test_install_that_was_quicker_than_expected_lets_the_family_have_another_device_at_once() -> None:
    lab = ruled(batch_least_us=40 * SECOND_US)
    agent = lab.connect("lab", *emulators(3))
    lab.submit(*specs(4))
    # An install of 10 s would not pay for a third device: 40 s for each of three are just four of them.
    assert len(lab.scheduler.ledger.fleet.leases) == 2
    lease = agent.adopt("e1@lab")
    agent.install(lease, seconds=5)
    assert len(lab.scheduler.ledger.fleet.leases) == 3


def test_organisation_gets_its_device_back_where_its_pool_was_made_anew_meanwhile() -> None:
    lab = ruled(quotas={"small": 1})
    agent = lab.connect("lab", *emulators(2))
    lab.submit(spec("a", org_id="small", app_version_id="a", target=Target.EMULATOR))
    lab.submit(spec("b", org_id="small", app_version_id="b", priority=1))
    lab.cancel(2)
    lab.submit(spec("c", org_id="other", app_version_id="c", priority=3))
    lease = agent.adopt("e1@lab")
    agent.run(lease)
    assert lab.job(1).state is JobState.COMPLETED


def test_batch_gives_way_to_a_higher_job_of_its_organisation_that_waits_for_its_quota_alone() -> None:
    lab = ruled(quotas={"qualgent": 1})
    agent = lab.connect("lab", *emulators(2))
    lab.submit(spec("a0", priority=1, app_version_id="a"))
    lease = agent.adopt("e1@lab")
    agent.start(lease)
    lab.submit(spec("b", priority=3, app_version_id="b"))
    lab.submit(spec("a1", priority=1, app_version_id="a"))
    assert lab.jobs_of(lab.lease_on("e1@lab")) == [1]
    agent.finish(lease, lease.attempts[0])
    running = [lab.jobs_of(one) for one in lab.scheduler.ledger.fleet.leases.values()]
    assert running == [[2]]


# Ageing and the guaranteed share


@pytest.mark.parametrize(
    ("priority", "waited_min", "overtaken"), [(1, 59, 1), (1, 61, 2), (1, 121, 3), (1, 600, 3), (2, 61, 3)]
)
def test_wait_lifts_a_job_by_one_priority_each_hour_up_to_three(priority: int, waited_min: int, overtaken: int) -> None:
    lab = Lab()
    lab.submit(spec("old", priority=priority, app_version_id="old"))
    lab.mono_us += waited_min * MINUTE_S * SECOND_US
    for other in range(1, 6):
        lab.submit(spec(f"new-{other}", priority=other, app_version_id=f"new-{other}"))
    agent = lab.connect("lab", emulator("e1"))
    order = []
    for _ in range(6):
        lease = agent.adopt("e1@lab")
        order.append(lease.app.app_version_id)
        agent.run(lease)
    assert order.index("old") == order.index(f"new-{overtaken}") - 1


def test_job_that_has_aged_is_preempted_by_what_it_was_submitted_as() -> None:
    lab = Lab()
    lab.submit(spec("old", priority=1))
    lab.mono_us += 120 * MINUTE_S * SECOND_US
    agent = lab.connect("lab", emulator("e1"))
    agent.start(agent.adopt("e1@lab"))
    lab.submit(spec("hotfix", priority=4, app_version_id="hot"))
    assert lab.lease_on("e1@lab").revoked != ()


def test_timer_of_ageing_is_a_deadline_of_its_own() -> None:
    lab = Lab()
    lab.submit(spec("old", priority=1))
    assert lab.scheduler.next_deadline() == lab.mono_us + 60 * MINUTE_S * SECOND_US


def starving(lab: Lab) -> AgentOnPaper:
    """Return an agent with one device, on which priority 5 runs while a job of priority 1 waits for over two hours."""
    lab.submit(spec("starved", priority=1, app_version_id="starved"))
    lab.mono_us += 121 * MINUTE_S * SECOND_US
    for number in range(30):
        lab.submit(spec(f"hot{number}", priority=5, app_version_id=f"hot{number}"))
    return lab.connect("lab", emulator("e1"))


def test_guaranteed_share_is_one_decision_in_ten() -> None:
    lab = Lab()
    agent = starving(lab)
    order = []
    for _ in range(10):
        lease = agent.adopt("e1@lab")
        order.append(lease.app.app_version_id)
        agent.run(lease)
    assert order.index("starved") == 9


def test_guaranteed_share_of_a_device_goes_to_the_oldest_of_all_that_it_serves() -> None:
    """Also where another pool is due because of decisions on devices that the oldest cannot use."""
    lab = ruled(guarantee_every=3)
    lab.submit(spec("oldest", priority=1, app_version_id="oldest", target=Target.DEVICE))
    lab.mono_us += SECOND_US
    for number in range(5):
        lab.submit(spec(f"old{number}", priority=1, app_version_id=f"old{number}"))
    lab.mono_us += 121 * MINUTE_S * SECOND_US
    for number in range(20):
        lab.submit(spec(f"hot{number}", priority=5, app_version_id=f"hot{number}"))
    agent = lab.connect("lab", emulator("e1"), emulator("p1", kind=DeviceKind.DEVICE))
    order = []
    for device in ("p1@lab", "e1@lab", "e1@lab") * 2:
        lease = agent.adopt(device)
        order.append(lease.app.app_version_id)
        agent.run(lease)
    # Whenever the phone asks, two decisions were made for the pool that it shares, and one or none for its own.
    assert lab.job(1).state is not JobState.QUEUED, order


def test_guaranteed_turn_on_a_device_of_some_lanes_takes_none_from_the_others() -> None:
    lab = ruled(guarantee_every=3)
    lab.submit(spec("low", priority=1, app_version_id="low"))
    lab.mono_us += SECOND_US
    for number in range(9):
        lab.submit(spec(f"old{number}", priority=4, app_version_id=f"old{number}"))
    lab.mono_us += 121 * MINUTE_S * SECOND_US
    for number in range(30):
        lab.submit(spec(f"hot{number}", priority=5, app_version_id=f"hot{number}"))
    kept = lab.connect("kept", emulator("e1", "kept"), lanes=(Lane.HIGH,))
    agent = lab.connect("lab", emulator("e2"))
    order = []
    for _ in range(4):
        for name, speaker in (("e1@kept", kept), ("e1@kept", kept), ("e2@lab", agent)):
            lease = speaker.adopt(name)
            order.append(lease.app.app_version_id)
            speaker.run(lease)
    assert lab.job(1).state is JobState.COMPLETED, order


# Organisations


def test_organisations_take_turns_by_the_device_time_that_they_were_given() -> None:
    lab = Lab()
    for number in range(4):
        lab.submit(spec(f"a{number}", org_id="a", app_version_id=f"{number}"))
    for number in range(4):
        lab.submit(spec(f"b{number}", org_id="b", app_version_id=f"{number}"))
    agent = lab.connect("lab", emulator("e1"))
    order = ""
    for _ in range(8):
        lease = agent.adopt("e1@lab")
        order += lease.app.org_id
        attempt = agent.start(lease)
        lab.mono_us += 30 * SECOND_US
        agent.finish(lease, attempt)
    assert order == "abababab"


def test_organisation_of_twice_the_weight_gets_twice_the_time() -> None:
    lab = ruled(weights={"a": 200})
    for org in "ab":
        for number in range(8):
            lab.submit(spec(f"{org}{number}", org_id=org, app_version_id=f"{number}"))
    agent = lab.connect("lab", emulator("e1"))
    order = ""
    for _ in range(9):
        lease = agent.adopt("e1@lab")
        order += lease.app.org_id
        attempt = agent.start(lease)
        lab.mono_us += 30 * SECOND_US
        agent.finish(lease, attempt)
    assert (order.count("a"), order.count("b")) == (6, 3)


def test_organisation_that_comes_back_does_not_catch_up_on_its_absence() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    for number in range(5):
        lab.submit(spec(f"a{number}", org_id="a", app_version_id=f"{number}"))
        agent.run(agent.adopt("e1@lab"))
    for number in range(5, 9):
        lab.submit(spec(f"a{number}", org_id="a", app_version_id=f"{number}"))
    for number in range(4):
        lab.submit(spec(f"b{number}", org_id="b", app_version_id=f"{number}"))
    order = ""
    for _ in range(6):
        lease = agent.adopt("e1@lab")
        order += lease.app.org_id
        attempt = agent.start(lease)
        lab.mono_us += 30 * SECOND_US
        agent.finish(lease, attempt)
    assert "bb" not in order
    assert order.count("b") >= 2


def test_quota_leaves_devices_to_others_and_is_offered_the_next_when_one_is_given_back() -> None:
    lab = ruled(quotas={"a": 1}, batch_least_us=SECOND_US)
    agent = lab.connect("lab", *emulators(3))
    for number in range(3):
        lab.submit(spec(f"a{number}", org_id="a", app_version_id=f"{number}"))
    assert len(leased(lab)) == 1
    lab.submit(spec("b", org_id="b"))
    assert sorted(lease.app.org_id for lease in lab.scheduler.ledger.fleet.leases.values()) == ["a", "b"]
    agent.run(agent.adopt("e1@lab"))
    assert lab.job(2).state is JobState.ASSIGNED


def test_organisation_with_all_its_devices_takes_none_from_others() -> None:
    lab = ruled(quotas={"a": 1})
    agent = lab.connect("lab", *emulators(2))
    lab.submit(spec("low", org_id="b", priority=1), spec("x", org_id="b", priority=1))
    lab.submit(spec("a1", org_id="a", app_version_id="1", priority=5))
    agent.start(agent.adopt("e1@lab"))
    lab.submit(spec("a2", org_id="a", app_version_id="2", priority=5))
    assert lab.lease_on("e1@lab").revoked == ()


# Which device


def used(lab: Lab, agent: AgentOnPaper, device: str, seconds: int) -> None:
    lab.submit(spec("wear", selector=(("udid", device),), app_version_id=f"wear-{device}"))
    lease = agent.adopt(f"{device}@lab")
    attempt = agent.start(lease)
    lab.mono_us += seconds * SECOND_US
    agent.finish(lease, attempt)


@pytest.mark.parametrize(("priority", "device"), [(5, "e3@lab"), (1, "e2@lab"), (3, "e1@lab")])
def test_lane_chooses_among_cold_devices(priority: int, device: str) -> None:
    lab = Lab()
    agent = lab.connect("lab", *emulators(3))
    used(lab, agent, "e1", 20)
    used(lab, agent, "e2", 25)
    used(lab, agent, "e3", 4)
    lab.submit(spec("fresh", priority=priority))
    # High takes the least used, low the most used, normal the one that is free longest.
    assert leased(lab) == [device]


def test_device_that_others_could_use_less_is_taken_first() -> None:
    lab = Lab()
    pixel = emulator("pixel", model="Pixel 8")
    galaxy = emulator("galaxy", model="Galaxy S23")
    lab.submit(spec("picky", selector=(("model", "Pixel*"),)), spec("also picky", selector=(("model", "Pixel*"),)))
    lab.submit(spec("anything", priority=4))
    lab.connect("lab", pixel, galaxy)
    assert lab.jobs_of(lab.lease_on("galaxy@lab")) == [3]
    assert lab.jobs_of(lab.lease_on("pixel@lab")) == [1, 2]


def test_selector_of_a_udid_waits_for_that_device_alone() -> None:
    lab = Lab()
    agent = lab.connect("lab", *emulators(2))
    lab.submit(spec("first", selector=(("udid", "E2"),), target=Target.EMULATOR))
    lab.submit(spec("second", selector=(("udid", "e2"),), app_version_id="v2"))
    assert leased(lab) == ["e2@lab"]
    agent.run(agent.adopt("e2@lab"))
    assert lab.jobs_of(lab.lease_on("e2@lab")) == [2]


def test_pattern_over_udids_is_served_by_any_that_it_fits() -> None:
    lab = Lab()
    lab.submit(spec("a", selector=(("udid", "e[23]"),)))
    lab.connect("lab", emulator("e1"))
    assert leased(lab) == []
    lab.connect("other", emulator("e3", "other"))
    assert leased(lab) == ["e3@other"]


# Preemption


def busy_with_priority_one(lab: Lab, count: int) -> AgentOnPaper:
    agent = lab.connect("lab", *emulators(count))
    for number in range(count):
        lab.submit(spec(f"low{number}", priority=1, app_version_id=f"low{number}"))
    for number in range(1, count + 1):
        agent.start(agent.adopt(f"e{number}@lab"))
    return agent


def revoked(lab: Lab) -> int:
    return sum(1 for lease in lab.scheduler.ledger.fleet.leases.values() if lease.revoked)


def test_urgent_jobs_take_as_many_devices_as_a_split_would_give_them() -> None:
    lab = Lab()
    busy_with_priority_one(lab, 8)
    lab.submit(*specs(3, priority=5, app_version_id="hot"))
    assert revoked(lab) == 3


def test_urgent_job_that_needs_no_device_any_more_leaves_its_victim_to_the_next() -> None:
    lab = Lab()
    busy_with_priority_one(lab, 4)
    lab.submit(spec("hot", priority=5, app_version_id="hot"))
    assert revoked(lab) == 1
    lab.cancel(5)
    lab.submit(spec("hot", priority=5, app_version_id="hotter"))
    assert revoked(lab) == 1


def test_victim_of_a_device_that_an_operator_wants_is_replaced_by_another() -> None:
    lab = Lab()
    busy_with_priority_one(lab, 2)
    lab.connect("other", emulator("e9", "other"))
    lab.submit(spec("low", priority=1, app_version_id="low"))
    lab.submit(spec("hot", priority=5, app_version_id="hot"))
    assert revoked(lab) == 1
    lab.handle(AgentDrainRequested(agent=AgentId("lab"), is_draining=True))
    lab.handle(AgentDrainRequested(agent=AgentId("other"), is_draining=False))
    assert lab.lease_on("e9@other").revoked != () or lab.job(4).state is JobState.QUEUED


def test_victim_that_loses_least_is_chosen() -> None:
    lab = Lab()
    agent = lab.connect("lab", *emulators(2))
    lab.submit(spec("old", priority=1, app_version_id="old"))
    agent.start(agent.adopt("e1@lab"))
    lab.mono_us += 4 * SECOND_US
    lab.submit(spec("new", priority=1, app_version_id="new"))
    agent.start(agent.adopt("e2@lab"))
    lab.submit(spec("hot", priority=5, app_version_id="hot"))
    assert lab.lease_on("e2@lab").revoked != ()
    assert lab.lease_on("e1@lab").revoked == ()


def test_restarted_coordinator_takes_no_second_device_for_the_same_urgent_job() -> None:
    lab = Lab()
    agent = busy_with_priority_one(lab, 2)
    lab.submit(spec("hot", priority=5, app_version_id="hot"))
    assert revoked(lab) == 1
    ledger = lab.scheduler.ledger
    records = Records(
        jobs=dict(ledger.jobs),
        attempts=dict(ledger.attempts),
        leases=dict(ledger.fleet.leases),
        devices=dict(ledger.fleet.devices),
        agents=dict(ledger.fleet.agents),
    )
    lab.scheduler = Scheduler(lab.settings, Counters(epoch=2))
    records.restore_into(lab.scheduler, lab.now)
    leases = [lab.lease_on(f"e{number}@lab") for number in (1, 2)]
    echoes = tuple(agent.echo_of(lease, started=lease.attempts) for lease in leases)
    lab.connect("lab", *emulators(2), leases=echoes)
    assert revoked(lab) == 1


# What is learnt


def test_expected_durations_outlive_the_coordinator() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    learn(lab, agent, "slow", 25)
    learned = lab.scheduler.ledger.durations
    again = Scheduler(lab.settings, Counters(epoch=2))
    again.restore(
        jobs=(),
        attempts=(),
        leases=(),
        devices=(),
        agents=(),
        builds=(),
        expectations=learned.known().values(),
        now=lab.now,
    )
    assert again.ledger.durations.expected_us(spec("slow")) == learned.expected_us(spec("slow"))
    assert abs(learned.expected_us(spec("slow")) - 25 * SECOND_US) < SECOND_US // 100


def test_what_ended_by_the_labs_fault_teaches_nothing() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("slow"))
    lease = agent.adopt("e1@lab")
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED)
    assert lab.scheduler.ledger.durations.known() == {}


def test_preempted_tail_is_told_why() -> None:
    lab = Lab()
    lab.submit(spec("a"), spec("b"))
    agent = lab.connect("lab", emulator("e1"))
    lease = agent.adopt("e1@lab")
    first = agent.start(lease)
    lab.submit(spec("c", priority=4, app_version_id="other"))
    agent.finish(lease, first)
    assert {reason for _, reason in lab.lease_on("e1@lab").revoked} == {RevokeReason.PREEMPT}


def test_device_that_is_gone_is_nobodys_alternative() -> None:
    lab = Lab()
    phone = emulator("p1", kind=DeviceKind.DEVICE)
    agent = lab.connect("lab", emulator("e1"), phone)
    lab.submit(spec("a"))
    lease = agent.adopt("e1@lab")
    agent.finish(lease, agent.start(lease), AttemptOutcome.ERRORED)
    assert lab.jobs_of(lab.lease_on("p1@lab")) == [1]
    assert DeviceId("e1@lab") in lab.job(1).avoid


def test_guaranteed_share_is_for_the_job_that_waited_not_for_urgent_ones_of_its_family() -> None:
    lab = Lab(Settings(max_batch=1))
    lab.submit(spec("starved", priority=1))
    lab.mono_us += 121 * MINUTE_S * SECOND_US
    lab.submit(*specs(30, priority=5))
    agent = lab.connect("lab", emulator("e1"))
    order = []
    for _ in range(11):
        lease = agent.adopt("e1@lab")
        order += lab.jobs_of(lab.lease_on("e1@lab"))
        agent.run(lease)
    assert 1 in order
