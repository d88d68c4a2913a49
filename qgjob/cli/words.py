"""Numbers, instants and names as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from qgjob.cli.terminal import clean
from qgjob.resources import Resource

MIB = 1_024 * 1_024


def parse(instant: str | None) -> datetime | None:
    """Return an RFC 3339 instant as a datetime."""
    return datetime.fromisoformat(instant) if instant else None


def span(seconds: float) -> str:
    """Return a span as people read it: 0.4s, 12s, 3m 10s, 2h 5m, 3d."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s".replace(".0s", "s")
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest}s" if rest and 0 < minutes < 10 else rough_span(seconds)


def rough_span(seconds: float) -> str:
    """Return a span in whole units: 0s, 12s, 3m, 2h 5m, 3d."""
    if seconds < 60:
        return f"{max(0, int(seconds))}s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    return f"{hours // 24}d"


def ago(instant: str | None) -> str:
    """Return how long ago an instant was."""
    when = parse(instant)
    return f"{span((datetime.now(UTC) - when).total_seconds())} ago" if when is not None else "-"


def until(instant: str | None) -> str:
    """Return in how long an instant will be; what is overdue may come any moment."""
    when = parse(instant)
    if when is None:
        return "-"
    seconds = (when - datetime.now(UTC)).total_seconds()
    return f"in about {rough_span(seconds)}" if seconds >= 1 else "any moment"


def took(job: Resource) -> str:
    """Return how long a job ran, or has been running. One that waits again after a pre-emption runs no more."""
    start, end = parse(job["start_time"]), parse(job["end_time"])
    if start is None or job["status"] == "queued":
        return "-"
    return span(((end or datetime.now(UTC)) - start).total_seconds())


def queue_seconds(job: Resource) -> float:
    """Return how long a job waited before its first start, or has been waiting if it waits now."""
    create, start = parse(job["create_time"]), parse(job["start_time"])
    assert create is not None
    until = datetime.now(UTC) if start is None or job["status"] == "queued" else start
    return (until - create).total_seconds()


def spec_name(job: Resource) -> str:
    """Return the file name of a job's spec."""
    return clean(str(job["test"])).rsplit("/", 1)[-1]


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    if count < 1_024:
        return f"{count} B"
    return f"{count / 1_024:.1f} KiB" if count < MIB else f"{count / MIB:.1f} MiB"
