"""Answers in JSON, and how one page of a list leads to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import JSONResponse

from coordinator.http.services import FindServices


async def answer(
    find: FindServices, make: Callable[[], object], status: int = 200, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return what `make` makes, as JSON. It runs in a thread: a full page takes 60 ms, and agents shall not wait.

    Raises:
        NotLeader: This coordinator has lost its lead meanwhile; what was read may be old.
    """
    made = await asyncio.to_thread(lambda: JSONResponse(make(), status, headers))
    find()
    return made


def next_link(request: Request, token: str) -> dict[str, str]:
    """Return the header that leads to the next page, if there is one."""
    if not token:
        return {}
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "page_token"]
    return {"Link": f'<{request.url.path}?{urlencode([*kept, ("page_token", token)])}>; rel="next"'}
