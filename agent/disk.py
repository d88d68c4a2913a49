"""Files that are there whole, or not at all, after a kill or a loss of power."""

from __future__ import annotations

import json
import os
import shutil
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
    sync_folder(path.parent)


def put_aside(path: Path, to: Path, error: Exception) -> None:
    """Keep a file that cannot be read out of the way: it would stop every start of the agent."""
    path.replace(to)
    structlog.get_logger("agent").warning("spool_file_unreadable", file=path.name, kept_as=to.name, reason=str(error))


def copy_aside(path: Path, to: Path, error: Exception) -> None:
    """Keep a copy of a file of which only a part can be read."""
    shutil.copyfile(path, to)
    structlog.get_logger("agent").warning("spool_file_unreadable", file=path.name, kept_as=to.name, reason=str(error))


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable; one that has gone needs it no more."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make new names durable: the bytes of a file alone do not bring it back after the power was lost."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
