"""Registered builds, and builds that are broken themselves."""

from __future__ import annotations

import pytest

from coordinator.core.errors import BuildRegistered
from coordinator.core.events import RetryRequested
from coordinator.core.model import (
    LAB_BUDGET,
    AppKey,
    Blame,
    DeviceId,
    DeviceState,
    Failure,
    JobState,
)
from coordinator.core.step import PutBuild
from tests.core.lab import Lab, emulator, spec

FIRST, SECOND = "1" * 64, "2" * 64
E1, E2, E3 = "emulator-1@lab", "emulator-2@lab", "emulator-3@lab"
REFUSED = Failure(reason="BUILD_REFUSED", message="INSTALL_PARSE_FAILED_NOT_APK", blame=Blame.BUILD)


# Registered builds


def test_job_keeps_the_build_it_was_accepted_with() -> None:
    lab = Lab()
    lab.submit(spec("tests/before.spec.ts"))
    lab.register(FIRST)
    lab.submit(spec("tests/between.spec.ts"))
    lab.register(SECOND, replacing=True)
    lab.submit(spec("tests/after.spec.ts"))
    assert [lab.job(job).build_digest for job in (1, 2, 3)] == ["", FIRST, SECOND]
    agent = lab.connect("lab", emulator("emulator-1"))
    for job in (1, 2, 3):
        lease = agent.adopt(E1)
        assert lab.jobs_of(lease) == [job], "one app version, three builds: no two share a batch"
        assert lease.app.digest == lab.job(job).build_digest
        agent.run(lease)


def test_same_binary_again_writes_nothing_and_another_is_refused() -> None:
    lab = Lab()
    assert [type(write) for write in lab.register(FIRST).writes] == [PutBuild]
    assert lab.register(FIRST).writes == ()
    with pytest.raises(BuildRegistered) as refusal:
        lab.register(SECOND)
    assert refusal.value.fields == {"digest": FIRST}
    lab.submit(spec())
    assert lab.job(1).build_digest == FIRST


def test_registrations_of_organisations_are_apart() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.register(SECOND, org_id="acme")
    lab.submit(spec())
    lab.submit(spec(org_id="acme"))
    assert [lab.job(job).build_digest for job in (1, 2)] == [FIRST, SECOND]


def test_retry_tests_the_binary_that_the_job_tested() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.submit(spec())
    agent = lab.connect("lab", emulator("emulator-1"))
    agent.run(agent.adopt(E1))
    lab.register(SECOND, replacing=True)
    lab.handle(RetryRequested(job=lab.job(1), key="again", payload_sha256="p"))
    assert lab.job(2).build_digest == FIRST


def test_app_versions_of_one_binary_share_batch_and_install() -> None:
    lab = Lab()
    lab.register(FIRST, version="1.0-rc")
    lab.register(FIRST, version="1.0")
    lab.submit(spec("tests/a.spec.ts", app_version_id="1.0-rc"), spec("tests/b.spec.ts", app_version_id="1.0"))
    agent = lab.connect("lab", emulator("emulator-1"))
    assert lab.jobs_of(agent.adopt(E1)) == [1, 2]


def test_device_is_warm_for_the_binary_and_not_for_the_name_that_it_was_replaced_under() -> None:
    lab = Lab()
    lab.register(FIRST)
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    lab.submit(spec())
    (warm,) = (name for name in (E1, E2) if lab.scheduler.ledger.fleet.devices[DeviceId(name)].lease is not None)
    lease = agent.adopt(warm)
    agent.install(lease, digest=FIRST)
    agent.run(lease)
    fleet = lab.scheduler.ledger.fleet
    assert fleet.devices[DeviceId(warm)].app == AppKey(org_id="qualgent", app_version_id="any name", digest=FIRST)
    lab.register(SECOND, replacing=True)
    lab.submit(spec())
    assert lab.scheduler.ledger.builds.app_of("qualgent", "xyz123").digest == SECOND
    assert fleet.devices[DeviceId(warm)].app != lab.job(2).app


