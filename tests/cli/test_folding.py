"""Lines that are too long for the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from qgjob.cli.folding import folded
from qgjob.cli.terminal import clean

LANE = "Normal Priority Queue: 2 active (0 queued, 2 running)"


def test_a_line_that_fits_stays_as_it_is() -> None:
    assert folded(LANE, len(LANE)) == folded(LANE, None) == [LANE]
    assert folded("", 1) == [""]


def test_what_stands_in_brackets_stays_together_where_it_fits() -> None:
    assert folded(LANE, 40) == ["Normal Priority Queue: 2 active", "  (0 queued, 2 running)"]
    assert folded(LANE, 20) == ["Normal Priority", "  Queue: 2 active (0", "  queued, 2 running)"]


def test_the_columns_of_a_line_stay_where_they_are() -> None:
    assert folded("Reason:   TEST_FAILED: expected Welcome", 30, indent=10) == [
        "Reason:   TEST_FAILED:",
        "          expected Welcome",
    ]


def test_colours_and_wide_letters_take_the_room_that_they_take_on_a_terminal() -> None:
    assert folded("\x1b[31mfailed\x1b[39m at once", 14) == ["\x1b[31mfailed\x1b[39m at once"]
    assert folded("日本語 日本語", 12) == ["日本語", "  日本語"]


@given(st.lists(st.text("ab()日", min_size=1, max_size=12), min_size=1, max_size=12), st.integers(8, 40))
def test_nothing_is_lost_and_only_a_long_word_is_wider_than_the_terminal(words: list[str], width: int) -> None:
    line = " ".join(words)
    lines = folded(line, width, indent=2)
    assert " ".join(" ".join(lines).split()) == line
    for one in lines:
        assert cell_len(clean(one)) <= width or len(one.split()) == 1
