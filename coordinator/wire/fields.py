"""Single fields of messages: times, names, digests; where outside text is validated or cut."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core import model as m
from coordinator.core.errors import InvalidRequest
from coordinator.wire.limits import MAX_NAME, MAX_SPAN_US, MAX_VALUE

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
"""Escape stays: a test's error may be coloured, and who shows it on a terminal strips that. PostgreSQL refuses NUL."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def timestamp(wall_us: int) -> Timestamp:
    """Return microseconds since the epoch as a Timestamp."""
    return Timestamp(seconds=wall_us // m.SECOND_US, nanos=wall_us % m.SECOND_US * 1_000)


def duration(span_us: int) -> Duration:
    """Return a span in microseconds as a Duration."""
    return Duration(seconds=span_us // m.SECOND_US, nanos=span_us % m.SECOND_US * 1_000)


def span_us(message: Duration) -> int:
    """Return a Duration in microseconds; a negative one counts as 0, an absurd one as `MAX_SPAN_US`."""
    return min(MAX_SPAN_US, max(0, message.seconds * m.SECOND_US + message.nanos // 1_000))


def text(field: str, value: str, most: int, *, is_required: bool = True) -> str:
    """Return one line of a user's.

    Raises:
        InvalidRequest: It is empty though required, too long or holds control characters.
    """
    if is_required and not value.strip():
        raise InvalidRequest(field, f"{field} is empty")
    if len(value) > most:
        raise InvalidRequest(field, f"{field} has {len(value)} characters, and {most} is the limit")
    if _CONTROL.search(value):
        raise InvalidRequest(field, f"{field} holds control characters")
    return value


def optional_text(field: str, value: str) -> str:
    """Return a name that may be empty.

    Raises:
        InvalidRequest: It is too long or holds control characters.
    """
    return text(field, value, MAX_NAME, is_required=False)


def entries(field: str, mapping: Mapping[str, str], most: int) -> Mapping[str, str]:
    """Return a mapping sorted by name.

    Raises:
        InvalidRequest: It has too many entries, or one is too long or unprintable.
    """
    if not mapping:
        return m.NOTHING
    if len(mapping) > most:
        raise InvalidRequest(field, f"{field} has {len(mapping)} entries, and {most} is the limit")
    found = dict(mapping)  # a map of protobuf takes its time to go through
    for name, value in found.items():
        if not name.strip() or len(name) > MAX_NAME or _CONTROL.search(name):
            raise InvalidRequest(field, f"{field} has a name that is empty, over {MAX_NAME} characters or unprintable")
        size = len(value.encode())
        if size > MAX_VALUE:
            raise InvalidRequest(field, f"{field} {name} has {size} bytes, and {MAX_VALUE} is the limit")
        if _CONTROL.search(value):
            raise InvalidRequest(field, f"{field} {name} holds control characters")
    return MappingProxyType(dict(sorted(found.items())))


def digest(field: str, value: str) -> str:
    """Return a SHA-256 in hexadecimal.

    Raises:
        InvalidRequest: It is none.
    """
    if _DIGEST.fullmatch(value) is None:
        raise InvalidRequest(field, f"{field} is no SHA-256 in lower-case hexadecimal")
    return value


def clean(value: str, most: int) -> str:
    """Return one line of an agent's, cut to size, without control characters."""
    line = value[:most]
    return line if line.isprintable() else _CONTROL.sub(" ", line)
