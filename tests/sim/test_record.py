"""A long run that was stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.batch import Summary
from tests.sim.record import OtherCode, Record

DONE = Summary(
    seeds=25,
    span_us=7,
    events=[10, 20],
    rests_us=[3],
    pairs={("job", "queued", "assigned"): 4},
    failures=[(12, "I1: a breach")],
)


def test_finished_piece_is_found_again(tmp_path: Path) -> None:
    Record(tmp_path / "run").add(0, 25, DONE)

    assert Record(tmp_path / "run").find(0, 25) == DONE


def test_piece_of_another_size_is_not_found(tmp_path: Path) -> None:
    Record(tmp_path / "run").add(0, 25, DONE)

    assert Record(tmp_path / "run").find(0, 10) is None


def test_piece_that_was_half_written_is_run_again(tmp_path: Path) -> None:
    Record(tmp_path / "run").add(0, 25, DONE)
    with (tmp_path / "run").open("a") as file:
        file.write('{"first": 25, "cou')

    again = Record(tmp_path / "run")

    assert (again.find(0, 25), again.find(25, 25)) == (DONE, None)


def test_record_of_other_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text('{"code": "of last year"}\n')

    with pytest.raises(OtherCode, match="belongs to other code"):
        Record(tmp_path / "run")
