"""Stations of the Mac that is played, with an Appium that is said to run."""

from __future__ import annotations

from pathlib import Path

from agent.appium import XCUITEST, AppiumServer, Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.core.model import AttemptId, DeviceId, Fence, JobId, LeasedJob, LeaseId, LeaseKey, LeaseSpec
from agent.downloads import Downloads
from agent.ios.apps import IosApps
from agent.ios.installs import Installs
from agent.ios.target import Target
from agent.runners.appwright_ios import IosStation, Signing

LEASE = LeaseSpec(
    key=LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1)),
    revision=1,
    device_id=DeviceId("d"),
    org_id="q",
    app_version_id="v1",
    jobs=(),
)

JOB = LeasedJob(
    attempt_id=AttemptId(1), job_id=JobId(1), attempt_number=1, test="a.spec.ts", env=(), timeout_us=60_000_000
)


class Appium(AppiumServer):
    """A server that is said to run."""

    device_ports = (8_100, 8_101)

    async def ensure(self) -> None:
        """It runs."""


def station(tmp_path: Path, target: Target) -> IosStation:
    """Return a station whose builds lie in a folder."""
    tools = Toolbox(project=tmp_path, state_dir=tmp_path / "state")
    return IosStation(
        target=target,
        appium=Appium(tools, 0, tmp_path / "slot", None, XCUITEST),
        directory=tmp_path,
        source=BuildSource("{app_version_id}", tmp_path, None, Downloads(tmp_path / "downloads")),
        blobs=BlobCache(tmp_path / "builds", ".apk", 1_000),
        apps=IosApps(tmp_path / "apps"),
        installs=Installs(tmp_path / "installs", target.udid),
        signing=Signing(team_id="TEAM123456", wda_bundle_id="org.example.wda"),
    )
