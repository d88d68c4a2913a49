"""A disk that is small enough to be filled."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1_024 * 1_024
FILLER = "filler"


@contextmanager
def small_disk(mount: Path, mib: int) -> Iterator[Path]:
    """A tmpfs that is gone at the end. Where none can be mounted the test is skipped, but never by root in CI."""
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(f"no tmpfs: {mounted.stderr}", pytrace=False)
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path, *, leave: int = 0) -> None:
    """Fill a disk with a file until so many bytes are left; others may take of them meanwhile."""
    path = disk / FILLER
    with path.open("ab") as file:
        while (missing := _free_bytes(disk) - leave) > 0:
            try:
                os.posix_fallocate(file.fileno(), file.tell(), missing)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.seek(0, os.SEEK_END)


def _free_bytes(disk: Path) -> int:
    statistics = os.statvfs(disk)
    return statistics.f_bavail * statistics.f_frsize


def free(disk: Path) -> None:
    """Give back what `fill` took."""
    (disk / FILLER).unlink()
