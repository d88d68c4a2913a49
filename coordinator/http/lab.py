"""What stands in the lab, and what waits for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from coordinator.http.answers import answer, next_link
from coordinator.http.models import Agent, Build, BuildPage, Device, Page, QueueStatus
from coordinator.http.problems import problems
from coordinator.http.services import FindServices
from qgjob import resources
from qgjob.v1 import agent_service_pb2, build_service_pb2, device_service_pb2, queue_service_pb2


def make_router(find: FindServices) -> APIRouter:
    """Return the paths of devices, agents and queues."""
    router = APIRouter(tags=["Lab"])

    @router.get("/queues/status", response_model=QueueStatus, responses=problems(), summary="The queue at a glance")
    async def queue_status() -> Response:
        """Return the lanes, the running and waiting jobs, and what batches have saved."""
        found = await find().queue.GetQueueStatus(queue_service_pb2.GetQueueStatusRequest())
        return await answer(find, lambda: resources.queue_status(found.status))

    @router.get("/devices", response_model=list[Device], responses=problems(400), summary="List devices")
    async def list_devices(request: Request, page: Annotated[Page, Query()]) -> Response:
        """Return a page of devices by id; a `Link` header with `rel="next"` leads to the next page."""
        found = await find().devices.ListDevices(
            device_service_pb2.ListDevicesRequest(page_size=page.limit, page_token=page.page_token)
        )
        return await answer(
            find,
            lambda: [resources.device(device) for device in found.devices],
            headers=next_link(request, found.next_page_token),
        )

    @router.get("/agents", response_model=list[Agent], responses=problems(400), summary="List agents")
    async def list_agents(request: Request, page: Annotated[Page, Query()]) -> Response:
        """Return a page of agents by name; a `Link` header with `rel="next"` leads to the next page."""
        found = await find().agents.ListAgents(
            agent_service_pb2.ListAgentsRequest(page_size=page.limit, page_token=page.page_token)
        )
        return await answer(
            find,
            lambda: [resources.agent(agent) for agent in found.agents],
            headers=next_link(request, found.next_page_token),
        )

    @router.get("/builds", response_model=list[Build], responses=problems(400), summary="List builds")
    async def list_builds(request: Request, page: Annotated[BuildPage, Query()]) -> Response:
        """Return a page of builds, the last registered or installed first; a `Link` header leads to the next page."""
        found = await find().builds.ListBuilds(
            build_service_pb2.ListBuildsRequest(org_id=page.org_id, page_size=page.limit, page_token=page.page_token)
        )
        return await answer(
            find,
            lambda: [resources.build(build) for build in found.builds],
            headers=next_link(request, found.next_page_token),
        )

    return router
