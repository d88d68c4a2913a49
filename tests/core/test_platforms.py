"""Which jobs come to iOS devices, and which to all others."""

from __future__ import annotations

import pytest

from coordinator.core.errors import InvalidRequest
from coordinator.core.explain import Why
from coordinator.core.model import DeviceKind, DeviceState, Target
from coordinator.core.pools import Miss
from coordinator.core.step import PutBuild
from tests.core.lab import Lab, emulator, spec
from tests.core.test_explain import why

APK, APP = "1" * 64, "2" * 64
ANDROID, IPHONE = "emulator-1@lab", "iPhone-15@lab"


@pytest.fixture
def lab() -> Lab:
    """A lab with a device of each platform, both free."""
    lab = Lab()
    lab.connect("lab", emulator("emulator-1"), emulator("iPhone-15", platform="ios", model="iPhone 15"))
    return lab


def devices_of(lab: Lab) -> set[str]:
    """The devices that jobs were offered to."""
    return {one.id for one in lab.scheduler.ledger.fleet.devices.values() if one.state is DeviceState.RESERVED}


def test_job_of_a_build_for_ios_goes_to_an_ios_device_alone(lab: Lab) -> None:
    lab.register(APP, platform="ios")
    lab.submit(spec("tests/a.spec.ts"), spec("tests/b.spec.ts", target=Target.EMULATOR))
    assert devices_of(lab) == {IPHONE}
    assert [lab.job(job).spec.selector for job in (1, 2)] == [(("platform", "ios"),)] * 2


def test_job_of_an_apk_never_comes_to_an_ios_device(lab: Lab) -> None:
    lab.register(APK, platform="android")
    lab.submit(*(spec(f"tests/{number}.spec.ts", priority=5) for number in range(4)))
    assert devices_of(lab) == {ANDROID}
    assert lab.job(1).spec.selector == ()


def test_job_whose_build_nobody_knows_is_taken_to_be_for_android(lab: Lab) -> None:
    lab.submit(*(spec(f"tests/{number}.spec.ts", priority=5) for number in range(4)))
    assert devices_of(lab) == {ANDROID}


@pytest.mark.parametrize("selector", [{"platform": "ios"}, {"platform": "IOS"}, {"id": IPHONE}, {"udid": "iPhone-*"}])
def test_job_may_ask_for_ios_itself(lab: Lab, selector: dict[str, str]) -> None:
    lab.submit(spec(selector=tuple(selector.items())))
    assert devices_of(lab) == {IPHONE}


def test_job_may_ask_for_either(lab: Lab) -> None:
    lab.submit(*(spec(f"tests/{number}.spec.ts", priority=5, selector=(("platform", "*"),)) for number in range(4)))
    assert devices_of(lab) == {ANDROID, IPHONE}


def test_lab_without_the_other_platform_says_what_is_missing() -> None:
    lab = Lab()
    lab.connect("lab", emulator("iPhone-15", platform="ios"))
    accepted = lab.submit(spec(selector=(("model", "Pixel*"),)))
    assert accepted.warnings == ("no known device matches target any, model=Pixel*; the job waits for one",)
    found = why(lab, 1)
    assert (found.why, found.device) == (Why.NOTHING_MATCHES, IPHONE)
    assert found.misses == (Miss("platform", "android", "ios"),)


@pytest.mark.parametrize(("platform", "asked"), [("ios", "android"), ("android", "ios")])
def test_selector_that_contradicts_the_build_is_refused(lab: Lab, platform: str, asked: str) -> None:
    lab.register(APP, platform=platform)
    with pytest.raises(InvalidRequest, match=f"is a build for {platform}, and the selector asks for platform={asked}"):
        lab.submit(spec(selector=(("platform", asked),)))
    assert not lab.jobs


def test_platform_of_a_build_that_is_registered_already_is_taken_in(lab: Lab) -> None:
    lab.register(APP)
    assert [type(write) for write in lab.register(APP, platform="ios").writes] == [PutBuild]
    assert lab.register(APP, platform="ios").writes == ()
    assert lab.register(APP).writes == (), "a client that cannot tell takes nothing back"
    lab.submit(spec())
    assert devices_of(lab) == {IPHONE}


def test_replaced_build_has_its_own_platform(lab: Lab) -> None:
    lab.register(APP, platform="ios")
    lab.register(APK, platform="android", replacing=True)
    lab.submit(spec())
    assert devices_of(lab) == {ANDROID}


# Simulators and devices


@pytest.fixture
def apple() -> Lab:
    """A lab with a simulator and a device."""
    lab = Lab()
    phone = emulator("phone", platform="ios", kind=DeviceKind.DEVICE)
    lab.connect("lab", emulator("iPhone-15", platform="ios"), phone)
    return lab


@pytest.mark.parametrize(
    ("kind", "target", "device"),
    [(DeviceKind.EMULATOR, Target.EMULATOR, IPHONE), (DeviceKind.DEVICE, Target.DEVICE, "phone@lab")],
)
def test_build_for_one_kind_of_device_goes_there_alone(
    apple: Lab, kind: DeviceKind, target: Target, device: str
) -> None:
    apple.register(APP, platform="ios", kind=kind)
    apple.submit(*(spec(f"tests/{number}.spec.ts", priority=5) for number in range(4)))
    assert devices_of(apple) == {device}
    assert {job.spec.target for job in apple.jobs.values()} == {target}


def test_build_for_both_kinds_goes_to_both(apple: Lab) -> None:
    apple.register(APP, platform="ios")
    apple.submit(*(spec(f"tests/{number}.spec.ts", priority=5) for number in range(4)))
    assert devices_of(apple) == {IPHONE, "phone@lab"}


def test_target_that_contradicts_the_build_is_refused(apple: Lab) -> None:
    apple.register(APP, platform="ios", kind=DeviceKind.EMULATOR)
    with pytest.raises(InvalidRequest, match="was built for target emulator alone, and target device is asked for"):
        apple.submit(spec(target=Target.DEVICE))
    apple.submit(spec(target=Target.EMULATOR))
    assert devices_of(apple) == {IPHONE}
