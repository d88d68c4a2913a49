"""Blobs in a bucket of S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from obstore.store import S3Store

from coordinator.storage.s3_errors import translated
from coordinator.storage.shelf import Shelved

BLOBS = "blobs"


class S3Shelf:
    """One object for each blob, below the prefix of the storage."""

    block_bytes = 4 * 1_024 * 1_024
    """Each read costs a request."""

    def __init__(self, store: S3Store) -> None:
        """Use the store of a bucket."""
        self._store = store

    def size(self, digest: str) -> int | None:
        """Ask for the object."""
        with translated():
            try:
                return int(self._store.head(_name(digest))["size"])
            except FileNotFoundError:
                return None

    def put(self, digest: str, path: Path) -> None:
        """Upload the file in parts; the object is there when the last one is."""
        with translated():
            self._store.put(_name(digest), path)
        path.unlink()

    def read(self, digest: str, offset: int, length: int) -> bytes:
        """Read a range of the object."""
        with translated():
            size = int(self._store.head(_name(digest))["size"])
            wanted = min(length, size - offset)
            if wanted <= 0:
                return b""
            return bytes(self._store.get_range(_name(digest), start=offset, length=wanted))

    def remove(self, digest: str) -> None:
        """Delete the object."""
        with translated():
            self._store.delete(_name(digest))

    def blobs(self) -> Iterator[Shelved]:
        """Yield what is listed."""
        with translated():
            for page in self._store.list(BLOBS, chunk_size=1_000):
                for found in page:
                    put_us = int(found["last_modified"].timestamp() * 1_000_000)
                    yield Shelved(digest=found["path"].split("/")[-1], size=found["size"], put_us=put_us)


def _name(digest: str) -> str:
    return f"{BLOBS}/{digest[:2]}/{digest}"
