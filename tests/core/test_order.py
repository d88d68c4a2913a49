"""Random histories, judged by an oracle that goes through every job; and defects that it must notice."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from coordinator.core import heads
from coordinator.core.burdens import Burden
from coordinator.core.families import NO_DEVICE, Signature
from coordinator.core.heads import Heads
from coordinator.core.model import (
    ALL_LANES,
    SECOND_US,
    AppKey,
    AttemptId,
    AttemptOutcome,
    DeviceKind,
    Job,
    Lane,
    Lease,
    Rules,
    Settings,
    Target,
)
from coordinator.core.policy import Policy
from coordinator.core.shares import Shares
from coordinator.core.step import Step
from tests.core.lab import AgentOnPaper, Lab, emulator, spec
from tests.core.order_oracle import OrderOracle

EXAMPLES = int(os.environ.get("QGJOB_ORDER_EXAMPLES", "60"))
RULES = Rules(
    batch_least_us=40 * SECOND_US,
    batch_most_us=120 * SECOND_US,
    lag_us=60 * SECOND_US,
    age_us=300 * SECOND_US,
    guarantee_wait_us=1_200 * SECOND_US,
    weights={"heavy": 200},
    quotas={"small": 1},
)


class JudgedLab(Lab):
    """A lab whose every step is judged."""

    def __init__(self) -> None:
        super().__init__(Settings(rules=RULES, lease_ttl_us=10**15, heartbeat_us=10**15))
        ledger = self.scheduler.ledger

        def expected_us(attempt: AttemptId, job: Job) -> int:
            return ledger.work_of(attempt) if attempt else ledger.durations.expected_us(job.spec)

        def install_us(app: AppKey, target: Target) -> int:
            family = ledger.queues.family_in(Signature(target, (), ()), app)
            return family.install_us if family is not None else ledger.install_us(app)

        self.oracle = OrderOracle(RULES, expected_us, install_us)

    def _note(self, step: Step) -> None:
        super()._note(step)
        breaches = list(self.oracle.follow(step))
        assert not breaches, breaches


class Histories(RuleBasedStateMachine):
    """Users submit and cancel, tests run and end, devices come, and time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.lab = JudgedLab()
        self.agents: dict[str, AgentOnPaper] = {}

    @initialize()
    def first_agent_comes(self) -> None:
        self.agent_comes("one", ALL_LANES)

    @rule(name=st.just("two"), lanes=st.sampled_from((ALL_LANES, (Lane.HIGH, Lane.NORMAL), (Lane.LOW,), (Lane.HIGH,))))
    def agent_comes(self, name: str, lanes: tuple[Lane, ...]) -> None:
        if name not in self.agents:
            devices = (emulator("e1", name), emulator("p1", name, kind=DeviceKind.DEVICE))
            self.agents[name] = self.lab.connect(name, *devices, lanes=lanes)

    @rule(
        org=st.sampled_from(("heavy", "small", "other")),
        app=st.sampled_from("abc"),
        priority=st.integers(1, 5),
        wanted=st.sampled_from((Target.ANY, Target.EMULATOR, Target.DEVICE)),
        count=st.integers(1, 6),
    )
    def submit(self, org: str, app: str, priority: int, wanted: Target, count: int) -> None:
        shared = {"org_id": org, "app_version_id": app, "priority": priority, "target": wanted}
        self.lab.submit(*(spec(f"{app}{number}", **shared) for number in range(count)))

    @precondition(lambda self: self.leases())
    @rule(index=st.integers(0, 8), seconds=st.sampled_from((5, 30, 30, 90)), data=st.booleans())
    def test_runs(self, index: int, seconds: int, data: bool) -> None:
        """Let a device do the next thing: adopt, install, run a test to its end."""
        leases = self.leases()
        lease = leases[index % len(leases)]
        agent = self.agents[lease.agent]
        agent.adopt(lease.device)
        lease = self.lab.scheduler.ledger.fleet.leases.get(lease.id, lease)
        if not lease.is_live or lease.id not in self.lab.scheduler.ledger.fleet.leases:
            return
        device = self.lab.scheduler.ledger.fleet.devices[lease.device]
        if device.app != lease.app:
            self.lab.oracle.installed(lease.app.org_id, 8 * SECOND_US)
            agent.install(lease, seconds=8)
        attempts = self.lab.scheduler.ledger.attempts
        begun = [one for one in lease.attempts if attempts[one].start_us is not None]
        taken = dict(lease.revoked)
        ready = begun or [one for one in lease.attempts if one not in taken]
        if not ready:
            return
        if not begun:
            agent.start(lease, ready[0])
        if data:
            self.lab.mono_us += seconds * SECOND_US
            agent.finish(lease, ready[0], AttemptOutcome.PREEMPTED if ready[0] in taken else AttemptOutcome.PASSED)

    def leases(self) -> list[Lease]:
        return [lease for lease in self.lab.scheduler.ledger.fleet.leases.values() if lease.attempts]

    @rule(number=st.integers(1, 60))
    def cancel(self, number: int) -> None:
        waiting = [job for job in self.lab.scheduler.ledger.jobs if job in self.lab.scheduler.ledger.queues]
        if waiting:
            self.lab.cancel(waiting[number % len(waiting)])

    @rule(seconds=st.sampled_from((1, 60, 310, 1_300)))
    def time_passes(self, seconds: int) -> None:
        self.lab.mono_us += seconds * SECOND_US
        self.lab.expire()


