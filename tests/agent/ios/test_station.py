"""A simulator and a device as stations: what is installed when, what a session asks for, and who is blamed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.model import Blame, Outcome
from agent.emulator import EmulatorFailed
from agent.ios.devicectl import Phone
from agent.ios.simctl import Simulator
from agent.ios.simulator import BootedSimulator, SimulatorReset
from agent.ios.xcrun import Xcrun
from agent.runners.appwright_ios import IosStation
from agent.runners.protocol import RunFailed, Verdict
from tests.agent.ios.conftest import BOOTED, BUNDLE, PHONE, SHUT, Mac, app_folder, ipa
from tests.agent.ios.stations import JOB, LEASE, station


@pytest.fixture
def simulator(mac: Mac, tmp_path: Path) -> IosStation:
    pack(tmp_path / "v1", app_folder(tmp_path / "Shop.app"))
    return station(tmp_path, Simulator(BOOTED, Xcrun()))


def pack(path: Path, folder: Path) -> None:
    """Put a build where the station's source looks for it."""
    ipa(path, folder)


@pytest.fixture
def phone(mac: Mac, tmp_path: Path) -> IosStation:
    pack(tmp_path / "v1", app_folder(tmp_path / "Shop.app", platform="iPhoneOS"))
    return station(tmp_path, Phone(PHONE, Xcrun()))


@pytest.fixture(params=["simulator", "phone"])
def either(request: pytest.FixtureRequest) -> IosStation:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, IosStation)
    return found


async def test_build_is_installed_once_and_a_changed_one_again(either: IosStation, mac: Mac, tmp_path: Path) -> None:
    first = await either.install(LEASE)
    again = await either.install(LEASE)
    assert (first.is_new, again.is_new, first.digest) == (True, False, again.digest)
    platform = "iPhoneSimulator" if either.name == BOOTED else "iPhoneOS"
    pack(tmp_path / "v2", app_folder(tmp_path / "2" / "Shop.app", platform=platform, content="2"))
    changed = await either.install(replace(LEASE, app_version_id="v2"))
    assert changed.is_new
    assert changed.digest != first.digest
    assert len(mac.calls("install")) == 2


async def test_build_that_somebody_else_has_installed_is_not_taken_for_ours(
    either: IosStation, mac: Mac, tmp_path: Path
) -> None:
    await either.install(LEASE)
    apps = json.loads((mac.folder / "apps").read_text())
    (mac.folder / "apps").write_text(json.dumps(dict.fromkeys(apps, "/Application/of-xcode/Shop.app")))
    assert (await either.install(LEASE)).is_new


async def test_build_that_a_test_has_replaced_is_put_back_before_the_next_one(either: IosStation, mac: Mac) -> None:
    await either.install(LEASE)
    await either.ready(JOB)
    assert len(mac.calls("install")) == 1, "it is there still"
    apps = json.loads((mac.folder / "apps").read_text())
    (mac.folder / "apps").write_text(json.dumps(dict.fromkeys(apps, "/Application/of-a-test/Shop.app")))
    await either.ready(JOB)
    assert len(mac.calls("install")) == 2
    mac.fail(simctl_install="it is full", devicectl_device_install="it is full")
    (mac.folder / "apps").write_text("{}")
    with pytest.raises(RunFailed) as refused:
        await either.ready(JOB)
    assert refused.value.failure.reason == "INSTALL_FAILED"


@pytest.mark.parametrize("has_restarted", [False, True])
async def test_app_of_the_last_batch_goes_where_another_one_comes(
    either: IosStation, mac: Mac, tmp_path: Path, has_restarted: bool
) -> None:
    await either.install(LEASE)
    platform = "iPhoneSimulator" if either.name == BOOTED else "iPhoneOS"
    pack(tmp_path / "v2", app_folder(tmp_path / "2" / "Bank.app", bundle="org.example.bank", platform=platform))
    later = station(tmp_path, either._target) if has_restarted else either
    await later.install(replace(LEASE, app_version_id="v2"))
    assert [call.split()[-1] for call in mac.calls("uninstall")] == [BUNDLE]
    assert len(json.loads((mac.folder / "apps").read_text())) == 1
    await later.install(LEASE)
    assert [call.split()[-1] for call in mac.calls("uninstall")] == [BUNDLE, "org.example.bank"]


