"""What failures were laid to must not depend on when the coordinator was started."""

from __future__ import annotations

import pytest

from coordinator.core import crossings, trials
from coordinator.core.crossings import Crossings
from coordinator.core.model import AppKey, AttemptOutcome, Blame, Crossing, DeviceId, DeviceState, Failure, Trial
from coordinator.core.trials import Trials
from tests.core.lab import AgentOnPaper, emulator, spec
from tests.core.test_restart import RestartingLab

E1, E2 = "emulator-1@lab", "emulator-2@lab"
FIRST, SECOND = "1" * 64, "2" * 64
REFUSED = Failure(reason="BUILD_REFUSED", message="INSTALL_PARSE_FAILED_NOT_APK", blame=Blame.BUILD)


def connected(lab: RestartingLab) -> AgentOnPaper:
    return lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))


def run_on(lab: RestartingLab, agent: AgentOnPaper, device: str, test: str, outcome: AttemptOutcome) -> None:
    """Run a test on one device, and leave the device idle."""
    lab.submit(spec(test, selector=(("id", device),)))
    agent.run(agent.adopt(device), outcome)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(device)].lease is None


def test_build_that_one_device_refused_before_a_restart_and_one_after_it_is_broken() -> None:
    lab = RestartingLab()
    lab.register(FIRST)
    lab.submit(spec("tests/1.spec.ts", selector=(("id", E1),)), spec("tests/2.spec.ts", selector=(("id", E2),)))
    agent = connected(lab)
    agent.reject(agent.adopt(E1), REFUSED)
    agent.lose()
    lab.restart()
    agent = connected(lab)
    agent.reject(agent.adopt(E2), REFUSED)
    failure = lab.job(2).failure
    assert failure is not None
    assert failure.reason == "BUILD_REJECTED"
    assert f"{E1} and {E2} refused it" in failure.message


def test_build_that_a_device_took_before_a_restart_is_not_broken_after_it() -> None:
    lab = RestartingLab()
    lab.register(FIRST)
    agent = connected(lab)
    run = spec("tests/1.spec.ts", selector=(("id", E1),))
    lab.submit(run)
    lease = agent.adopt(E1)
    agent.install(lease, digest=FIRST)
    agent.run(lease)
    agent.lose()
    lab.restart()
    agent = connected(lab)
    lab.submit(spec("tests/2.spec.ts"))
    for device in (E1, E2, E1):
        if lab.scheduler.ledger.fleet.devices[DeviceId(device)].lease is not None:
            agent.reject(agent.adopt(device), REFUSED)
    failure = lab.job(2).failure
    assert failure is None or failure.reason != "BUILD_REJECTED"


def test_device_on_which_tests_failed_before_a_restart_is_suspect_when_they_pass_elsewhere_after_it() -> None:
    lab = RestartingLab()
    agent = connected(lab)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E1, test, AttemptOutcome.FAILED)
    agent.lose()
    lab.restart()
    agent = connected(lab)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E2, test, AttemptOutcome.PASSED)
    device = lab.scheduler.ledger.fleet.devices[DeviceId(E1)]
    assert device.state is DeviceState.QUARANTINED
    assert "3 different tests" in device.hold_reason
    assert lab.records.crossings == {}, "what has passed is forgotten"


def test_test_that_failed_with_one_build_tells_nothing_when_it_passes_elsewhere_with_the_next_one() -> None:
    lab = RestartingLab()
    agent = connected(lab)
    lab.register(FIRST)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E1, test, AttemptOutcome.FAILED)
    lab.register(SECOND, replacing=True)
    for test in ("a", "b", "c"):
        run_on(lab, agent, E2, test, AttemptOutcome.PASSED)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].marks == ()


def test_crossings_of_the_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossings, "REMEMBERED", 2)
    put: list[Crossing] = []
    known, device = Crossings(put.append), DeviceId(E1)
    for when, subject in enumerate("abac"):
        known.failed(subject, device, when, is_verdict=True)
    assert list(known.known) == ["a", "c"]
    assert put[-1] == Crossing(subject="b"), "it is deleted from the database as well"
    again = Crossings(put.append)
    again.restore(reversed(known.known.values()))
    again.failed("d", device, 5, is_verdict=True)
    assert list(again.known) == ["c", "d"]


def test_trials_of_the_longest_ago_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "REMEMBERED", 2)
    put: list[Trial] = []
    one, two, three = (AppKey(org_id="acme", app_version_id=name) for name in "123")
    known = Trials(put.append)
    known.refused(one, DeviceId(E1), 1)
    known.refused(two, DeviceId(E1), 2)
    known.refused(one, DeviceId(E2), 3)
    known.refused(three, DeviceId(E1), 4)
    assert list(known.known) == [one, three]
    assert put[-1] == Trial(app=two)
    known.took(one, 5)
    assert list(known.known) == [three], "without a digest it may be another one tomorrow"
    assert put[-1] == Trial(app=one)
