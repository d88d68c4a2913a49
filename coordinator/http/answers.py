"""Answers in JSON, and how one page of a list leads to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import JSONResponse


async def answer(
    make: Callable[[], object], status: int = 200, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return what `make` makes, as JSON. It runs in a thread: a full page takes 60 ms, and agents shall not wait."""
    return await asyncio.to_thread(lambda: JSONResponse(make(), status, headers))


def next_link(request: Request, token: str) -> dict[str, str]:
    """Return the header that leads to the next page, if there is one."""
    if not token:
        return {}
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "page_token"]
    return {"Link": f'<{request.url.path}?{urlencode([*kept, ("page_token", token)])}>; rel="next"'}
