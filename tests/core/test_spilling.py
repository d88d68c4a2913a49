"""Jobs that asked for any device use slots of a cloud: after everything else, and only if their organisation may."""

from __future__ import annotations

import pytest

from coordinator.core.errors import NoMatchingDevice
from coordinator.core.model import DeviceId, DeviceKind, JobState, Rules, Settings, Target
from tests.core.lab import Lab, emulator, spec
from tests.core.test_accounts import slots
from tests.core.test_restart import RestartingLab

SPILLING = Settings(rules=Rules(spill={"qualgent": 4}))


def lab_with_a_cloud(settings: Settings = SPILLING) -> Lab:
    lab = Lab(settings)
    lab.connect("lab", emulator("e1"))
    lab.connect("cloud", *slots("cloud", 1))
    return lab


def device_of(lab: Lab, job: int) -> str | None:
    return lab.job(job).device


def test_full_lab_spills_over_and_a_lab_with_room_does_not() -> None:
    lab = lab_with_a_cloud()
    lab.submit(spec("a", app_version_id="a", priority=4))
    lab.submit(spec("b", app_version_id="b", priority=4))
    assert [device_of(lab, 1), device_of(lab, 2)] == ["e1@lab", "slot-1@cloud"]


def test_slot_that_holds_the_build_still_comes_after_a_free_device() -> None:
    lab = Lab(SPILLING)
    cloud = lab.connect("cloud", *slots("cloud", 1))
    lab.submit(spec("a", priority=4))
    lease = cloud.adopt("slot-1@cloud")
    cloud.install(lease)
    cloud.run(lease)
    lab.connect("lab", emulator("e1"))
    lab.submit(spec("b", priority=4))
    assert device_of(lab, 2) == "e1@lab"


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": 3},
        {"org_id": "acme"},
        {"target": Target.EMULATOR},
        {"target": Target.DEVICE},
        {"selector": (("model", "*"),)},
        {"selector": (("udid", "*"),)},
    ],
)
def test_job_that_may_not_spill_waits_for_the_lab(changes: dict[str, object]) -> None:
    lab = Lab(SPILLING)
    lab.connect("cloud", *slots("cloud", 1))
    lab.submit(spec("a", **{"priority": 5, **changes}))
    assert lab.job(1).state is JobState.QUEUED


def test_job_that_asks_for_a_platform_alone_may_spill() -> None:
    lab = Lab(SPILLING)
    lab.connect("cloud", *slots("cloud", 1))
    lab.submit(spec("a", priority=4, selector=(("platform", "android"),)))
    assert device_of(lab, 1) == "slot-1@cloud"


def test_nobody_spills_where_nothing_is_said() -> None:
    lab = lab_with_a_cloud(Settings())
    lab.submit(spec("a", app_version_id="a", priority=5))
    lab.submit(spec("b", app_version_id="b", priority=5))
    assert device_of(lab, 2) is None


def test_strict_submit_counts_the_cloud_where_the_job_may_spill() -> None:
    lab = Lab(SPILLING)
    lab.connect("cloud", *slots("cloud", 1))
    lab.submit(spec("a", priority=4), strict=True)
    with pytest.raises(NoMatchingDevice):
        lab.submit(spec("b", priority=3), strict=True)


def test_accepted_job_may_spill_after_a_restart_too() -> None:
    lab = RestartingLab(SPILLING)
    lab.submit(spec("a", priority=4))
    lab.restart()
    lab.connect("cloud", *slots("cloud", 1))
    assert device_of(lab, 1) == "slot-1@cloud"


def test_job_that_spilled_shares_its_batch_with_those_that_may() -> None:
    lab = Lab(SPILLING)
    lab.submit(spec("a", priority=4), spec("b", priority=4), spec("c", priority=3))
    lab.connect("cloud", *slots("cloud", 1))
    assert lab.jobs_of(lab.lease_on("slot-1@cloud")) == [1, 2]
    assert lab.scheduler.ledger.fleet.devices[DeviceId("slot-1@cloud")].facts.kind is DeviceKind.BROWSERSTACK
