"""Tables that fit the terminal: Rich lays them out, and here is told what a narrow terminal does without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

GAP = 2
FLEXIBLE_WIDTH = 14
"""A flexible column is not cut below this while there are optional columns to leave out."""
LEAST_WIDTH = 4

_STATE_STYLES = {
    "queued": "yellow",
    "assigned": "cyan",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "errored": "magenta",
    "timed_out": "red",
    "cancelled": "dim",
    "idle": "green",
    "leased": "cyan",
    "reserved": "cyan",
    "fencing": "magenta",
    "offline": "red",
    "quarantined": "red",
    "connected": "green",
    "disconnected": "red",
    "stopped": "dim",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    is_flexible: bool = False
    """May be cut."""
    is_optional: bool = False
    """May be left out where the terminal is narrow."""
    is_end_told: bool = False
    """Where it is cut its end stays: the end of a path says more than its beginning."""


def table_lines(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int | None
) -> list[str]:
    """Return a heading and a line for each row. The column named State is coloured by its word.

    Args:
        console: Whether and how there are colours.
        columns: What stands in a row.
        rows: Cells without control sequences and line ends.
        width: Columns of the terminal; None for as wide as it gets.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    names = [column.name for column in columns]
    natural = [max(cell_len(text) for text in cells) for cells in zip(names, *rows, strict=True)]

    def total(most: int) -> int:
        """Return how wide the kept columns are where none that is flexible is wider than `most`."""
        widths = [min(natural[index], most) if columns[index].is_flexible else natural[index] for index in kept]
        return sum(widths) + GAP * (len(kept) - 1)

    kept = list(range(len(columns)))
    if width is None:
        width = total(max(natural))
    while total(FLEXIBLE_WIDTH) > width and (optional := [index for index in kept if columns[index].is_optional]):
        kept.remove(optional[-1])

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for index in kept:
        # Rich takes from the columns that may wrap, the widest first; their cells are cut instead of wrapped.
        table.add_column(Text(columns[index].name, no_wrap=True), no_wrap=not columns[index].is_flexible)
    for row in rows:
        table.add_row(*(_cell(columns[index], row[index]) for index in kept))
    # Rich would cut every column of a table that is still too wide, and an id is never cut.
    console.size = (max(width, total(LEAST_WIDTH)), console.height)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().removesuffix("\n").split("\n")]


def _cell(column: Column, text: str) -> Text | _EndTold:
    from rich.text import Text

    if column.is_end_told:
        return _EndTold(text)
    return Text(text, style=_STATE_STYLES.get(text, "") if column.name == "State" else "", no_wrap=True)


@dataclass(frozen=True, slots=True)
class _EndTold:
    """A text that Rich cuts at its beginning."""

    text: str

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        size = cell_len(self.text)
        return Measurement(size, size)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.cells import cell_len, split_text
        from rich.text import Text

        hidden = cell_len(self.text) - options.max_width
        shown = "…" + split_text(self.text, hidden + 1)[1] if hidden > 0 else self.text
        yield Text(shown, no_wrap=True)
