"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,15})\s*(|[KMGT]i?)B?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return a size in bytes: 1000000, 500MB, 512MiB, 2G.

    Raises:
        ValueError: It is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    number, unit = match.groups()
    base = 1_024 if unit.lower().endswith("i") else 1_000
    power = "kmgt".index(unit[0].lower()) + 1 if unit else 0
    size: int = int(number) * base**power
    return size
