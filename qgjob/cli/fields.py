"""Reads what people type: targets, spans, K=V pairs. Refuses with the list of what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from qgjob.errors import UsageError

TARGETS = ("any", "emulator", "device", "browserstack")
STATUSES = ("queued", "assigned", "running", "completed", "failed", "errored", "timed_out", "cancelled")
MAX_TEST_BYTES = 1_024
MAX_NAME = 128
MAX_VALUE = 1_024
MAX_ENTRIES = 64
MAX_ENV_BYTES = 32 * 1_024
MIN_SECRET = 4
MAX_RETRIES = 10
MIN_TIMEOUT_S, MAX_TIMEOUT_S = 1.0, 86_400.0
MAX_ID = 2**63 - 1
MAX_NUMBER = 2**31 - 1

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$")
_REFUSED_ENV = re.compile(
    r"(NODE_.*|LD_.*|DYLD_.*|PATH|ANDROID_.*|ADB_.*|APPIUM_.*|PLAYWRIGHT_.*|PW_TEST_.*|PWTEST_.*|QGJOB_(?!SIM_).*)",
    re.DOTALL,
)
"""What the coordinator refuses too: these steer the lab's own tools, not the test."""
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, None: 1.0}


def target_number(text: str) -> int:
    """Return the wire's number of a target."""
    return _one_of("target", text, TARGETS) + 1


def status_number(text: str) -> int:
    """Return the wire's number of a status."""
    return _one_of("status", text, STATUSES) + 1


def status_numbers(texts: list[str]) -> list[int]:
    """Return the wire's numbers of statuses; one text may name several, joined by commas."""
    return [status_number(part) for text in texts for part in text.split(",")]


def _one_of(field: str, text: str, allowed: tuple[str, ...]) -> int:
    word = text.strip().lower()
    if word not in allowed:
        raise UsageError(f"{field} {_shown(text)} is unknown", hint=f"use one of {', '.join(allowed)}")
    return allowed.index(word)


def priority(number: int) -> int:
    """Return a priority from 1 to 5."""
    if not 1 <= number <= 5:
        raise UsageError(f"priority {number} is out of range", hint="use 1 (when idle) to 5 (now)")
    return number


def test_path(value: str) -> str:
    """Return the path of a spec file, which lies inside the project."""
    if not value.strip():
        raise UsageError("test is empty", hint="give the path of a spec file, such as --test tests/login.spec.ts")
    size = len(_encoded("test", value))
    if size > MAX_TEST_BYTES:
        raise UsageError(f"test {_shown(value)} has {size} bytes", hint=f"{MAX_TEST_BYTES} is the limit")
    if value.startswith(("/", "\\", "-")) or ".." in value.replace("\\", "/").split("/"):
        raise UsageError(
            f"test {_shown(value)} is no path inside the project",
            hint="give it as the project has it, such as --test tests/login.spec.ts",
        )
    return _without_controls("test", value)


def name(field: str, value: str, *, is_required: bool = True) -> str:
    """Return a name of at most 128 characters."""
    if is_required and not value.strip():
        raise UsageError(f"{field} is empty", hint=f"give one with --{field}")
    _encoded(field, value)
    if len(value) > MAX_NAME:
        raise UsageError(f"{field} {_shown(value)} has {len(value)} characters", hint=f"{MAX_NAME} is the limit")
    return _without_controls(field, value)


def retries(number: int) -> int:
    """Return how often a test is tried again."""
    if not 0 <= number <= MAX_RETRIES:
        raise UsageError(f"retries {number} is out of range", hint=f"use 0 to {MAX_RETRIES}")
    return number


def time_limit_s(text: str) -> float:
    """Return the time limit of an attempt in seconds."""
    limit_s = span_s(text, "timeout")
    if not MIN_TIMEOUT_S <= limit_s <= MAX_TIMEOUT_S:
        raise UsageError(f"timeout {_shown(text)} is out of range", hint="use 1s to 24h")
    return limit_s


