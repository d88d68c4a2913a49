"""Logs in a bucket of S3: objects that never change, each named by its attempt, its start and its epoch.

An object counts once it is recorded, so a coordinator whose epoch is over may upload what it likes: its objects have
names of their own, and it can record none. Beside them each epoch keeps when its bytes were written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from obstore.store import S3Store

from coordinator.core.logfile import LogPart, spans
from coordinator.core.model import AttemptId
from coordinator.storage.protocol import Stored
from coordinator.storage.s3_errors import translated
from coordinator.storage.s3_shelf import S3Shelf

SYNC_INTERVAL_S = 1.0
"""Each write costs a request, and makes an object."""
STORAGE_ID = "storage_id"
LOGS = "logs"
SHARDS = 256
_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]*(/[A-Za-z0-9_.-]+)*/?")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")
TIMEOUT = timedelta(seconds=30)
RETRY_TIMEOUT = timedelta(seconds=20)


class S3:
    """A bucket, or what lies in it under a prefix."""

    can_append = False

    def __init__(
        self, url: str, *, settings: Mapping[str, str] | None = None, sync_interval_s: float = SYNC_INTERVAL_S
    ) -> None:
        """Use a bucket that exists.

        Args:
            url: s3://BUCKET or s3://BUCKET/PREFIX.
            settings: Of obstore; what is not given here it takes from the environment (AWS_ACCESS_KEY_ID and so on).
            sync_interval_s: Least time between two writes of one log.

        Raises:
            OSError: The URL or the settings cannot be.
        """
        if _URL.fullmatch(url) is None:
            raise OSError(f"{url} is not s3://BUCKET or s3://BUCKET/PREFIX")
        self._url = url.rstrip("/")
        self.sync_interval_s = sync_interval_s
        config: Any = dict(settings or {})
        endpoint = config.get("endpoint") or next((os.environ[name] for name in _ENDPOINTS if name in os.environ), "")
        with translated():
            self._store = S3Store.from_url(
                self._url,
                config=config,
                # Whoever names an endpoint without TLS means it.
                client_options={"timeout": TIMEOUT, "allow_http": endpoint.startswith("http://")},
                retry_config={"max_retries": 5, "retry_timeout": RETRY_TIMEOUT},
            )

    def __str__(self) -> str:
        return f"storage {self._url}"

    def shelf(self) -> S3Shelf:
        """Return where blobs lie beside the logs."""
        return S3Shelf(self._store)

    def read_storage_id(self) -> str:
        """Return the name that the storage bears, empty where it bears none."""
        with translated():
            try:
                return bytes(self._store.get(STORAGE_ID).bytes()).decode().strip()
            except FileNotFoundError:
                return ""

    def write_storage_id(self, storage_id: str) -> None:
        """Give the storage a name, durably."""
        with translated():
            self._store.put(STORAGE_ID, f"{storage_id}\n".encode())

    def where_storage_id(self) -> str:
        """Return the object that holds the name."""
        return f"{self._url}/{STORAGE_ID}"

    def load(self, parts: Sequence[LogPart]) -> Stored:
        """Return how far a log goes, as its parts say themselves."""
        counting = spans(parts)
        if not counting:
            return Stored()
        last = counting[-1]
        assert last.until is not None, f"{last.part} has no size, and an object never grows"
        with translated():
            modified = self._store.head(_name(last.part))["last_modified"]
        return Stored(size=last.until, grown_us=int(modified.timestamp() * 1_000_000))

    def settle(self, parts: Sequence[LogPart]) -> None:
        """Do nothing: an object is durable when it is there."""

    def write(self, part: LogPart, offset: int, data: bytes) -> None:
        """Upload a part."""
        assert (offset, len(data)) == (part.start, part.size), "an object is written as a whole"
        with translated():
            self._store.put(_name(part), data)

    def read(self, parts: Sequence[LogPart], offset: int, length: int) -> bytes:
        """Read a range of the object that holds the place."""
        for span in spans(parts):
            assert span.until is not None, f"{span.part} has no size, and an object never grows"
            if offset < span.until:
                wanted = min(length, span.until - offset)
                with translated():
                    found = self._store.get_range(_name(span.part), start=offset - span.part.start, length=wanted)
                return bytes(found)
        return b""

    def write_times(self, attempt: AttemptId, epoch: int, records: bytes, stored: int) -> None:
        """Replace an object: the only one that changes, and nobody but its epoch writes to it."""
        with translated():
            self._store.put(_times_name(attempt, epoch), records)

    def read_times(self, attempt: AttemptId, epoch: int) -> bytes:
        """Read the object, if there is one."""
        with translated():
            try:
                return bytes(self._store.get(_times_name(attempt, epoch)).bytes())
            except FileNotFoundError:
                return b""

    def remove(self, attempt: AttemptId) -> None:
        """Delete all objects of a log."""
        with translated():
            for page in self._store.list(_folder(attempt)):
                self._store.delete([found["path"] for found in page])

    def sizes(self) -> Iterator[tuple[AttemptId, int]]:
        """Yield the size of each object."""
        with translated():
            for page in self._store.list(LOGS, chunk_size=1_000):
                for found in page:
                    attempt = found["path"].split("/")[-2]
                    if attempt.isdecimal():
                        yield AttemptId(int(attempt)), found["size"]


def _folder(attempt: AttemptId) -> str:
    return f"{LOGS}/{attempt % SHARDS:02x}/{attempt:d}"


def _name(part: LogPart) -> str:
    return f"{_folder(part.attempt)}/{part.start:012d}.{part.epoch:d}"


def _times_name(attempt: AttemptId, epoch: int) -> str:
    return f"{_folder(attempt)}/times.{epoch:d}"