async def test_app_that_somebody_else_has_taken_away_needs_no_cleaning_up(
    either: IosStation, mac: Mac, tmp_path: Path
) -> None:
    await either.install(LEASE)
    (mac.folder / "apps").write_text("{}")
    platform = "iPhoneSimulator" if either.name == BOOTED else "iPhoneOS"
    pack(tmp_path / "v2", app_folder(tmp_path / "2" / "Bank.app", bundle="org.example.bank", platform=platform))
    await either.install(replace(LEASE, app_version_id="v2"))
    assert mac.calls("uninstall") == []


async def test_canary_starts_the_app(either: IosStation, mac: Mac) -> None:
    await either.install(replace(LEASE, is_canary=True))
    assert len(mac.calls("launch")) == 1


# What a session asks for


async def test_session_of_a_simulator_asks_for_the_installed_app_on_ports_of_its_own(
    simulator: IosStation, tmp_path: Path
) -> None:
    await simulator.install(LEASE)
    env = simulator.environment()
    assert (env["QGJOB_PLATFORM"], env["QGJOB_PROVIDER"], env["QGJOB_UDID"]) == ("ios", "emulator", BOOTED)
    assert env["QGJOB_BUILD_PATH"].endswith("/Shop.app")
    assert env["QGJOB_APP_PACKAGE"] == BUNDLE
    assert json.loads(env["QGJOB_CAPABILITIES"]) == {
        "appium:bundleId": BUNDLE,
        "appium:app": None,
        "appium:platformVersion": None,
        "appium:noReset": False,
        "appium:fullReset": False,
        "appium:wdaLocalPort": 8_100,
        "appium:mjpegServerPort": 8_101,
        "appium:derivedDataPath": str(tmp_path / "webdriveragent"),
        "appium:wdaLaunchTimeout": 300_000,
    }


async def test_session_of_a_device_says_who_signs(phone: IosStation) -> None:
    await phone.install(LEASE)
    env = phone.environment()
    assert env["QGJOB_PROVIDER"] == "local-device"
    assert env["QGJOB_BUILD_PATH"].endswith("/Shop.ipa")
    assert Path(env["QGJOB_BUILD_PATH"]).exists()
    asked = json.loads(env["QGJOB_CAPABILITIES"])
    assert (asked["appium:xcodeOrgId"], asked["appium:updatedWDABundleId"]) == ("TEAM123456", "org.example.wda")


# Who is blamed


async def refusal(station: IosStation) -> tuple[str, Blame, str]:
    with pytest.raises(RunFailed) as refused:
        await station.install(LEASE)
    failure = refused.value.failure
    return failure.reason, failure.blame, failure.message


async def test_build_for_the_other_kind_is_refused_with_what_to_do(simulator: IosStation, tmp_path: Path) -> None:
    (tmp_path / "v1").unlink()
    pack(tmp_path / "v1", app_folder(tmp_path / "3" / "Shop.app", platform="iPhoneOS"))
    reason, blame, message = await refusal(simulator)
    assert (reason, blame) == ("BUILD_REFUSED", Blame.BUILD)
    assert message == f"Shop.app was built for devices, and {BOOTED} is a simulator; use --target=device"


@pytest.mark.parametrize(
    ("said", "reason", "blame"),
    [
        ("A valid provisioning profile for this executable was not found.", "BUILD_REFUSED", Blame.BUILD),
        ("This app is not compatible with your device.", "BUILD_REFUSED", Blame.BUILD),
        ("The device ran out of space.", "INSTALL_FAILED", Blame.DEVICE),
    ],
)
async def test_refused_install_is_put_down_to_the_build_or_the_device(
    phone: IosStation, mac: Mac, said: str, reason: str, blame: Blame
) -> None:
    mac.fail(devicectl_device_install=said)
    found = await refusal(phone)
    assert found[:2] == (reason, blame)
    assert found[2].endswith(said)


async def test_device_that_goes_away_in_an_install_is_lost(phone: IosStation, mac: Mac) -> None:
    told = json.loads((mac.folder / "phones").read_text())
    told["result"]["devices"][0]["connectionProperties"]["tunnelState"] = "unavailable"
    mac.fail(devicectl_device_install="A connection to this device could not be established.")
    (mac.folder / "phones").write_text(json.dumps(told))
    assert (await refusal(phone))[:2] == ("DEVICE_LOST", Blame.DEVICE)
    assert not await phone.is_there()


