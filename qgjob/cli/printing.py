"""What goes to stdout: lines that fit the terminal, tables, and JSON for scripts."""

from __future__ import annotations

import json
import re
import sys

from qgjob.cli.folding import folded
from qgjob.cli.harmless import marked
from qgjob.cli.styles import console
from qgjob.cli.table import Column, table_lines
from qgjob.cli.terminal import STDOUT, clean, say
from qgjob.program import stdout_width

_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def line_out(text: str) -> None:
    """Print one line of result."""
    sys.stdout.write(text + "\n")


def line_out_now(text: str) -> None:
    """Print one line of result, and let whoever reads it wait no longer."""
    line_out(text)
    sys.stdout.flush()


def json_out(value: object) -> None:
    """Print a value as JSON."""
    line_out(_json(value, indent=2))


def jsonl_out(value: object) -> None:
    """Print a value as one line of JSON, at once."""
    line_out_now(_json(value))


def _json(value: object, indent: int | None = None) -> str:
    """Return JSON. The control characters that JSON allows are written as escapes: a terminal obeys them."""
    text = json.dumps(value, indent=indent, ensure_ascii=not is_utf8())
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_utf8() -> bool:
    """Whether stdout can show every character."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def table(columns: list[Column], rows: list[list[str]], *, empty: str) -> None:
    """Print a table that fits the terminal, or say on stderr that there is nothing to show."""
    if not rows:
        say(empty)
        return
    for line in laid_out(columns, rows, stdout_width()):
        line_out(line)


def in_a_line(text: str) -> str:
    """Return text as one line without control sequences."""
    return " ".join(clean(text).expandtabs(1).splitlines())


def laid_out(columns: list[Column], rows: list[list[str]], width: int | None) -> list[str]:
    """Return a table as lines; `width` is that of the terminal, None for as wide as it gets."""
    cleaned = [[in_a_line(cell) for cell in row] for row in rows]
    lines = table_lines(console(), columns, cleaned, width=width)
    return lines if is_utf8() else [line.replace("…", "~") for line in lines]


def fold_out(line: str, width: int | None, *, indent: int) -> None:
    """Print a line in several that fit the terminal; on a narrow one these are moved to the right by less."""
    for part in folded(line, width, indent=indent if width is None or width >= 4 * indent else 4):
        line_out(marked(part, STDOUT))
