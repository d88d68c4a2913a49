"""Brings a file to the coordinator, known by its SHA-256: what is there is not sent, what broke off is resumed.

`upload_file(client, path)` gives the digest by which `client.register_build` makes it the build of an app version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qgjob.client import Client
from qgjob.client.patience import Patience
from qgjob.errors import ClientError, Unreachable, UsageError
from qgjob.v1.blob_service_pb2 import BlobChunk, UploadBegun, UploadBlobRequest

CHUNK_BYTES = 64 * 1_024
PATIENCE_S = 120.0
"""How long an upload that comes no further is tried again."""
HASH_BYTES = 1_024 * 1_024

Tell = Callable[[int, int], None]
"""Hears how many bytes of how many are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file as the coordinator knows it."""

    digest: str
    size: int
    was_there: bool
    """Whether nothing had to be sent."""


def upload_file(client: Client, path: Path, tell: Tell = lambda _sent, _size: None) -> Blob:
    """Upload a file unless it is there; it is durable when this returns.

    Raises:
        UsageError: It cannot be read, is empty, or changes meanwhile.
        ClientError: The coordinator refuses it, or does not answer for long.
    """
    digest, size = _hashed(path)
    if not size:
        raise UsageError(f"{path} is empty", hint="build it again")
    return _Upload(client, path, digest, size, tell).run()


class _Upload:
    """One file on its way, over as many streams as it takes."""

    def __init__(self, client: Client, path: Path, digest: str, size: int, tell: Tell) -> None:
        self._client = client
        self._path = path
        self._digest = digest
        self._size = size
        self._tell = tell
        self._furthest = -1
        self._patience = Patience(PATIENCE_S)
        self._read_error: OSError | None = None

    def run(self) -> Blob:
        is_first, was_resumed = True, False
        while True:
            try:
                found = self._client.find_blob(self._digest, self._size)
                if found.complete:
                    self._tell(self._size, self._size)
                    return Blob(digest=self._digest, size=self._size, was_there=is_first)
                is_first, was_resumed = False, found.offset > 0
                self._note(found.offset)
                self._client.send_blob(self._messages(found.offset))
            except Unreachable as error:
                if is_first:
                    raise
                self._check_read()
                if self._patience.is_over():
                    raise error
                self._patience.wait()
            except ClientError as error:
                self._check_read()
                if error.reason != "DIGEST_MISMATCH":
                    raise
                if not was_resumed:
                    raise UsageError(f"{self._path} changed while it was uploaded", hint="upload it again") from error

    def _note(self, offset: int) -> None:
        """Be patient anew when the coordinator has more than before."""
        if offset > self._furthest:
            self._furthest = offset
            self._patience.renew()

    def _check_read(self) -> None:
        if self._read_error is not None:
            raise _unreadable(self._path, self._read_error) from self._read_error

    def _messages(self, offset: int) -> Iterator[UploadBlobRequest]:
        yield UploadBlobRequest(begun=UploadBegun(digest=self._digest, size=self._size))
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(offset)
                while data := file.read(min(CHUNK_BYTES, self._size - offset)):
                    yield UploadBlobRequest(chunk=BlobChunk(offset=offset, data=data))
                    offset += len(data)
                    self._tell(offset, self._size)
        except OSError as error:
            # Raised here it would only end the stream; the coordinator misses the rest, and this is looked at then.
            self._read_error = error


def _hashed(path: Path) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(HASH_BYTES):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest(), size


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot read {path}: {error.strerror or error}", hint="check the path of the build")