async def test_tool_that_does_not_tell_takes_no_device_away(either: IosStation, mac: Mac) -> None:
    mac.fail(simctl_list="CoreSimulatorService connection interrupted.", devicectl_list="Timed out.")
    assert await either.is_there()
    assert await complaint(either) == "DEVICE_SILENT"


async def test_simulator_that_is_shut_down_is_gone(simulator: IosStation, mac: Mac) -> None:
    await Simulator(BOOTED, Xcrun()).shut_down()
    assert not await simulator.is_there()


async def test_missing_build_says_where_it_should_be(simulator: IosStation, tmp_path: Path) -> None:
    (tmp_path / "v1").unlink()
    reason, _, message = await refusal(simulator)
    assert reason == "BUILD_NOT_FOUND"
    assert "v1 is missing; put it there, or mend --build-source" in message


async def complaint(station: IosStation) -> str:
    with pytest.raises(RunFailed) as unfit:
        await station.check(may_restart=False)
    assert unfit.value.failure.blame is Blame.DEVICE
    return unfit.value.failure.reason


async def test_device_is_looked_at_before_a_batch(either: IosStation) -> None:
    await either.check(may_restart=False)


async def test_locked_device_gets_no_batch(phone: IosStation, mac: Mac) -> None:
    (mac.folder / "locked").touch()
    assert await complaint(phone) == "DEVICE_LOCKED"


async def test_device_that_does_not_answer_gets_no_batch(phone: IosStation, mac: Mac) -> None:
    mac.fail(devicectl_device_info_lockState="The device is not responding.")
    assert await complaint(phone) == "DEVICE_SILENT"


@pytest.mark.parametrize(
    ("udid", "reason"), [(SHUT, "DEVICE_BOOTING"), ("5E0F7A52-9D0C-4E57-A9B8-0C7E3B1D2F10", "DEVICE_LOST")]
)
async def test_simulator_that_does_not_run_gets_no_batch(mac: Mac, tmp_path: Path, udid: str, reason: str) -> None:
    assert await complaint(station(tmp_path, Simulator(udid, Xcrun()))) == reason


async def test_failed_test_stays_the_tests(simulator: IosStation) -> None:
    verdict = Verdict(outcome=Outcome.PASSED)
    assert await simulator.explain(verdict) == verdict


# Simulators that the agent boots


async def test_simulator_is_booted_once_and_erased_between_batches_if_wanted(mac: Mac) -> None:
    booted = BootedSimulator(Simulator(SHUT, Xcrun()), "iPhone", SimulatorReset.ERASE)
    await booted.boot()
    assert (len(mac.calls("bootstatus")), mac.calls("erase")) == (1, [])
    await booted.boot()
    verbs = [call.split()[1] for call in mac.calls() if "list" not in call]
    assert verbs == ["bootstatus", "shutdown", "erase", "bootstatus"]
    await booted.stop()
    assert len(mac.calls("shutdown")) == 2
    await booted.stop()
    assert len(mac.calls("shutdown")) == 2, "it is down"


async def test_simulator_that_is_kept_goes_on_as_it_is(mac: Mac) -> None:
    booted = BootedSimulator(Simulator(SHUT, Xcrun()), "iPhone", SimulatorReset.KEEP)
    await booted.boot()
    await booted.boot()
    assert [call.split()[1] for call in mac.calls() if "list" not in call] == ["bootstatus"]


async def test_simulator_that_does_not_boot_is_tried_twice(mac: Mac) -> None:
    mac.fail(simctl_bootstatus="Unable to boot the Simulator.")
    with pytest.raises(EmulatorFailed, match=r"does not boot: Unable to boot the Simulator\.") as failed:
        await BootedSimulator(Simulator(SHUT, Xcrun()), "iPhone", SimulatorReset.KEEP).boot()
    assert failed.value.failure.reason == "DEVICE_BOOT_FAILED"
    assert len(mac.calls("bootstatus")) == 2


async def test_simulator_that_does_not_go_down_stops_nobody(mac: Mac) -> None:
    mac.fail(simctl_shutdown="Unable to shut down.")
    await BootedSimulator(Simulator(BOOTED, Xcrun()), "iPhone", SimulatorReset.KEEP).stop()
