"""Submitting over the wire: what is accepted, what is refused and how, and that a repetition submits nothing twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from coordinator.core.model import Request
from coordinator.core.step import Write
from coordinator.engine import Engine
from coordinator.store import Store
from qgjob.v1 import job_pb2, job_service_pb2
from tests.rpc.grid import PATIENCE_S, Grid, phone, refusal, seconds, spec

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def test_many_jobs_are_accepted_in_one_call_in_their_order(grid: Grid) -> None:
    answer = await grid.jobs.SubmitJobs(
        job_service_pb2.SubmitJobsRequest(jobs=[spec(f"tests/{number}.spec.ts") for number in range(10_000)])
    )
    assert [job.id for job in answer.jobs] == list(range(1, 10_001))
    assert [job.spec.test for job in answer.jobs[:2]] == ["tests/0.spec.ts", "tests/1.spec.ts"]
    assert {job.state for job in answer.jobs} == {job_pb2.JOB_STATE_QUEUED}


async def test_defaults_are_filled_in_and_told(grid: Grid) -> None:
    answer = await grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=[spec(env={"TOKEN": "secret"})]))
    job = answer.jobs[0]
    assert (job.spec.priority, job.spec.target, job.spec.timeout.seconds) == (3, job_pb2.TARGET_ANY, 600)
    assert (job.lane, job.queue_position, job.attempt) == (job_pb2.LANE_NORMAL, 1, 0)
    assert answer.warnings == ["no known device matches target any; the job waits for one"]
    assert dict(job.spec.env) == {"TOKEN": ""}, "values are shown nowhere"


LONG = "x" * 3_000_000
TOO_LONG_ENV = {f"NAME_{number}": "x" * 1_000 for number in range(64)}


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"priority": 9}, "priority", "priority 9 is out of range; use 1 (when idle) to 5 (now)"),
        ({"priority": -1}, "priority", "priority -1"),
        ({"test": ""}, "test", "test is empty"),
        ({"test": " "}, "test", "test is empty"),
        ({"test": "/etc/passwd"}, "test", "must be a path inside the project"),
        ({"test": "tests/../../x.ts"}, "test", "must be a path inside the project"),
        ({"test": "-config=x"}, "test", "must be a path inside the project"),
        ({"test": "tests/a\x00.ts"}, "test", "control characters"),
        ({"test": "\N{SNOWMAN}" * 342}, "test", "test has 1026 bytes, and 1024 is the limit"),
        ({"org_id": ""}, "org_id", "org_id is empty"),
        ({"org_id": LONG}, "org_id", "org_id has 3000000 characters, and 128 is the limit"),
        ({"app_version_id": "a\nb"}, "app_version_id", "control characters"),
        ({"run": "r" * 129}, "run", "run has 129 characters"),
        ({"target": 77}, "target", "target 77 is unknown; use any, emulator, device, browserstack"),
        ({"retries": 11}, "retries", "use 0 to 10"),
        ({"retries": -1}, "retries", "use 0 to 10"),
        ({"timeout": seconds(0)}, "timeout", "use 1s to 24h"),
        ({"timeout": seconds(86_401)}, "timeout", "use 1s to 24h"),
        ({"timeout": Duration(seconds=-(2**62))}, "timeout", "use 1s to 24h"),
        ({"timeout": Duration(seconds=2**62)}, "timeout", "use 1s to 24h"),
        ({"selector": {f"a{number}": "x" for number in range(17)}}, "selector", "17 entries, and 16 is the limit"),
        ({"selector": {"model": "Pixel\x1b[2J"}}, "selector", "control characters"),
        ({"labels": {f"a{number}": "x" for number in range(65)}}, "labels", "65 entries"),
        ({"labels": {"a": "x" * 1_025}}, "labels", "1025 bytes, and 1024 is the limit"),
        ({"labels": {"a": "\N{SNOWMAN}" * 1_000}}, "labels", "3000 bytes"),
        ({"labels": {"a": "\x00"}}, "labels", "labels a holds control characters"),
        ({"labels": {"": "x"}}, "labels", "a name that is empty"),
        ({"labels": {LONG: "x"}}, "labels", "over 128 characters"),
        ({"env": {f"A{number}": "x" for number in range(65)}}, "env", "65 entries"),
        ({"env": TOO_LONG_ENV}, "env", "32768 is the limit"),
        ({"env": {"A" * 30_000: "", "1": ""}}, "env", "no name of an environment variable"),
        ({"env": {"A": "\x00"}}, "env", "env A holds a NUL character"),
        ({"env": {"A\n": ""}}, "env", "no name of an environment variable"),
    ],
)
async def test_malformed_job_is_refused_by_field(grid: Grid, fields: dict[str, Any], field: str, said: str) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(**fields)])
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(request))
    assert code is INVALID
    assert said in sentence
    assert len(sentence) < 500
    assert (info.reason, info.domain, info.metadata["field"]) == ("INVALID_REQUEST", "qgjob", field)


@pytest.mark.parametrize(
    "name",
    [
        "NODE_OPTIONS",
        "NODE_PATH",
        "LD_PRELOAD",
        "DYLD_INSERT_LIBRARIES",
        "PATH",
        "ANDROID_HOME",
        "ADB_SERVER_SOCKET",
        "APPIUM_HOME",
        "QGJOB_COORDINATOR",
        "QGJOB_SIM",
    ],
)
async def test_environment_that_would_change_the_labs_tools_is_refused(grid: Grid, name: str) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(env={"FINE": "1", name: "x"})])
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(request))
    assert (code, info.metadata["field"]) == (INVALID, "env")
    assert f"env {name} is refused" in sentence


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"PATH": "x" * 8}, "secrets PATH is refused"),
        ({"PIN": "123"}, "secrets PIN has fewer than 4 characters"),
        ({"PIN": "1   "}, "secrets PIN has fewer than 4 characters"),
        ({"FINE": "long enough"}, "secrets FINE is in env too"),
        ({"A": "\x00" * 8}, "secrets A holds a NUL character"),
    ],
)
async def test_secret_that_cannot_be_one_is_refused(grid: Grid, secrets: dict[str, str], said: str) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(env={"FINE": "1"}, secrets=secrets)])
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(request))
    assert (code, info.metadata["field"]) == (INVALID, "secrets")
    assert said in sentence


@pytest.mark.parametrize("name", ["QGJOB_SIM_SECONDS", "PATHS", "MY_NODE_OPTIONS", "node_options"])
async def test_other_environment_is_accepted(grid: Grid, name: str) -> None:
    assert await grid.submit(spec(env={name: "x"})) == [1]


async def test_refusal_says_which_of_many_jobs_is_wrong_and_accepts_none(grid: Grid) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(), spec(priority=9), spec()])
    _, sentence, info = await refusal(grid.jobs.SubmitJobs(request))
    assert sentence.startswith("job 2 of 3: priority 9")
    assert info.metadata["field"] == "jobs[1].priority"
    assert not (await grid.jobs.ListJobs(job_service_pb2.ListJobsRequest())).jobs


@pytest.mark.parametrize(
    ("request_", "field", "said"),
    [
        (job_service_pb2.SubmitJobsRequest(), "jobs", "there is no job"),
        (job_service_pb2.SubmitJobsRequest(jobs=[spec("t")] * 10_001), "jobs", "10001 jobs in one call"),
        (job_service_pb2.SubmitJobsRequest(jobs=[spec(), spec(org_id="b")]), "org_id", "one organisation"),
        (job_service_pb2.SubmitJobsRequest(jobs=[spec()], request_id="k" * 129), "request_id", "129 characters"),
        (job_service_pb2.SubmitJobsRequest(jobs=[spec()], request_id="\x00"), "request_id", "control characters"),
        (job_service_pb2.SubmitJobsRequest(jobs=[spec("t" * 1_000)] * 4_000), "jobs", "the answer would have about"),
    ],
    ids=["empty", "too many", "two organisations", "long key", "odd key", "large answer"],
)
async def test_malformed_call_is_refused(
    grid: Grid, request_: job_service_pb2.SubmitJobsRequest, field: str, said: str
) -> None:
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(request_))
    assert (code, info.metadata["field"]) == (INVALID, field)
    assert said in sentence


async def test_message_over_4_mib_is_refused_and_the_next_call_works(grid: Grid) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(labels={"a": "x" * 5_000_000})])
    code, _, _ = await refusal(grid.jobs.SubmitJobs(request))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await grid.submit(spec()) == [1]


async def test_strict_submit_is_refused_while_no_device_matches(grid: Grid) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec(target=job_pb2.TARGET_DEVICE)], strict=True)
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(request))
    assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_MATCHING_DEVICE")
    assert "target device" in sentence
    await grid.agent().hello(phone())
    assert (await grid.jobs.SubmitJobs(request)).jobs[0].id == 1


# Repetition


async def test_same_key_gives_the_same_jobs_back(grid: Grid) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec("a"), spec("b")], request_id="k")
    first = await grid.jobs.SubmitJobs(request)
    again = await grid.jobs.SubmitJobs(request)
    assert (first.replayed, again.replayed) == (False, True)
    assert [job.id for job in again.jobs] == [job.id for job in first.jobs] == [1, 2]


async def test_same_key_gives_the_same_jobs_back_after_a_restart(grid: Grid) -> None:
    assert await grid.submit(spec(), request_id="k") == [1]
    await grid.restart()
    assert await grid.submit(spec(), request_id="k") == [1]
    assert await grid.submit(spec(), request_id="other") == [2]


async def test_only_keys_that_came_before_are_looked_up(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    find = Store.find_requests

    def observed(self: Store, keys: Sequence[tuple[str, str]]) -> list[Request]:
        looked_up.extend(key for _, key in keys)
        return find(self, keys)

    assert await grid.submit(spec(), request_id="old") == [1]
    has_learnt = grid.learning(monkeypatch)
    await grid.restart()
    await asyncio.wait_for(has_learnt.wait(), PATIENCE_S)
    monkeypatch.setattr(Store, "find_requests", observed)
    twins = await asyncio.gather(*(grid.submit(spec(), request_id="new") for _ in range(20)))
    assert twins == [[2]] * 20
    assert await grid.submit(spec(), request_id="newer") == [3]
    assert looked_up.count("newer") == 0
    assert await grid.submit(spec(), request_id="old") == [1]
    assert await grid.submit(spec(), request_id="newer") == [3]
    assert (looked_up.count("old"), looked_up.count("newer")) == (1, 1)


async def test_full_disk_refuses_new_jobs_but_not_the_repetition_of_old_ones(grid: Grid) -> None:
    assert await grid.submit(spec(), request_id="k") == [1]
    grid.server._space._min_free = 2**62
    assert await grid.submit(spec(), request_id="k") == [1]
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=[spec()])))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    assert "free space there" in sentence
    assert int(info.metadata["free"]) < int(info.metadata["least"])


async def test_twins_in_flight_are_accepted_once(grid: Grid) -> None:
    request = job_service_pb2.SubmitJobsRequest(jobs=[spec()], request_id="k")
    answers = await asyncio.gather(*(grid.jobs.SubmitJobs(request) for _ in range(50)))
    assert {answer.jobs[0].id for answer in answers} == {1}
    assert sorted(answer.replayed for answer in answers) == [False, *[True] * 49]


async def test_twin_that_comes_while_the_first_is_committed_gives_the_same_job(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_learnt = grid.learning(monkeypatch)
    await grid.restart()
    await asyncio.wait_for(has_learnt.wait(), PATIENCE_S)
    has_begun, may_end = threading.Event(), threading.Event()
    commit = Store.commit

    def held_up(self: Store, writes: Sequence[Write]) -> None:
        has_begun.set()
        assert may_end.wait(PATIENCE_S)
        commit(self, writes)

    monkeypatch.setattr(Store, "commit", held_up)
    first = asyncio.create_task(grid.submit(spec(), request_id="k"))
    assert await asyncio.to_thread(has_begun.wait, PATIENCE_S)
    assert not grid.server._store.may_have_request(("qualgent", "k"))
    has_posted, post = asyncio.Event(), Engine._post

    async def observed(self: Engine, *arguments: Any) -> None:  # noqa: ANN401 - as they come
        await post(self, *arguments)
        has_posted.set()

    monkeypatch.setattr(Engine, "_post", observed)
    twin = asyncio.create_task(grid.submit(spec(), request_id="k"))
    await asyncio.wait_for(has_posted.wait(), PATIENCE_S)
    may_end.set()
    assert [await first, await twin] == [[1], [1]]


async def test_key_with_another_payload_is_refused(grid: Grid) -> None:
    await grid.submit(spec(env={"A": "1"}), request_id="k")
    for other in (spec(env={"A": "2"}), spec("other", env={"A": "1"})):
        request = job_service_pb2.SubmitJobsRequest(jobs=[other], request_id="k")
        code, _, info = await refusal(grid.jobs.SubmitJobs(request))
        assert (code, info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert info.metadata["request_id"] == "k"


async def test_keys_of_two_organisations_do_not_meet(grid: Grid) -> None:
    assert await grid.submit(spec(), request_id="k") == [1]
    assert await grid.submit(spec(org_id="other"), request_id="k") == [2]


async def test_kinds_of_requests_for_devices_are_limited(grid: Grid) -> None:
    many = [spec(selector={"model": f"m{number}"}) for number in range(65)]
    code, sentence, info = await refusal(grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=many)))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert info.metadata["limit"] == "64"
    assert "combinations of target and selector" in sentence
