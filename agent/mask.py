"""Masks secrets in what a test tells, before anybody else hears it.

An occurrence may come in pieces, and occurrences may overlap: all that belongs to one becomes `***`, and what may still
become one is held back until that is decided. A value of several lines is masked line by line too, since logs are read
and written that way. What a test encodes, as in Base64, or cuts up, is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agent.core.model import Failure, TestResult

MASK = b"***"
MIN_BYTES = 4
"""Lines of a secret that are shorter are left alone: they would be found everywhere."""


def patterns(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return what must be shown nowhere, the longest first."""
    found = {text.encode() for value in values for text in (value, *map(str.strip, value.splitlines()))}
    return tuple(sorted((text for text in found if len(text) >= MIN_BYTES), key=lambda text: (-len(text), text)))


class Mask:
    """Masks a stream of bytes that may be cut in two anywhere."""

    def __init__(self, values: Iterable[str]) -> None:
        """Take the secrets."""
        self._patterns = patterns(values)
        self._held = b""
        """The beginning of what may become an occurrence."""
        self._covered = 0
        """So many of its first bytes belong to one that was told already."""

    def feed(self, data: bytes, *, is_end: bool = False) -> bytes:
        """Return what can be told now."""
        if not self._patterns:
            return data
        text = self._held + data
        until = len(text) if is_end else self._undecided(text)
        told, place = [], self._covered
        for start, end in _joined(self._found(text)):
            if start >= until:
                break
            if start >= place:
                told += [text[place:start], MASK]
            place = max(place, end)
        told.append(text[place:until])
        self._held, self._covered = text[until:], max(0, place - until)
        return b"".join(told)

    def _found(self, text: bytes) -> Iterator[tuple[int, int]]:
        for pattern in self._patterns:
            place = text.find(pattern)
            while place >= 0:
                yield place, place + len(pattern)
                place = text.find(pattern, place + 1)

    def _undecided(self, text: bytes) -> int:
        """Return the first place from which on all of the text is the beginning of an occurrence."""
        return min((_begun(text, pattern) for pattern in self._patterns), default=len(text))


def _begun(text: bytes, pattern: bytes) -> int:
    first = pattern[:1]
    place = text.find(first, max(0, len(text) - len(pattern) + 1))
    while place >= 0 and not pattern.startswith(text[place:]):
        place = text.find(first, place + 1)
    return place if place >= 0 else len(text)


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order; those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def masked(text: str, values: Iterable[str]) -> str:
    """Return a text without secrets, and without the beginning of one at its end: it may have been cut there."""
    mask = Mask(values)
    told = mask.feed(text.encode())
    rest = mask.feed(b"", is_end=True)
    return (told + (MASK if len(rest) >= MIN_BYTES else rest)).decode()


def masked_test(test: TestResult, values: Iterable[str]) -> TestResult:
    """Return the result of a test without secrets."""
    return replace(test, title=masked(test.title, values), error=masked(test.error, values))


def masked_failure(failure: Failure | None, values: Iterable[str]) -> Failure | None:
    """Return a failure without secrets."""
    return None if failure is None else replace(failure, message=masked(failure.message, values))
