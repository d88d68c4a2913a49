"""A bar that shows how far an upload is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qgjob.cli import terminal

if TYPE_CHECKING:
    from qgjob.uploads import Tell


@contextmanager
def showing_progress(name: str) -> Iterator[Tell]:
    """Show how far an upload is, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _sent, _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(terminal.clean(name), total=None)
        yield lambda sent, size: progress.update(task, completed=sent, total=size)