def span_s(text: str, field: str) -> float:
    """Return a span such as 90s, 10m or 1h in seconds."""
    match = _SPAN.match(text.strip())
    if match is None:
        raise UsageError(f"{field} {_shown(text)} is no span of time", hint="use 90s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def pairs(entries: list[str], field: str) -> dict[str, str]:
    """Return K=V entries as a map."""
    found: dict[str, str] = {}
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not separator or not key:
            raise UsageError(f"{field} {_shown(entry)} is not K=V", hint=f"for example --{field} name=value")
        if key in found:
            raise UsageError(f"{field} {_shown(key)} is given twice", hint="leave one of them out")
        found[key] = value
    return found


def _checked_map(found: Mapping[str, str], field: str) -> dict[str, str]:
    for key, value in found.items():
        _encoded(field, key)
        try:
            value.encode()
        except UnicodeEncodeError:
            hint = "check the locale of your shell"
            raise UsageError(f"the value of {field} {_shown(key)} is not UTF-8", hint=hint) from None
    if len(found) > MAX_ENTRIES:
        raise UsageError(f"{len(found)} times {field}", hint=f"{MAX_ENTRIES} is the limit")
    return dict(found)


def labels(entries: Mapping[str, str], field: str = "label") -> dict[str, str]:
    """Return entries whose names and values have the length of a label."""
    found = _checked_map(entries, field)
    for key, value in found.items():
        if len(key) > MAX_NAME or len(value) > MAX_VALUE:
            limits = f"{MAX_NAME} characters of a name and {MAX_VALUE} of a value are the limit"
            raise UsageError(f"{field} {_shown(key)} is too long", hint=limits)
    return found


def environment(entries: Mapping[str, str], field: str = "env") -> dict[str, str]:
    """Return entries that may be the environment of a test."""
    found = _checked_map(entries, field)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
    if size > MAX_ENV_BYTES:
        raise UsageError(f"{field} has {size} bytes", hint=f"{MAX_ENV_BYTES} is the limit")
    for key in found:
        if not _ENV_NAME.match(key):
            raise UsageError(f"{field} {_shown(key)} is no name of a variable", hint="use letters, digits and _")
        if _REFUSED_ENV.fullmatch(key):
            raise UsageError(
                f"{field} {_shown(key)} is refused: it would steer the lab's own tools",
                hint="choose another name; NODE_*, LD_*, DYLD_*, PATH, ANDROID_*, ADB_*, APPIUM_*, PLAYWRIGHT_*,"
                " PW_TEST_*, PWTEST_* and QGJOB_* are kept",
            )
    return found


def given_secrets(entries: list[str], env: Mapping[str, str]) -> dict[str, str]:
    """Return K=V entries as a map; of a K alone the value is taken from our own environment."""
    found = []
    for entry in entries:
        if not entry.partition("=")[0]:
            raise UsageError("a secret without a name is given", hint="for example --secret NAME")
        if "=" not in entry and entry not in env:
            hint = f"export it, or give --secret {entry}=VALUE"
            raise UsageError(f"secret {_shown(entry)} is not in the environment", hint=hint)
        found.append(entry if "=" in entry else f"{entry}={env[entry]}")
    return pairs(found, "secret")


def secrets(entries: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """Return entries that may be secrets beside the rest of an environment. Their values stand in no refusal."""
    found = environment(entries, "secret")
    for key, value in found.items():
        if len(value.strip()) < MIN_SECRET:
            raise UsageError(
                f"secret {_shown(key)} has fewer than {MIN_SECRET} characters",
                hint="so short a text would be masked all over the log; take a longer one, or --env",
            )
        if key in env:
            raise UsageError(f"{_shown(key)} is given with --env and with --secret", hint="leave one of them out")
    return found


def _encoded(field: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{field} {_shown(value)} is not UTF-8", hint="check the locale of your shell") from None


def _without_controls(field: str, value: str) -> str:
    if _CONTROL.search(value):
        raise UsageError(f"{field} {_shown(value)} holds control characters", hint="leave them out")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
