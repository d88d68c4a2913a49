"""Which releases may work together: those of one major release that are at most one minor release apart.

A lab is upgraded host by host, so each side accepts the one before and the one after; a protocol that breaks with an
older release has a number of its own besides.
"""

from __future__ import annotations

import re

MOST_MINORS_APART = 1

_RELEASE = re.compile(r"(\d{1,6})\.(\d{1,6})(?:[^\d\s]\S*)?")


def misfit(coordinator: str, other: str, side: str = "agent") -> str | None:
    """Return what to upgrade, as a sentence; None where the two may work together.

    Args:
        coordinator: Its release, as in 1.4.2.
        other: The other side's.
        side: What the other side is called.
    """
    ours, theirs = _parsed(coordinator), _parsed(other)
    if theirs is None or ours is None:
        return f"release {other!r} of the {side} cannot be read; install release {coordinator} there"
    if ours[0] == theirs[0] and abs(ours[1] - theirs[1]) <= MOST_MINORS_APART:
        return None
    if theirs < ours:
        return f"the {side} has release {other}, too old for this coordinator's {coordinator}; upgrade the {side}"
    return f"the {side} has release {other}, too new for this coordinator's {coordinator}; upgrade the coordinator"


def _parsed(release: str) -> tuple[int, int] | None:
    found = _RELEASE.fullmatch(release)
    return (int(found[1]), int(found[2])) if found is not None else None
