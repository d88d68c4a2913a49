"""When jobs are expected to start: a test that nothing is known of takes 30 s, 60 s with caution, an install 10 s."""

from __future__ import annotations

from coordinator.core.events import DevicesReported
from coordinator.core.forecast import Forecast, Outlook, forecast
from coordinator.core.model import SECOND_US, JobId, Rules, Settings, Target
from tests.core.lab import START_WALL_US, Lab, emulator, spec


def expected(lab: Lab) -> dict[int, float | None]:
    """Return in how many seconds each job is expected to start."""
    return {int(job): in_seconds(lab, one.start_us) for job, one in outlook(lab).outlooks.items()}


def outlook(lab: Lab) -> Forecast:
    return forecast(lab.scheduler.ledger, lab.now)


def in_seconds(lab: Lab, wall_us: int | None) -> float | None:
    return None if wall_us is None else (wall_us - lab.now.wall_us) / SECOND_US


def busy(*devices: str, settings: Settings | None = None) -> Lab:
    """Return a lab whose devices each run a test of another build for 20 s now."""
    lab = Lab(settings)
    agent = lab.connect("lab", *(emulator(name) for name in devices))
    for name in devices:
        lab.submit(spec(name, app_version_id=name))
    for name in devices:
        lease = agent.adopt(f"{name}@lab")
        agent.install(lease, seconds=10)
        agent.start(lease)
    lab.mono_us += 20 * SECOND_US
    return lab


def test_jobs_start_one_after_the_other_on_one_device_with_the_installs_between_them() -> None:
    lab = busy("e1")
    lab.submit(spec("a", app_version_id="x"), spec("b", app_version_id="x"), spec("c", app_version_id="y"))
    # The device is free in 40 s; then x is installed and runs twice, then y.
    assert expected(lab) == {2: 50, 3: 80, 4: 120}
    assert outlook(lab).drain_us == START_WALL_US + (20 + 150) * SECOND_US


def test_jobs_share_the_devices_of_their_pool() -> None:
    lab = busy("e1", "e2")
    lab.submit(spec("a", app_version_id="x"), spec("b", app_version_id="x"))
    assert expected(lab) == {3: 50, 4: 50}


def test_higher_priority_starts_earlier() -> None:
    lab = busy("e1")
    lab.submit(spec("a", app_version_id="x", priority=2), spec("b", app_version_id="x", priority=3))
    assert expected(lab) == {2: 80, 3: 50}
    assert outlook(lab).outlooks[JobId(2)] == Outlook(place=2, start_us=START_WALL_US + 100 * SECOND_US)


def test_organisation_waits_for_a_device_of_its_quota() -> None:
    lab = busy("e1", settings=Settings(rules=Rules(default_quota=1)))
    second = lab.connect("other", emulator("e2", "other"))
    lab.submit(spec("a", app_version_id="x"))
    assert second.session
    assert expected(lab) == {2: 50}


def test_nothing_is_expected_of_a_job_that_no_device_can_run() -> None:
    lab = busy("e1")
    lab.submit(spec("a", app_version_id="x", target=Target.BROWSERSTACK))
    assert expected(lab) == {2: None}
    assert outlook(lab).drain_us is None


def test_device_that_is_offline_is_not_counted_on() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.handle(DevicesReported(session=agent.session, devices=(emulator("e1", is_usable=False),)))
    lab.submit(spec("a"))
    assert expected(lab) == {1: None}


def test_batch_that_is_taken_back_frees_its_device_after_the_grace_of_what_runs() -> None:
    lab = Lab(Settings(preempt_grace_us=7 * SECOND_US))
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a", priority=1), spec("b", priority=1))
    lease = agent.adopt("e1@lab")
    agent.install(lease, seconds=10)
    agent.start(lease)
    lab.submit(spec("urgent", app_version_id="x", priority=5))
    assert expected(lab)[3] == 17


def test_empty_lab_expects_nothing() -> None:
    assert outlook(Lab()) == Forecast(outlooks={}, drain_us=None)


def test_running_batch_says_when_the_lab_is_expected_to_be_empty() -> None:
    assert outlook(busy("e1")).drain_us == START_WALL_US + 60 * SECOND_US
