"""Tables that fit the terminal: flexible columns are cut first, then optional ones are left out, the last one first."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
FLEXIBLE_WIDTH = 14
"""A flexible column is not cut below this while there are optional columns to leave out."""
LEAST_WIDTH = 4

_BOLD = "1"
_STATE_CODES = {
    "queued": "33",
    "assigned": "36",
    "running": "36",
    "completed": "32",
    "failed": "31",
    "errored": "35",
    "timed_out": "31",
    "cancelled": "2",
    "idle": "32",
    "leased": "36",
    "reserved": "36",
    "fencing": "35",
    "offline": "31",
    "quarantined": "31",
    "connected": "32",
    "disconnected": "31",
    "stopped": "2",
}
"""Colours of states as a terminal is told them (SGR)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    is_flexible: bool = False
    """May be cut."""
    is_optional: bool = False
    """May be left out where the terminal is narrow."""
    is_end_told: bool = False
    """Where it is cut its end stays: the end of a path says more than its beginning."""


def table_lines(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    is_colourful: bool = False,
    ellipsis: str = "…",
) -> list[str]:
    """Return a heading and a line for each row. The column named State is coloured by its word.

    Args:
        columns: What stands in a row.
        rows: Cells without control sequences and line ends.
        width: Columns of the terminal; None for as wide as it gets.
        is_colourful: Whether colours may be used.
        ellipsis: One character that stands for what was cut.
    """
    natural = [
        max(cell_width(column.name), *(cell_width(row[index]) for row in rows)) for index, column in enumerate(columns)
    ]
    kept = _kept(columns, natural, width)
    widths = _cut_widths(columns, natural, kept, width)

    def line(cells: Sequence[str], *, is_heading: bool = False) -> str:
        fitted = []
        for index in kept:
            text = _fitted(cells[index], widths[index], ellipsis, keeps_end=columns[index].is_end_told)
            if index != kept[-1]:
                text += " " * (widths[index] - cell_width(text))
            is_painted = is_colourful and not is_heading and columns[index].name == "State"
            fitted.append(_painted(text, _STATE_CODES.get(cells[index], "")) if is_painted else text)
        return (" " * GAP).join(fitted).rstrip()

    heading = line([column.name for column in columns], is_heading=True)
    return [_painted(heading, _BOLD) if is_colourful else heading, *(line(row) for row in rows)]


def _kept(columns: Sequence[Column], natural: Sequence[int], width: int | None) -> list[int]:
    kept = list(range(len(columns)))
    if width is None:
        return kept
    least = [
        min(size, FLEXIBLE_WIDTH) if column.is_flexible else size for column, size in zip(columns, natural, strict=True)
    ]
    while _total(least, kept) > width:
        optional = [index for index in kept if columns[index].is_optional]
        if not optional:
            break
        kept.remove(optional[-1])
    return kept


def _cut_widths(columns: Sequence[Column], natural: Sequence[int], kept: list[int], width: int | None) -> list[int]:
    """Return the widths of columns; the widest flexible one gives way first."""
    widths = list(natural)
    while width is not None and _total(widths, kept) > width:
        flexible = [index for index in kept if columns[index].is_flexible and widths[index] > LEAST_WIDTH]
        if not flexible:
            break
        widths[max(flexible, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[index] for index in kept) + GAP * (len(kept) - 1)


def _fitted(text: str, width: int, ellipsis: str, *, keeps_end: bool) -> str:
    if cell_width(text) <= width:
        return text
    if keeps_end:
        return ellipsis + _first(text[::-1], width - 1)[::-1]
    return _first(text, width - 1) + ellipsis


def _first(text: str, width: int) -> str:
    taken = 0
    for index, letter in enumerate(text):
        taken += cell_width(letter)
        if taken > width:
            return text[:index]
    return text


def cell_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_letter_width(letter) for letter in text)


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def _painted(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if code else text
