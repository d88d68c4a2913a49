"""Tables that fit the terminal: Rich lays them out, and here is told what a narrow terminal does without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qgjob.cli.styles import Painter

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text

GAP = 2
FLEXIBLE_WIDTH = 14
"""A flexible column is not cut below this while there are optional columns to leave out."""
LEAST_WIDTH = 4


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
    names = [column.name for column in columns]
    natural = [max(map(_size, cells)) for cells in zip(names, *rows, strict=True)]

    def total(most: int) -> int:
        """Return how wide the kept columns are where none that is flexible is wider than `most`."""
        widths = [min(natural[index], most) if columns[index].is_flexible else natural[index] for index in kept]
        return sum(widths) + GAP * (len(kept) - 1)

    kept = list(range(len(columns)))
    if width is None:
        width = total(max(natural))
    while total(FLEXIBLE_WIDTH) > width and (optional := [index for index in kept if columns[index].is_optional]):
        kept.remove(optional[-1])

    # Rich would cut every column of a table that is still too wide, and an id is never cut.
    console.size = (max(width, total(LEAST_WIDTH)), console.height)
    heading, widths = _plan(console, [columns[index] for index in kept], [natural[index] for index in kept])
    painter = Painter(console)
    lines = [heading]
    for row in rows:
        cells = []
        for index, size in zip(kept, widths, strict=True):
            text = _fitted(row[index], size, is_end_told=columns[index].is_end_told)
            cells.append(painter.painted(row[index], text) if columns[index].name == "State" else text)
        lines.append((" " * GAP).join(cells))
    return [line.rstrip() for line in lines]


def _size(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    from rich.cells import cell_len

    return len(text) if text.isascii() else cell_len(text)


def _plan(console: Console, columns: Sequence[Column], natural: Sequence[int]) -> tuple[str, list[int]]:
    """Return the heading and how wide each column becomes.

    Rich finds that out from a single row, as wide as the widest cells are: with all rows it takes seconds for some
    thousand of them.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        # Rich takes from the columns that may wrap, the widest first; their cells are cut instead of wrapped.
        table.add_column(Text(column.name, no_wrap=True), no_wrap=not column.is_flexible)
    probes = [_Probe(size) for size in natural]
    table.add_row(*probes)
    with console.capture() as captured:
        console.print(table)
    return captured.get().split("\n", 1)[0], [probe.given for probe in probes]


@dataclass(slots=True)
class _Probe:
    """A cell that learns how wide Rich makes its column."""

    wanted: int
    given: int = 0

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(self.wanted, self.wanted)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        self.given = options.max_width
        yield Text()


def _fitted(text: str, width: int, *, is_end_told: bool) -> str:
    """Return a text that takes exactly so many columns: filled up, or cut."""
    from rich.cells import set_cell_size, split_text

    hidden = _size(text) - width
    if hidden <= 0:
        return text + " " * -hidden
    if not is_end_told:
        return set_cell_size(text, width - 1) + "…"
    return set_cell_size("…" + split_text(text, hidden + 1)[1], width)
