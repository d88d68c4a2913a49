"""Makes the records of the machines without the guard that keeps them from being changed.

A record that is frozen is made with a call for each of its values, and a seed makes 16,000 of them: without the guard
it takes a tenth less time. mypy sees that nothing changes a record; the seeds of `make test` and whatever is run again
singly run with the guard, and `test_thaw` compares both.
"""

from __future__ import annotations

import dataclasses
import sys

THAWED = ("agent.", "coordinator.", "tests.sim.")
SIMULATED = ("agent.core.model", "coordinator.core.model")


def thaw_records() -> None:
    """Thaw the records of what this process imports from now on.

    Raises:
        RuntimeError: The machines were imported before: their records are frozen.
    """
    if known := [name for name in SIMULATED if name in sys.modules]:
        raise RuntimeError(f"records are thawed before the machines are imported, and {known} are here already")
    frozen_or_not = dataclasses.dataclass

    def dataclass(kind: type | None = None, /, **options: bool) -> object:
        if kind is None:
            return lambda late_kind: dataclass(late_kind, **options)
        return frozen_or_not(kind, **(_thawed(kind, options) if kind.__module__.startswith(THAWED) else options))

    dataclasses.dataclass = dataclass  # type: ignore[assignment]


def _thawed(kind: type, options: dict[str, bool]) -> dict[str, bool]:
    """Leave out the guard alone: as one of the frozen, a record is equal to its like and has a hash."""
    if not options.get("frozen"):
        return options
    is_hash_made = options.get("eq", True) and "__hash__" not in vars(kind)
    return {**options, "frozen": False, "unsafe_hash": is_hash_made}
