"""Tables: what is cut, what is left out, and what never is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qgjob.cli.table import LEAST_WIDTH, Column, cell_width, table_lines

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


def test_a_wide_terminal_shows_everything() -> None:
    assert table_lines(COLUMNS, ROWS, width=100) == [
        "ID  State      Test                            Device          Age",
        "12  running    tests/onboarding/first.spec.ts  emulator-1@lab  2m",
        "3   completed  tests/login.spec.ts             -               1h 5m",
    ]


def test_the_widest_flexible_column_is_cut_first_and_a_path_keeps_its_end() -> None:
    assert table_lines(COLUMNS, ROWS, width=60) == [
        "ID  State      Test                    Device          Age",
        "12  running    …oarding/first.spec.ts  emulator-1@lab  2m",
        "3   completed  tests/login.spec.ts     -               1h 5m",
    ]


def test_a_narrow_terminal_loses_optional_columns_from_the_right() -> None:
    assert table_lines(COLUMNS, ROWS, width=45) == [
        "ID  State      Test            Device",
        "12  running    …first.spec.ts  emulator-1@lab",
        "3   completed  …login.spec.ts  -",
    ]
    assert table_lines(COLUMNS, ROWS, width=24) == [
        "ID  State      Test",
        "12  running    ….spec.ts",
        "3   completed  ….spec.ts",
    ]


def test_without_a_terminal_there_is_no_limit() -> None:
    row = ("1", "queued", "x" * 500, "-", "0s")
    assert "x" * 500 in table_lines(COLUMNS, [row], width=None)[1]


def test_a_colour_marks_the_state_and_changes_no_width() -> None:
    painted = table_lines(COLUMNS, ROWS, width=100, is_colourful=True)
    assert painted[0] == "\x1b[1mID  State      Test                            Device          Age\x1b[0m"
    assert painted[1].startswith("12  \x1b[36mrunning  \x1b[0m  tests/")
    plain = [line.replace("\x1b[36m", "").replace("\x1b[32m", "").replace("\x1b[0m", "") for line in painted[1:]]
    assert plain == table_lines(COLUMNS, ROWS, width=100)[1:]


def test_wide_letters_take_two_columns_and_marks_none() -> None:
    assert cell_width("試験") == 4
    assert cell_width("e\u0301") == 1
    lines = table_lines((Column("ID"), Column("Test", is_flexible=True)), [("1", "試験試験")], width=10)
    assert lines[1] == "1   試験…"


CELLS = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=40)


@given(rows=st.lists(st.tuples(*[CELLS] * len(COLUMNS)), min_size=1, max_size=5), width=st.integers(1, 200))
def test_no_line_is_wider_than_the_terminal_unless_nothing_is_left_to_cut(
    rows: list[tuple[str, ...]], width: int
) -> None:
    lines = table_lines(COLUMNS, rows, width=width)
    fixed = sum(max(len(COLUMNS[index].name), *(cell_width(row[index]) for row in rows)) for index in (0, 1))
    bound = max(width, fixed + LEAST_WIDTH + 2 * 2)
    assert all(cell_width(line) <= bound for line in lines)
    assert all(line.lstrip().startswith(row[0].strip()) for line, row in zip(lines[1:], rows, strict=True))
