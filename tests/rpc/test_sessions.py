"""Agents over the wire: honest ones get work, hostile ones lose their stream, and nothing ends the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from qgjob.v1 import (
    agent_pb2,
    agent_service_pb2,
    build_service_pb2,
    device_pb2,
    device_service_pb2,
    job_pb2,
    job_service_pb2,
    lease_pb2,
    log_pb2,
    log_service_pb2,
)
from tests.rpc.grid import DIGEST, PATIENCE_S, Grid, echo, hello, phone, refusal, seconds, spec

HEARTBEAT = {"heartbeat": agent_service_pb2.Heartbeat(sequence=1)}
KEY = lease_pb2.LeaseKey(lease_id=1, fence=lease_pb2.Fence(epoch=1, number=1))


async def devices(grid: Grid, **fields: Any) -> device_service_pb2.ListDevicesResponse:  # noqa: ANN401
    return await grid.devices.ListDevices(device_service_pb2.ListDevicesRequest(**fields))


async def agents(grid: Grid, **fields: Any) -> agent_service_pb2.ListAgentsResponse:  # noqa: ANN401
    return await grid.agents.ListAgents(agent_service_pb2.ListAgentsRequest(**fields))


# Honest agents


async def test_agent_runs_a_batch_and_everybody_can_see_it(grid: Grid) -> None:
    await grid.submit(spec("a"), spec("b", retries=1))
    agent = grid.agent()
    welcome = await agent.hello(phone(labels={"rack": "a"}))
    assert (welcome.epoch, welcome.heartbeat_interval.seconds, welcome.lease_ttl.seconds) == (1, 5, 30)
    lease = await agent.lease()
    assert (lease.device_id, lease.app_version_id) == ("phone-1", "xyz123")
    assert [job.test for job in lease.jobs] == ["a", "b"]
    installed = agent_service_pb2.BuildInstalled(key=lease.key, digest=DIGEST, duration=seconds(5), installed=True)
    await agent.say(build_installed=installed)
    first, second = (job.attempt_id for job in lease.jobs)
    test = job_pb2.TestResult(
        id="t", title="opens", state=job_pb2.TEST_STATE_PASSED, duration=seconds(1), start_offset=seconds(2)
    )
    await agent.finish(lease, first, tests=[test], build_digest=DIGEST)
    assert (await devices(grid)).devices[0].state == device_pb2.DEVICE_STATE_LEASED
    boom = job_pb2.Failure(reason="TEST_FAILED", message="expected 3\nsaw \x002", blame=job_pb2.BLAME_TEST)
    failed = job_pb2.TestResult(id="u", title="buys", state=job_pb2.TEST_STATE_FAILED, error="expected 3")
    await agent.finish(lease, second, job_pb2.ATTEMPT_OUTCOME_FAILED, failure=boom, tests=[failed])
    lease = await agent.lease()
    passed = job_pb2.TestResult(id="u", title="buys", state=job_pb2.TEST_STATE_PASSED)
    await agent.finish(lease, lease.jobs[0].attempt_id, tests=[passed])
    jobs = [await grid.job(number) for number in (1, 2)]
    assert [(job.state, job.flaky, job.attempt) for job in jobs] == [
        (job_pb2.JOB_STATE_COMPLETED, False, 1),
        (job_pb2.JOB_STATE_COMPLETED, True, 2),
    ]
    (seen,) = jobs[0].tests
    assert (seen.id, seen.title, seen.duration.seconds, seen.start_offset.seconds) == ("t", "opens", 1, 2)
    (earlier,), (newest,) = jobs[1].earlier_failures, jobs[1].tests
    assert (earlier.state, earlier.error, earlier.attempt) == (job_pb2.TEST_STATE_FAILED, "expected 3", 1)
    assert (newest.state, newest.attempt) == (job_pb2.TEST_STATE_PASSED, 2)
    installed_for, kept_warm = jobs[0].attempts[0], jobs[1].attempts[1]
    assert installed_for.install_duration.seconds == 5
    assert installed_for.assign_time.ToNanoseconds() <= installed_for.install_time.ToNanoseconds()
    assert not kept_warm.HasField("install_time")
    assert jobs[1].attempts[0].failure.message == "expected 3 saw  2"
    with_history = job_service_pb2.ListJobsRequest(with_history=True)
    listed = (await grid.jobs.ListJobs(with_history)).jobs
    for job in jobs:
        for attempt in job.attempts:
            attempt.log_state = job_pb2.LOG_STATE_UNSPECIFIED
    assert list(listed) == jobs[::-1]
    device = (await grid.devices.GetDevice(device_service_pb2.GetDeviceRequest(device_id="phone-1"))).device
    assert (device.agent, dict(device.facts.labels), device.builds[0].digest) == ("lab", {"rack": "a"}, DIGEST)
    known = (await agents(grid)).agents[0]
    assert (known.id, known.state, known.devices) == ("lab", agent_pb2.AGENT_STATE_CONNECTED, 1)


async def test_heartbeat_is_acknowledged(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    await agent.say(heartbeat=agent_service_pb2.Heartbeat(sequence=41))
    assert (await agent.hear("acknowledge_heartbeat")).acknowledge_heartbeat.sequence == 41


async def test_agent_that_comes_back_goes_on_where_it_was(grid: Grid) -> None:
    await grid.submit(spec())
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    attempt = lease.jobs[0].attempt_id
    await agent.say(attempt_started=agent_service_pb2.AttemptStarted(key=lease.key, attempt_id=attempt))
    await grid.job_when(1, job_pb2.JOB_STATE_RUNNING)
    agent.call.cancel()
    await grid.restart()
    back = grid.agent()
    result = lease_pb2.AttemptResult(attempt_id=attempt, key=lease.key, outcome=job_pb2.ATTEMPT_OUTCOME_PASSED)
    assert (await back.hello(phone(), leases=[echo(lease, started=[attempt])], results=[result])).epoch == 2
    await back.hear("acknowledge_results")
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_COMPLETED


async def test_what_an_agent_holds_of_another_database_is_not_of_this_one(grid: Grid) -> None:
    await grid.submit(spec())
    owner = grid.agent()
    welcome = await owner.hello(phone())
    lease = await owner.lease()
    result = lease_pb2.AttemptResult(
        attempt_id=lease.jobs[0].attempt_id, key=lease.key, outcome=job_pb2.ATTEMPT_OUTCOME_FAILED
    )
    back = grid.agent()
    await back.hello(phone(), cluster_id="another", leases=[echo(lease)], results=[result])
    offered = (await back.hear("adopt_lease")).adopt_lease.lease
    assert offered.key.fence.number > lease.key.fence.number
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_ASSIGNED
    result.key.CopyFrom(offered.key)
    result.attempt_id = offered.jobs[0].attempt_id
    third = grid.agent()
    await third.hello(phone(), cluster_id=welcome.cluster_id, leases=[echo(offered)], results=[result])
    await third.hear("acknowledge_results")
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_FAILED


async def test_goodbye_gives_the_work_back_and_stops_the_agent(grid: Grid) -> None:
    await grid.submit(spec())
    agent = grid.agent()
    await agent.hello(phone())
    await agent.lease()
    await agent.say(goodbye=agent_service_pb2.Goodbye(reason="off to lunch"))
    assert (await agent.status())[0] is grpc.StatusCode.OK
    assert (await grid.job_when(1, job_pb2.JOB_STATE_QUEUED)).attempt == 1
    assert (await agents(grid)).agents[0].state == agent_pb2.AGENT_STATE_STOPPED
    assert (await devices(grid)).devices[0].state == device_pb2.DEVICE_STATE_OFFLINE


async def test_new_stream_ends_the_old_one_with_a_reason(grid: Grid) -> None:
    old = grid.agent()
    await old.hello(phone())
    await grid.agent().hello(phone())
    code, sentence, info = await old.status()
    assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CONFLICT")
    assert sentence == "the agent opened a new session"


# Sessions that are refused


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (HEARTBEAT, "the first message of a session must be Hello"),
        ({}, "the first message of a session must be Hello"),
        ({"hello": hello(agent_id="")}, "agent_id is empty"),
        ({"hello": hello(agent_id="a\x00b")}, "agent_id holds control characters"),
        ({"hello": hello(agent_id="x" * 3_000_000)}, "agent_id has 3000000 characters"),
        ({"hello": hello(boot_id="")}, "boot_id is empty"),
        ({"hello": hello(phone(), phone())}, "a device is announced twice"),
        ({"hello": hello(*(phone(str(number)) for number in range(1_001)))}, "1001 devices, and 1000 is the limit"),
        ({"hello": hello(phone(kind=99))}, "device kind 99 is unknown"),
        ({"hello": hello(phone(""))}, "device id is empty"),
        ({"hello": hello(phone("x" * 257))}, "device id has 257 characters"),
        ({"hello": hello(phone("a\nb"))}, "device id holds control characters"),
        ({"hello": hello(phone(labels={"a": "\x1b[2J"}))}, "labels a holds control characters"),
        ({"hello": hello(results=[lease_pb2.AttemptResult(outcome=99)])}, "attempt outcome 99 is unknown"),  # type: ignore[arg-type]
        ({"hello": hello(leases=[lease_pb2.LeaseEcho()] * 2_001)}, "2001 leases, and 2000 is the limit"),
        ({"hello": hello(results=[lease_pb2.AttemptResult()] * 10_001)}, "10001 results, and 10000 is the limit"),
    ],
)
async def test_malformed_first_message_ends_the_stream(grid: Grid, first: dict[str, Any], said: str) -> None:
    agent = grid.agent()
    await agent.say(**first)
    code, sentence, info = await agent.status()
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert said in sentence
    assert not (await agents(grid)).agents


async def test_agent_of_another_protocol_is_told_what_is_spoken_here(grid: Grid) -> None:
    agent = grid.agent()
    await agent.say(hello=hello(protocol=2, version="9.0"))
    code, sentence, info = await agent.status()
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_UNSUPPORTED")
    assert info.metadata["accepted"] == "1"
    assert "agent 9.0 speaks protocol 2" in sentence


@pytest.mark.parametrize(
    ("version", "words"),
    [("0.3.0", "too new for this coordinator's 0.1.0; upgrade the coordinator"), ("mine", "cannot be read")],
)
async def test_agent_of_a_release_that_does_not_fit_is_told_what_to_upgrade(
    grid: Grid, version: str, words: str
) -> None:
    agent = grid.agent()
    await agent.say(hello=hello(phone(), version=version))
    code, sentence, info = await agent.status()
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_UNSUPPORTED")
    assert words in sentence


async def test_agent_of_the_next_minor_release_is_taken(grid: Grid) -> None:
    assert (await grid.agent().hello(phone(), version="0.2.7")).version == "0.1.0"


async def test_second_agent_of_a_name_is_refused(grid: Grid) -> None:
    first = grid.agent()
    await first.hello(phone())
    second = grid.agent()
    await second.say(hello=hello(boot_id="boot-2"))
    code, sentence, info = await second.status()
    assert (code, info.reason, info.metadata["id"]) == (grpc.StatusCode.ALREADY_EXISTS, "CONFLICT", "lab")
    assert "give this one another --name" in sentence
    await first.say(**HEARTBEAT)
    await first.hear("acknowledge_heartbeat")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"hello": hello()}, "hello is not expected here"),
        ({}, "an empty message is not expected here"),
        ({"devices_reported": agent_service_pb2.DevicesReported(devices=[phone(kind=0)])}, "device kind 0 is unknown"),
        (
            {
                "attempt_finished": agent_service_pb2.AttemptFinished(
                    result=lease_pb2.AttemptResult(key=KEY, attempt_id=1)
                )
            },
            "attempt outcome 0 is unknown",
        ),
        (
            {
                "lease_adopted": agent_service_pb2.LeaseAdopted(
                    echo=lease_pb2.LeaseEcho(key=KEY, started_attempt_ids=range(100_001))
                )
            },
            "a lease with over 100000 attempts",
        ),
    ],
    ids=["hello", "empty", "kind", "outcome", "echo"],
)
async def test_malformed_fact_ends_that_stream_alone(grid: Grid, event: dict[str, Any], said: str) -> None:
    other = grid.agent()
    await other.hello(phone("other"), agent_id="other")
    agent = grid.agent()
    await agent.hello(phone())
    await agent.say(**event)
    code, sentence, _ = await agent.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert said in sentence
    await other.say(**HEARTBEAT)
    await other.hear("acknowledge_heartbeat")


async def test_malformed_fact_right_after_hello_ends_the_stream_whatever_is_being_written(grid: Grid) -> None:
    for number in range(100):
        agent = grid.agent()
        await agent.say(hello=hello(agent_id=f"hasty-{number}"))
        await agent.say()
        with contextlib.suppress(grpc.aio.AioRpcError):  # a status is heard only behind all that was written
            async with asyncio.timeout(PATIENCE_S):
                while isinstance(await agent.call.read(), agent_service_pb2.ConnectResponse):
                    pass
        assert (await agent.status())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_device_of_another_agent_is_left_out_of_the_session_that_announces_it(grid: Grid) -> None:
    owner = grid.agent()
    await owner.hello(phone())
    other = grid.agent()
    await other.hello(phone("other"), agent_id="other")
    await other.say(devices_reported=agent_service_pb2.DevicesReported(devices=[phone("other"), phone()]))
    told = await other.hear("tell_conflicts")
    assert [(one.device_id, one.owner) for one in told.tell_conflicts.conflicts] == [("phone-1", "lab")]
    listed = {device.facts.id: device for device in (await devices(grid)).devices}
    assert (listed["phone-1"].agent, list(listed["phone-1"].contested_by)) == ("lab", ["other"])
    conflicts = {agent.id: list(agent.conflicting_device_ids) for agent in (await agents(grid)).agents}
    assert conflicts == {"lab": [], "other": ["phone-1"]}
    await owner.say(devices_reported=agent_service_pb2.DevicesReported())
    told = await other.hear("tell_conflicts")
    assert not told.tell_conflicts.conflicts
    listed = {device.facts.id: device for device in (await devices(grid)).devices}
    assert (listed["phone-1"].agent, list(listed["phone-1"].contested_by)) == ("other", [])


def a_claim(**changes: object) -> agent_service_pb2.UploadClaim:
    fields: dict[str, Any] = {"account": "user@cloud", "digest": "a" * 64, "number": 1, **changes}
    return agent_service_pb2.UploadClaim(**fields)


async def test_two_agents_that_want_one_build_at_an_account_upload_it_one_after_the_other(grid: Grid) -> None:
    one, two = grid.agent(), grid.agent()
    account = device_pb2.CloudAccount(name="user@cloud", sessions=2)
    await one.hello(phone(account=account))
    await two.hello(phone("other", account=account), agent_id="other")
    for agent in (one, two):
        assert not (await agent.hear("tell_uploads")).tell_uploads.uploads, "they share the account"
    await one.say(uploads_claimed=agent_service_pb2.UploadsClaimed(claims=[a_claim()]))
    (told,) = (await one.hear("tell_uploads")).tell_uploads.uploads
    assert (told.holder, told.turn, told.number) == ("lab", 0, 1)
    await one.say(uploads_claimed=agent_service_pb2.UploadsClaimed(claims=[a_claim(turn=1)]))
    (told,) = (await one.hear("tell_uploads")).tell_uploads.uploads
    assert (told.turn, told.HasField("upload_age")) == (1, True)
    await two.say(uploads_claimed=agent_service_pb2.UploadsClaimed(claims=[a_claim(number=7)]))
    (told,) = (await two.hear("tell_uploads")).tell_uploads.uploads
    assert (told.holder, told.turn, told.number, told.HasField("upload_age")) == ("lab", -1, 7, True)
    await one.say(uploads_claimed=agent_service_pb2.UploadsClaimed(claims=[a_claim(url="bs://1")]))
    (told,) = (await two.hear("tell_uploads")).tell_uploads.uploads
    assert (told.holder, told.turn, told.url, told.HasField("url_age")) == ("other", 0, "bs://1", True)


@pytest.mark.parametrize(
    "claims",
    [
        [a_claim(), a_claim()],
        [a_claim(account="")],
        [a_claim(digest="x" * 200)],
        [a_claim(turn=-1)],
        [a_claim(turn=1_000_000)],
        [a_claim(digest=str(number)) for number in range(1_001)],
    ],
)
async def test_claims_that_make_no_sense_end_the_session(
    grid: Grid, claims: list[agent_service_pb2.UploadClaim]
) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    await agent.say(uploads_claimed=agent_service_pb2.UploadsClaimed(claims=claims))
    assert (await agent.status())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_message_that_is_too_large_ends_that_stream_alone(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    await agent.say(goodbye=agent_service_pb2.Goodbye(reason="x" * 5_000_000))
    assert (await agent.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    await grid.agent().hello(phone())


GARBAGE: dict[str, dict[str, Any]] = {
    "unknown lease": {
        "attempt_started": agent_service_pb2.AttemptStarted(
            key=lease_pb2.LeaseKey(lease_id=2**63 - 1, fence=lease_pb2.Fence(epoch=-1, number=2**63 - 1)), attempt_id=-1
        )
    },
    "no key": {"attempt_started": agent_service_pb2.AttemptStarted(attempt_id=1)},
    "unknown attempt": {"attempt_started": agent_service_pb2.AttemptStarted(key=KEY, attempt_id=2**63 - 1)},
    "endless install": {
        "build_installed": agent_service_pb2.BuildInstalled(
            key=KEY, digest="\x00" * 99, duration=Duration(seconds=315_576_000_000), installed=True
        )
    },
    "install before time": {
        "build_installed": agent_service_pb2.BuildInstalled(
            key=KEY, duration=Duration(seconds=-(2**63), nanos=-(2**31)), installed=True
        )
    },
    "odd test": {
        "test_reported": agent_service_pb2.TestReported(
            key=KEY,
            attempt_id=1,
            test=job_pb2.TestResult(
                id="\x00" * 500,
                title="\x00",
                state=99,  # type: ignore[arg-type]
                error="\x00" + "e" * 100_000,
                duration=Duration(seconds=2**63 - 1, nanos=2**31 - 1),
            ),
        )
    },
    "odd echo": {
        "heartbeat": agent_service_pb2.Heartbeat(
            sequence=-(2**63),
            leases=[lease_pb2.LeaseEcho(key=KEY, revision=2**63 - 1, started_attempt_ids=[1, 1, 2, -1])] * 3,
        )
    },
    "odd result": {
        "attempt_finished": agent_service_pb2.AttemptFinished(
            result=lease_pb2.AttemptResult(
                key=KEY,
                attempt_id=1,
                outcome=job_pb2.ATTEMPT_OUTCOME_LOST,
                log_size=2**63 - 1,
                log_sha256="\x00",
                build_digest="\x00",
                failure=job_pb2.Failure(reason="\x00", message="\x00" * 99_999, blame=99),  # type: ignore[arg-type]
            )
        )
    },
    "odd rejection": {"lease_rejected": agent_service_pb2.LeaseRejected(key=KEY)},
    "release": {"lease_released": agent_service_pb2.LeaseReleased(key=KEY)},
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_odd_fact_leaves_the_coordinator_serving(grid: Grid, name: str) -> None:
    await grid.submit(spec("a"), spec("b"))
    agent = grid.agent()
    await agent.hello(phone())
    await agent.lease()
    for _ in range(2):
        await agent.say(**GARBAGE[name])
    await agent.say(heartbeat=agent_service_pb2.Heartbeat(sequence=7))
    while (await agent.hear("acknowledge_heartbeat")).acknowledge_heartbeat.sequence != 7:
        pass
    assert (await grid.jobs.ListJobs(job_service_pb2.ListJobsRequest())).jobs[0].id == 2
    assert await grid.submit(spec()) == [3]
    await grid.restart()
    assert (await grid.job(3)).id == 3


async def test_stranger_cannot_touch_the_lease_of_another_agent(grid: Grid) -> None:
    await grid.submit(spec())
    owner = grid.agent()
    await owner.hello(phone())
    lease = await owner.lease()
    stranger = grid.agent()
    await stranger.hello(agent_id="stranger")
    await stranger.say(lease_rejected=agent_service_pb2.LeaseRejected(key=lease.key))
    assert (await stranger.hear("close_lease")).close_lease.key == lease.key
    await owner.finish(lease, lease.jobs[0].attempt_id)
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_COMPLETED


# Lists of the lab


async def test_devices_and_agents_come_in_pages(grid: Grid) -> None:
    for name in ("one", "two", "three"):
        await grid.agent().hello(phone(f"{name}-a"), phone(f"{name}-b"), agent_id=name)
    first = await devices(grid, page_size=4)
    rest = await devices(grid, page_size=4, page_token=first.next_page_token)
    assert [device.facts.id for device in (*first.devices, *rest.devices)] == [
        *("one-a", "one-b", "three-a", "three-b"),
        *("two-a", "two-b"),
    ]
    assert rest.next_page_token == ""
    page = await agents(grid, page_size=2)
    last = await agents(grid, page_size=2, page_token=page.next_page_token)
    assert [agent.id for agent in (*page.agents, *last.agents)] == ["one", "three", "two"]
    assert last.next_page_token == ""


async def test_builds_come_in_pages_the_last_installed_first(grid: Grid) -> None:
    await grid.submit(*(spec("t", app_version_id=f"v{number}") for number in range(3)))
    agent = grid.agent()
    await agent.hello(phone())
    for number in range(3):
        lease = await agent.lease()
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        installed = agent_service_pb2.BuildInstalled(key=lease.key, digest=digest, duration=seconds(2), installed=True)
        await agent.say(build_installed=installed)
        await agent.finish(lease, lease.jobs[0].attempt_id)
    first = await grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest(page_size=2))
    rest = await grid.builds.ListBuilds(
        build_service_pb2.ListBuildsRequest(page_size=2, page_token=first.next_page_token)
    )
    listed = [*first.builds, *rest.builds]
    assert [build.app_version_id for build in listed] == ["v2", "v1", "v0"]
    assert (listed[0].digest, listed[0].installs) == (hashlib.sha256(b"2").hexdigest(), 1)
    assert rest.next_page_token == ""
    other = await grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest(org_id="nobody"))
    assert not other.builds
    code, _, info = await refusal(grid.builds.ListBuilds(build_service_pb2.ListBuildsRequest(page_token="x")))
    assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")


async def test_unknown_device_is_not_found_and_does_not_come_back_whole(grid: Grid) -> None:
    request = device_service_pb2.GetDeviceRequest(device_id="x" * 100_000)
    code, sentence, info = await refusal(grid.devices.GetDevice(request))
    assert (code, info.reason, info.metadata["kind"]) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "device")
    assert len(sentence) < 1_000


# Logs


async def test_log_is_followed_while_the_agent_writes_it(grid: Grid) -> None:
    await grid.submit(spec())
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    attempt = lease.jobs[0].attempt_id
    await agent.say(attempt_started=agent_service_pb2.AttemptStarted(key=lease.key, attempt_id=attempt))
    follow = grid.logs.FollowLogs(log_service_pb2.FollowLogsRequest(job_id=1, follow=True))
    upload = grid.logs.AppendLogs()
    chunk = log_pb2.LogChunk(attempt_id=attempt, offset=0, data=b"hello\n")
    await upload.write(log_service_pb2.AppendLogsRequest(key=lease.key, chunk=chunk))
    heard = b""
    async with asyncio.timeout(PATIENCE_S):
        async for piece in follow:
            heard += piece.chunk.data
            if heard == b"hello\n":
                break
    end = log_service_pb2.LogFinished(attempt_id=attempt, size=6, sha256=hashlib.sha256(b"hello\n").hexdigest())
    await upload.write(log_service_pb2.AppendLogsRequest(key=lease.key, finished=end))
    await upload.done_writing()
    async with asyncio.timeout(PATIENCE_S):
        answers = [answer async for answer in upload]
    assert (answers[-1].committed_size, answers[-1].closed) == (6, True)
    await agent.finish(lease, attempt, log_size=6)
    async with asyncio.timeout(PATIENCE_S):
        last = [piece async for piece in follow][-1]
    assert last.cut.state == job_pb2.LOG_STATE_COMPLETE


# Operators


async def test_operator_quarantines_and_readmits_a_device(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    request = device_service_pb2.QuarantineDeviceRequest(device_id="phone-1", reason="its screen is broken")
    held = (await grid.devices.QuarantineDevice(request)).device
    assert (held.state, held.hold, held.hold_reason) == (
        device_pb2.DEVICE_STATE_QUARANTINED,
        device_pb2.DEVICE_HOLD_QUARANTINE,
        "its screen is broken",
    )
    await grid.submit(spec())
    await grid.restart()
    listed = (await devices(grid)).devices[0]
    assert (listed.state, listed.hold_reason) == (device_pb2.DEVICE_STATE_OFFLINE, "its screen is broken")
    agent = grid.agent()
    await agent.hello(phone())
    assert (await devices(grid)).devices[0].state == device_pb2.DEVICE_STATE_QUARANTINED
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_QUEUED
    await grid.devices.ReadmitDevice(device_service_pb2.ReadmitDeviceRequest(device_id="phone-1"))
    assert (await agent.lease()).jobs[0].job_id == 1


async def test_operator_drains_a_device_and_its_batch_goes_elsewhere(grid: Grid) -> None:
    await grid.submit(spec("a"), spec("b"))
    agent = grid.agent()
    await agent.hello(phone())
    lease = await agent.lease()
    first = lease.jobs[0].attempt_id
    await agent.say(attempt_started=agent_service_pb2.AttemptStarted(key=lease.key, attempt_id=first))
    await grid.job_when(1, job_pb2.JOB_STATE_RUNNING)
    drained = (await grid.devices.DrainDevice(device_service_pb2.DrainDeviceRequest(device_id="phone-1"))).device
    assert (drained.state, drained.hold) == (device_pb2.DEVICE_STATE_DRAINING, device_pb2.DEVICE_HOLD_DRAIN)
    revised = (await agent.hear("adopt_lease")).adopt_lease.lease
    assert [one.attempt_id for one in revised.revoked] == [lease.jobs[1].attempt_id]
    await agent.say(lease_adopted=agent_service_pb2.LeaseAdopted(echo=echo(revised, started=[first])))
    other = grid.agent()
    await other.hello(phone("phone-2"), agent_id="other")
    assert (await other.lease()).jobs[0].job_id == 2
    await agent.finish(lease, first)
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_COMPLETED
    device = (await grid.devices.GetDevice(device_service_pb2.GetDeviceRequest(device_id="phone-1"))).device
    assert (device.state, device.lease_id) == (device_pb2.DEVICE_STATE_DRAINING, 0)


async def test_operator_drains_and_resumes_an_agent(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    drained = (await grid.agents.DrainAgent(agent_service_pb2.DrainAgentRequest(agent_id="lab"))).agent
    assert (drained.draining, drained.state, drained.leases) == (True, agent_pb2.AGENT_STATE_CONNECTED, 0)
    await grid.submit(spec())
    assert (await grid.job(1)).state == job_pb2.JOB_STATE_QUEUED
    assert (await agents(grid)).agents[0].draining
    resumed = (await grid.agents.ResumeAgent(agent_service_pb2.ResumeAgentRequest(agent_id="lab"))).agent
    assert not resumed.draining
    assert (await agent.lease()).jobs[0].job_id == 1


async def test_operator_forgets_an_agent_that_was_stopped_for_good(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone("phone-1"), phone("phone-2"))
    request = agent_service_pb2.ForgetAgentRequest(agent_id="lab")
    code, sentence, info = await refusal(grid.agents.ForgetAgent(request))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INVALID_TRANSITION")
    assert "stop it, and then forget it" in sentence
    await agent.say(goodbye=agent_service_pb2.Goodbye())
    assert (await agent.status())[0] is grpc.StatusCode.OK
    last = (await grid.agents.ForgetAgent(request)).agent
    assert (last.id, last.devices) == ("lab", 2)
    for _ in range(2):
        assert not (await agents(grid)).agents
        assert not (await grid.devices.ListDevices(device_service_pb2.ListDevicesRequest())).devices
        await grid.restart()
    await grid.agent().hello(phone("phone-1"))
    assert (await agents(grid)).agents[0].devices == 1


async def test_operator_hears_of_names_that_are_not_known_and_of_odd_reasons(grid: Grid) -> None:
    for call, kind in (
        (grid.devices.QuarantineDevice(device_service_pb2.QuarantineDeviceRequest(device_id="x")), "device"),
        (grid.devices.DrainDevice(device_service_pb2.DrainDeviceRequest(device_id="x")), "device"),
        (grid.devices.ReadmitDevice(device_service_pb2.ReadmitDeviceRequest(device_id="x")), "device"),
        (grid.agents.DrainAgent(agent_service_pb2.DrainAgentRequest(agent_id="x")), "agent"),
        (grid.agents.ResumeAgent(agent_service_pb2.ResumeAgentRequest(agent_id="x")), "agent"),
        (grid.agents.ForgetAgent(agent_service_pb2.ForgetAgentRequest(agent_id="x")), "agent"),
    ):
        code, _, info = await refusal(call)
        assert (code, dict(info.metadata)) == (grpc.StatusCode.NOT_FOUND, {"kind": kind, "id": "x"})
    await grid.agent().hello(phone())
    for reason in ("\x00", "x" * 1_025):
        request = device_service_pb2.QuarantineDeviceRequest(device_id="phone-1", reason=reason)
        code, _, info = await refusal(grid.devices.QuarantineDevice(request))
        assert (code, info.metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "reason")
