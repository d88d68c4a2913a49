"""What goes over the log streams."""

from __future__ import annotations

from typing import NamedTuple

from agent.core.model import AttemptId, LeaseKey


class Chunk(NamedTuple):
    attempt: AttemptId
    key: LeaseKey
    offset: int
    data: bytes


class Finished(NamedTuple):
    attempt: AttemptId
    key: LeaseKey
    size: int
    sha256: str


class Stored(NamedTuple):
    """So many bytes are durable; of a closed log nothing more is wanted."""

    attempt: AttemptId
    size: int
    is_closed: bool
