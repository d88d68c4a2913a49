"""When the bytes of a log were written: few marks, and none that harms the log."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from agent import times
from agent.core.model import AttemptId, Fence, LeaseId, LeaseKey
from agent.spool import Spool
from agent.times import MOST_IN_A_CHUNK, TimesWriter, marks_between

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=1, number=1))


def written(path: Path, *notes: tuple[int, int]) -> Path:
    """A file of marks after bytes at these offsets were written at these times."""
    clock = iter([now_ms for _, now_ms in notes])
    writer = TimesWriter(path, lambda: next(clock))
    for offset, _ in notes:
        writer.note(offset)
    writer.close()
    return path


def test_at_most_one_mark_is_made_in_a_tenth_of_a_second(tmp_path: Path) -> None:
    path = written(tmp_path / "1.times", (0, 1_000), (10, 1_050), (20, 1_099), (30, 1_100), (40, 5_000))
    assert marks_between(path, 0, 100) == [(0, 1_000), (30, 1_100), (40, 5_000)]


def test_after_many_marks_they_become_rarer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MANY_MARKS", 2)
    notes = [(number, 1_000 + 100 * number) for number in range(14)]
    marks = marks_between(written(tmp_path / "1.times", *notes), 0, 100)
    assert marks == [(0, 1_000), (1, 1_100), (11, 2_100)]


def test_a_clock_that_is_set_back_stops_no_marks(tmp_path: Path) -> None:
    path = written(tmp_path / "1.times", (0, 100_000), (10, 5_000), (20, 5_050), (30, 5_200))
    assert marks_between(path, 0, 100) == [(0, 100_000), (10, 5_000), (30, 5_200)]


def test_marks_belong_to_a_range_of_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "1.times", (0, 1_000), (10, 2_000), (20, 3_000))
    assert marks_between(path, 10, 20) == [(10, 2_000)]
    assert marks_between(path, 1, 10) == []
    assert marks_between(path, 21, 99) == []
    assert marks_between(tmp_path / "none", 0, 9) == []


def test_a_chunk_has_few_marks_however_long_it_took(tmp_path: Path) -> None:
    path = written(tmp_path / "1.times", *((number, 1_000 * number) for number in range(2_500)))
    marks = marks_between(path, 100, 2_400)
    assert MOST_IN_A_CHUNK // 2 < len(marks) <= MOST_IN_A_CHUNK
    assert (marks[0], marks[1]) == ((100, 100_000), (103, 103_000))


def test_a_mark_that_was_cut_by_a_kill_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "1.times", (0, 1_000), (10, 2_000))
    path.write_bytes(path.read_bytes()[:-3])
    assert marks_between(path, 0, 100) == [(0, 1_000)]


def test_a_log_is_kept_whole_where_its_times_cannot_be(tmp_path: Path) -> None:
    clock = itertools.count(0, 1_000)
    writer = TimesWriter(Path("/dev/full"), lambda: next(clock))
    writer.note(0)
    writer.note(10)
    assert writer.lost is not None
    writer.close()


def test_times_lie_beside_their_log_and_go_with_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    attempt = AttemptId(7)
    before_ms = times.read_wall_ms()
    writer = spool.open_log(attempt, KEY)
    writer.append(b"one\n")
    spool.end_log(attempt, writer)
    log = spool.find_log(attempt)
    assert log is not None
    ((offset, time_ms),) = marks_between(log.times, 0, 4)
    assert offset == 0
    assert before_ms <= time_ms <= times.read_wall_ms()
    spool.forget_log(attempt)
    assert not log.times.exists()
    log.times.touch()
    spool.recall()
    assert not log.times.exists()
    spool.close()
