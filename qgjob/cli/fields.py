"""Reads what people type: targets, spans, K=V pairs. Refuses with the list of what is allowed."""

from __future__ import annotations

import re

from qgjob.errors import UsageError

TARGETS = ("any", "emulator", "device", "browserstack")
STATUSES = ("queued", "assigned", "running", "completed", "failed", "errored", "timed_out", "cancelled")
MAX_TEST_BYTES = 1_024

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, None: 1.0}


def target_number(text: str) -> int:
    """Return the wire's number of a target."""
    return _one_of("target", text, TARGETS) + 1


def status_number(text: str) -> int:
    """Return the wire's number of a status."""
    return _one_of("status", text, STATUSES) + 1


def _one_of(field: str, text: str, allowed: tuple[str, ...]) -> int:
    word = text.strip().lower()
    if word not in allowed:
        raise UsageError(f"{field} {_shown(text)} is unknown", hint=f"use {', '.join(allowed)}")
    return allowed.index(word)


def priority(number: int) -> int:
    """Return a priority from 1 to 5."""
    if not 1 <= number <= 5:
        raise UsageError(f"priority {number} is out of range", hint="use 1 (when idle) to 5 (now)")
    return number


def test_path(text: str) -> str:
    """Return the path of a spec file."""
    if not text.strip():
        raise UsageError("test is empty", hint="give the path of a spec file, such as --test tests/login.spec.ts")
    size = len(text.encode(errors="replace"))
    if size > MAX_TEST_BYTES:
        raise UsageError(f"test {_shown(text)} has {size} bytes", hint=f"{MAX_TEST_BYTES} is the limit")
    return text


def span_s(text: str, field: str) -> float:
    """Return a span such as 90s, 10m or 1h in seconds."""
    match = _SPAN.match(text.strip())
    if match is None:
        raise UsageError(f"{field} {_shown(text)} is no span", hint="use 90s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def pairs(entries: list[str], field: str) -> dict[str, str]:
    """Return K=V entries as a map."""
    found: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if not separator or not name:
            raise UsageError(f"--{field} {_shown(entry)} is not K=V", hint=f"for example --{field} name=value")
        if name in found:
            raise UsageError(f"--{field} {name} is given twice", hint="leave one of them out")
        found[name] = value
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
