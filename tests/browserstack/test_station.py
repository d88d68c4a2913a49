"""A slot of the cloud as a station: builds, devices, sessions, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.blobs import BlobCache
from agent.browserstack.apps import Apps
from agent.browserstack.claims import Claims
from agent.browserstack.client import Client
from agent.browserstack.gateway import Gateway
from agent.builds import BuildSource, digest_of
from agent.core.model import (
    NO_FENCE,
    AttemptId,
    Blame,
    DeviceId,
    Failure,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    LeaseSpec,
    Outcome,
    TestResult,
)
from agent.downloads import Downloads
from agent.runners.browserstack import Cloud, CloudStation, Offers
from agent.runners.protocol import Observer, RunFailed, Verdict
from tests.browserstack.stand_in import ACCESS_KEY, StandIn

JOB = LeasedJob(
    attempt_id=AttemptId(3), job_id=JobId(7), attempt_number=1, test="tests/a.spec.ts", timeout_us=60_000_000
)
LEASE = LeaseSpec(
    key=LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE),
    revision=1,
    device_id=DeviceId("browserstack-1@lab"),
    org_id="qualgent",
    app_version_id="v1",
    jobs=(JOB,),
)
FAILED = Verdict(
    outcome=Outcome.FAILED, failure=Failure(reason="TEST_FAILED", message="expected a feed", blame=Blame.TEST)
)


@pytest.fixture
def cloud(client: Client) -> Iterator[Cloud]:
    gateway = Gateway(client, room_poll_s=0.02)
    yield Cloud(client=client, apps=Apps(client, Claims("lab_user")), gateway=gateway, offers=Offers(client))
    gateway.close()


def station_of(cloud: Cloud, folder: Path) -> CloudStation:
    source = BuildSource("{app_version_id}.apk", folder, None, Downloads(folder / "downloads"))
    return CloudStation("browserstack-1@lab", cloud, source, BlobCache(folder / "builds", ".apk", 1_000))


@pytest.fixture
def station(cloud: Cloud, tmp_path: Path) -> CloudStation:
    (tmp_path / "v1.apk").write_bytes(b"the build")
    return station_of(cloud, tmp_path)


def observer(say: Callable[[bytes], None]) -> Observer:
    def no_test(test: TestResult, _is_resumable: bool) -> None:
        raise AssertionError(f"nothing runs, and it told of {test}")

    return Observer(output=say, test=no_test)


def no_line(line: bytes) -> None:
    raise AssertionError(f"there is nothing to say, and it said {line!r}")


async def begin(station: CloudStation, say: Callable[[bytes], None] = no_line) -> dict[str, str]:
    await station.install(LEASE)
    await station.ready(JOB)
    await station.begin(JOB, observer(say))
    return station.environment()


async def ask(env: dict[str, str], cloud: Cloud) -> None:
    """Ask for a session as the wrapper does."""
    device = json.loads(env["QGJOB_DEVICE"])
    options = {"deviceName": device["name"], "osVersion": device["osVersion"]}
    wish = {"capabilities": {"alwaysMatch": {"appium:app": env["QGJOB_BUILD_PATH"], "bstack:options": options}}}
    path = env["QGJOB_GATEWAY"].removeprefix(cloud.gateway.address)
    body = json.dumps(wish).encode()
    await asyncio.to_thread(cloud.gateway.answer, "POST", f"{path}/wd/hub/session", body, "application/json")


async def test_two_slots_share_one_upload_and_the_second_installs_nothing(
    station: CloudStation, cloud: Cloud, tmp_path: Path, stand_in: StandIn
) -> None:
    first = await station.install(LEASE)
    second = await station_of(cloud, tmp_path).install(LEASE)
    assert (first.is_new, second.is_new, second.duration_us) == (True, False, 0)
    assert first.digest == second.digest == digest_of(tmp_path / "v1.apk")
    assert len(stand_in.uploads) == 1


async def test_nothing_that_the_wrapper_is_told_opens_the_account(station: CloudStation) -> None:
    env = await begin(station)
    assert ACCESS_KEY not in json.dumps(env)
    assert env["QGJOB_BUILD_PATH"].startswith("bs://")
    assert json.loads(env["QGJOB_DEVICE"]) == {"name": "Google Pixel 8", "osVersion": "14.0", "isChosen": False}
    capabilities = json.loads(env["QGJOB_CAPABILITIES"])
    assert capabilities == {"buildName": "qualgent v1", "sessionName": "job 7: tests/a.spec.ts"}


async def test_device_that_is_not_offered_ends_the_job_at_once_as_its_own_fault(station: CloudStation) -> None:
    with pytest.raises(RunFailed, match="no android device whose name is Nokia") as failed:
        await station.ready(replace(JOB, selector=(("model", "Nokia*"),)))
    assert (failed.value.failure.reason, failed.value.failure.blame) == ("DEVICE_NOT_OFFERED", Blame.TEST)


async def test_missing_build_and_an_outage_are_told_apart(
    station: CloudStation, tmp_path: Path, stand_in: StandIn
) -> None:
    with pytest.raises(RunFailed) as failed:
        await station.install(replace(LEASE, app_version_id="v2"))
    assert failed.value.failure.reason == "BUILD_NOT_FOUND"
    stand_in.is_out = True
    with pytest.raises(RunFailed) as failed:
        await station.check(may_restart=True)
    assert (failed.value.failure.reason, failed.value.failure.blame) == ("CLOUD_FAILED", Blame.HOST)


async def test_sessions_of_a_run_are_kept_and_none_stays_open(
    station: CloudStation, cloud: Cloud, tmp_path: Path, stand_in: StandIn
) -> None:
    env = await begin(station)
    await ask(env, cloud)
    await station.end(tmp_path)
    (session,) = json.loads((tmp_path / "sessions.json").read_text())
    assert session["video_url"] == f"https://app-automate.browserstack.com/sessions/{session['id']}/video"
    assert not stand_in.sessions[session["id"]].is_open
    told = await station.explain(FAILED)
    assert told.failure is not None
    assert told.failure.message == f"expected a feed (session {session['id']})"


async def test_failure_after_trouble_with_the_cloud_is_not_the_tests_own(
    station: CloudStation, tmp_path: Path, stand_in: StandIn, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = await begin(station)
    await ask(env, cloud)
    stand_in.is_out = True
    path = env["QGJOB_GATEWAY"].removeprefix(cloud.gateway.address)
    monkeypatch.setattr("agent.browserstack.gateway.COMMAND_PATIENCE_S", 0.0)
    cloud.gateway.answer("GET", f"{path}/wd/hub/session/{next(iter(stand_in.sessions))}", b"", "")
    stand_in.is_out = False
    await station.end(tmp_path)
    told = await station.explain(FAILED)
    assert told.failure is not None
    assert (told.outcome, told.failure.reason, told.failure.blame) == (Outcome.ERRORED, "CLOUD_FAILED", Blame.HOST)
    assert told.failure.message == "BrowserStack answers 503; expected a feed"


async def test_timeout_without_any_session_is_the_clouds(station: CloudStation, tmp_path: Path) -> None:
    await begin(station)
    await station.end(tmp_path)
    late = Failure(reason="TIMED_OUT", message="too long", blame=Blame.TEST)
    told = await station.explain(Verdict(outcome=Outcome.TIMED_OUT, failure=late))
    assert told.failure is not None
    assert (told.outcome, told.failure.reason) == (Outcome.ERRORED, "CLOUD_BUSY")


async def test_session_that_could_not_be_made_makes_the_build_be_asked_for_again(
    station: CloudStation, tmp_path: Path, stand_in: StandIn
) -> None:
    await begin(station)
    await station.end(tmp_path)
    stand_in.forget_apps()
    refused = Failure(reason="SESSION_FAILED", message="the app is not found", blame=Blame.HOST)
    await station.explain(Verdict(outcome=Outcome.ERRORED, failure=refused))
    assert (await station.install(LEASE)).is_new


async def test_run_that_waits_for_room_says_so_in_its_log_and_can_be_ended(
    station: CloudStation, cloud: Cloud, tmp_path: Path, stand_in: StandIn
) -> None:
    stand_in.foreign = 2
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    env = await begin(station, lines.put_nowait)
    asking = asyncio.create_task(ask(env, cloud))
    assert (
        await asyncio.wait_for(lines.get(), 60)
        == b"qgjob: all 2 sessions of the BrowserStack plan are in use; waiting for one\n"
    )
    await station.reset()
    await asking
    await station.end(tmp_path)
    assert not stand_in.sessions
