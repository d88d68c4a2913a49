"""The rest of a spec: what is left to run when earlier attempts of its job have done some of its tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.runners.appwright_project import NODE_FILES

LIST_OPTIONS = ("--list", "--reporter", str(NODE_FILES / "lister.cjs"))
"""What makes Playwright list a spec instead of running it; the list goes to QGJOB_LISTING."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Tests that were not done, each as a line of Playwright's `--test-list`."""

    lines: tuple[str, ...]
    total: int
    """Tests of the whole spec."""

    def told(self) -> str:
        """Return a line about it for the attempt's log."""
        return f"qgjob: {self.total - len(self.lines)} of {self.total} tests were done by an earlier attempt"

    def options(self, folder: Path) -> tuple[str, str]:
        """Write the list to a folder, and return what makes Playwright keep to it."""
        path = folder / "rest"
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")
        return "--test-list", str(path)


def rest_of(listing: Path, done: Sequence[str]) -> Rest | None:
    """Return what is left of a spec, None where the whole of it has to run.

    Args:
        listing: What the lister wrote. There is none if the spec could not be loaded; its own run will say why.
        done: Ids of the tests that were done. One that the spec does not hold means that it is not the spec of then.
    """
    if not listing.exists():
        return None
    lines: dict[str, str] = json.loads(listing.read_bytes())
    if not lines or not lines.keys() >= set(done):
        return None
    left = tuple(line for test, line in lines.items() if test not in done)
    return Rest(lines=left, total=len(lines))
