"""The HTTP port's app: the calls of the services, in JSON."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, disable_created_metrics
from starlette.types import ASGIApp

from coordinator.http import docs, health, jobs, lab
from coordinator.http.gate import Gate
from coordinator.http.problems import add_handlers
from coordinator.services.agent import AgentService
from coordinator.services.job import JobService
from coordinator.services.lab import DeviceService
from coordinator.services.log import LogService
from coordinator.services.queue import QueueService
from coordinator.tokens import TokenFile

DESCRIPTION = """
The device lab's coordinator. The JSON is that of the `qgjob` command; a refusal is a problem (RFC 9457) whose `reason`
is that of the command line and of gRPC. With a token file every call carries `Authorization: Bearer TOKEN`, but for
this page and the health of the coordinator.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the HTTP port stands on."""

    jobs: JobService
    logs: LogService
    queue: QueueService
    devices: DeviceService
    agents: AgentService
    registry: CollectorRegistry
    streams: Counter[str]
    """Open streams by kind."""
    tokens: TokenFile | None
    asks_for_own_name: bool
    """See `Gate`."""
    check_serving: Callable[[], None]
    """Raises a refusal while this coordinator may not answer for the lab."""
    stopping: asyncio.Event
    """Set when the coordinator stops."""
    release: str


def make_app(parts: Parts) -> ASGIApp:
    """Return the app behind its gate."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    app = FastAPI(
        title="qgjob",
        summary="A self-hosted device-lab grid for AppWright",
        description=DESCRIPTION,
        version=parts.release,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    add_handlers(app)
    app.include_router(jobs.make_router(parts.jobs, parts.logs, parts.streams, parts.stopping))
    app.include_router(lab.make_router(parts.queue, parts.devices, parts.agents))
    app.include_router(health.make_router(parts.check_serving, parts.registry))
    app.include_router(docs.make_router())
    docs.describe(app)
    return Gate(
        app,
        tokens=parts.tokens,
        asks_for_own_name=parts.asks_for_own_name,
        check_serving=parts.check_serving,
    )
