"""Lines that are too long for the terminal, folded between words."""

from __future__ import annotations

import re

from qgjob.cli.terminal import clean

# What stands in brackets stays together where it can.
_PARTS = re.compile(r" *(?:\([^()]*\)\S*|\S+)")
_WORDS = re.compile(r" *\S+")


def folded(line: str, width: int | None, *, indent: int = 2) -> list[str]:
    """Return a line as several that fit. A word that is longer than the terminal is wide is not cut.

    Args:
        line: May hold colours, which take no room.
        width: Columns of the terminal; None for as wide as it gets.
        indent: How many columns what follows the first line is moved to the right.
    """
    if width is None or (len(line) <= width and line.isascii()) or _size(line) <= width:
        return [line]
    parts = [
        word
        for part in _PARTS.findall(line)
        for word in ([part] if _size(part) <= width - indent else _WORDS.findall(part))
    ]
    lines = [""]
    for part in parts:
        if lines[-1].strip() and _size(lines[-1] + part) > width:
            lines.append(" " * indent + part.lstrip(" "))
        else:
            lines[-1] += part
    return lines


def _size(text: str) -> int:
    """Return how many columns of a terminal a text takes, whatever its colours."""
    plain = clean(text)
    if plain.isascii():
        return len(plain)
    from rich.cells import cell_len

    return cell_len(plain)
