"""How the coordinator does: for balancers of load, and for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from coordinator.http.models import Health
from coordinator.http.problems import problems
from coordinator.http.services import FindServices

OK = {"status": "ok"}


def make_router(find_services: FindServices, registry: CollectorRegistry) -> APIRouter:
    """Return the paths of health and metrics."""
    router = APIRouter(tags=["Health"])

    @router.get(
        "/healthz", response_model=Health, summary="Is the process alive?", responses=problems(authenticated=False)
    )
    async def healthz() -> Response:
        """Answer while the process works; restart it when it does not."""
        return JSONResponse(OK)

    @router.get(
        "/readyz",
        response_model=Health,
        summary="May calls be sent here?",
        responses=problems(503, authenticated=False),
    )
    async def readyz() -> Response:
        """Answer while calls may be sent here."""
        find_services()
        return JSONResponse(OK)

    @router.get(
        "/metrics",
        response_class=Response,
        summary="Metrics for Prometheus",
        responses={
            200: {
                "description": "For Prometheus.",
                "content": {
                    "text/plain": {"schema": {"type": "string"}, "example": 'qgjob_jobs_queued{lane="high"} 2.0\n'}
                },
            },
            **problems(),
        },
    )
    async def metrics() -> Response:
        """Return what is counted, as Prometheus reads it."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
