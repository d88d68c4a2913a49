"""What is served beside our own calls, and how a coordinator stops."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.server import SERVICES
from coordinator.store import StoreError
from qgjob.v1 import job_pb2, job_service_pb2
from tests.rpc.grid import PATIENCE_S, Grid, phone, refusal, spec

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_every_service_is_healthy_from_the_first_answer_on(grid: Grid) -> None:
    health: Any = health_pb2_grpc.HealthStub(grid.channel)
    for service in ("", *SERVICES):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING, service
    assert len(SERVICES) == 8


async def test_watcher_of_health_hears_of_the_stop(grid: Grid) -> None:
    health: Any = health_pb2_grpc.HealthStub(grid.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICES[0]))
    seen = [(await watch.read()).status]
    stopping = asyncio.create_task(grid.server.stop())
    async with asyncio.timeout(PATIENCE_S):
        seen.append((await watch.read()).status)
        watch.cancel()
        await stopping
    assert seen == [SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


async def test_reflection_lists_every_service(grid: Grid) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(grid.channel)  # type: ignore[arg-type]  # it knows no asyncio
    call = stub.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    listed = {service.name for service in answer.list_services_response.service}
    assert listed >= {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="qgjob.v1.JobService"))
    assert (await call.read()).file_descriptor_response.file_descriptor_proto
    await call.done_writing()


async def test_stop_ends_sessions_with_a_reason(grid: Grid) -> None:
    agent = grid.agent()
    await agent.hello(phone())
    stopping = asyncio.create_task(grid.server.stop())
    code, sentence, info = await agent.status()
    await stopping
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert sentence == "the coordinator is stopping"


async def test_call_whose_query_fails_may_be_repeated(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    await grid.submit(spec())

    def fail(_job: object) -> None:
        raise StoreError("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(grid.server._store, "get_job", fail)
        code, sentence, info = await refusal(grid.jobs.GetJob(job_service_pb2.GetJobRequest(job_id=1)))
        assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert sentence == "the coordinator's database does not answer; repeat the call in a moment"
    assert (await grid.job(1)).id == 1


async def test_commit_that_fails_tells_its_callers_and_ends_the_engine(grid: Grid) -> None:
    await grid.submit(spec())

    def refuse(_writes: object) -> None:
        raise OSError("the disk is gone")

    grid.server.engine._store.commit = refuse  # type: ignore[method-assign,assignment]
    code, _, info = await refusal(grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=[spec()])))
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    code, _, _ = await refusal(grid.jobs.SubmitJobs(job_service_pb2.SubmitJobsRequest(jobs=[spec()])))
    assert code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(OSError, match="the disk is gone"):
        await grid.server.wait(asyncio.Event())
    await grid.restart()
    listed = await grid.jobs.ListJobs(job_service_pb2.ListJobsRequest())
    assert [(job.id, job.state) for job in listed.jobs] == [(1, job_pb2.JOB_STATE_QUEUED)]
