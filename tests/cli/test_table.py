"""Tables: what is cut, what is left out, and what never is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from qgjob.cli.table import LEAST_WIDTH, Column, table_lines

COLUMNS = (
    Column("ID"),
    Column("State"),
    Column("Test", is_flexible=True, is_end_told=True),
    Column("Device", is_flexible=True, is_optional=True),
    Column("Age", is_optional=True),
)
ROWS = (
    ("12", "running", "tests/onboarding/first.spec.ts", "emulator-1@lab", "2m"),
    ("3", "completed", "tests/login.spec.ts", "-", "1h 5m"),
)


def lines_of(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    return table_lines(Console(color_system=None), columns, rows, width=width)


def test_a_wide_terminal_shows_everything() -> None:
    assert lines_of(COLUMNS, ROWS, 100) == [
        "ID  State      Test                            Device          Age",
        "12  running    tests/onboarding/first.spec.ts  emulator-1@lab  2m",
        "3   completed  tests/login.spec.ts             -               1h 5m",
    ]


def test_the_widest_flexible_column_is_cut_first_and_a_path_keeps_its_end() -> None:
    assert lines_of(COLUMNS, ROWS, 60) == [
        "ID  State      Test                    Device          Age",
        "12  running    …oarding/first.spec.ts  emulator-1@lab  2m",
        "3   completed  tests/login.spec.ts     -               1h 5m",
    ]


def test_a_narrow_terminal_loses_optional_columns_from_the_right() -> None:
    assert lines_of(COLUMNS, ROWS, 45) == [
        "ID  State      Test            Device",
        "12  running    …first.spec.ts  emulator-1@lab",
        "3   completed  …login.spec.ts  -",
    ]
    assert lines_of(COLUMNS, ROWS, 24) == [
        "ID  State      Test",
        "12  running    ….spec.ts",
        "3   completed  ….spec.ts",
    ]


def test_a_terminal_too_narrow_for_the_rest_still_gets_whole_ids_and_states() -> None:
    assert lines_of(COLUMNS, ROWS, 5) == [
        "ID  State      Test",
        "12  running    ….ts",
        "3   completed  ….ts",
    ]


def test_without_a_terminal_there_is_no_limit() -> None:
    row = ("1", "queued", "x" * 500, "-", "0s")
    assert "x" * 500 in lines_of(COLUMNS, [row], None)[1]


def test_a_colour_marks_the_state_and_changes_no_width() -> None:
    painted = table_lines(Console(force_terminal=True, color_system="standard"), COLUMNS, ROWS, width=100)
    assert painted[0].startswith("\x1b[1mID")
    assert "\x1b[36mrunning" in painted[1]
    assert "\x1b[32mcompleted" in painted[2]
    assert [Text.from_ansi(line).plain.rstrip() for line in painted] == lines_of(COLUMNS, ROWS, 100)


def test_wide_letters_take_two_columns_and_marks_none() -> None:
    columns = (Column("ID"), Column("Test", is_flexible=True), Column("End", is_flexible=True, is_end_told=True))
    assert lines_of(columns, [("1", "試験試験", "e\u0301")], 17)[1] == "1   試験試験  e\u0301"
    assert lines_of(columns, [("1", "試験試験", "試験試験")], 16)[1] == "1   試 …  … 試験"


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    row = ("1", "queued", "[red]a[/red].ts", ":phone:", "https://x")
    assert lines_of(COLUMNS, [row], None)[1] == "1   queued  [red]a[/red].ts  :phone:  https://x"


def test_ten_thousand_rows_take_no_more_than_a_second_and_a_half_of_the_processor() -> None:
    rows = [(str(number), "running", f"{'deep/' * 12}{number}.spec.ts", "emulator-1", "2m") for number in range(10_000)]
    begun = time.process_time()
    lines = lines_of(COLUMNS, rows, 80)
    assert time.process_time() - begun < 1.5
    assert (len(lines), max(map(len, lines))) == (10_001, 80)
    assert lines[-1].startswith("9999  running  …")


CELLS = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=40)


@given(rows=st.lists(st.tuples(*[CELLS] * len(COLUMNS)), min_size=1, max_size=5), width=st.integers(1, 200))
def test_no_line_is_wider_than_the_terminal_unless_nothing_is_left_to_cut(
    rows: list[tuple[str, ...]], width: int
) -> None:
    lines = lines_of(COLUMNS, rows, width)
    fixed = sum(max(len(COLUMNS[index].name), *(cell_len(row[index]) for row in rows)) for index in (0, 1))
    bound = max(width, fixed + LEAST_WIDTH + 2 * 2)
    assert all(cell_len(line) <= bound for line in lines)
    assert all(line.lstrip().startswith(row[0].strip()) for line, row in zip(lines[1:], rows, strict=True))
