"""What `doctor` looks at: each check with what was found and what to do about it."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from qgjob.access import Access
from qgjob.client import Client
from qgjob.errors import ClientError, NotAllowed

HEADING_WIDTH = 22
ANSWER_S = 3.0
"""Who asks how things are does not wait long for what swallows calls: to connect alone may take 5 s, to hang 30 s."""


class Finding(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    finding: Finding
    message: str
    hint: str = ""


def passed(name: str, message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, finding=Finding.OK, message=message)


def warned(name: str, message: str, hint: str) -> Check:
    """Return a check that found what can stay as it is, with what to do about it."""
    return Check(name=name, finding=Finding.WARNING, message=message, hint=hint)


def failed(name: str, message: str, hint: str = "") -> Check:
    """Return a check that found what must be mended."""
    return Check(name=name, finding=Finding.FAILED, message=message, hint=hint)


def lines(checks: Iterable[Check], width: int | None = None) -> list[str]:
    """Return checks as people read them, on lines of a width; None for as wide as it gets."""
    told: list[str] = []
    for check in checks:
        told += _wrapped(f"{check.finding:<9}{check.name:<13}", " ".join(check.message.split()), width)
        if check.hint:
            told += _wrapped("", check.hint, width)
    return told


def _wrapped(heading: str, sentence: str, width: int | None) -> list[str]:
    """Return a sentence behind its heading, and what has no room there below itself. No word is cut."""
    parts = [sentence]
    if width is not None:
        room = max(1, width - HEADING_WIDTH)
        parts = textwrap.wrap(sentence, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{heading if number == 0 else '':<{HEADING_WIDTH}}{part}" for number, part in enumerate(parts)]


def check_coordinator(target: str, access: Access, release: str, *, is_agent: bool = False) -> Check:
    """Ask the coordinator whether it takes our calls, and compare releases.

    Raises:
        ClientError: It does not answer, or refuses.
    """
    begun = time.monotonic()
    try:
        with Client(target, access=access) as client:
            theirs = client.release(timeout_s=ANSWER_S)
    except NotAllowed as refusal:
        # An agent's token opens no lists, but whoever is told so has a token that counts.
        if is_agent and refusal.fields.get("role") == "client":
            return passed("coordinator", f"{target} answers, and knows the token of {refusal.fields.get('name', '?')}")
        raise
    took_ms = (time.monotonic() - begun) * 1_000
    message = f"{target} answers in {took_ms:.0f} ms, release {theirs or 'unknown'}"
    if theirs == release:
        return passed("coordinator", message)
    hint = f"this is release {release}; one minor release apart is well"
    return warned("coordinator", message, hint)


def check_of_error(name: str, error: ClientError) -> Check:
    """Return the failed check of an error."""
    return failed(name, str(error), error.hint)