def test_device_that_holds_another_binary_than_its_lease_names_is_warm_for_nothing() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.submit(spec())
    agent = lab.connect("lab", emulator("emulator-1"))
    agent.install(agent.adopt(E1), digest=SECOND)
    assert lab.scheduler.ledger.fleet.devices[DeviceId(E1)].app is None


# Broken builds


def test_build_that_two_devices_refuse_ends_all_its_queued_jobs_and_blames_no_device() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.register(SECOND, version="good")
    lab.submit(*(spec(f"tests/{number}.spec.ts") for number in range(200)))
    lab.submit(spec(app_version_id="good", selector=(("udid", "emulator-3"),)))
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    for device in (E1, E2):
        agent.reject(agent.adopt(device), REFUSED)
    assert JobState.QUEUED not in {lab.job(job).state for job in range(1, 201)}
    agent.reject(agent.adopt(E1), REFUSED)  # what it was given before the second device had its say
    jobs = [lab.job(job) for job in range(1, 201)]
    assert {job.state for job in jobs} == {JobState.FAILED}
    failures = {job.failure for job in jobs}
    assert len(failures) == 1
    (failure,) = failures
    assert failure is not None
    assert (failure.reason, failure.blame) == ("BUILD_REJECTED", Blame.BUILD)
    assert f"{E1} and {E2} refused it: INSTALL_PARSE_FAILED_NOT_APK" in failure.message
    assert [device.state for device in lab.scheduler.ledger.fleet.devices.values()] == [DeviceState.IDLE] * 2
    assert lab.job(201).state is JobState.QUEUED, "another build goes on"


def test_build_that_one_of_two_devices_refuses_is_tested_on_the_other() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.submit(spec())
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"))
    (chosen,) = (name for name in (E1, E2) if lab.scheduler.ledger.fleet.devices[DeviceId(name)].lease is not None)
    other = E2 if chosen == E1 else E1
    agent.reject(agent.adopt(chosen), REFUSED)
    lease = agent.adopt(other)
    agent.install(lease, digest=FIRST)
    agent.run(lease)
    assert lab.job(1).state is JobState.COMPLETED


def test_build_that_a_device_took_is_not_broken_whatever_others_say() -> None:
    lab = Lab()
    lab.register(FIRST)
    agent = lab.connect("lab", emulator("emulator-1"), emulator("emulator-2"), emulator("emulator-3"))
    lab.submit(spec("tests/1.spec.ts", selector=(("udid", "emulator-3"),)))
    lease = agent.adopt(E3)
    agent.install(lease, digest=FIRST)
    agent.run(lease)
    for name, device in (("emulator-1", E1), ("emulator-2", E2)):
        accepted = lab.submit(spec("tests/2.spec.ts", selector=(("udid", name),)))
        agent.reject(agent.adopt(device), REFUSED)
        assert not lab.job(accepted.job_ids[0]).is_terminal


def test_lab_with_one_device_gives_a_broken_build_up_after_as_many_tries_as_a_job_has() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.submit(*(spec(f"tests/{number}.spec.ts") for number in range(3)))
    agent = lab.connect("lab", emulator("emulator-1"))
    for _ in range(LAB_BUDGET):
        agent.reject(agent.adopt(E1), REFUSED)
    assert {lab.job(job).state for job in (1, 2, 3)} == {JobState.FAILED}


def test_build_that_replaces_a_broken_one_starts_without_its_record() -> None:
    lab = Lab()
    lab.register(FIRST)
    lab.submit(spec())
    agent = lab.connect("lab", emulator("emulator-1"))
    for _ in range(LAB_BUDGET):
        agent.reject(agent.adopt(E1), REFUSED)
    lab.register(SECOND, replacing=True)
    lab.submit(spec())
    agent.reject(agent.adopt(E1), REFUSED)
    assert not lab.job(2).is_terminal