def judge(examples: int, phases: tuple[Phase, ...] = (Phase.generate, Phase.shrink)) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_order_of_priorities_and_fairness_hold_in_random_histories() -> None:
    judge(EXAMPLES)


def _never_charged(_self: Shares, _org: str, _span_us: int) -> None:
    return None


def _never_full(_self: Shares, _org: str) -> bool:
    return False


def _aged_too_far(priority: int, waited_us: int, rules: Rules) -> int:
    return min(5, priority + waited_us // rules.age_us)


def _always_goes_on(*_arguments: Any, **_named: Any) -> bool:  # noqa: ANN401 - whatever it is asked
    return True


def _always_without_device(_self: Heads, _bucket: object, _each_us: int) -> int:
    return NO_DEVICE


def _always_reached(_self: Burden, _each_us: int, _priority: int, _percent: int) -> bool:
    return True


def _sleeps_on(_self: Heads) -> None:
    return None


def _takes_along(_self: Heads, _signature: Any, _family: Any, _lanes: Any) -> int:  # noqa: ANN401
    return 0


_sound_first_bucket = Heads.first_bucket


def _of_any_lane(self: Heads, family: Any, _lanes: Any = ALL_LANES) -> Any:  # noqa: ANN401
    return _sound_first_bucket(self, family)


@pytest.mark.parametrize(
    ("owner", "name", "defect"),
    [
        (Shares, "charge", _never_charged),
        (Shares, "is_full", _never_full),
        (heads, "effective_priority", _aged_too_far),
        (Policy, "_goes_on", _always_goes_on),
        (Heads, "_kind", _always_without_device),
        (Heads, "level_of_others", _takes_along),
        (Heads, "first_bucket", _of_any_lane),
        (Burden, "is_reached", _always_reached),
        (Heads, "wake", _sleeps_on),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_rule_that_is_broken_by_hand_is_noticed(owner: Any, name: str, defect: Callable[..., Any]) -> None:  # noqa: ANN401
    with patch.object(owner, name, defect), pytest.raises(AssertionError):
        judge(1_200, (Phase.generate,))


def test_oracle_sees_grants() -> None:
    lab = JudgedLab()
    lab.connect("one", emulator("e1", "one"))
    lab.submit(spec("a"))
    assert lab.oracle.grants == 1
    assert lab.scheduler.ledger.install_us(AppKey(org_id="qualgent", app_version_id="xyz123")) == 10 * SECOND_US
