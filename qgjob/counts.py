"""Numbers of things as people say them."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """Return `1 job`, `0 jobs`, `3 jobs`; `thing` takes an s where there are several, `retry` becomes `retries`."""
    if count == 1:
        return f"1 {thing}"
    several = f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}s"
    return f"{count} {several}"
