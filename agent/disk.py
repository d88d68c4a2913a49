"""Files that are there whole, or not at all, after a kill or a loss of power."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

UNREADABLE = (ValueError, KeyError, TypeError)
"""What reading a torn or foreign file raises."""


def replace_file(path: Path, value: object) -> None:
    """Write a value as JSON, durably, in place of what the file held.

    Raises:
        OSError: It cannot be written; the file is what it was.
    """
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def replace_files(values: Mapping[Path, object]) -> None:
    """Write several at once, each as `replace_file` does: what is synced at the same time costs the disk once.

    After an error, or a kill in the middle, some may be there without the others.

    Raises:
        OSError: One cannot be written; it is what it was.
    """
    with ThreadPoolExecutor(len(values)) as threads:
        for _ in threads.map(replace_file, values.keys(), values.values()):
            pass  # the error of one is raised here


def put_aside(path: Path, to: Path, error: Exception) -> None:
    """Keep a file that cannot be read out of the way: it would stop every start of the agent."""
    path.replace(to)
    structlog.get_logger("agent").warning("spool_file_unreadable", file=path.name, kept_as=to.name, reason=str(error))


def _sync_folder(folder: Path) -> None:
    """Make new names durable: the bytes of a file alone do not bring it back after the power was lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
