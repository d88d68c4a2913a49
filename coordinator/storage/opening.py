"""Which storage is meant."""

from __future__ import annotations

from pathlib import Path

from coordinator.config import ConfigError
from coordinator.storage.directory import Directory
from coordinator.storage.protocol import Storage


def open_storage(directory: Path, url: str | None) -> Storage:
    """Return the storage of a URL, or a directory where there is none.

    Raises:
        ConfigError: The URL cannot be used.
    """
    if url is None:
        return Directory(directory)
    try:
        from coordinator.storage.s3 import S3
    except ModuleNotFoundError as error:
        raise ConfigError(f"--storage {url} needs {error.name}, which is missing", "install qgjob[s3]") from error
    try:
        return S3(url)
    except OSError as error:
        raise ConfigError(f"--storage {url} cannot be used: {error}", "use s3://BUCKET/PREFIX") from error
