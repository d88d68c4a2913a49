"""The HTTP port's app: the calls of the services, in JSON."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, disable_created_metrics
from starlette.types import ASGIApp

from coordinator.http import artifacts, dashboard, docs, health, jobs, lab
from coordinator.http.gate import Gate
from coordinator.http.problems import add_handlers
from coordinator.http.services import FindServices
from coordinator.tokens import TokenFile

DESCRIPTION = """
The device lab's coordinator. The JSON is that of the `qgjob` command; a refusal is a problem (RFC 9457) whose `reason`
is that of the command line and of gRPC. With a token file every call carries `Authorization: Bearer TOKEN`, but for
this page and the health of the coordinator.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the HTTP port stands on."""

    services: FindServices
    """Asked for each request, before it and after what it read."""
    registry: CollectorRegistry
    streams: Counter[str]
    """Open streams by kind."""
    tokens: TokenFile | None
    asks_for_own_name: bool
    """See `Gate`."""
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
    app.include_router(jobs.make_router(parts.services, parts.streams, parts.stopping))
    app.include_router(artifacts.make_router(parts.services))
    app.include_router(lab.make_router(parts.services))
    app.include_router(health.make_router(parts.services, parts.registry))
    app.include_router(docs.make_router())
    app.include_router(dashboard.make_router())
    app.mount(dashboard.PATH, dashboard.Files())
    docs.describe(app)
    return Gate(
        app,
        tokens=parts.tokens,
        asks_for_own_name=parts.asks_for_own_name,
        find_services=parts.services,
    )
