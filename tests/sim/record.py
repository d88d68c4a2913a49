"""Keeps what finished pieces of a long run have shown, so that a run that was stopped goes on where it was.

A record belongs to the code that was simulated: with any other code it is refused, because seeds mean something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.sim.batch import Summary

ROOT = Path(__file__).parents[2]
SIMULATED = ("coordinator/core", "coordinator/wire", "agent/core", "agent/wire.py", "qgjob/v1", "tests/sim")


class OtherCode(Exception):
    """The record was made with other code."""


class Record:
    """A file with a line for the code, and one for each piece."""

    def __init__(self, path: Path) -> None:
        """Open a record, or begin it.

        Raises:
            OtherCode: It is one of other code.
        """
        self._path = path
        self._pieces: dict[tuple[int, int], Summary] = {}
        code = _code_digest()
        if not path.exists():
            path.write_text(json.dumps({"code": code}) + "\n")
            return
        head, *lines = path.read_text().splitlines()
        if json.loads(head)["code"] != code:
            raise OtherCode(f"{path} belongs to other code; give another file, or go back to that code")
        for first, count, summary in _whole(lines):
            self._pieces[first, count] = summary

    def find(self, first: int, count: int) -> Summary | None:
        """Return what a piece has shown, None if it was not finished."""
        return self._pieces.get((first, count))

    def add(self, first: int, count: int, summary: Summary) -> None:
        """Note a piece that is finished."""
        fields = asdict(summary)
        fields["pairs"] = [[*pair, seeds] for pair, seeds in summary.pairs.items()]
        with self._path.open("a") as file:
            file.write(json.dumps({"first": first, "count": count, "summary": fields}) + "\n")


def _whole(lines: list[str]) -> Iterator[tuple[int, int, Summary]]:
    for line in lines:
        try:
            piece = json.loads(line)
        except ValueError:
            continue  # The run was stopped while it wrote: the piece is run again.
        fields = piece["summary"]
        fields["pairs"] = {(kind, before, after): seeds for kind, before, after, seeds in fields["pairs"]}
        fields["failures"] = [(seed, breach) for seed, breach in fields["failures"]]
        yield piece["first"], piece["count"], Summary(**fields)


def _code_digest() -> str:
    digest = hashlib.sha256()
    for name in SIMULATED:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
