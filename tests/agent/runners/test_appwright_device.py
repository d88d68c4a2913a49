"""A phone as a station, without the phone: what it holds when the tests of a batch come to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.android import Adb, Apk
from agent.appium import UIAUTOMATOR2, AppiumServer, Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource, BuildUnusable
from agent.core.model import NO_FENCE, AttemptId, Blame, DeviceId, JobId, LeasedJob, LeaseId, LeaseKey, LeaseSpec
from agent.downloads import Downloads
from agent.journal import Claim, Journal
from agent.runners.appwright_care import Care, CareOptions
from agent.runners.appwright_device import DeviceStation
from agent.runners.protocol import RunFailed

PACKAGE = "org.example"
LEASE = LeaseSpec(
    key=LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE),
    revision=1,
    device_id=DeviceId("d"),
    org_id="q",
    app_version_id="v1",
    jobs=(),
)
JOB = LeasedJob(
    attempt_id=AttemptId(1), job_id=JobId(1), attempt_number=1, test="a.spec.ts", env=(), timeout_us=60_000_000
)


class Phone(Adb):
    """Holds one app, and counts how often it was installed."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:5601", 5_999)
        self.held: str | None = None
        self.installs = 0

    async def installed_digest(self, package: str) -> str | None:
        return self.held

    async def install(self, apk: Apk) -> None:
        self.installs += 1
        self.held = _digest(apk.path)


class Source(BuildSource):
    """Takes every file for an APK that is not half written."""

    async def read(self, path: Path) -> Apk:
        if path.read_bytes() == b"half":
            raise BuildUnusable("BUILD_INVALID", f"{path} is no APK; build it again")
        return Apk(path=path, digest=_digest(path), package=PACKAGE, activity=".Main")


class NoCare(Care):
    """Cleans nothing up."""

    async def clean_up(self, package: str) -> None:
        """There is nothing."""


class Appium(AppiumServer):
    """A server that is said to run."""

    async def ensure(self) -> None:
        """It runs."""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def phone() -> Phone:
    return Phone()


@pytest.fixture
def station(phone: Phone, tmp_path: Path) -> DeviceStation:
    (tmp_path / "v1").write_bytes(b"build")
    tools = Toolbox(project=tmp_path, state_dir=tmp_path)
    claim = Claim(phone.udid, -1, Journal(tmp_path / "processes"))
    made = DeviceStation(
        adb=phone,
        tools=tools,
        source=Source("{app_version_id}", tmp_path, None, Downloads(tmp_path / "downloads")),
        blobs=BlobCache(tmp_path / "builds", ".apk", 1_000),
        slot=0,
        provider="emulator",
        claim=claim,
        care=NoCare(phone, None, CareOptions()),
    )
    made._appium = Appium(tools, 0, tmp_path / "slot", None, UIAUTOMATOR2)
    return made


async def test_build_stays_where_it_is_from_test_to_test(station: DeviceStation, phone: Phone) -> None:
    assert (await station.install(LEASE)).is_new
    await station.ready(JOB)
    await station.ready(JOB)
    assert phone.installs == 1


@pytest.mark.parametrize("left", ["another", None], ids=["another", "none"])
async def test_build_that_a_test_has_replaced_or_removed_is_put_back_before_the_next_one(
    station: DeviceStation, phone: Phone, left: str | None
) -> None:
    installed = await station.install(LEASE)
    phone.held = left
    await station.ready(JOB)
    assert (phone.held, phone.installs) == (installed.digest, 2)


async def test_file_that_changes_on_the_host_in_mid_batch_is_not_tested_as_the_old_one(
    station: DeviceStation, phone: Phone, tmp_path: Path
) -> None:
    await station.install(LEASE)
    for content in (b"rebuilt", b"half"):
        (tmp_path / "v1").write_bytes(content)
        with pytest.raises(RunFailed) as changed:
            await station.ready(JOB)
        assert (changed.value.failure.reason, changed.value.failure.blame) == ("BUILD_CHANGED", Blame.HOST)
        assert "`qgjob builds upload` keeps builds as they are" in changed.value.failure.message
    (tmp_path / "v1").unlink()
    with pytest.raises(RunFailed, match="has changed since its batch began"):
        await station.ready(JOB)
    assert phone.installs == 1
