"""How a submit of any size is cut into calls that can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qgjob.v1.job_pb2 import (
    JobSpec,
)

MAX_JOBS_PER_CALL = 10_000
MAX_CALL_BYTES = 900_000
"""Most bytes of job specs in one call; what the coordinator answers is larger and must fit 4 MiB."""


def parts(specs: Sequence[JobSpec]) -> Iterator[list[JobSpec]]:
    """Yield specs in as few calls as can carry them; the same specs are always cut in the same places."""
    part: list[JobSpec] = []
    size = 0
    for spec in specs:
        more = spec.ByteSize() + 8
        if part and (len(part) == MAX_JOBS_PER_CALL or size + more > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(spec)
        size += more
    yield part


def part_key(key: str, number: int) -> str:
    """Return the idempotency key of one call of a split submit."""
    if number == 0:
        return key
    import hashlib

    return hashlib.sha256(f"{key}/{number}".encode()).hexdigest()


def repeat_hint(key: str) -> str:
    """Return how a submit is repeated that may have been accepted."""
    return f"repeat the same submit with --idempotency-key {key}: nothing is submitted twice"
