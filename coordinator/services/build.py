"""BuildService: registers what was uploaded, and shows what the lab has tested."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from coordinator import wire
from coordinator.blobs import BlobStore
from coordinator.core.errors import InvalidRequest, NotFound
from coordinator.core.model import AppKey, Build
from coordinator.engine import Engine
from coordinator.services.chunks import telling_storage
from coordinator.store import Store
from qgjob.v1 import build_service_pb2, build_service_pb2_grpc


class BuildService(build_service_pb2_grpc.BuildServiceServicer):
    """Builds from the store; registrations through the engine."""

    def __init__(self, engine: Engine, store: Store, blobs: BlobStore) -> None:
        self._engine = engine
        self._store = store
        self._blobs = blobs

    async def ListBuilds(
        self, request: build_service_pb2.ListBuildsRequest, context: object = None
    ) -> build_service_pb2.ListBuildsResponse:
        """Return a page of builds, the last registered or installed first."""
        size = wire.page_size(request.page_size)
        if request.page_token and not (request.page_token.isdecimal() and len(request.page_token) < 10):
            raise InvalidRequest("page_token", "page_token is not one that this service gave out")
        first = int(request.page_token or 0)
        builds = await asyncio.to_thread(self._store.list_builds)
        mine = [build for build in builds if request.org_id in ("", build.app.org_id)]
        mine.sort(key=lambda build: (-_seen_us(build), build.app.org_id, build.app.app_version_id))
        page = mine[first : first + size]
        token = str(first + size) if len(mine) > first + size else ""
        return build_service_pb2.ListBuildsResponse(
            builds=[wire.build_out(build) for build in page], next_page_token=token
        )

    async def RegisterBuild(
        self, request: build_service_pb2.RegisterBuildRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> build_service_pb2.RegisterBuildResponse:
        """Say which uploaded blob an app version is."""
        digest = wire.digest("digest", request.digest)
        with telling_storage():
            size = await self._blobs.size(digest)
        if size is None:
            raise NotFound("blob", digest)
        event = wire.registration_requested(request, digest, size)
        await self._engine.submit(event)
        version = AppKey(org_id=event.org_id, app_version_id=event.app_version_id)
        build = self._engine.scheduler.ledger.builds.get(version)
        assert build is not None, "it was registered just now"
        return build_service_pb2.RegisterBuildResponse(build=wire.build_out(build))


def _seen_us(build: Build) -> int:
    return max(build.install_us, build.register_us)
